//! The heart: what a command does to a request, and what must happen because of it.
//!
//! Pure and total. It reads the record as it is and the time as it is given, and
//! answers with everything that has to be written in one atomic commit, or with
//! a refusal that changes nothing. The table beside it (`decide/table.rs`) says
//! what every state makes of every command.

mod announce;
mod claimed;
mod cleanup;
#[cfg(test)]
pub(crate) mod fixtures;
mod old_credentials;
mod open;
mod person;
#[cfg(test)]
mod quorum;
mod refusal;
mod step;
mod stray;
#[cfg(test)]
mod table;
#[cfg(test)]
mod walks;
mod work;

pub use open::open;
pub use refusal::Refusal;

use super::{
    Binding, Command, Event, Holding, Notice, Person, Policy, Request, RequestId, Text, Timestamp,
    Work,
};
use step::Step;

/// A request and all that bears on it, read at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub request: Request,
    /// The binding of its account, wherever that is bound now.
    pub binding: Option<Binding>,
    /// Who holds the assignment that this request holds or wants.
    pub holding: Option<Holding>,
}

/// What one commit writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub request: Request,
    pub events: Vec<Event>,
    pub notices: Vec<Notice>,
    pub holding: Option<Holding>,
    /// Other holders of the same assignment, to be revoked in the same commit.
    pub co_holders: Option<CoHolders>,
    /// What the holder of the lease does next; not written, because it can be
    /// asked for again.
    pub work: Option<Work>,
}

/// A revoke takes the assignment, and so ends everyone who shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoHolders {
    pub requests: Vec<RequestId>,
    pub by: Option<Person>,
    pub reason: Option<Text>,
}

pub fn decide(
    record: Record,
    policy: &Policy,
    command: Command,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let step = Step::new(record, policy, now);
    match command {
        Command::Asked { by, ask } => person::asked(step, &by, ask),
        Command::BrokenGlass {
            by,
            reason,
            credentials,
        } => person::broken_glass(step, &by, reason, &credentials),
        Command::CleanedUp { by, reason, proof } => cleanup::cleaned_up(step, &by, reason, proof),
        Command::FoundStanding { by } => stray::found_standing(step, by.as_ref()),
        Command::Unbound { by } => person::unbound(step, by.as_ref()),
        Command::RevokedWithCoHolder { with, by, reason } => {
            person::ended_along(step, with, by.as_ref(), reason)
        }
        Command::Due { claim } => work::due(step, &claim),
        Command::Hold { claim } => work::hold(step, &claim),
        Command::Renew { lease } => work::renew(step, lease),
        Command::Finished {
            lease,
            outcome,
            calls,
        } => work::finished(step, lease, outcome, &calls),
        Command::NoticeParked { seq, why } => step.notice_parked(seq, &why),
        Command::CardPosted { post } => step.card_posted(post),
        Command::ReminderPosted { reminder } => step.reminder_posted(reminder),
    }
}
