//! A simulated AWS over real HTTP: IAM Identity Center and its identity store, as the documents
//! describe them, with faults on request.
#![allow(dead_code)] // each target uses its part
#![allow(clippy::disallowed_methods)] // its tasks end with the test's runtime

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use hyper::body::Incoming;
use hyper::{Request, Response};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::wire::{self, Hangup};

pub const INSTANCE: &str = "arn:aws:sso:::instance/ssoins-1111111111111111";
pub const STORE: &str = "d-1111111111";
pub const ADMIN: &str = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-1111111111111111";
pub const READONLY: &str =
    "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-2222222222222222";
/// The default length of a page: short, so that a caller that does not read all pages fails.
const PAGE: usize = 3;
const MOST_CREATES: usize = 10;
/// AWS refuses a policy longer than this.
const LONGEST_POLICY: usize = 10_240;

/// A fault of one call.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Conflict,
    Throttling,
    Denied,
    /// HTTP 500; the call is not carried out.
    Internal,
    /// The call gets no answer and is not carried out.
    Hang,
    /// The connection is closed; the call is not carried out.
    Lost,
    /// The connection is closed after the call was carried out.
    AnswerLost,
    /// The operation is accepted, and FAILED for this reason.
    Fails(&'static str),
    /// The operation is accepted and done, and its status is FAILED.
    Lies,
    /// The operation is accepted and not done, and its status is SUCCEEDED.
    Pretends,
}

/// The probability of each fault.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    pub seed: u64,
    pub all: Vec<(Fault, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the call is carried out.
    Before,
    /// After the call was carried out, before its answer.
    After,
}

#[derive(Clone, Debug)]
pub struct Heard {
    pub action: String,
    pub at: Instant,
    pub account: String,
    pub user: String,
    pub refused: bool,
}

#[derive(Clone)]
pub struct Aws {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
    reached: Arc<Notify>,
}

struct Inner {
    begun: Instant,
    /// The simulated time, if a test moves it.
    by_hand: Option<Duration>,
    latency: Duration,
    users: Vec<User>,
    assignments: BTreeSet<Assignment>,
    operations: BTreeMap<String, Operation>,
    policies: BTreeMap<String, String>,
    /// Closed accounts.
    closed: BTreeSet<String>,
    provisioned: Vec<(String, String)>,
    heard: Vec<Heard>,
    planned: VecDeque<(String, Fault)>,
    rates: Rates,
    dice: StdRng,
    stop_at: Option<(usize, Moment)>,
    stop_at_action: Option<&'static str>,
    calls_per_second: Option<f64>,
    tokens: f64,
    filled: Instant,
    one_at_a_time_in_an_account: bool,
    /// In these accounts the next operation does not end.
    stuck: BTreeSet<String>,
    most_creates: usize,
    page: usize,
    slow: Option<(&'static str, Duration)>,
}

#[derive(Clone)]
struct User {
    id: String,
    name: String,
    email: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment {
    pub account: String,
    pub set: String,
    pub principal: String,
    pub kind: &'static str,
}

#[derive(Clone)]
struct Operation {
    kind: &'static str,
    about: Assignment,
    ready: Duration,
    /// Whether the operation takes effect when its time has come.
    effect: bool,
    failure: Option<String>,
    over: bool,
}

const NEVER: Duration = Duration::MAX;

type Answer = Result<Value, (&'static str, String)>;

impl Aws {
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let now = Instant::now();
        let inner = Inner {
            begun: now,
            by_hand: None,
            latency: Duration::from_millis(300),
            users: Vec::new(),
            assignments: BTreeSet::new(),
            operations: BTreeMap::new(),
            policies: BTreeMap::new(),
            closed: BTreeSet::new(),
            provisioned: Vec::new(),
            heard: Vec::new(),
            planned: VecDeque::new(),
            rates: Rates::default(),
            dice: StdRng::seed_from_u64(0),
            stop_at: None,
            stop_at_action: None,
            calls_per_second: None,
            tokens: 0.0,
            filled: now,
            one_at_a_time_in_an_account: false,
            stuck: BTreeSet::new(),
            most_creates: MOST_CREATES,
            page: PAGE,
            slow: None,
        };
        let aws = Self {
            url,
            inner: Arc::new(Mutex::new(inner)),
            reached: Arc::default(),
        };
        for name in ["alice", "bob"] {
            aws.add_user(name, name);
        }
        // The name of one user is the address of another.
        aws.add_user("twin", "twin-a");
        aws.add_user("twin-b", "twin");
        tokio::spawn(aws.clone().serve(listener));
        aws
    }

    /// An instance whose operations take almost no time.
    pub async fn quick() -> Self {
        Self::open().await.with_latency(Duration::from_millis(20))
    }

    pub fn with_latency(self, latency: Duration) -> Self {
        self.inner().latency = latency;
        self
    }

    /// Time stands still until a test moves it.
    pub fn by_hand(self) -> Self {
        self.inner().by_hand = Some(Duration::ZERO);
        self
    }

    pub fn pass(&self, span: Duration) {
        let mut inner = self.inner();
        *inner.by_hand.as_mut().unwrap() += span;
    }

    pub fn add_user(&self, name: &str, email: &str) {
        let mut inner = self.inner();
        let id = format!("{:08x}-0000-4000-8000-000000000000", inner.users.len() + 1);
        inner.users.push(User {
            id,
            name: format!("{name}@example.com"),
            email: format!("{email}@example.com"),
        });
    }

    pub fn user_id(&self, email: &str) -> String {
        let inner = self.inner();
        let user = inner.users.iter().find(|user| user.email == email);
        user.unwrap().id.clone()
    }

    /// The next call of this action has this fault.
    pub fn once(&self, action: &str, fault: Fault) {
        self.inner().planned.push_back((action.into(), fault));
    }

    pub fn by_chance(&self, rates: Rates) {
        let mut inner = self.inner();
        inner.dice = StdRng::seed_from_u64(rates.seed);
        inner.rates = rates;
    }

    pub fn limit(&self, calls_per_second: f64) {
        let mut inner = self.inner();
        inner.calls_per_second = Some(calls_per_second);
        inner.tokens = calls_per_second;
        inner.filled = Instant::now();
    }

    pub fn one_at_a_time_in_an_account(&self) {
        self.inner().one_at_a_time_in_an_account = true;
    }

    /// The next operation in this account does not end; it does not block other operations.
    pub fn next_never_ends(&self, account: &str) {
        self.inner().stuck.insert(account.to_owned());
    }

    /// Raises the limit of creates for a test that does not test it.
    pub fn allow_creates(&self, most: usize) {
        self.inner().most_creates = most;
    }

    /// Uses pages as long as those of AWS.
    pub fn in_long_pages(&self) {
        self.inner().page = 100;
    }

    /// Delays the answers to calls of this action.
    pub fn slow(&self, action: &'static str, pause: Duration) {
        self.inner().slow = Some((action, pause));
    }

    /// Stops at the call with this number: no call is answered until `go_on`.
    pub fn stop_at(&self, number: usize, moment: Moment) {
        self.inner().stop_at = Some((number, moment));
    }

    /// Stops at the first call of this action: no call is answered until `go_on`.
    pub fn stop_at_action(&self, action: &'static str) {
        self.inner().stop_at_action = Some(action);
    }

    pub fn go_on(&self) {
        self.inner().stop_at = None;
        self.inner().stop_at_action = None;
    }

    /// Waits for the call at which the server stops.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.inner().heard.clone()
    }

    /// Waits until this action was called for this account.
    pub async fn hears_of(&self, account: &str, action: &str) {
        let begun = Instant::now();
        loop {
            let heard = self.heard();
            if heard
                .iter()
                .any(|one| one.action == action && one.account == account)
            {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "no call of {action}: {heard:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn actions(&self) -> Vec<String> {
        self.heard().into_iter().map(|one| one.action).collect()
    }

    pub fn assignments(&self) -> BTreeSet<Assignment> {
        let mut inner = self.inner();
        inner.settle();
        inner.assignments.clone()
    }

    /// Closes an account and removes its assignments.
    pub fn close(&self, account: &str) {
        let mut inner = self.inner();
        inner.assignments.retain(|one| one.account != account);
        inner.closed.insert(account.into());
    }

    /// Makes an assignment from outside, as in the AWS console.
    pub fn assign(&self, account: &str, set: &str, email: &str) {
        let principal = self.user_id(email);
        self.inner().assignments.insert(Assignment {
            account: account.into(),
            set: set.into(),
            principal,
            kind: "USER",
        });
    }

    pub fn assign_group(&self, account: &str, set: &str, group: &str) {
        self.inner().assignments.insert(Assignment {
            account: account.into(),
            set: set.into(),
            principal: group.into(),
            kind: "GROUP",
        });
    }

    pub fn unassign(&self, account: &str, set: &str, email: &str) {
        let principal = self.user_id(email);
        self.inner().assignments.remove(&Assignment {
            account: account.into(),
            set: set.into(),
            principal,
            kind: "USER",
        });
    }

    pub fn policy(&self, set: &str) -> Option<String> {
        self.inner().policies.get(set).cloned()
    }

    pub fn set_policy(&self, set: &str, policy: &str) {
        self.inner().policies.insert(set.into(), policy.into());
    }

    /// The provisioned permission sets and their accounts, in order.
    pub fn provisioned(&self) -> Vec<(String, String)> {
        self.inner().provisioned.clone()
    }

    /// The environment with which a process calls only this server.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL_SSO_ADMIN", self.url.clone()),
            ("AWS_ENDPOINT_URL_IDENTITYSTORE", self.url.clone()),
            ("AWS_ENDPOINT_URL_STS", self.url.clone()),
            ("AWS_REGION", "eu-central-1".into()),
            ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE".into()),
            ("AWS_SECRET_ACCESS_KEY", "example".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ]
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    async fn serve(self, listener: TcpListener) {
        let answer = move |request| {
            let aws = self.clone();
            async move { aws.answer(request).await }
        };
        wire::serve(listener, answer).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Hangup> {
        let target = request.headers().get("x-amz-target").cloned();
        let target = target.map(|target| target.to_str().unwrap().to_owned());
        let action = target
            .as_deref()
            .and_then(|target| target.split('.').nth(1));
        let action = action.unwrap_or("GetCallerIdentity").to_owned();
        let body = to_bytes(Body::new(request.into_body()), 1 << 20).await;
        let body = body.map_err(|_| Hangup)?;
        let input: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (fault, stop) = self.inner().arrive(&action, &input);
        if stop == Some(Moment::Before) || fault == Some(Fault::Hang) {
            return self.never(stop).await;
        }
        if fault == Some(Fault::Lost) {
            return Err(Hangup);
        }
        let answer = self.inner().carry_out(&action, &input, fault.as_ref());
        let slow = self.inner().slow.filter(|(slow, _)| *slow == action);
        if let Some((_, pause)) = slow {
            tokio::time::sleep(pause).await;
        }
        if stop == Some(Moment::After) {
            return self.never(stop).await;
        }
        if fault == Some(Fault::AnswerLost) {
            return Err(Hangup);
        }
        let (status, value) = match answer {
            Ok(value) => (200, value),
            Err((kind, why)) => {
                if let Some(heard) = self.inner().heard.last_mut() {
                    heard.refused = true;
                }
                let status = if kind == "InternalServerException" {
                    500
                } else {
                    400
                };
                let (kind, resource) = kind.split_once('/').unwrap_or((kind, "USER"));
                let value = json!({"__type": kind, "Message": why, "ResourceType": resource});
                (status, value)
            }
        };
        let text = match (action.as_str(), status) {
            ("GetCallerIdentity", 200) => value.as_str().unwrap_or_default().to_owned(),
            _ => value.to_string(),
        };
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/x-amz-json-1.1")
            .body(Body::from(text));
        Ok(response.unwrap())
    }

    async fn never(&self, stop: Option<Moment>) -> Result<Response<Body>, Hangup> {
        if stop.is_some() {
            self.reached.notify_one();
        }
        std::future::pending::<Infallible>().await;
        Err(Hangup)
    }
}

impl Inner {
    fn now(&self) -> Duration {
        self.by_hand.unwrap_or_else(|| self.begun.elapsed())
    }

    /// Records the call and decides its fault.
    fn arrive(&mut self, action: &str, input: &Value) -> (Option<Fault>, Option<Moment>) {
        self.settle();
        let word = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
        let account = match input["TargetId"].as_str() {
            Some(account) => account.to_owned(),
            None => word("AccountId"),
        };
        self.heard.push(Heard {
            action: action.to_owned(),
            at: Instant::now(),
            account,
            user: word("PrincipalId"),
            refused: false,
        });
        let number = self.heard.len();
        if self.stop_at_action == Some(action) {
            self.stop_at = Some((number, Moment::Before));
        }
        let stop = self.stop_at.filter(|(at, _)| number >= *at);
        let planned = self.planned.iter().position(|(name, _)| name == action);
        if let Some(at) = planned {
            return (self.planned.remove(at).map(|(_, fault)| fault), None);
        }
        for (fault, rate) in self.rates.all.clone() {
            if self.dice.random_bool(rate) {
                return (Some(fault), stop.map(|(_, moment)| moment));
            }
        }
        (None, stop.map(|(_, moment)| moment))
    }

    fn carry_out(&mut self, action: &str, input: &Value, fault: Option<&Fault>) -> Answer {
        match fault {
            Some(Fault::Throttling) => return throttled(),
            Some(Fault::Denied) => {
                let why = format!("User is not authorized to perform: sso:{action}");
                return Err(("AccessDeniedException", why));
            }
            Some(Fault::Internal) => return Err(("InternalServerException", "oh".into())),
            Some(Fault::Conflict) => return conflict(),
            _ => {}
        }
        self.fill();
        if self.calls_per_second.is_some() {
            if self.tokens < 1.0 {
                return throttled();
            }
            self.tokens -= 1.0;
        }
        let word = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
        let sso =
            action != "GetUserId" && action != "GetCallerIdentity" && action != "ListInstances";
        if sso && word("InstanceArn") != INSTANCE {
            return Err(("ResourceNotFoundException", "no such instance".into()));
        }
        let set = word("PermissionSetArn");
        if !set.is_empty() && ![ADMIN, READONLY].contains(&set.as_str()) {
            return Err((
                "ResourceNotFoundException",
                "PermissionSet not found".into(),
            ));
        }
        let account = [word("AccountId"), word("TargetId")];
        if account.iter().any(|account| self.closed.contains(account)) {
            return Err(("ResourceNotFoundException", "Account not found".into()));
        }
        match action {
            "GetUserId" => self.get_user_id(input),
            "GetCallerIdentity" => Ok(json!(
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <GetCallerIdentityResult><Arn>arn:aws:sts::111111111111:assumed-role/Ops/dana</Arn>\
                 <UserId>AROAEXAMPLE:dana</UserId><Account>111111111111</Account>\
                 </GetCallerIdentityResult></GetCallerIdentityResponse>"
            )),
            "ListInstances" => Ok(json!({"Instances": [
                {"InstanceArn": INSTANCE, "IdentityStoreId": STORE, "Status": "ACTIVE"}
            ]})),
            "ListAccountAssignments" => self.list(input, &word("AccountId"), &set),
            "CreateAccountAssignment" => self.begin("CREATE", input, fault),
            "DeleteAccountAssignment" => self.begin("DELETE", input, fault),
            "DescribeAccountAssignmentCreationStatus" => {
                self.describe("CREATE", &word("AccountAssignmentCreationRequestId"))
            }
            "DescribeAccountAssignmentDeletionStatus" => {
                self.describe("DELETE", &word("AccountAssignmentDeletionRequestId"))
            }
            "ListAccountAssignmentCreationStatus" => self.statuses("CREATE", input),
            "ListAccountAssignmentDeletionStatus" => self.statuses("DELETE", input),
            "DescribePermissionSet" => Ok(json!({"PermissionSet": {
                "PermissionSetArn": set, "Name": "Some", "SessionDuration": "PT1H"
            }})),
            "GetInlinePolicyForPermissionSet" => {
                Ok(json!({"InlinePolicy": self.policies.get(&set).cloned().unwrap_or_default()}))
            }
            "PutInlinePolicyToPermissionSet" => {
                let policy = word("InlinePolicy");
                let parsed: Result<Value, _> = serde_json::from_str(&policy);
                if parsed.is_err() || policy.chars().count() > LONGEST_POLICY {
                    return Err(("ValidationException", "no policy".into()));
                }
                self.policies.insert(set, policy);
                Ok(json!({}))
            }
            "DeleteInlinePolicyFromPermissionSet" => {
                self.policies.remove(&set);
                Ok(json!({}))
            }
            "ProvisionPermissionSet" => {
                self.provisioned.push((set, word("TargetId")));
                let id = uuid(&mut self.dice);
                Ok(
                    json!({"PermissionSetProvisioningStatus": {"RequestId": id, "Status": "IN_PROGRESS"}}),
                )
            }
            "DescribePermissionSetProvisioningStatus" => Ok(json!({
                "PermissionSetProvisioningStatus": {
                    "RequestId": word("ProvisionPermissionSetRequestId"), "Status": "SUCCEEDED"
                }
            })),
            other => Err(("UnknownOperationException", format!("{other}?"))),
        }
    }

    fn get_user_id(&self, input: &Value) -> Answer {
        if input["IdentityStoreId"] != STORE {
            let why = "IDENTITY_STORE not found.".to_owned();
            return Err(("ResourceNotFoundException/IDENTITY_STORE", why));
        }
        let attribute = &input["AlternateIdentifier"]["UniqueAttribute"];
        let value = attribute["AttributeValue"].as_str().unwrap_or_default();
        let found = self
            .users
            .iter()
            .find(|user| match attribute["AttributePath"].as_str() {
                Some("userName") => user.name == value,
                Some("emails.value") => user.email == value,
                _ => false,
            });
        match found {
            Some(user) => Ok(json!({"UserId": user.id, "IdentityStoreId": STORE})),
            None => Err(("ResourceNotFoundException", "USER not found.".into())),
        }
    }

    fn list(&self, input: &Value, account: &str, set: &str) -> Answer {
        let all: Vec<Value> = self
            .assignments
            .iter()
            .filter(|one| one.account == account && one.set == set)
            .map(|one| {
                json!({
                    "AccountId": one.account, "PermissionSetArn": one.set,
                    "PrincipalId": one.principal, "PrincipalType": one.kind,
                })
            })
            .collect();
        Ok(self.paged(input, "AccountAssignments", all))
    }

    fn begin(&mut self, kind: &'static str, input: &Value, fault: Option<&Fault>) -> Answer {
        let word = |name: &str| input[name].as_str().unwrap_or_default().to_owned();
        let about = Assignment {
            account: word("TargetId"),
            set: word("PermissionSetArn"),
            principal: word("PrincipalId"),
            kind: "USER",
        };
        let busy = self.operations.values().any(|one| {
            let same = one.about == about;
            let here = self.one_at_a_time_in_an_account
                && one.about.account == about.account
                && one.ready != NEVER;
            !one.over && (same || here)
        });
        if busy {
            return conflict();
        }
        let creates = self
            .operations
            .values()
            .filter(|one| !one.over && one.kind == "CREATE");
        if kind == "CREATE" && creates.count() >= self.most_creates {
            return throttled();
        }
        let there = self.assignments.contains(&about);
        let absent = kind == "DELETE" && !there;
        // AWS reports a missing assignment in two ways.
        if absent && self.dice.random_bool(0.5) {
            return Err(("ResourceNotFoundException", "Assignment not found".into()));
        }
        let failure = match fault {
            Some(Fault::Fails(why)) => Some((*why).to_owned()),
            Some(Fault::Lies) => Some("Internal failure".to_owned()),
            _ if absent => Some("Received a 404 status error: Assignment not found".to_owned()),
            _ => None,
        };
        let id = uuid(&mut self.dice);
        let operation = Operation {
            kind,
            ready: match self.stuck.remove(&about.account) {
                true => NEVER,
                false => self.now() + self.latency,
            },
            about,
            effect: match fault {
                Some(Fault::Lies) => true,
                Some(Fault::Pretends) => false,
                _ => failure.is_none(),
            },
            failure,
            over: false,
        };
        let status = status(&id, &operation);
        self.operations.insert(id, operation);
        let name = match kind {
            "CREATE" => "AccountAssignmentCreationStatus",
            _ => "AccountAssignmentDeletionStatus",
        };
        Ok(json!({ name: status }))
    }

    fn describe(&self, kind: &str, id: &str) -> Answer {
        let found = self.operations.get(id).filter(|one| one.kind == kind);
        let Some(operation) = found else {
            return Err(("ResourceNotFoundException", "no such request".into()));
        };
        let name = match kind {
            "CREATE" => "AccountAssignmentCreationStatus",
            _ => "AccountAssignmentDeletionStatus",
        };
        Ok(json!({ name: status(id, operation) }))
    }

    fn statuses(&self, kind: &str, input: &Value) -> Answer {
        let wanted = input["Filter"]["Status"].as_str();
        let all: Vec<Value> = self
            .operations
            .iter()
            .filter(|(_, one)| one.kind == kind)
            .map(|(id, one)| status(id, one))
            .filter(|one| wanted.is_none_or(|wanted| one["Status"] == wanted))
            .map(|one| json!({"RequestId": one["RequestId"], "Status": one["Status"]}))
            .collect();
        let name = match kind {
            "CREATE" => "AccountAssignmentsCreationStatus",
            _ => "AccountAssignmentsDeletionStatus",
        };
        Ok(self.paged(input, name, all))
    }

    /// AWS may return fewer entries than the caller requested.
    fn paged(&self, input: &Value, name: &str, all: Vec<Value>) -> Value {
        let token = input["NextToken"].as_str();
        let from = token.map_or(0, |token| token.parse().unwrap());
        let rest = all.len() > from + self.page;
        let items: Vec<Value> = all.into_iter().skip(from).take(self.page).collect();
        let mut page = json!({ name: items });
        if rest {
            page["NextToken"] = json!((from + self.page).to_string());
        }
        page
    }

    fn settle(&mut self) {
        let now = self.now();
        let mut ready: Vec<&mut Operation> = self
            .operations
            .values_mut()
            .filter(|one| !one.over && one.ready <= now)
            .collect();
        ready.sort_by_key(|one| one.ready);
        for one in ready {
            one.over = true;
            match (one.effect, one.kind) {
                (false, _) => {}
                (true, "CREATE") => drop(self.assignments.insert(one.about.clone())),
                (true, _) => drop(self.assignments.remove(&one.about)),
            }
        }
    }

    fn fill(&mut self) {
        if let Some(rate) = self.calls_per_second {
            let now = Instant::now();
            let seconds = (now - self.filled).as_secs_f64();
            self.filled = now;
            self.tokens = (self.tokens + seconds * rate).min(rate);
        }
    }
}

fn status(id: &str, operation: &Operation) -> Value {
    let word = match (operation.over, &operation.failure) {
        (false, _) => "IN_PROGRESS",
        (true, None) => "SUCCEEDED",
        (true, Some(_)) => "FAILED",
    };
    let mut status = json!({"RequestId": id, "Status": word, "TargetType": "AWS_ACCOUNT"});
    if let (true, Some(why)) = (operation.over, &operation.failure) {
        status["FailureReason"] = json!(why);
    }
    status
}

fn uuid(dice: &mut StdRng) -> String {
    ::uuid::Uuid::from_u128(dice.random()).to_string()
}

fn throttled() -> Answer {
    Err(("ThrottlingException", "Rate exceeded".into()))
}

fn conflict() -> Answer {
    let why = "there is a conflicting operation in process, retry";
    Err(("ConflictException", why.into()))
}
