//! Decisions about due work, and about the outcomes that workers report.

use super::old_credentials::{
    follow_up, is_denied, is_ending, is_over_by_itself, old_credentials, sessions_denied,
};
use super::step::{Details, Step, details};
use super::stray::late;
use super::{Decision, Refusal, announce};
use crate::domain::holding::MOST_HOLDERS;
use crate::domain::{
    Calls, Claim, Doubt, EndSessions, Ending, EventKind, Failing, Holding, HoldingKey, Lease,
    LeaseToken, Millis, OldCredentials, Outcome, Period, Person, Presence, RequestId, State, Text,
    Trouble, UserId, Work,
};

/// After this many creates that AWS carried out and that FAILED, jit gives the grant up.
const MOST_REFUSALS: u32 = 3;
const LONGEST_PAUSE: Millis = Millis::seconds(60);

pub(super) fn due(step: Step<'_>, claim: &Claim) -> Result<Decision, Refusal> {
    let (lease, until) = (claim.lease, step.request.due_at);
    let time = match step.request.is_dated() {
        true => step.now,
        false => step.now.max(claim.as_of),
    };
    if until.is_none_or(|due| due > time) {
        return Err(Refusal::NotDue { until });
    }
    check_free(&step, claim)?;
    if let Some(end) = announce::end_ahead(&step) {
        return announce::announce(step, end);
    }
    let key = step.request.holding_key();
    match (&step.request.state, key) {
        (State::Pending, _) => {
            let why = Some("the request was not approved in time".to_owned());
            expire(step, details([("reason", why)]))
        }
        (State::Approved, _) => step.lease(lease, Work::Prepare),
        (State::Unsettled { .. }, key) => settle_doubt(step, lease, key),
        (State::Assigning, Some(key)) => step.lease(lease, Work::Create(key)),
        (State::Granted, Some(key)) => end_grant(step, lease, key),
        (State::Removing { .. }, Some(key)) => step.lease(lease, Work::Remove(key)),
        (State::Checking { by, reason, .. }, Some(key)) => {
            let (by, reason) = (by.clone(), reason.clone());
            check_for_a_rest(step, lease, key, by, reason)
        }
        // In these states the record names the user, so the key is always present.
        (
            State::Assigning | State::Granted | State::Removing { .. } | State::Checking { .. },
            None,
        ) => step.nothing_left(),
        (
            State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_),
            key,
        ) => old_credentials(step, lease, key),
    }
}

fn expire(step: Step<'_>, said: Details) -> Result<Decision, Refusal> {
    let at = step.now;
    step.end(State::Expired { at }, EventKind::Expired, None, said)
}

fn end_grant(mut step: Step<'_>, lease: Lease, key: HoldingKey) -> Result<Decision, Refusal> {
    // The other holders keep the assignment; only this grant ends.
    if step.is_shared() {
        return expire(step, details([]));
    }
    step.request.extension = None;
    step.change_holding(Holding::being_removed);
    step.become_(State::Removing {
        ending: Ending::Expired,
    });
    step.record(EventKind::ExpiryStarted, None, details([]));
    step.lease(lease, Work::Remove(key))
}

/// The revoke of a request that ended in ERROR.
fn check_for_a_rest(
    mut step: Step<'_>,
    lease: Lease,
    key: HoldingKey,
    by: Person,
    reason: Option<Text>,
) -> Result<Decision, Refusal> {
    if !step.may_appear_unheld() {
        return step.lease(lease, Work::Look(key));
    }
    // An unanswered create may still make the assignment. jit sent it, so jit removes the
    // assignment. A look does not show what AWS is still carrying out.
    let asked_at = step.now;
    step.take_over();
    step.become_(State::Removing {
        ending: Ending::Revoked {
            by: Some(by),
            reason,
            asked_at,
        },
    });
    step.record(EventKind::StrayAccessFound, None, details([]));
    step.lease(lease, Work::Remove(key))
}

/// P1, P4: a lease ends when its worker gives it back, or when another worker has seen it
/// lapse. No clock and no command ends it: its worker may have sent calls that still take
/// effect.
fn check_free(step: &Step<'_>, claim: &Claim) -> Result<(), Refusal> {
    match step.request.leased_to_another(claim) {
        Some(lease) => Err(Refusal::Leased { lease: Some(lease) }),
        None => Ok(()),
    }
}

pub(super) fn hold(mut step: Step<'_>, claim: &Claim) -> Result<Decision, Refusal> {
    check_free(&step, claim)?;
    if step.request.state.is_settled() {
        return Err(Refusal::WrongState {
            status: step.request.status(),
            done: "held",
            hint: "; it is settled",
        });
    }
    step.request.lease = Some(claim.lease);
    step.done(None)
}

pub(super) fn renew(step: Step<'_>, lease: Lease) -> Result<Decision, Refusal> {
    match step.request.lease {
        Some(held) if held.token == lease.token => {
            let mut step = step;
            step.request.lease = Some(lease);
            step.done(None)
        }
        lease => Err(Refusal::Leased { lease }),
    }
}

pub(super) fn finished(
    mut step: Step<'_>,
    token: LeaseToken,
    outcome: Outcome,
    calls: &Calls,
) -> Result<Decision, Refusal> {
    let Some(lease) = step.request.lease.filter(|lease| lease.token == token) else {
        return late(step, token, &outcome, calls);
    };
    step.note_calls(token, calls);
    match (step.request.state.clone(), outcome) {
        (_, Outcome::Interrupted) => not_asked(step),
        (_, Outcome::Failed(trouble)) => failed(step, &trouble),
        (
            State::Approved,
            Outcome::Prepared {
                user,
                presence,
                revision,
                permission_set_arn,
            },
        ) => prepared(step, user, presence, revision, permission_set_arn),
        (State::Approved, Outcome::NoUser { why }) => step.end_in_error(why, None),
        (State::Assigning, Outcome::Created) => granted(step),
        (State::Removing { .. }, Outcome::Created) => made_while_revoked(step),
        (State::Removing { ending }, Outcome::Gone) => gone(step, ending),
        (State::Unsettled { .. }, Outcome::Created) => {
            // An operator wrote a status into the store during the create: the same worker
            // removes the assignment.
            let id = step.request.id;
            step.change_holding(|held| held.answered(id));
            let key = step.request.holding_key();
            settle_doubt(step, lease, key)
        }
        // P1: jit may have made what AWS shows, or may still make it.
        (State::Checking { .. } | State::Unsettled { .. }, Outcome::Gone | Outcome::StillThere)
            if step.may_appear() && !step.is_shared() =>
        {
            look_again(step)
        }
        // With another holder, a look that shows no assignment may only mean that the other
        // create has not taken effect yet.
        (State::Checking { by, reason, .. }, Outcome::Gone) if !step.is_shared() => {
            step.end_revoked(Some(by), reason)
        }
        (State::Checking { by, .. }, Outcome::Gone | Outcome::StillThere) => {
            let why = not_ours(&step);
            step.end_in_error(why, Some(&by))
        }
        (State::Unsettled { end, doubt }, Outcome::Gone | Outcome::StillThere) => {
            settle(step, *end, doubt)
        }
        (_, Outcome::SessionsDenied { until, dropped }) if is_ending(&step) => {
            sessions_denied(step, until, &dropped)
        }
        (_, Outcome::SessionsGone) if is_ending(&step) => {
            let why = Some("the role is gone: no user has this set in this account".to_owned());
            follow_up(
                step,
                None,
                EventKind::SessionsEnded,
                details([("how", why)]),
            )
        }
        (_, Outcome::DenyLifted) if is_denied(&step) => {
            follow_up(step, None, EventKind::SessionDenyLifted, details([]))
        }
        (
            _,
            Outcome::Prepared { .. }
            | Outcome::NoUser { .. }
            | Outcome::Created
            | Outcome::Gone
            | Outcome::StillThere
            | Outcome::SessionsDenied { .. }
            | Outcome::SessionsGone
            | Outcome::DenyLifted,
        ) => not_asked(step),
    }
}

/// The outcome does not fit the state, because the state changed after the work began: the
/// next worker does the work that fits.
fn not_asked(mut step: Step<'_>) -> Result<Decision, Refusal> {
    step.request.lease = None;
    step.done(None)
}

/// The request was revoked during the create: the same worker goes on and removes the
/// assignment.
fn made_while_revoked(mut step: Step<'_>) -> Result<Decision, Refusal> {
    let id = step.request.id;
    step.change_holding(|held| held.answered(id));
    let work = step.request.holding_key().map(Work::Remove);
    step.done(work)
}

fn prepared(
    mut step: Step<'_>,
    user: UserId,
    presence: Presence,
    revision: u64,
    permission_set_arn: String,
) -> Result<Decision, Refusal> {
    let Some(held) = step.held.clone() else {
        return step.done(Some(Work::Prepare));
    };
    // The look is older than the last change of the holding, or an earlier call may still take
    // effect: look again.
    let unsure = match held.holders.is_empty() {
        true => held.unanswered().next(),
        false => held.unanswered_delete,
    };
    if held.revision != revision || unsure.is_some() {
        return step.done(Some(Work::Prepare));
    }
    if held.removing {
        let why = Text::clip("jit is removing the same assignment; the grant follows after that");
        return failed(step, &Trouble::Passing { why });
    }
    let other = held
        .permission_set_arn
        .as_ref()
        .filter(|then| **then != permission_set_arn);
    if let (Some(then), false) = (other, held.holders.is_empty()) {
        let why = Text::clip(&format!(
            "the same assignment exists under another ARN: {then}"
        ));
        return failed(step, &Trouble::Denied { why });
    }
    if held.holders.len() >= MOST_HOLDERS {
        let why = Text::clip(&format!(
            "{MOST_HOLDERS} requests hold the same access already: extend one of them instead"
        ));
        return step.end_in_error(why, None);
    }
    step.request.user = Some(user);
    if presence == Presence::Present && held.holders.is_empty() {
        let why = not_ours(&step);
        return step.end_in_error(why, None);
    }
    // After this commit a worker sends the create, so the commit stores the holder: its duty
    // to remove the assignment is written first.
    let id = step.request.id;
    step.held = Some(held.joined(id).under(permission_set_arn));
    step.request.due_at = Some(step.now);
    step.become_(State::Assigning);
    let user = step.request.user.as_ref().map(ToString::to_string);
    step.record(
        EventKind::Assigning,
        None,
        details([("identity_store_user_id", user)]),
    );
    step.done(Some(Work::Create(held.key)))
}

fn granted(mut step: Step<'_>) -> Result<Decision, Refusal> {
    let id = step.request.id;
    let until = step.now + step.request.duration.span();
    step.change_holding(|held| held.answered(id));
    step.request.granted = Some(Period {
        from: step.now,
        until,
    });
    step.request.due_at = Some(step.policy.wakes_at(until, step.now));
    step.request.lease = None;
    step.become_(State::Granted);
    let mut said = details([
        (
            "duration_minutes",
            Some(step.request.duration.get().to_string()),
        ),
        ("end_time", Some(until.to_string())),
        (
            "permission_set",
            Some(step.request.permission_set.to_string()),
        ),
    ]);
    step.record(EventKind::Granted, None, said.clone());
    said.insert(
        "requester_email".into(),
        step.request.requester.email.to_string(),
    );
    step.tell(None, said);
    step.done(None)
}

fn gone(mut step: Step<'_>, ending: Ending) -> Result<Decision, Refusal> {
    if step.may_appear() {
        return look_again(step);
    }
    let at = step.now;
    if step.policy.end_sessions == EndSessions::PermissionSet {
        step.request.sessions = Some(OldCredentials::Ending { before: at });
    }
    match ending {
        Ending::Expired => step.end(State::Expired { at }, EventKind::Expired, None, details([])),
        Ending::Revoked { by, reason, .. } => step.end_revoked(by, reason),
        Ending::Failed { why } => step.end_in_error(why, None),
    }
}

/// The assignment is gone now, but a create may still take effect, so the request does not end
/// yet. `trouble` shows for how long it waits.
pub(super) fn look_again(mut step: Step<'_>) -> Result<Decision, Refusal> {
    let id = step.request.id;
    step.change_holding(|held| held.answered(id));
    let why = Text::clip("a create of the same assignment may still take effect; waiting for it");
    let waiting = step.failing_once_more(why, 0);
    // Longer each time: the create also needs its turn at AWS.
    step.request.due_at = Some(step.now + Millis(500 << waiting.attempts.min(5)));
    step.request.lease = None;
    step.request.trouble = Some(waiting);
    step.done(None)
}

fn failed(mut step: Step<'_>, trouble: &Trouble) -> Result<Decision, Refusal> {
    let refused = u32::from(matches!(trouble, Trouble::Refused { .. }));
    let failing = step.failing_once_more(trouble.why().clone(), refused);
    let hopeless =
        failing.refusals >= MOST_REFUSALS || step.now - failing.since >= step.policy.grant_patience;
    match step.request.state {
        State::Approved if hopeless => return step.end_in_error(failing.why, None),
        State::Assigning if hopeless => return roll_back(step, failing.why),
        State::Approved | State::Assigning => {}
        // jit never gives up a removal.
        State::Pending
        | State::Granted
        | State::Removing { .. }
        | State::Checking { .. }
        | State::Unsettled { .. } => record_failure(&mut step, &failing, EventKind::RemovalFailing),
        State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => {
            // No credentials last longer: the old credentials have expired. A failed try may have
            // placed the deny statement all the same, so jit removes it as usual.
            if is_over_by_itself(&step) {
                let said = details([("error", Some(failing.why.to_string()))]);
                let lift = Some(OldCredentials::Denied { until: step.now });
                return follow_up(step, lift, EventKind::SessionsNotEnded, said);
            }
            record_failure(&mut step, &failing, EventKind::SessionsNotEnded);
        }
    }
    step.request.due_at = Some(step.now + pause(step.request.id, failing.attempts, trouble));
    step.request.lease = None;
    step.request.trouble = Some(failing);
    step.done(None)
}

/// Records that work fails, after 1, 2, 4, 8, … attempts.
fn record_failure(step: &mut Step<'_>, failing: &Failing, kind: EventKind) {
    if failing.attempts.is_power_of_two() {
        let said = details([
            ("attempts", Some(failing.attempts.to_string())),
            ("error", Some(failing.why.to_string())),
        ]);
        step.record(kind, None, said);
    }
}

/// Gives the grant up. The assignment may exist, so it is removed first.
fn roll_back(mut step: Step<'_>, why: Text) -> Result<Decision, Refusal> {
    if step.is_shared() {
        step.leave_to_others();
        return step.end_in_error(why, None);
    }
    let said = details([("error", Some(why.to_string()))]);
    step.change_holding(Holding::being_removed);
    step.request.due_at = Some(step.now);
    step.become_(State::Removing {
        ending: Ending::Failed { why },
    });
    step.record(EventKind::RollbackStarted, None, said);
    let work = step.request.holding_key().map(Work::Remove);
    step.done(work)
}

/// Verifies an end at AWS: an operator wrote it into the store, or a late answer contradicts
/// it.
fn settle_doubt(
    mut step: Step<'_>,
    lease: Lease,
    key: Option<HoldingKey>,
) -> Result<Decision, Refusal> {
    let State::Unsettled { end, doubt } = step.request.state.clone() else {
        return Err(Refusal::NotDue {
            until: step.request.due_at,
        });
    };
    let Some(key) = key else {
        return settle(step, *end, doubt);
    };
    if step.may_appear_unheld() {
        step.take_over();
    }
    if !step.holds() {
        return step.lease(lease, Work::Look(key));
    }
    let revoked = matches!(*end, State::Revoked { .. });
    if step.is_shared() && !(revoked && doubt == Doubt::Outside) {
        step.leave_to_others();
        return settled(step, *end, doubt);
    }
    if step.held.as_ref().is_some_and(|held| !held.removing) {
        step.end_others(None, None);
        step.change_holding(Holding::being_removed);
    }
    step.lease(lease, Work::Remove(key))
}

pub(super) fn settle(step: Step<'_>, end: State, doubt: Doubt) -> Result<Decision, Refusal> {
    if step.holds() && step.may_appear() {
        return look_again(step);
    }
    settled(step, end, doubt)
}

fn settled(mut step: Step<'_>, end: State, doubt: Doubt) -> Result<Decision, Refusal> {
    let source = details([("source", Some("changed outside jit".to_owned()))]);
    match (doubt, &end) {
        (Doubt::LateAnswer, _) => {
            step.become_(end);
            step.leave();
            step.record(EventKind::StrayAccessRemoved, None, details([]));
            step.done(None)
        }
        (Doubt::Outside, State::Revoked { .. }) => step.end(end, EventKind::Revoked, None, source),
        (Doubt::Outside, State::Expired { .. }) => step.end(end, EventKind::Expired, None, source),
        (Doubt::Outside, State::Cancelled { .. }) => {
            step.become_(end);
            step.leave();
            step.record(EventKind::Cancelled, None, source);
            step.done(None)
        }
        (Doubt::Outside, State::Error(ended)) => {
            let said = details([("error", Some(ended.why.to_string()))]);
            step.end(end, EventKind::Error, None, said)
        }
        // `hear_outside` makes none of these.
        (
            Doubt::Outside,
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Granted
            | State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. }
            | State::Denied { .. },
        ) => step.end(end, EventKind::Error, None, source),
    }
}

fn not_ours(step: &Step<'_>) -> Text {
    let (set, account) = (&step.request.permission_set, &step.request.account_id);
    Text::clip(&format!(
        "this user has an assignment of {set} in {account} that this request did not make; \
         jit does not change it: remove it in Identity Center, or let its own request end"
    ))
}

/// Doubling from one second to a minute.
fn pause(id: RequestId, attempts: u32, trouble: &Trouble) -> Millis {
    id.spread(
        attempts,
        match trouble {
            Trouble::Denied { .. } => LONGEST_PAUSE,
            Trouble::Passing { .. } | Trouble::Refused { .. } => {
                Millis(500 << attempts.min(7)).min(LONGEST_PAUSE)
            }
        },
    )
}
