//! The configuration routes: the bindings of accounts to channels, and the approvers of a
//! channel.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;

use super::HttpState;
use super::list::parsed;
use super::pages::PageQuery;
use super::reply::{Problem, json};
use super::signed::{Needs, Signed, ToConfigure, ToRead, ToUnbind};
use super::wire::ConfigObject;
use crate::domain::{
    AccountId, Admin, BindTerms, Binding, ChannelId, MmUserId, PermissionSet, Person,
};
use crate::service::Configure;

#[derive(Deserialize)]
struct BindBody {
    channel_id: ChannelId,
    account_id: AccountId,
    approvals_required: Option<u32>,
    allow_self_approval: Option<bool>,
    max_request_hours: Option<u32>,
    session_duration_minutes: Option<u32>,
    permission_sets: Option<Vec<PermissionSet>>,
    #[serde(flatten)]
    actor: Actor,
}

#[derive(Deserialize)]
struct Unbind {
    channel_id: ChannelId,
    account_id: AccountId,
    #[serde(flatten)]
    actor: Actor,
}

#[derive(Deserialize)]
struct Approvers {
    channel_id: ChannelId,
    #[serde(alias = "approver_mm_user_ids")]
    approver_ids: Vec<MmUserId>,
    #[serde(flatten)]
    actor: Actor,
}

/// The person who changes the configuration. The plugin does not send it; other callers may.
#[derive(Deserialize)]
struct Actor {
    /// Parsed later: in a flattened struct, the error of serde does not name the field.
    actor_mm_user_id: Option<String>,
    actor_email: Option<String>,
}

impl Actor {
    fn admin(self, key_id: &str) -> Result<Admin, Problem> {
        let person = match (self.actor_mm_user_id, self.actor_email) {
            (Some(id), Some(email)) => Some(Person {
                id: parsed("actor_mm_user_id", &id)?,
                email: parsed("actor_email", &email)?,
            }),
            (None, None) => None,
            _ => {
                let message = "give both actor_mm_user_id and actor_email, or neither";
                return Err(Problem::malformed(message));
            }
        };
        Ok(Admin {
            person,
            key_id: key_id.to_owned(),
        })
    }
}

pub(super) async fn bind(
    State(app): State<Arc<HttpState>>,
    call: Signed<ToConfigure>,
) -> Result<Response, Problem> {
    let body: BindBody = call.json()?;
    let terms = BindTerms {
        approvals_required: within("approvals_required", body.approvals_required, 1, 20)?,
        allow_self_approval: body.allow_self_approval,
        max_request_hours: within("max_request_hours", body.max_request_hours, 1, 24 * 366)?,
        session_duration_minutes: within(
            "session_duration_minutes",
            body.session_duration_minutes,
            15,
            12 * 60,
        )?,
        permission_sets: body.permission_sets,
    };
    let configure = Configure::Bind {
        account_id: body.account_id,
        terms,
    };
    let written = change(&app, &call, body.actor, body.channel_id, configure).await?;
    one(&app, &written)
}

pub(super) async fn unbind(
    State(app): State<Arc<HttpState>>,
    call: Signed<ToUnbind>,
) -> Result<Response, Problem> {
    let body: Unbind = call.json()?;
    let configure = Configure::Unbind {
        account_id: body.account_id,
    };
    let taken = change(&app, &call, body.actor, body.channel_id, configure).await?;
    one(&app, &taken)
}

pub(super) async fn approvers(
    State(app): State<Arc<HttpState>>,
    call: Signed<ToConfigure>,
) -> Result<Response, Problem> {
    let body: Approvers = call.json()?;
    if body.approver_ids.is_empty() {
        return Err(Problem::malformed(
            "approver_ids: name at least one approver",
        ));
    }
    let configure = Configure::SetApprovers {
        approvers: body.approver_ids,
    };
    let written = change(&app, &call, body.actor, body.channel_id, configure).await?;
    Ok(json(200, &objects(&app, &written)))
}

pub(super) async fn accounts(
    State(app): State<Arc<HttpState>>,
    call: Signed<ToRead>,
) -> Result<Response, Problem> {
    let page = PageQuery::of(call.query())?;
    let other = page.others.keys().find(|name| *name != "channel_id");
    if let Some(name) = other {
        return Err(Problem::malformed(format!(
            "{name} is not a filter here; use ?channel_id=…, limit and after"
        )));
    }
    let channel = page
        .others
        .get("channel_id")
        .ok_or_else(|| Problem::malformed("channel_id is missing: add ?channel_id=…"))?;
    let channel: ChannelId = parsed("channel_id", channel)?;
    let after = page.after.as_deref();
    let after: Option<AccountId> = after.map(|text| parsed("after", text)).transpose()?;
    let limit = page.with_one_more();
    let bindings = app
        .service
        .bindings(&channel, after.as_ref(), limit)
        .await?;
    let objects = objects(&app, &bindings);
    Ok(page.answer(objects, |object| object.account_id.to_string()))
}

async fn change<N: Needs>(
    app: &HttpState,
    call: &Signed<N>,
    actor: Actor,
    channel: ChannelId,
    configure: Configure,
) -> Result<Vec<Binding>, Problem> {
    let admin = actor.admin(&call.key_id)?;
    let service = app.service.clone();
    let configured = async move { service.configure(&channel, &configure, &admin).await };
    app.uncut(call.seat(), Box::pin(configured)).await
}

fn within(name: &str, value: Option<u32>, least: u32, most: u32) -> Result<Option<u32>, Problem> {
    match value {
        Some(value) if !(least..=most).contains(&value) => Err(Problem::malformed(format!(
            "{name} must be from {least} to {most}"
        ))),
        value => Ok(value),
    }
}

fn objects<'a>(app: &'a HttpState, bindings: &'a [Binding]) -> Vec<ConfigObject<'a>> {
    bindings
        .iter()
        .map(|binding| ConfigObject::of(binding, app.service.policy()))
        .collect()
}

fn one(app: &HttpState, bindings: &[Binding]) -> Result<Response, Problem> {
    let mut objects = objects(app, bindings);
    Ok(json(200, &objects.pop()))
}
