//! The holders of an assignment according to the histories of the requests.

use std::collections::{BTreeMap, BTreeSet};

use super::{Comparison, FactMismatch};
use crate::domain::{Holding, Request, RequestId, State};

/// Compares the holding of a request's assignment with the request and the other holders. A
/// holder that is not one would keep the assignment after the last grant has ended, and a holder
/// that is missing would let another request end it. `None` stands for a holder without a record;
/// the caller leaves out a record that cannot be read.
pub fn compare_holding(
    request: &Request,
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
        Holds::Maybe => {}
    }
    if held != said {
        comparison.differs("holders", list(&held), list(&said));
    }
    let Some(holding) = holding else {
        return comparison.found;
    };
    comparison.same("holding_key", Some(&holding.key), Some(&key));
    if matches!(request.state, State::Removing { .. }) {
        comparison.same("removing", Some(holding.removing), Some(true));
    }
    if request.state == State::Assigning {
        let is_creating = holding.creating.contains(&request.id);
        comparison.same("creating", Some(is_creating), Some(true));
    }
    comparison.found
}

/// Whether a request in this state is a holder of its assignment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    /// Unknown until a worker has asked AWS.
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
    use crate::domain::decide::Record;
    use crate::domain::decide::fixtures::{holding_of, id, record};

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
        let found = compare_holding(&request, Some(&holding), &others);
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
            let none = compare_holding(&request, None, &BTreeMap::new());
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

    // C
    #[test]
    fn a_holder_of_the_same_assignment_is_no_finding_while_it_is_live() {
        let mut shared = record("Granted");
        holding_of(&mut shared).holders.insert(id(2));
        let holding = holding_of(&mut shared).clone();
        for (word, many) in [("Granted", 0), ("Doubted", 0), ("Revoked", 1)] {
            let mut other = record(word).request;
            other.id = id(2);
            let others = BTreeMap::from([(id(2), Some(other))]);
            let found = compare_holding(&shared.request, Some(&holding), &others);
            assert_eq!(found.len(), many, "{word}: {found:?}");
        }
    }
}
