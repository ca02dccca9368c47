//! Signed calls to a Lambda function, for when no gateway answers or none exists: jit sends
//! the smallest event that it understands, with the operator's own AWS credentials.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::operation::invoke::InvokeError;
use aws_sdk_lambda::primitives::Blob;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Failure;
use crate::identity_center::{aws_causes, unsent};

/// More than a call to a function of jit takes, with its start.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A signed call, ready to send.
pub(super) struct SignedRequest<'c> {
    pub method: Method,
    pub path_and_query: &'c str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

pub(super) struct Function {
    name: String,
    client: Client,
}

/// The answer of a function.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FunctionAnswer {
    status_code: u16,
    #[serde(default)]
    body: String,
}

impl Function {
    pub async fn named(name: &str) -> Self {
        // jit refuses the second attempt of a call, because its nonce is used.
        let once = RetryConfig::disabled();
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(TIMEOUT)
            .read_timeout(TIMEOUT)
            .build();
        let environment = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .retry_config(once)
            .timeout_config(timeouts)
            .load()
            .await;
        Self {
            name: name.to_owned(),
            client: Client::new(&environment),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub async fn invoke(&self, call: &SignedRequest<'_>) -> Result<(u16, Vec<u8>), Failure> {
        let event = Blob::new(event(call).to_string());
        let asked = self
            .client
            .invoke()
            .function_name(&self.name)
            .payload(event);
        let answer = asked.send().await.map_err(|error| {
            let next = match error.as_service_error() {
                Some(InvokeError::ResourceNotFoundException(_)) => {
                    "; the function does not exist: check its name, AWS_REGION and AWS_PROFILE"
                }
                Some(InvokeError::TooManyRequestsException(_)) => {
                    "; the function did not run: try again"
                }
                // The cause names what to set.
                None if unsent(&error).is_some() => "",
                _ => "; check AWS_REGION, AWS_PROFILE, and your permission lambda:InvokeFunction",
            };
            let why = aws_causes(&error);
            Failure::Failed(format!("jit cannot invoke {}: {why}{next}", self.name))
        })?;
        let payload = answer.payload.map(Blob::into_inner).unwrap_or_default();
        if answer.function_error.is_some() {
            let error: Value = serde_json::from_slice(&payload).unwrap_or_default();
            let why = error["errorMessage"]
                .as_str()
                .unwrap_or("the function gave no reason");
            let next = "read its log, and check the request with `jit status ID`";
            return Err(Failure::Failed(format!(
                "{} failed: {why}; {next}",
                self.name
            )));
        }
        let answer: FunctionAnswer = serde_json::from_slice(&payload).map_err(|_| {
            Failure::Failed(format!(
                "{} answered, but the answer is not from jit; check the name of the function",
                self.name
            ))
        })?;
        Ok((answer.status_code, answer.body.into_bytes()))
    }
}

fn event(call: &SignedRequest<'_>) -> Value {
    let (path, query) = call
        .path_and_query
        .split_once('?')
        .unwrap_or((call.path_and_query, ""));
    let headers = call.headers.iter();
    let headers: Map<String, Value> = headers
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
        .collect();
    let mut event = json!({
        "requestContext": {"http": {"method": call.method.as_str(), "path": path}},
        "headers": headers,
    });
    if !query.is_empty() {
        event["rawQueryString"] = query.into();
    }
    if !call.body.is_empty() {
        event["body"] = call.body.as_str().into();
    }
    event
}
