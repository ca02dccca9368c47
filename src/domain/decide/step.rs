//! A decision in progress: the changed record, and the events and notices that the change
//! causes.

use std::collections::{BTreeMap, BTreeSet};

use super::records::AccessStep;
use super::{Decision, Record, Refusal};
use crate::domain::assignment::USER_DETAIL;
use crate::domain::audit::EventDraft;
use crate::domain::old_credentials;
use crate::domain::{
    Audience, AuditKey, Binding, ErrorEnd, EventKind, Failing, Lease, Millis, Notice, Person,
    Policy, PostId, Reminder, Request, State, Text, Timestamp, Work,
};

pub(super) struct Step<'a> {
    pub now: Timestamp,
    pub policy: &'a Policy,
    pub binding: Option<Binding>,
    pub request: Request,
    /// The record of the access, as changed by this step.
    pub access: AccessStep,
    events: Vec<crate::domain::Event>,
    notices: Vec<Notice>,
}

pub(super) type Details = BTreeMap<String, String>;

/// Leaves out the pairs without a value.
pub(super) fn details<const N: usize>(pairs: [(&str, Option<String>); N]) -> Details {
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

pub(super) fn words(text: Option<&Text>) -> Option<String> {
    text.map(ToString::to_string)
}

impl<'a> Step<'a> {
    pub fn new(record: Record, policy: &'a Policy, now: Timestamp) -> Self {
        Self {
            now,
            policy,
            binding: record.binding,
            request: record.request,
            access: AccessStep::new(record.access),
            events: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Sets the state. A settled request is due again only if its access needs work after the end.
    pub fn set_state(&mut self, state: State) {
        if state.is_settled() {
            self.request.schedule.due_at = self.request.access.due_after_end(self.now);
            self.request.schedule.lease = None;
            self.request.grant.extension = None;
        }
        self.request.schedule.failures = None;
        self.request.state = state;
    }

    pub fn record(&mut self, kind: EventKind, actor: Option<&Person>, mut details: Details) {
        let request = &mut self.request;
        if let Some((name, said)) = old_credentials::detail(&request.access, kind) {
            details.insert(name.to_owned(), said);
        }
        if kind == EventKind::Error
            && let Some(user) = request.access.user()
        {
            details.insert(USER_DETAIL.to_owned(), user.to_string());
        }
        let entry = EventDraft {
            key: AuditKey::Request(request.id),
            kind,
            account_id: Some(&request.asked.account_id),
            channel_id: &request.asked.channel_id,
            actor,
            status: Some(request.state.status()),
            details,
        };
        self.events
            .push(request.version.chain.append(entry, self.now));
    }

    /// Tells the channel, with the requester's address in the details.
    pub fn notify(&mut self, actor: Option<&Person>, mut details: Details) {
        let email = self.request.asked.requester.email.to_string();
        details.insert("requester_email".into(), email);
        self.notify_to(Audience::Everybody, actor, details);
    }

    pub fn notify_to(&mut self, audience: Audience, actor: Option<&Person>, details: Details) {
        let request = &self.request;
        self.notices.push(Notice {
            request_id: request.id,
            seq: request.version.chain.version,
            status: request.status(),
            account_id: request.asked.account_id.clone(),
            channel_id: request.asked.channel_id.clone(),
            actor: actor.map_or_else(|| "system".into(), |person| person.email.to_string()),
            details,
            created_at: self.now,
            audience,
            received_by: BTreeSet::new(),
            told: BTreeSet::new(),
        });
    }

    /// Ends the request: settles it, releases its access, records the event and writes a notice.
    pub fn end(
        mut self,
        state: State,
        kind: EventKind,
        actor: Option<&Person>,
        details: Details,
    ) -> Result<Decision, Refusal> {
        self.set_state(state);
        self.release_access();
        self.record(kind, actor, details.clone());
        self.notify(actor, details);
        self.done(None)
    }

    /// Ends the request in ERROR. The caller must know that this request left no access.
    pub fn end_in_error(self, why: Text, actor: Option<&Person>) -> Result<Decision, Refusal> {
        let said = details([("error", Some(why.to_string()))]);
        let at = self.now;
        self.end(
            State::Error(ErrorEnd { at, why }),
            EventKind::Error,
            actor,
            said,
        )
    }

    /// Ends the request as EXPIRED. The caller must know that the access is gone, or that other
    /// requests have it.
    pub fn end_expired(self, details: Details) -> Result<Decision, Refusal> {
        let at = self.now;
        self.end(State::Expired { at }, EventKind::Expired, None, details)
    }

    /// Ends the request as REVOKED. The caller must know that the access is gone.
    pub fn end_revoked(
        self,
        by: Option<Person>,
        reason: Option<Text>,
    ) -> Result<Decision, Refusal> {
        let said = details([("reason", words(reason.as_ref()))]);
        let (at, actor) = (self.now, by.clone());
        let state = State::Revoked { by, reason, at };
        self.end(state, EventKind::Revoked, actor.as_ref(), said)
    }

    /// Counts one more failure of the same work, and takes the earlier count out of the request.
    /// The caller stores the result or uses it for an end.
    pub fn failing_once_more(&mut self, why: Text, refused: u32) -> Failing {
        let before = self.request.schedule.failures.take();
        let before = before.as_ref();
        Failing {
            since: before.map_or(self.now, |b| b.since),
            attempts: before.map_or(0, |b| b.attempts).saturating_add(1),
            refusals: before.map_or(0, |b| b.refusals) + refused,
            why,
        }
    }

    /// Records that work fails, after 1, 2, 4, 8, … attempts.
    pub fn record_failure(&mut self, failing: &Failing, kind: EventKind) {
        if failing.attempts.is_power_of_two() {
            let said = details([
                ("attempts", Some(failing.attempts.to_string())),
                ("error", Some(failing.why.to_string())),
            ]);
            self.record(kind, None, said);
        }
    }

    /// Gives the lease back; the next try is due after this pause.
    pub fn try_again(mut self, failing: Failing, pause: Millis) -> Result<Decision, Refusal> {
        let start = self.request.asked.start_at;
        let earliest = start.filter(|_| self.request.state == State::Approved);
        let next = self.now + pause;
        self.request.schedule.due_at = Some(earliest.map_or(next, |start| start.max(next)));
        self.request.schedule.failures = Some(failing);
        self.give_back()
    }

    /// Gives the lease back. If the state changed after the work began, so that the outcome does
    /// not fit, the next worker does the work that fits.
    pub fn give_back(mut self) -> Result<Decision, Refusal> {
        self.request.schedule.lease = None;
        self.done(None)
    }

    /// The request is due, but it needs no work.
    pub fn nothing_left(mut self) -> Result<Decision, Refusal> {
        self.request.schedule.due_at = None;
        self.done(None)
    }

    /// Takes the lease and returns the work.
    pub fn lease(mut self, lease: Lease, work: Work) -> Result<Decision, Refusal> {
        self.request.schedule.lease = Some(lease);
        self.done(Some(work))
    }

    pub fn notice_parked(mut self, seq: u64, why: &Text) -> Result<Decision, Refusal> {
        self.request.chat.parked_notices += 1;
        let said = details([
            ("notice", Some(format!("{}.{seq}", self.request.id))),
            ("why", Some(why.to_string())),
        ]);
        self.record(EventKind::NoticeParked, None, said);
        self.done(None)
    }

    /// Records the notices that the store parked early, those that no event has.
    pub fn notices_parked(mut self, total: u32) -> Result<Decision, Refusal> {
        let early = total.saturating_sub(self.request.chat.parked_notices);
        if early > 0 {
            self.request.chat.parked_notices = total;
            let why = "too many notices of the request waited, or jit cannot read one";
            let said = details([
                ("notices", Some(early.to_string())),
                ("why", Some(why.to_owned())),
            ]);
            self.record(EventKind::NoticeParked, None, said);
        }
        self.done(None)
    }

    /// Stores the card's post id. The request's state does not change, so no event is recorded.
    pub fn card_posted(mut self, post: PostId, key: String) -> Result<Decision, Refusal> {
        self.request.chat.card = Some(post);
        self.buttons_sealed(key)
    }

    pub fn buttons_sealed(mut self, key: String) -> Result<Decision, Refusal> {
        self.request.chat.button_key = Some(key);
        self.done(None)
    }

    pub fn reminder_posted(mut self, reminder: Reminder) -> Result<Decision, Refusal> {
        self.request.chat.reminder = Some(reminder);
        self.done(None)
    }

    /// Raises the revision of each record that changed: the store writes a record only if the
    /// stored revision is the one before.
    pub fn done(mut self, work: Option<Work>) -> Result<Decision, Refusal> {
        self.request.version.revision += 1;
        Ok(Decision {
            request: self.request,
            events: self.events,
            notices: self.notices,
            access: self.access.into_change(),
            work,
        })
    }
}
