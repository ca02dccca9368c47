//! The holders of an assignment according to the histories of the requests.

use std::collections::{BTreeMap, BTreeSet};

use super::phase::is_holder;
use super::{Comparison, FactMismatch};
use crate::domain::assignment::ARN_DETAIL;
use crate::domain::{Event, EventKind, Holding, Request, RequestId, State};

/// Compares the holding of a request's assignment with the request, its events and the other
/// requests that the holding names. A holder that is not one would keep the assignment after the
/// last grant has ended, and a holder that is missing would let another request end it. `None`
/// stands for a request without a record; the caller leaves out a record that cannot be read.
pub fn compare_holding(
    request: &Request,
    events: &[Event],
    holding: Option<&Holding>,
    others: &BTreeMap<RequestId, Option<Request>>,
) -> Vec<FactMismatch> {
    let Some(key) = request.holding_key() else {
        return Vec::new();
    };
    let mut comparison = Comparison::with(format!("the assignment {key}"), "the requests say");
    let held: BTreeSet<RequestId> = holding
        .map(|holding| holding.holders.clone())
        .unwrap_or_default();
    let mut said = held.clone();
    said.retain(|id| {
        let other = others.get(id).map(Option::as_ref);
        other.is_none_or(|other| may_hold_with(request, other))
    });
    match holds(&request.state) {
        Holds::Yes => drop(said.insert(request.id)),
        Holds::No => drop(said.remove(&request.id)),
        Holds::Maybe if is_holder(events) => drop(said.insert(request.id)),
        Holds::Maybe => {}
    }
    if held != said {
        comparison.differs("holders", list(&held), list(&said));
    }
    let Some(holding) = holding else {
        return comparison.found;
    };
    comparison.same("holding_key", Some(&holding.key), Some(&key));
    if request.state.is_removing() {
        comparison.same("removing", Some(holding.removing), Some(true));
    } else if holds(&request.state) == Holds::Yes && !may_be_removed(request, holding, others) {
        comparison.same("removing", Some(holding.removing), Some(false));
    }
    let creating = creating(request, holding, others);
    if holding.creating != creating {
        comparison.differs("creating", list(&holding.creating), list(&creating));
    }
    if holds(&request.state) == Holds::Yes
        && let Some(arn) = arn_at_create(events)
    {
        let held_under = holding.permission_set_arn.as_deref();
        comparison.same("permission_set_arn", held_under, Some(arn));
    }
    comparison.found
}

/// Whether another holder has to end its access, or its record cannot be read.
fn may_be_removed(
    request: &Request,
    holding: &Holding,
    others: &BTreeMap<RequestId, Option<Request>>,
) -> bool {
    holding.others(request.id).any(|id| match others.get(&id) {
        Some(Some(other)) => other.state.must_end(),
        Some(None) => false,
        None => true,
    })
}

/// The requests whose create may not have taken effect yet.
fn creating(
    request: &Request,
    holding: &Holding,
    others: &BTreeMap<RequestId, Option<Request>>,
) -> BTreeSet<RequestId> {
    let mut said = holding.creating.clone();
    let may_create =
        |one: &Request| !one.state.is_settled() && one.holding_key() == request.holding_key();
    said.retain(|id| {
        if *id == request.id {
            return may_create(request);
        }
        let other = others.get(id).map(Option::as_ref);
        other.is_none_or(|other| other.is_some_and(may_create))
    });
    if request.state == State::Assigning {
        said.insert(request.id);
    }
    said
}

/// The ARN under which the request joined its assignment; absent in the events of an earlier jit.
fn arn_at_create(events: &[Event]) -> Option<&str> {
    let joined = events
        .iter()
        .rfind(|event| event.event_type == EventKind::Assigning)?;
    joined.details.get(ARN_DETAIL).map(String::as_str)
}

/// Whether a request in this state is a holder of its assignment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    /// An operator wrote the status, or said that the access is gone. Such a request may take over
    /// an assignment without an event, and leaves the one that it joined only with an event.
    Maybe,
}

fn holds(state: &State) -> Holds {
    match state {
        State::Assigning | State::Granted | State::Removing { .. } => Holds::Yes,
        State::Unsettled { .. } => Holds::Maybe,
        State::Pending
        | State::Approved
        | State::Checking { .. }
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => Holds::No,
    }
}

fn may_hold_with(request: &Request, other: Option<&Request>) -> bool {
    other.is_some_and(|other| {
        holds(&other.state) != Holds::No && other.holding_key() == request.holding_key()
    })
}

fn list(ids: &BTreeSet<RequestId>) -> Option<String> {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    (!ids.is_empty()).then(|| ids.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::EventDraft;
    use crate::domain::decide::Record;
    use crate::domain::decide::fixtures::{holding_of, id, record};
    use crate::domain::{AuditKey, Chain, Timestamp};

    fn found(word: &str, change: impl FnOnce(&mut Holding)) -> Vec<&'static str> {
        let mut record = record(word);
        let own = record.request.id;
        let holding = holding_of(&mut record);
        if word == "Assigning" {
            holding.creating.insert(own);
        }
        holding.removing = matches!(word, "Expiring" | "Revoking");
        change(holding);
        let holding = holding.clone();
        let Record { request, .. } = record;
        let others = holding.others(own).map(|other| (other, None)).collect();
        let found = compare_holding(&request, &[], Some(&holding), &others);
        found.iter().map(|one| one.field).collect()
    }

    // C
    #[test]
    fn a_holder_that_was_added_or_removed_is_found() {
        let own = record("Granted").request.id;
        for word in ["Assigning", "Granted", "Expiring", "Revoking"] {
            assert!(found(word, |_| {}).is_empty(), "{word}");
            let added = found(word, |holding| {
                holding.holders.insert(id(2));
            });
            assert_eq!(added, ["holders"], "{word}");
            let removed = found(word, |holding| {
                holding.holders.remove(&own);
            });
            assert_eq!(removed, ["holders"], "{word}");
            let request = record(word).request;
            let none = compare_holding(&request, &[], None, &BTreeMap::new());
            assert_eq!(none[0].history, own.to_string(), "{word}");
        }
        for word in ["Revoked", "Error", "Checking"] {
            let held = found(word, |holding| {
                holding.holders.remove(&own);
            });
            assert!(held.is_empty(), "{word}");
            let held = found(word, |holding| {
                holding.holders.insert(own);
            });
            assert_eq!(held, ["holders"], "{word}");
        }
    }

    // C
    #[test]
    fn a_removal_or_a_create_that_the_holding_does_not_have_is_found() {
        let idle = |holding: &mut Holding| {
            holding.removing = false;
            holding.creating.clear();
        };
        assert_eq!(found("Revoking", idle), ["removing"]);
        assert_eq!(found("Assigning", idle), ["creating"]);
    }

    // C: such a grant never ended.
    #[test]
    fn a_removal_or_a_create_that_no_request_asked_for_is_found() {
        let removing = |holding: &mut Holding| holding.removing = true;
        assert_eq!(found("Granted", removing), ["removing"]);
        let request = record("Granted").request;
        let mut held = record("Granted");
        holding_of(&mut held).creating.insert(id(7));
        let holding = holding_of(&mut held).clone();
        let others = BTreeMap::from([(id(7), None)]);
        let found = compare_holding(&request, &[], Some(&holding), &others);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].field, "creating");
    }

    // C: jit does not remove an assignment under another ARN.
    #[test]
    fn an_arn_that_differs_from_the_one_in_the_history_is_found() {
        let (request, events) = granted();
        let mut held = record("Granted");
        let holding = holding_of(&mut held);
        let check = |holding: &Holding| {
            let found = compare_holding(&request, &events, Some(holding), &BTreeMap::new());
            found.iter().map(|one| one.field).collect::<Vec<_>>()
        };
        *holding = holding.with_arn("arn".into());
        assert!(check(holding).is_empty());
        *holding = holding.with_arn("another".into());
        assert_eq!(check(holding), ["permission_set_arn"]);
    }

    /// A grant with the event of its create.
    fn granted() -> (Request, Vec<Event>) {
        let request = record("Granted").request;
        let entry = EventDraft {
            key: AuditKey::Request(request.id),
            kind: EventKind::Assigning,
            account_id: None,
            channel_id: &request.asked.channel_id,
            actor: None,
            status: None,
            details: BTreeMap::from([(ARN_DETAIL.to_owned(), "arn".to_owned())]),
        };
        let event = Chain::default().append(entry, Timestamp::default());
        (request, vec![event])
    }

    // C
    #[test]
    fn a_holder_of_the_same_assignment_is_no_finding_while_it_is_live() {
        let mut shared = record("Granted");
        holding_of(&mut shared).holders.insert(id(2));
        let holding = holding_of(&mut shared).clone();
        for (word, many) in [("Granted", 0), ("Unsettled", 0), ("Revoked", 1)] {
            let mut other = record(word).request;
            other.id = id(2);
            let others = BTreeMap::from([(id(2), Some(other))]);
            let found = compare_holding(&shared.request, &[], Some(&holding), &others);
            assert_eq!(found.len(), many, "{word}: {found:?}");
        }
    }
}
