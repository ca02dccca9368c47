//! How much a request may have to tell at once. The rule is the same in every store.
//!
//! A removal adds a notice in the write that records it, so that write must not fail for
//! what waits already. What is over the bound makes room: superseded notices for a card
//! alone are merged, because a card becomes what the request is by now; then the oldest
//! are parked before their day is over. Nothing is refused.

use crate::domain::{Audience, RequestId};

/// So many notices of one request wait at once.
pub const MOST_PENDING: usize = 16;
/// So many that were given up are kept whole; those before them are only counted.
pub const MOST_PARKED: usize = 8;

/// A notice that waits, as far as the rule looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingNotice {
    /// Absent if the notice cannot be read.
    pub audience: Option<Audience>,
    pub claim: NoticeClaim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeClaim {
    Free,
    /// A delivery is under way, or was: its notice stays where it is.
    Claimed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Stays,
    /// Another notice says the same, and later.
    Merged,
    Parked,
}

/// What becomes of each of a request's notices, oldest first. The newest always stays.
pub fn fates(waiting: &[PendingNotice]) -> Vec<Fate> {
    let mut fates = vec![Fate::Stays; waiting.len()];
    if waiting.len() <= MOST_PENDING {
        return fates;
    }
    let is_free = |one: &PendingNotice| one.claim == NoticeClaim::Free;
    let is_card = |one: &PendingNotice| one.audience == Some(Audience::Card);
    let newest_card = waiting.iter().rposition(is_card);
    for (place, one) in waiting.iter().enumerate() {
        if is_free(one) && is_card(one) && Some(place) != newest_card {
            fates[place] = Fate::Merged;
        }
    }
    let first_to_go =
        |one: &PendingNotice| matches!(one.audience, None | Some(Audience::Everybody));
    for parks_any in [false, true] {
        for place in 0..waiting.len() - 1 {
            let left = fates.iter().filter(|fate| **fate == Fate::Stays).count();
            let one = &waiting[place];
            let may_go = is_free(one) && (parks_any || first_to_go(one));
            if left > MOST_PENDING && fates[place] == Fate::Stays && may_go {
                fates[place] = Fate::Parked;
            }
        }
    }
    fates
}

/// Of so many parked notices, how many of the oldest are only counted from now on.
pub fn forgotten(parked: usize) -> usize {
    parked.saturating_sub(MOST_PARKED)
}

/// What is parked early is in no history: the log names the request, and the figure of
/// parked notices counts it.
pub fn note_parked(id: RequestId, fates: &[Fate]) {
    let parked = fates.iter().filter(|fate| **fate == Fate::Parked).count();
    if parked > 0 {
        tracing::error!(
            request_id = %id,
            parked,
            "more than {MOST_PENDING} notices of one request wait: the oldest are not tried any more"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(audience: Audience) -> PendingNotice {
        PendingNotice {
            audience: Some(audience),
            claim: NoticeClaim::Free,
        }
    }

    // K9
    #[test]
    fn cards_are_merged_before_anything_is_parked() {
        let mut waiting = vec![one(Audience::Card); MOST_PENDING];
        waiting.insert(3, one(Audience::Everybody));
        let fates = fates(&waiting);
        let count = |wanted| fates.iter().filter(|fate| **fate == wanted).count();
        assert_eq!(
            (count(Fate::Merged), count(Fate::Parked)),
            (MOST_PENDING - 1, 0)
        );
        assert_eq!((fates[3], fates[MOST_PENDING]), (Fate::Stays, Fate::Stays));
    }

    // K9
    #[test]
    fn the_oldest_that_all_were_to_hear_is_parked_first() {
        let mut waiting = vec![one(Audience::Everybody); MOST_PENDING];
        waiting.insert(0, one(Audience::Requester));
        waiting[1].claim = NoticeClaim::Claimed;
        let mut wanted = vec![Fate::Stays; MOST_PENDING + 1];
        wanted[2] = Fate::Parked;
        assert_eq!(fates(&waiting), wanted);
    }

    fn any_waiting() -> impl Strategy<Value = PendingNotice> {
        let audience = prop_oneof![
            Just(None),
            Just(Some(Audience::Everybody)),
            Just(Some(Audience::Card)),
            Just(Some(Audience::Requester)),
        ];
        audience.prop_map(|audience| PendingNotice {
            audience,
            claim: NoticeClaim::Free,
        })
    }

    proptest! {
        // K9
        #[test]
        fn whatever_waits_the_bound_holds(
            mut waiting in proptest::collection::vec(any_waiting(), 1..100),
            claimed in any::<bool>(),
        ) {
            if claimed {
                waiting[0].claim = NoticeClaim::Claimed;
            }
            let fates = fates(&waiting);
            let stay = fates.iter().filter(|fate| **fate == Fate::Stays).count();
            prop_assert!(stay <= MOST_PENDING);
            prop_assert_eq!(fates.last(), Some(&Fate::Stays));
            prop_assert!(!claimed || fates[0] == Fate::Stays);
            prop_assert!(waiting.len() > MOST_PENDING || stay == waiting.len());
        }
    }
}
