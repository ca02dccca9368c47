//! The decision: what a command changes in a request, and which writes and work follow.
//!
//! The function is pure and total. It takes the record and the time as arguments, and returns
//! everything that one atomic commit must write, or a refusal that changes nothing.
//! `decide/table.rs` lists the result for every state and every command.

mod access;
mod announce;
mod assignment;
mod at_start;
mod claimed;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod on_shown;
mod open;
mod person;
#[cfg(test)]
mod quorum;
mod records;
mod signed;
mod step;
#[cfg(test)]
mod table;
#[cfg(test)]
mod walks;
mod work;

pub use open::open;

use super::{
    AccessChange, AccessRecord, Binding, Command, Event, Notice, Policy, Refusal, Request,
    Timestamp, Work,
};
use step::Step;

/// A request, and the other records that a decision about it needs, read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The request before the command.
    pub request: Request,
    /// The binding of the request's account, also if the account belongs to another channel now.
    pub binding: Option<Binding>,
    /// The record of the request's access.
    pub access: AccessRecord,
}

/// The writes of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The request after the command, with the next revision.
    pub request: Request,
    /// The audit events that record the change, in the order of the chain.
    pub events: Vec<Event>,
    /// The notices about the change, which the commit adds to the outbox.
    pub notices: Vec<Notice>,
    /// The changes of the request's access.
    pub access: AccessChange,
    /// The next work of the worker that has the lease. The store does not keep it: the next `Due`
    /// command computes it again.
    pub work: Option<Work>,
}

/// Accepts or refuses a command: the only function that changes a request.
pub fn decide(
    record: Record,
    policy: &Policy,
    command: Command,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let step = Step::new(record, policy, now);
    match command {
        Command::Asked { by, ask } => person::asked(step, &by, ask),
        Command::DecidedOnShown { by, ask, shown } => {
            person::decided_on_shown(step, &by, ask, shown)
        }
        Command::BreakGlassRevoked {
            by,
            reason,
            credentials,
        } => person::broken_glass(step, &by, reason, &credentials),
        Command::CleanedUp {
            by,
            reason,
            credentials,
            proof,
        } => access::cleaned_up(step, &by, (reason, &credentials), proof),
        Command::FoundPresent {
            by,
            credentials,
            revision,
        } => access::found_present(step, by.as_ref(), &credentials, revision),
        Command::Unbound { by } => person::unbound(step, by.as_ref()),
        Command::RulesChanged { by } => at_start::rules_changed(step, by),
        Command::RevokedWithCoHolder { with, by, reason } => {
            person::revoked_with_co_holder(step, with, by.as_ref(), reason)
        }
        Command::Due { claim } => work::due(step, &claim),
        Command::Hold { claim } => work::hold(step, &claim),
        Command::Renew { lease } => work::renew(step, lease),
        Command::Finished {
            lease,
            outcome,
            calls,
        } => work::finished(step, lease, outcome, calls.as_ref()),
        Command::NoticeParked { seq, why } => step.notice_parked(seq, &why),
        Command::NoticesParked { total } => step.notices_parked(total),
        Command::CardPosted { post, key } => step.card_posted(post, key),
        Command::ButtonsSealed { key } => step.buttons_sealed(key),
        Command::ReminderPosted { reminder } => step.reminder_posted(reminder),
    }
}
