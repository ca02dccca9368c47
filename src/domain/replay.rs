//! Replays a history into the facts of its record, and compares the two.
//!
//! The hash chain shows that a history is unchanged. The comparison shows that the record, which
//! decides what jit does, says the same as the history. No event carries a lease, the time of a
//! next try or the holders of an assignment: these are compared with the clock and with the
//! requests that hold it.

mod binding;
mod holding;
mod phase;
mod request;
mod schedule;

use std::collections::BTreeSet;
use std::fmt;

pub use binding::compare_bindings;
pub use holding::compare_holding;
pub use request::compare_request;
pub use schedule::compare_with_clock;

use super::{Event, Timestamp};

/// A fact whose value in the record differs from the one in its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactMismatch {
    /// The record, such as `the binding of 111122223333`.
    pub of: String,
    /// The name of the fact.
    pub field: &'static str,
    /// The fact as the record has it, or `nothing`.
    pub record: String,
    /// The fact as the history has it, or `nothing`.
    pub history: String,
    /// The source of the other fact and its verb, such as `its history says`.
    pub source: &'static str,
}

impl fmt::Display for FactMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, field) = (&self.of, self.field);
        let (record, history, source) = (&self.record, &self.history, self.source);
        write!(
            f,
            "{of}: {field}: the record says {record}, but {source} {history}"
        )
    }
}

/// Compares the facts of one record with those of its history.
struct Comparison {
    of: String,
    source: &'static str,
    found: Vec<FactMismatch>,
}

impl Comparison {
    fn of(of: String) -> Self {
        Self::with(of, "the history says")
    }

    /// A comparison with something else than the history.
    fn with(of: String, source: &'static str) -> Self {
        let found = Vec::new();
        Self { of, source, found }
    }

    fn same<R: fmt::Display, H: fmt::Display>(
        &mut self,
        field: &'static str,
        record: Option<R>,
        history: Option<H>,
    ) {
        let record = record.map(|value| value.to_string());
        let history = history.map(|value| value.to_string());
        if record != history {
            self.differs(field, record, history);
        }
    }

    fn same_time(&mut self, field: &'static str, record: Option<Timestamp>, event: Option<Moment>) {
        let is_same = match (record, event) {
            (Some(record), Some(event)) => event.is(record),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            let event = event.map(|moment| moment.at.to_string());
            self.differs(field, record.map(|at| at.to_string()), event);
        }
    }

    fn differs(&mut self, field: &'static str, record: Option<String>, history: Option<String>) {
        let word = |value: Option<String>| value.unwrap_or_else(|| "nothing".into());
        self.found.push(FactMismatch {
            of: self.of.clone(),
            field,
            record: word(record),
            history: word(history),
            source: self.source,
        });
    }
}

/// Returns the events with one spelling of each person, for the comparison. B3: events of older versions have the spelling of
/// the caller, and jit reads a record of those versions in the normal form.
pub fn in_one_spelling(events: &[Event]) -> Vec<Event> {
    let one = |event: &Event| {
        let mut event = event.clone();
        let id = event.actor_mm_user_id.take();
        event.actor_mm_user_id = id.map(|id| id.to_ascii_lowercase());
        let address = event.actor_email.take();
        event.actor_email =
            address.map(|address| address.to_lowercase().trim_end_matches('.').to_owned());
        if let Some(approvers) = event.details.get_mut("approvers") {
            let mut seen = BTreeSet::new();
            let lower = approvers.to_ascii_lowercase();
            let each: Vec<&str> = lower.split(',').filter(|id| seen.insert(*id)).collect();
            *approvers = each.join(",");
        }
        event
    };
    events.iter().map(one).collect()
}

/// The time of an event.
#[derive(Clone, Copy)]
struct Moment {
    at: Timestamp,
    /// The clock ran back, so the event has the time of the event before it. The record may have
    /// the earlier time of the clock.
    is_raised: bool,
}

impl Moment {
    fn is(self, recorded: Timestamp) -> bool {
        recorded == self.at || self.is_raised && recorded < self.at
    }
}

/// The events of a history with their moments.
fn moments(events: &[Event]) -> impl DoubleEndedIterator<Item = (Moment, &Event)> {
    events.iter().enumerate().map(|(place, event)| {
        let before = place.checked_sub(1).and_then(|place| events.get(place));
        let is_raised = before.is_some_and(|before| before.event_time == event.event_time);
        let at = event.event_time;
        (Moment { at, is_raised }, event)
    })
}

fn detail<'e>(event: &'e Event, name: &str) -> Option<&'e str> {
    event.details.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::EventDraft;
    use crate::domain::{AuditKey, Chain, EventKind, RequestId};

    // B3
    #[test]
    fn an_event_of_an_older_version_has_one_spelling_in_the_comparison() {
        let approvers = ("approvers".to_owned(), "U-Bob,u-bob,eve".to_owned());
        let entry = EventDraft {
            key: AuditKey::Request(RequestId::NIL),
            kind: EventKind::ApproversSet,
            account_id: None,
            channel_id: &"town-square".parse().unwrap(),
            actor: None,
            status: None,
            details: [approvers].into(),
        };
        let mut event = Chain::default().append(entry, Timestamp::default());
        event.actor_mm_user_id = Some("U-Bob".into());
        event.actor_email = Some("Bob@Example.com.".into());
        let one = in_one_spelling(&[event]).remove(0);
        assert_eq!(one.actor_mm_user_id.as_deref(), Some("u-bob"));
        assert_eq!(one.actor_email.as_deref(), Some("bob@example.com"));
        assert_eq!(detail(&one, "approvers"), Some("u-bob,eve"));
    }
}
