//! The routes of requests: create, approve, deny, revoke, cancel, extend and show.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Deserializer};

use super::pages::PageQuery;
use super::reply::{Problem, json};
use super::signed::{Needs, Signed, ToApprove, ToCancel, ToRead, ToRequest, ToRevoke, Unspent};
use super::{AnswerBy, HttpState};
use crate::clock::Clock;
use crate::code::Code;
use crate::domain::{
    AccountId, Ask, AuditKey, ChannelId, Command, Draft, Email, Event, EventPlace, Millis, Minutes,
    MmUserId, PermissionSet, Person, Request, RequestId, RequestObject, Text, Timestamp,
};
use crate::service::{CallRight, Handled, Idempotency, RevokeResult};
use crate::signature;

pub(super) use super::list::list;

/// How long a revoke waits for AWS before it answers 202.
const REVOKE_TIMEOUT: Millis = Millis::seconds(10);

#[derive(Deserialize)]
struct Create {
    account_id: AccountId,
    channel_id: ChannelId,
    requester_mm_user_id: MmUserId,
    requester_email: Email,
    #[serde(default, deserialize_with = "blank_is_absent")]
    reason: Option<Text>,
    #[serde(default, deserialize_with = "blank_is_absent")]
    jira: Option<Text>,
    requested_duration_minutes: Minutes,
    #[serde(default, deserialize_with = "blank_is_absent")]
    permission_set: Option<PermissionSet>,
    #[serde(default)]
    start_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Approve {
    approver_mm_user_id: Option<MmUserId>,
    approver_email: Email,
}

#[derive(Deserialize)]
struct DenyBody {
    denier_mm_user_id: Option<MmUserId>,
    denier_email: Email,
    #[serde(default, deserialize_with = "blank_is_absent")]
    reason: Option<Text>,
}

#[derive(Deserialize)]
struct Act {
    actor_mm_user_id: Option<MmUserId>,
    actor_email: Email,
    #[serde(default, deserialize_with = "blank_is_absent")]
    reason: Option<Text>,
}

impl Act {
    async fn by(&self, app: &HttpState) -> Result<Person, Problem> {
        let (id, email) = (self.actor_mm_user_id.clone(), self.actor_email.clone());
        app.named("actor_mm_user_id", id, email).await
    }
}

#[derive(Deserialize)]
struct Extend {
    actor_mm_user_id: MmUserId,
    actor_email: Email,
    additional_minutes: Minutes,
}

/// Reads a blank text as an absent field.
fn blank_is_absent<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.trim().is_empty() => {
            text.parse().map(Some).map_err(serde::de::Error::custom)
        }
        _ => Ok(None),
    }
}

pub(super) async fn create(
    State(app): State<Arc<HttpState>>,
    Unspent { call, right }: Unspent<ToRequest>,
) -> Result<Response, Problem> {
    let idempotency = idempotency(&call)?;
    let draft = draft(call.json()?, app.service.clock());
    let (service, given) = (app.service.clone(), right.clone());
    let opened = async move { service.open(draft, idempotency, Some(&given)).await };
    let request = app.spending(&call, right, Box::pin(opened)).await?;
    Ok(json(201, &RequestObject::from(&request)))
}

fn draft(body: Create, clock: &dyn Clock) -> Draft {
    Draft {
        id: RequestId::from_uuid(clock.draw_in_order()),
        account_id: body.account_id,
        channel_id: body.channel_id,
        requester: Person {
            id: body.requester_mm_user_id,
            email: body.requester_email,
        },
        reason: body.reason,
        jira: body.jira,
        duration: body.requested_duration_minutes,
        permission_set: body.permission_set,
        start_at: body.start_at,
    }
}

fn idempotency<N: Needs>(call: &Signed<N>) -> Result<Option<Idempotency>, Problem> {
    if !call.headers.contains_key("idempotency-key") {
        return Ok(None);
    }
    let key = call
        .header("idempotency-key")
        .filter(|key| (1..=255).contains(&key.len()))
        .ok_or_else(|| Problem::malformed("give one Idempotency-Key of 1 to 255 characters"))?;
    let once = Idempotency::of_call(&call.key_id, key, call.fingerprint());
    Ok(Some(once))
}

pub(super) async fn approve(
    State(app): State<Arc<HttpState>>,
    Unspent { call, right }: Unspent<ToApprove>,
) -> Result<Response, Problem> {
    let body: Approve = call.json()?;
    let (id, email) = (body.approver_mm_user_id, body.approver_email);
    let by = app.named("approver_mm_user_id", id, email).await?;
    decided(&app, &call, by, Ask::Approve, right).await
}

pub(super) async fn deny(
    State(app): State<Arc<HttpState>>,
    Unspent { call, right }: Unspent<ToApprove>,
) -> Result<Response, Problem> {
    let body: DenyBody = call.json()?;
    let (id, email) = (body.denier_mm_user_id, body.denier_email);
    let by = app.named("denier_mm_user_id", id, email).await?;
    let reason = body.reason;
    decided(&app, &call, by, Ask::Deny { reason }, right).await
}

pub(super) async fn cancel(
    State(app): State<Arc<HttpState>>,
    Unspent { call, right }: Unspent<ToCancel>,
) -> Result<Response, Problem> {
    let body: Act = call.json()?;
    let by = body.by(&app).await?;
    decided(&app, &call, by, Ask::Cancel, right).await
}

pub(super) async fn extend(
    State(app): State<Arc<HttpState>>,
    Unspent { call, right }: Unspent<ToRequest>,
) -> Result<Response, Problem> {
    let body: Extend = call.json()?;
    let by = Person {
        id: body.actor_mm_user_id,
        email: body.actor_email,
    };
    let minutes = body.additional_minutes;
    decided(&app, &call, by, Ask::Extend { minutes }, right).await
}

/// Gives the command to the service, and answers with the request after it.
async fn decided<N: Needs>(
    app: &HttpState,
    call: &Signed<N>,
    by: Person,
    ask: Ask,
    right: Arc<CallRight>,
) -> Result<Response, Problem> {
    let id = call.request_id()?;
    let handled = give_command(app, call, id, Command::Asked { by, ask }, right).await?;
    Ok(json(200, &RequestObject::from(&handled.request)))
}

/// Gives the command to the service. A refusal because of the status carries the request, so
/// that the caller can tell that the aim of the command is reached already.
async fn give_command<N: Needs>(
    app: &HttpState,
    call: &Signed<N>,
    id: RequestId,
    command: Command,
    right: Arc<CallRight>,
) -> Result<Handled, Problem> {
    match app.command(call, id, command, right).await {
        Err(problem) if problem.code == Code::WrongState => match app.service.find(id).await {
            Ok(Some(request)) => Err(problem.about(&request)),
            Ok(None) | Err(_) => Err(problem),
        },
        handled => handled,
    }
}

/// Answers 200 only when AWS shows that the assignment is gone, and 202 if that takes longer
/// than `REVOKE_TIMEOUT`.
pub(super) async fn revoke(
    State(app): State<Arc<HttpState>>,
    hurry: Option<Extension<AnswerBy>>,
    Unspent { call, right }: Unspent<ToRevoke>,
) -> Result<Response, Problem> {
    let id = call.request_id()?;
    let body: Act = call.json()?;
    let by = body.by(&app).await?;
    let reason = body.reason;
    let ask = Ask::Revoke { reason };
    let latest = app.service.clock().uptime() + REVOKE_TIMEOUT;
    let deadline = hurry.map_or(latest, |Extension(AnswerBy(by))| latest.min(by));
    let begun = give_command(&app, &call, id, Command::Asked { by, ask }, right).await?;
    let followed = tokio::select! {
        followed = app.service.follow(id, deadline) => followed?,
        () = app.stop.cancelled() => begun.request,
    };
    revoke_answer(followed)
}

fn revoke_answer(followed: Request) -> Result<Response, Problem> {
    match RevokeResult::of(followed) {
        RevokeResult::Revoked(request) => Ok(json(200, &RequestObject::from(&request))),
        RevokeResult::Continues(request) => {
            let message = "AWS has not confirmed the removal yet; the removal goes on until AWS \
                           has, and GET /requests/{id} shows its status";
            let object = RequestObject {
                message: Some(message),
                ..(&request).into()
            };
            Ok(json(202, &object))
        }
        RevokeResult::EndedOtherwise(request) => {
            let object = RequestObject::from(&request);
            let why = object.error_details.map_or("", Text::as_str);
            let message = format!("this request is {}, not REVOKED: {why}", request.status());
            Err(Problem::new(Code::WrongState, message).about(&request))
        }
    }
}

pub(super) async fn show(
    State(app): State<Arc<HttpState>>,
    call: Signed<ToRead>,
) -> Result<Response, Problem> {
    let request = app.service.request(call.request_id()?).await?;
    Ok(json(200, &RequestObject::from(&request)))
}

/// Shows the history of a request, or, for `config#<channel_id>`, of a channel's configuration.
/// N3: page by page, because a history has no limit.
pub(super) async fn audit(
    State(app): State<Arc<HttpState>>,
    call: Signed<ToRead>,
) -> Result<Response, Problem> {
    let unknown = || Problem::new(Code::Unknown, "there is no history with this id");
    let key: AuditKey = signature::percent_decoded(call.id_segment())
        .and_then(|text| text.parse().ok())
        .ok_or_else(unknown)?;
    let page = PageQuery::alone(call.query())?;
    let after = page.after.as_deref();
    let after = after.map(|text| EventPlace::parse(text, &key).ok_or_else(|| no_event(text)));
    let (after, limit) = (after.transpose()?, page.with_one_more());
    let events = app.service.history(&key, after, limit).await?;
    // After the last event there is an empty page.
    if events.is_empty() && app.service.head(&key).await?.is_none() {
        return Err(unknown());
    }
    let place = |event: &Event| event.place().sort_key(&key);
    Ok(page.answer(events, place))
}

fn no_event(after: &str) -> Problem {
    Problem::malformed(format!(
        "after must name an event of this history, as its event_time, # and its event_id; {after:?} \
         does not"
    ))
}
