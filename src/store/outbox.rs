//! The bound on the outbox of one request. Every store applies the same rule.
//!
//! The commit that records a removal also adds a notice, and a full outbox must not make it
//! fail. So the store makes room: it merges older notices that concern only the card, because
//! the card shows the current state of the request anyway, and older ones that also ask for a
//! decision, because a later one is about the next decision; then it parks the oldest notices
//! before their day is over. The store never refuses a notice. It only counts what it parks: the
//! notice worker records the parked notices in the audit (`ClaimedNotice::parked`).

use crate::domain::{Audience, RequestId};

/// The largest number of pending notices of one request.
pub const MOST_PENDING: usize = 16;
/// The number of parked notices of one request that the store keeps; older ones are only
/// counted.
pub const MOST_PARKED: usize = 8;

/// The properties of a pending notice that the rule depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingNotice {
    /// `None` if the notice is unreadable.
    pub audience: Option<Audience>,
    pub claim: NoticeClaim,
}

/// Whether a notice worker has claimed a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeClaim {
    Free,
    /// A notice worker claimed the notice, so it must stay.
    Claimed,
}

/// The change that a commit makes to a stored notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeChange {
    Stays,
    /// A later notice for the same audience replaces this one.
    Merged,
    Parked,
}

/// Decides what happens to each notice of a request, oldest first. The newest always stays.
pub fn notice_changes(waiting: &[PendingNotice]) -> Vec<NoticeChange> {
    let mut changes = vec![NoticeChange::Stays; waiting.len()];
    if waiting.len() <= MOST_PENDING {
        return changes;
    }
    let is_free = |one: &PendingNotice| one.claim == NoticeClaim::Free;
    for (place, one) in waiting.iter().enumerate() {
        let of_the_same = |later: &PendingNotice| later.audience == one.audience;
        let is_superseded = is_replaceable(one) && waiting[place + 1..].iter().any(of_the_same);
        if is_free(one) && is_superseded {
            changes[place] = NoticeChange::Merged;
        }
    }
    let first_to_go =
        |one: &PendingNotice| matches!(one.audience, None | Some(Audience::Everybody));
    for parks_any in [false, true] {
        for place in 0..waiting.len() - 1 {
            let left = changes
                .iter()
                .filter(|change| **change == NoticeChange::Stays)
                .count();
            let one = &waiting[place];
            let may_go = is_free(one) && (parks_any || first_to_go(one));
            if left > MOST_PENDING && changes[place] == NoticeChange::Stays && may_go {
                changes[place] = NoticeChange::Parked;
            }
        }
    }
    changes
}

/// Whether a later notice for the same audience tells all that this one tells.
fn is_replaceable(one: &PendingNotice) -> bool {
    match one.audience {
        Some(Audience::Card | Audience::Mattermost) => true,
        Some(Audience::Everybody | Audience::Requester) | None => false,
    }
}

/// Returns how many of the oldest parked notices the store must forget and only count.
pub fn forgotten(parked: usize) -> usize {
    parked.saturating_sub(MOST_PARKED)
}

/// Logs notices that were parked early. The notice worker that claims the next notice of the
/// request records them in the audit.
pub fn note_parked(id: RequestId, changes: &[NoticeChange]) {
    let parked = changes
        .iter()
        .filter(|change| **change == NoticeChange::Parked)
        .count();
    if parked > 0 {
        tracing::error!(
            request_id = %id,
            parked,
            "more than {MOST_PENDING} notices of one request wait: jit parked the oldest"
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
    fn card_notices_are_merged_before_any_notice_is_parked() {
        let mut waiting = vec![one(Audience::Card); MOST_PENDING];
        waiting.insert(3, one(Audience::Everybody));
        let changes = notice_changes(&waiting);
        let count = |wanted| changes.iter().filter(|change| **change == wanted).count();
        assert_eq!(
            (count(NoticeChange::Merged), count(NoticeChange::Parked)),
            (MOST_PENDING - 1, 0)
        );
        assert_eq!(
            (changes[3], changes[MOST_PENDING]),
            (NoticeChange::Stays, NoticeChange::Stays)
        );
    }

    // N2, K9
    #[test]
    fn of_the_notices_that_ask_for_a_decision_the_newest_stays_beside_the_newest_of_the_card() {
        let mut waiting = vec![one(Audience::Card); MOST_PENDING];
        waiting.insert(1, one(Audience::Mattermost));
        waiting.insert(5, one(Audience::Mattermost));
        let changes = notice_changes(&waiting);
        let stay = (0..waiting.len()).filter(|place| changes[*place] == NoticeChange::Stays);
        assert_eq!(stay.collect::<Vec<_>>(), [5, waiting.len() - 1]);
        assert!(!changes.contains(&NoticeChange::Parked));
    }

    // K9
    #[test]
    fn the_oldest_unclaimed_notice_for_everybody_is_parked_first() {
        let mut waiting = vec![one(Audience::Everybody); MOST_PENDING];
        waiting.insert(0, one(Audience::Requester));
        waiting[1].claim = NoticeClaim::Claimed;
        let mut wanted = vec![NoticeChange::Stays; MOST_PENDING + 1];
        wanted[2] = NoticeChange::Parked;
        assert_eq!(notice_changes(&waiting), wanted);
    }

    fn any_waiting() -> impl Strategy<Value = PendingNotice> {
        let audience = prop_oneof![
            Just(None),
            Just(Some(Audience::Everybody)),
            Just(Some(Audience::Card)),
            Just(Some(Audience::Mattermost)),
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
        fn the_bound_holds_for_any_pending_notices(
            mut waiting in proptest::collection::vec(any_waiting(), 1..100),
            claimed in any::<bool>(),
        ) {
            if claimed {
                waiting[0].claim = NoticeClaim::Claimed;
            }
            let changes = notice_changes(&waiting);
            let stay = changes.iter().filter(|change| **change == NoticeChange::Stays).count();
            prop_assert!(stay <= MOST_PENDING);
            prop_assert_eq!(changes.last(), Some(&NoticeChange::Stays));
            prop_assert!(!claimed || changes[0] == NoticeChange::Stays);
            prop_assert!(waiting.len() > MOST_PENDING || stay == waiting.len());
        }
    }
}
