//! A local Lambda: its Runtime API, its Invoke API and a gateway. Its events have the shapes of the
//! real ones.
#![allow(dead_code)] // each target uses its part
#![allow(clippy::disallowed_methods)] // its tasks end with the test's runtime

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as Segments, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{Caller, PATIENCE, SECRET, Setup, now};

/// The result of an invocation.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Answered(Value),
    Failed(Value),
}

impl Outcome {
    pub fn answer(&self) -> &Value {
        match self {
            Self::Answered(value) => value,
            Self::Failed(why) => panic!("the invocation failed: {why}"),
        }
    }
}

#[derive(Debug)]
struct Waiting {
    id: String,
    event: Bytes,
    deadline_ms: i64,
}

#[derive(Clone)]
pub struct Cloud {
    /// `host:port` of the Runtime API.
    pub runtime_api: String,
    /// The address of the Invoke API.
    pub url: String,
    inner: Arc<Inner>,
}

struct Inner {
    queue: mpsc::UnboundedSender<Waiting>,
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Waiting>>,
    answers: Mutex<HashMap<String, oneshot::Sender<Outcome>>>,
    init_errors: Mutex<Vec<Value>>,
    /// The time limit of an invocation.
    patience: Mutex<Duration>,
    /// Every event that the Invoke API received.
    invoked: Mutex<Vec<Value>>,
    /// The number of polls for an invocation; a notification follows each.
    asked: Mutex<usize>,
    news: Notify,
}

impl Cloud {
    pub async fn open() -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            queue,
            waiting: tokio::sync::Mutex::new(waiting),
            answers: Mutex::default(),
            init_errors: Mutex::default(),
            patience: Mutex::new(Duration::from_secs(30)),
            invoked: Mutex::default(),
            asked: Mutex::default(),
            news: Notify::new(),
        });
        let runtime = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route(
                "/2018-06-01/runtime/invocation/{id}/response",
                post(answered),
            )
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failed))
            .route("/2018-06-01/runtime/init/error", post(init_failed))
            .route("/2015-03-31/functions/{name}/invocations", post(invoke))
            .route("/2016-08-19/account-settings", get(account_settings))
            .route("/2016-08-19/account-settings/", get(account_settings))
            .with_state(inner.clone());
        let address = serve(runtime).await;
        Self {
            runtime_api: address.clone(),
            url: format!("http://{address}"),
            inner,
        }
    }

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

    pub fn patience(&self, patience: Duration) {
        *self.inner.patience.lock().unwrap() = patience;
    }

    pub fn invoked(&self) -> Vec<Value> {
        self.inner.invoked.lock().unwrap().clone()
    }

    pub fn init_errors(&self) -> Vec<Value> {
        self.inner.init_errors.lock().unwrap().clone()
    }

    /// Queues an event without a wait for its result.
    pub fn put(&self, event: impl Into<Bytes>) -> oneshot::Receiver<Outcome> {
        let (tell, told) = oneshot::channel();
        let id = super::nonce();
        self.inner.answers.lock().unwrap().insert(id.clone(), tell);
        let patience = *self.inner.patience.lock().unwrap();
        let deadline_ms = now_ms() + i64::try_from(patience.as_millis()).unwrap();
        let event = event.into();
        let waiting = Waiting {
            id,
            event,
            deadline_ms,
        };
        self.inner.queue.send(waiting).expect("the queue is open");
        told
    }

    pub async fn invoke(&self, event: impl Into<Bytes>) -> Outcome {
        let told = self.put(event);
        let told = tokio::time::timeout(PATIENCE, told).await;
        told.expect("an invocation is answered").unwrap()
    }

    pub async fn event(&self, event: &Value) -> Outcome {
        self.invoke(event.to_string()).await
    }

    /// Makes the next invocation fail as Lambda does when the process has exited.
    pub fn fail_the_next(&self, why: &str) {
        let next = async {
            let waiting = self.inner.waiting.lock().await.recv().await.unwrap();
            let failure = json!({"errorType": "Runtime.ExitError", "errorMessage": why});
            settle(&self.inner, &waiting.id, Outcome::Failed(failure));
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(next);
    }

    /// Waits for this number of polls for an invocation.
    pub async fn asked(&self, times: usize) {
        let waiting = async {
            loop {
                let news = self.inner.news.notified();
                if *self.inner.asked.lock().unwrap() >= times {
                    return;
                }
                news.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.expect("no process polls for an invocation");
    }

    pub fn times_asked(&self) -> usize {
        *self.inner.asked.lock().unwrap()
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("AWS_ENDPOINT_URL_LAMBDA", self.url.clone())]
    }
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn next(State(inner): State<Arc<Inner>>) -> Response<Body> {
    *inner.asked.lock().unwrap() += 1;
    inner.news.notify_waiters();
    let mut queue = inner.waiting.lock().await;
    let waiting = queue.recv().await.unwrap();
    Response::builder()
        .header("Lambda-Runtime-Aws-Request-Id", waiting.id)
        .header("Lambda-Runtime-Deadline-Ms", waiting.deadline_ms)
        .header(
            "Lambda-Runtime-Invoked-Function-Arn",
            "arn:aws:lambda:eu-central-1:111111111111:function:jit-api",
        )
        .header(
            "Lambda-Runtime-Trace-Id",
            "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700",
        )
        .body(Body::from(waiting.event))
        .unwrap()
}

fn settle(inner: &Inner, id: &str, outcome: Outcome) -> StatusCode {
    match inner.answers.lock().unwrap().remove(id) {
        // The caller may have disconnected.
        Some(tell) => drop(tell.send(outcome)),
        None => return StatusCode::BAD_REQUEST,
    }
    StatusCode::ACCEPTED
}

type Said = (State<Arc<Inner>>, Segments<String>, Bytes);

async fn answered(state: State<Arc<Inner>>, id: Segments<String>, body: Bytes) -> StatusCode {
    told((state, id, body), Outcome::Answered)
}

async fn failed(state: State<Arc<Inner>>, id: Segments<String>, body: Bytes) -> StatusCode {
    told((state, id, body), Outcome::Failed)
}

fn told((State(inner), Segments(id), body): Said, how: fn(Value) -> Outcome) -> StatusCode {
    settle(&inner, &id, how(serde_json::from_slice(&body).unwrap()))
}

async fn init_failed(State(inner): State<Arc<Inner>>, body: Bytes) -> StatusCode {
    let why = serde_json::from_slice(&body).unwrap();
    inner.init_errors.lock().unwrap().push(why);
    StatusCode::ACCEPTED
}

/// The Invoke API as `aws lambda invoke` and the SDKs see it.
async fn invoke(
    State(inner): State<Arc<Inner>>,
    Segments(function): Segments<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if function != "jit-api" && function != "jit-worker" {
        let why = json!({"Type": "User", "Message": format!("Function not found: {function}")});
        return Response::builder()
            .status(404)
            .header("x-amzn-errortype", "ResourceNotFoundException")
            .body(Body::from(why.to_string()))
            .unwrap();
    }
    if let Ok(event) = serde_json::from_slice(&body) {
        inner.invoked.lock().unwrap().push(event);
    }
    let (runtime_api, url) = (String::new(), String::new());
    let cloud = Cloud {
        runtime_api,
        url,
        inner,
    };
    if headers
        .get("x-amz-invocation-type")
        .is_some_and(|kind| kind == "Event")
    {
        drop(cloud.put(body));
        return Response::builder().status(202).body(Body::empty()).unwrap();
    }
    let (value, failed) = match cloud.invoke(body).await {
        Outcome::Answered(value) => (value, None),
        Outcome::Failed(why) => (why, Some("Unhandled")),
    };
    let mut response = Response::builder().header("X-Amz-Executed-Version", "$LATEST");
    if let Some(failed) = failed {
        response = response.header("X-Amz-Function-Error", failed);
    }
    response.body(Body::from(value.to_string())).unwrap()
}

async fn account_settings() -> String {
    let limit = json!({"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000});
    json!({"AccountLimit": limit, "AccountUsage": {"FunctionCount": 2}}).to_string()
}

/// The event of an HTTP API, payload format 2.0.
pub fn v2_event(
    stage: &str,
    method: &str,
    path: &str,
    query: &str,
    headers: &[(String, String)],
    body: &str,
) -> Value {
    let mut names = serde_json::Map::new();
    for (name, value) in headers {
        names.insert(name.to_lowercase(), value.as_str().into());
    }
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": names,
        "requestContext": {
            "accountId": "111111111111",
            "apiId": "a1b2c3d4e5",
            "domainName": "a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com",
            "domainPrefix": "a1b2c3d4e5",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "curl/8.5.0"
            },
            "requestId": "Zx1abjK1liAEJBQ=",
            "routeKey": "$default",
            "stage": stage,
            "time": "21/Nov/2026:10:00:00 +0000",
            "timeEpoch": 1_795_255_200_000_u64
        },
        "isBase64Encoded": false
    });
    if !body.is_empty() {
        event["body"] = body.into();
    }
    event
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

/// One process as Lambda starts it.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    log: Arc<Mutex<String>>,
    _folder: Arc<tempfile::TempDir>,
}

impl Process {
    /// Starts `bootstrap` with nothing but an environment.
    pub fn start(cloud: &Cloud, setup: &Setup) -> Self {
        Self::start_in(cloud, setup, Arc::new(tempfile::tempdir().unwrap()))
    }

    pub fn start_in(cloud: &Cloud, setup: &Setup, folder: Arc<tempfile::TempDir>) -> Self {
        let config = setup.write(folder.path());
        Self::begin(cloud, setup, folder, &config)
    }

    /// Starts a process with an existing configuration.
    pub fn start_on(cloud: &Cloud, setup: &Setup, config: &Path) -> Self {
        Self::begin(cloud, setup, Arc::new(tempfile::tempdir().unwrap()), config)
    }

    fn begin(cloud: &Cloud, setup: &Setup, folder: Arc<tempfile::TempDir>, config: &Path) -> Self {
        let mut command = Command::new(bootstrap());
        command
            .arg0("/var/task/bootstrap")
            .current_dir(folder.path())
            .env_clear()
            .envs(setup.environment())
            .env("JIT_CONFIG", config)
            .env("AWS_LAMBDA_RUNTIME_API", &cloud.runtime_api)
            .env("AWS_LAMBDA_FUNCTION_NAME", "jit-api");
        Self::spawn(command, folder)
    }

    pub fn spawn(mut command: Command, folder: Arc<tempfile::TempDir>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, log) = (
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::<Mutex<String>>::default(),
        );
        let (told, sink) = (lines.clone(), log.clone());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                told.lock().unwrap().push(line);
            }
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let _folder = folder;
        Self {
            child,
            lines,
            log,
            _folder,
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The metrics written for CloudWatch.
    pub fn figures(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let figures = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        figures
            .filter(|line: &Value| line["_aws"].is_object())
            .collect()
    }

    /// Waits for metrics that meet the condition; returns the first of them.
    pub async fn tells(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let figures = self.figures();
            if let Some(line) = figures.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(begun.elapsed() < PATIENCE, "no such metrics: {figures:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM; returns the exit status and the time that it took.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal("-TERM");
        (self.child.wait().unwrap(), asked.elapsed())
    }

    pub fn ends(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The packaged binary, or else the one that was just built.
fn bootstrap() -> PathBuf {
    let packaged = std::env::var_os("JIT_BOOTSTRAP");
    packaged.map_or_else(|| env!("CARGO_BIN_EXE_jit").into(), PathBuf::from)
}

/// A function, a gateway, and a caller that uses the gateway.
pub struct Function {
    pub cloud: Cloud,
    pub process: Process,
    pub caller: Caller,
}

impl Function {
    pub async fn deploy(setup: &Setup) -> Self {
        Self::deploy_at(setup, "$default").await
    }

    pub async fn deploy_at(setup: &Setup, stage: &'static str) -> Self {
        let cloud = Cloud::open().await;
        let process = Process::start(&cloud, setup);
        let gateway = cloud.gateway(stage).await;
        Self {
            caller: Caller::new(&gateway, "plugin", SECRET),
            process,
            cloud,
        }
    }
}

/// The event of EventBridge Scheduler at the start of a minute.
pub fn minute() -> Value {
    json!({
        "version": "0",
        "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": "111111111111",
        "time": "2026-11-21T10:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:scheduler:eu-central-1:111111111111:schedule/default/jit-worker"],
        "detail": "{}"
    })
}

/// An event of the table's stream with one changed record.
pub fn change(id: &str) -> Value {
    json!({"Records": [{
        "eventID": "c4ca4238a0b923820dcc509a6f75849b",
        "eventName": "MODIFY",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-central-1",
        "dynamodb": {
            "ApproximateCreationDateTime": now(),
            "Keys": {"request_id": {"S": id}},
            "NewImage": {"request_id": {"S": id}, "at_hand": {"S": "yes"}},
            "SequenceNumber": "4421584500000000017450439091",
            "SizeBytes": 26,
            "StreamViewType": "NEW_IMAGE"
        },
        "eventSourceARN": "arn:aws:dynamodb:eu-central-1:111111111111:table/jit_requests/stream/2026-11-21T00:00:00.000"
    }]})
}
