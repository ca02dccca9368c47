//! An HTTP API in front of the function: it turns each call into an event.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};

use super::cloud::{Cloud, Outcome, serve};
use super::events::v2_event;

impl Cloud {
    /// Starts a gateway with a stage; returns its address.
    pub async fn gateway(&self, stage: &'static str) -> String {
        let state = (self.clone(), stage);
        let gateway = Router::new().fallback(pass_on).with_state(state);
        let address = serve(gateway).await;
        match stage {
            "$default" => format!("http://{address}"),
            stage => format!("http://{address}/{stage}"),
        }
    }
}

async fn pass_on(
    State((cloud, stage)): State<(Cloud, &'static str)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let query = uri.query().unwrap_or_default();
    let event = v2_event(stage, method.as_str(), uri.path(), query, &headers, &body);
    let Outcome::Answered(answer) = cloud.event(&event).await else {
        return Response::builder()
            .status(500)
            .body(Body::from("{}"))
            .unwrap();
    };
    let status = u16::try_from(answer["statusCode"].as_u64().unwrap()).unwrap();
    let mut response = Response::builder().status(status);
    for (name, value) in answer["headers"].as_object().unwrap() {
        response = response.header(name, value.as_str().unwrap());
    }
    assert_eq!(answer["isBase64Encoded"], false);
    response
        .body(Body::from(answer["body"].as_str().unwrap().to_owned()))
        .unwrap()
}
