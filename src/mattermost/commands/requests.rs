//! The commands of requesters and approvers: what they ask of a request, and the line that
//! shows it.

use std::sync::Arc;

use super::bindings::nothing_bound;
use super::parts::TypedRequest;
use super::slash::Slash;
use crate::code::Code;
use crate::domain::{
    Ask, Binding, ChatUser, Command, Draft, Millis, Minutes, PermissionSet, Refusal, Request,
    RequestId, State, Subject, Text, status_in_words,
};
use crate::http::already::{Aim, Wording, sentence, shown};
use crate::mattermost::cards::card::{people, revoked_by};
use crate::mattermost::cards::handles::Handles;
use crate::mattermost::cards::quorum::ApprovalCount;
use crate::mattermost::cards::text::{code, counted_minutes, moment, plain, short, short_id};
use crate::mattermost::{Mattermost, No};
use crate::service::{CallRight, Idempotency, OpenedOrFound, RevokeResult, ServiceError};

/// How long the answer waits for a removal; then the removal continues without it.
const REVOKE_TIMEOUT: Millis = Millis(2_000);
/// The duration of a request without a time.
const AN_HOUR: i64 = 60;

/// The result of a decision on what a card or a dialog showed.
pub(in crate::mattermost) enum ShownDecision {
    Done,
    /// The request, as it is now, waits for another decision; jit changed nothing.
    OtherWaits(Box<Request>),
}

impl Mattermost {
    /// One request for each command that a user sent.
    pub(super) async fn request(
        &self,
        slash: &Slash,
        who: &ChatUser,
        typed: TypedRequest,
    ) -> Result<String, No> {
        if slash.is_direct {
            return Err(No::Message(nothing_bound(true)));
        }
        let duration = match typed.time {
            Some(time) => time,
            None => Minutes::new(AN_HOUR).map_err(|why| No::Message(why.to_string()))?,
        };
        let service = &self.app.service;
        let binding = service.binding(&typed.account).await?;
        let set = match (&typed.set, &binding) {
            (Some(set), _) => set.parse().ok(),
            (None, Some(binding)) => self
                .assumed_set(binding)
                .map_err(|sets| which_set(&typed, duration, &sets))?,
            // The service refuses the account.
            (None, None) => None,
        };
        let draft = Draft {
            id: RequestId::from_uuid(self.clock().draw_in_order()),
            account_id: typed.account,
            channel_id: slash.channel_id.clone(),
            requester: who.person.clone(),
            reason: typed.why,
            jira: typed.ticket,
            duration,
            permission_set: set,
            start_at: None,
        };
        let once = Idempotency::of_chat(&slash.trigger_id, slash.text.clone());
        let request = match service.open_or_find(draft, once).await? {
            OpenedOrFound::Opened(request) => request,
            OpenedOrFound::Found(pending) => return Ok(self.already_pending(&pending).await),
        };
        let needed = binding.map_or(1, |binding| binding.approvals_required);
        let of = match needed {
            1 => "one approver".to_owned(),
            many => format!("{many} approvers"),
        };
        let id = short_id(request.id);
        let assumed = assumed(&request, typed.set.is_none(), typed.time.is_none());
        Ok(format!(
            "{}{assumed}\nThe request waits for {of}: `/jit approve {id}`",
            self.line(&request).await
        ))
    }

    /// A6: the answer to a command or a dialog that would repeat a pending request.
    pub(in crate::mattermost) async fn already_pending(&self, pending: &Request) -> String {
        format!(
            "You have asked for this already, and the request is still PENDING; jit made no second one. To ask for it in another way, first type `/jit cancel {}`.\n{}",
            short_id(pending.id),
            self.line(pending).await
        )
    }

    /// The permission set of a request that names none: the only one that the account allows, or
    /// the configured default. jit does not choose between several: the error has all of them.
    pub(in crate::mattermost) fn assumed_set(
        &self,
        binding: &Binding,
    ) -> Result<Option<PermissionSet>, Vec<PermissionSet>> {
        let policy = self.app.service.policy();
        let mut sets: Vec<&PermissionSet> = policy.allowed_sets(binding).collect();
        let default = &policy.default_permission_set;
        if let [only] = sets.as_slice() {
            return Ok(Some((*only).clone()));
        }
        if sets.is_empty() || (self.default_set_is_configured && sets.contains(&default)) {
            // The domain uses its default, or refuses it.
            return Ok(None);
        }
        sets.sort_by_key(|set| *set == default);
        Err(sets.into_iter().cloned().collect())
    }

    pub(super) async fn command_by_id(
        &self,
        slash: &Slash,
        who: &ChatUser,
        id: &str,
        ask: Ask,
        done: &str,
    ) -> Result<String, No> {
        let request = self.find(slash, who, id).await?;
        let aim = match &ask {
            Ask::Approve => Some(Aim::ApprovedBy(&who.person)),
            Ask::Deny { .. } => Some(Aim::Denied),
            Ask::Cancel => Some(Aim::Cancelled),
            Ask::Revoke { .. } => Some(Aim::NoAccess),
            Ask::Extend { minutes } => Some(Aim::ExtensionOf {
                minutes: *minutes,
                by: &who.person,
            }),
        };
        let is_approval = ask == Ask::Approve;
        let handled = match (self.command(request.id, who, ask, None).await, aim) {
            (Err(refused), Some(aim)) => return self.or_reached(refused, request.id, &aim).await,
            (handled, _) => handled?,
        };
        let binding = self.binding_of(&handled).await;
        let missing = ApprovalCount::of(&handled, binding.as_ref()).filter(|_| is_approval);
        let missing = missing.and_then(|count| count.missing());
        let missing = missing.map_or_else(String::new, |missing| format!(" {missing}."));
        Ok(format!("{done}.{missing}\n{}", self.line(&handled).await))
    }

    /// H3: a refused command whose aim is reached already is answered with when it was reached.
    async fn or_reached(&self, refused: No, id: RequestId, aim: &Aim<'_>) -> Result<String, No> {
        let is_about_state = matches!(&refused, No::Problem(why) if why.code == Code::WrongState);
        if !is_about_state {
            return Err(refused);
        }
        let request = self.app.service.request(id).await?;
        let handles = Handles::of(&self.people, people(&request)).await;
        let said = already(&request, &handles, aim).ok_or(refused)?;
        let binding = self.binding_of(&request).await;
        let line = self.line_with(&request, &handles, binding.as_ref());
        Ok(format!("{said}.\n{line}"))
    }

    /// The binding, for what an answer shows beside the request; without it, the answer shows less.
    async fn binding_of(&self, request: &Request) -> Option<Binding> {
        let found = self.app.service.binding(&request.asked.account_id).await;
        found.ok().flatten()
    }

    /// Begins the removal. Allowed to the requester, the approvers, and admins.
    pub(in crate::mattermost) async fn revoke(
        &self,
        who: &ChatUser,
        request: &Request,
        reason: Option<Text>,
        right: Option<Arc<CallRight>>,
    ) -> Result<Request, No> {
        let service = &self.app.service;
        let binding = service.binding(&request.asked.account_id).await?;
        let rules = service.policy();
        if !rules.may_revoke_in_chat(who, request, binding.as_ref()) {
            return Err(No::Message(
                "only the requester, the approvers and admins may revoke this access".into(),
            ));
        }
        self.command(request.id, who, Ask::Revoke { reason }, right)
            .await
    }

    /// The same, and waits a short time for the result.
    pub(in crate::mattermost) async fn revoke_access(
        &self,
        who: &ChatUser,
        request: &Request,
        reason: Option<Text>,
        right: Option<Arc<CallRight>>,
    ) -> Result<String, No> {
        let service = &self.app.service;
        let deadline = service.clock().uptime() + REVOKE_TIMEOUT;
        if let Err(refused) = self.revoke(who, request, reason, right).await {
            return self.or_reached(refused, request.id, &Aim::NoAccess).await;
        }
        // P6: the answer says what AWS shows.
        Ok(
            match RevokeResult::of(service.follow(request.id, deadline).await?) {
                RevokeResult::Revoked(request) => format!(
                    "{}\n{}",
                    match request.access.was_begun() {
                        true => "Revoked: AWS shows that the access is gone.",
                        false => "Revoked: no access was granted.",
                    },
                    self.line(&request).await
                ),
                RevokeResult::Continues(request) => format!(
                    "AWS has not confirmed the removal yet; jit continues until AWS shows that the access is gone. See `/jit status {}`.\n{}",
                    short_id(request.id),
                    self.line(&request).await
                ),
                RevokeResult::EndedOtherwise(request) => {
                    format!(
                        ":warning: The request did not end as REVOKED.\n{}",
                        self.line(&request).await
                    )
                }
            },
        )
    }

    pub(in crate::mattermost) async fn command(
        &self,
        id: RequestId,
        who: &ChatUser,
        ask: Ask,
        right: Option<Arc<CallRight>>,
    ) -> Result<Request, No> {
        let by = who.person.clone();
        let command = Command::Asked { by, ask };
        let service = &self.app.service;
        let handled = service.handle(id, command, right.as_deref()).await?;
        Ok(handled.request)
    }

    /// Decides on what a card or a dialog showed. W15: returns the request as it is now if something
    /// else waits for a decision.
    pub(in crate::mattermost) async fn decide_on_shown(
        &self,
        id: RequestId,
        (who, ask): (&ChatUser, Ask),
        shown: Subject,
        right: Option<Arc<CallRight>>,
    ) -> Result<ShownDecision, No> {
        let by = who.person.clone();
        let command = Command::DecidedOnShown { by, ask, shown };
        let service = &self.app.service;
        match service.handle(id, command, right.as_deref()).await {
            Err(ServiceError::Refused(Refusal::NotWhatWasShown { .. })) => {
                let now = service.request(id).await?;
                Ok(ShownDecision::OtherWaits(Box::new(now)))
            }
            handled => {
                handled?;
                Ok(ShownDecision::Done)
            }
        }
    }

    pub(super) async fn status(
        &self,
        slash: &Slash,
        who: &ChatUser,
        id: &str,
    ) -> Result<String, No> {
        let request = self.find(slash, who, id).await?;
        let line = self.line(&request).await;
        Ok(match &request.chat.card {
            Some(post) => format!(
                "{line}\n[Card and history]({})",
                self.cards.link(post).await
            ),
            None => line,
        })
    }

    /// The names in Mattermost of the requesters.
    pub(in crate::mattermost) async fn handles<'r>(
        &self,
        requests: impl Iterator<Item = &'r Request>,
    ) -> Handles {
        let people = requests.map(|request| request.asked.requester.id.clone());
        Handles::of(&self.people, people.collect()).await
    }

    /// One request, in one line.
    pub(in crate::mattermost) async fn line(&self, request: &Request) -> String {
        let handles = self.handles([request].into_iter()).await;
        let binding = self.binding_of(request).await;
        self.line_with(request, &handles, binding.as_ref())
    }

    pub(super) fn line_with(
        &self,
        request: &Request,
        handles: &Handles,
        binding: Option<&Binding>,
    ) -> String {
        let now = self.clock().now();
        let at_aws = request.state.assignment_status(request.grant.period);
        let status = status_in_words(&request.status().to_string(), at_aws);
        let mut parts = vec![
            format!("`{}`", short_id(request.id)),
            format!("**{status}**"),
            format!(
                "{} in {}",
                plain(request.asked.permission_set.as_str()),
                self.names.shown(&request.asked.account_id)
            ),
            handles.named(&request.asked.requester),
        ];
        let period = request.grant.period;
        match period.filter(|_| request.state == State::Granted) {
            Some(period) if period.until > now => {
                parts.push(format!("{} left", period.until - now));
            }
            _ => parts.push(counted_minutes(request.asked.duration.get())),
        }
        if let Some(extension) = request.waiting_extension() {
            let minutes = counted_minutes(extension.minutes.get());
            parts.push(format!("extension requested: {minutes}"));
        }
        if let Some(count) = ApprovalCount::of_several(request, binding) {
            parts.push(format!("{count} approved"));
        }
        if let Some(start) = request.starts_at() {
            parts.push(format!("starts {}", moment(&start.to_string())));
        }
        if let Some(why) = &request.asked.reason {
            parts.push(short(why.as_str(), 100));
        }
        if let Some(failing) = &request.schedule.failures {
            parts.push(format!("({})", short(failing.why.as_str(), 200)));
        }
        parts.join(" · ")
    }
}

/// A sentence about a request in which the aim of a command is reached already.
fn already(request: &Request, handles: &Handles, aim: &Aim<'_>) -> Option<String> {
    let person = |email: &str| {
        let by = revoked_by(request).map(|by| handles.named(by));
        by.unwrap_or_else(|| plain(email))
    };
    let wording = Wording {
        time: &moment,
        person: &person,
    };
    let said = sentence(&shown(request)?, aim, &wording)?;
    let mut letters = said.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    Some(first.into_iter().chain(letters).collect())
}

/// Asks for the permission set, with a command that works.
fn which_set(typed: &TypedRequest, duration: Minutes, sets: &[PermissionSet]) -> No {
    let names: Vec<&str> = sets.iter().map(PermissionSet::as_str).collect();
    let why = typed.why.as_ref().map_or("REASON", Text::as_str);
    let first = names.first().copied().unwrap_or_default();
    let time = duration.get();
    let command = format!("/jit request {} {first} {time}m {why}", typed.account);
    No::Message(format!(
        "the permission set is missing, and this account allows {}: type one of them, for example `{}`",
        plain(&names.join(", ")),
        code(&command, 400)
    ))
}

/// The values that jit assumed, so that the requester sees them.
fn assumed(request: &Request, set: bool, time: bool) -> String {
    let mut told = Vec::new();
    if set {
        let set = plain(request.asked.permission_set.as_str());
        told.push(format!("no permission set was typed: it is for {set}"));
    }
    if time {
        let time = counted_minutes(request.asked.duration.get());
        told.push(format!("no time was typed: it is for {time}"));
    }
    match told.is_empty() {
        true => String::new(),
        false => format!(
            "\n**Check the request: {}.** To withdraw it: `/jit cancel {}`",
            told.join(", and "),
            short_id(request.id)
        ),
    }
}
