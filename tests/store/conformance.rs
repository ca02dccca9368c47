//! The promises of `Store`, as functions that run on any store.

use std::sync::Arc;

use async_trait::async_trait;
use jit::domain::{
    AccessForm, AccessRecord, Ask, Audience, AuditKey, Binding, Channel, Command, Doubt, Event,
    Failing, Lane, Millis, Notice, Person, PersonMark, ReceiverName, Record, Request, RequestId,
    State, Status, Timestamp, decide,
};
use jit::store::outbox::{MOST_PARKED, MOST_PENDING};
use jit::store::{
    Answered, AuditFilter, ClaimEnd, Commit, Cursor, Due, Filter, Freshness, Guard, Left,
    NoticePlace, PendingOf, Store, StoreError, Taken, Write,
};

use crate::build::{
    at, binding, bound, bound_again, creating, delivered, granted, held, id, key, later, lease,
    next, nonce, notice, opened, token, unbound, writing,
};
use crate::fixtures::policy;

/// A store under test, with access to its data without the store.
#[async_trait]
pub trait Subject: Send + Sync + Sized + 'static {
    async fn fresh() -> Self;
    fn store(&self) -> &dyn Store;
    /// Writes a status into the data, as an operator does.
    async fn write_status(&self, id: RequestId, said: &str, at: Option<Timestamp>);
}

macro_rules! conformance {
    ($name:ident, $subject:ty) => {
        mod $name {
            use super::*;
            conformance!(@each $subject:
                a_committed_record_is_read_back
                a_commit_is_all_or_nothing
                a_commit_needs_the_previous_revision
                each_revision_is_written_by_one_of_many_writers
                a_commit_under_a_changed_binding_is_refused
                a_late_unbind_changes_nothing
                a_new_binding_of_an_account_differs_from_its_old_one
                a_nonce_is_accepted_once
                a_nonce_is_spent_in_the_commit_of_its_change
                one_of_many_simultaneous_calls_spends_the_nonce
                an_idempotency_key_is_kept_for_a_day
                due_requests_come_by_lane_and_longest_due_first
                a_leased_request_is_not_claimed
                a_lease_is_renewed_unless_the_renewal_comes_too_late
                notices_of_a_request_are_claimed_in_order_one_at_a_time
                a_notice_keeps_its_receivers_and_a_later_one_waits_for_no_pause
                a_delivered_notice_keeps_the_receivers_of_later_ones
                notices_can_be_claimed_by_request_id
                a_lost_claim_ends_nothing
                a_parked_notice_does_not_block_the_next
                undelivered_notices_are_bounded_and_refuse_no_write
                notices_that_only_change_the_card_are_merged_first
                lists_apply_all_filters_together
                pages_have_no_gap_and_no_overlap
                pending_requests_are_counted_by_person_and_key
                a_history_is_in_order_and_the_export_by_time
                a_long_history_comes_in_pages_whole_and_in_order
                the_bindings_of_a_channel_come_in_pages
                every_history_has_a_head
                every_binding_is_found_page_by_page
                a_named_lease_has_one_holder
                gauges_are_counted
                tidy_deletes_only_expired_nonces
                a_status_written_from_outside_is_returned
                a_status_written_from_outside_conflicts_with_an_older_commit
            );
        }
    };
    (@each $subject:ty: $($promise:ident)*) => {
        $(#[tokio::test]
        async fn $promise() {
            let subject = <$subject as crate::conformance::Subject>::fresh().await;
            crate::conformance::$promise(subject).await;
        })*
    };
}

async fn create(store: &dyn Store, number: u128, created: Timestamp) -> Request {
    let decision = opened(number, created);
    store.commit(creating(&decision)).await.unwrap();
    decision.request
}

async fn change(store: &dyn Store, request: &Request, to: impl FnOnce(&mut Request)) -> Request {
    let changed = later(request, to);
    let commit = Commit::of([Write::Request(changed.clone())]);
    store.commit(commit).await.unwrap();
    changed
}

/// Whether the store refused this commit because of an earlier write, and wrote nothing of it.
async fn lost(store: &dyn Store, commit: Commit) -> bool {
    match store.commit(commit).await {
        Ok(()) => false,
        Err(StoreError::Conflict(_)) => true,
        Err(error) => panic!("{error}"),
    }
}

async fn due(store: &dyn Store, lane: Lane, now: Timestamp, limit: usize) -> Vec<RequestId> {
    store.due(lane, now, limit).await.unwrap().ready
}

/// When the first due request can be claimed.
async fn next_due(store: &dyn Store, lane: Lane) -> Option<Timestamp> {
    store.due(lane, Timestamp::default(), 0).await.unwrap().next
}

async fn ids(store: &dyn Store, filter: &Filter) -> Vec<RequestId> {
    let found = store.list(filter, None, 100).await.unwrap();
    found.iter().map(|request| request.id).collect()
}

pub async fn a_committed_record_is_read_back(subject: impl Subject) {
    let store = subject.store();
    let town = bound("town", "111122223333");
    store.commit(writing(&town)).await.unwrap();
    let decision = opened(1, at(5));
    let holding = Write::Holding(held(1, &[id(1)]));
    store
        .commit(creating(&decision).with([holding]))
        .await
        .unwrap();

    assert_eq!(store.request(id(1)).await.unwrap(), Some(decision.request));
    assert_eq!(
        store.holding(&key()).await.unwrap(),
        Some(held(1, &[id(1)]))
    );
    let account = &town.bindings[0].account_id;
    assert_eq!(
        store.binding(account).await.unwrap().as_ref(),
        Some(&town.bindings[0])
    );
    assert_eq!(
        store.channel(&town.channel.id).await.unwrap(),
        Some(town.channel.clone())
    );
    assert_eq!(
        store.bindings(&town.channel.id).await.unwrap(),
        town.bindings
    );
    let key = AuditKey::Request(id(1));
    assert_eq!(store.audit(&key).await.unwrap(), decision.events);

    assert_eq!(store.request(id(2)).await.unwrap(), None);
    assert_eq!(
        store
            .binding(&"999999999999".parse().unwrap())
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        store.channel(&"other".parse().unwrap()).await.unwrap(),
        None
    );
    assert!(
        store
            .bindings(&"other".parse().unwrap())
            .await
            .unwrap()
            .is_empty()
    );
}

// P2
pub async fn a_commit_is_all_or_nothing(subject: impl Subject) {
    let store = subject.store();
    let first = create(store, 1, at(0)).await;
    let good = opened(2, at(0));
    let stale_event = opened(1, at(0)).events.remove(0);
    let no_notice = NoticePlace {
        request_id: id(9),
        seq: 1,
    };
    for stale in [
        Write::Request(first),
        Write::Holding(held(2, &[])),
        Write::Event(stale_event),
        Write::Park(no_notice),
    ] {
        // Every part of the commit would be written except for the one that conflicts.
        assert!(lost(store, creating(&good).with([stale])).await);
        assert_eq!(store.request(id(2)).await.unwrap(), None);
        let key = AuditKey::Request(id(2));
        assert!(store.audit(&key).await.unwrap().is_empty());
    }
    store.commit(creating(&good)).await.unwrap();
}

pub async fn a_commit_needs_the_previous_revision(subject: impl Subject) {
    let store = subject.store();
    let first = create(store, 1, at(0)).await;
    let skipped = next(&first, |request| request.version.revision += 1);
    assert!(lost(store, skipped).await);
    let second = change(store, &first, |_| {}).await;
    let again = next(&first, |_| {});
    // The conflict contains the record of the earlier write.
    let winner = Err(StoreError::Conflict(Some(Box::new(second.clone()))));
    assert_eq!(store.commit(again).await, winner);
    assert!(lost(store, creating(&opened(1, at(0)))).await);
    assert_eq!(store.request(id(1)).await.unwrap(), Some(second));
    let second_of_none = next(&opened(2, at(0)).request, |_| {});
    assert!(lost(store, second_of_none).await);
}

// P3, G18, E10
pub async fn each_revision_is_written_by_one_of_many_writers(subject: impl Subject) {
    create(subject.store(), 1, at(0)).await;
    let subject = Arc::new(subject);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let subject = subject.clone();
        writers.spawn(async move {
            let mut done = 0;
            while done < 10 {
                let seen = subject.store().request(id(1)).await.unwrap().unwrap();
                let commit = next(&seen, |request| request.chat.parked_notices += 1);
                match subject.store().commit(commit).await {
                    Ok(()) => done += 1,
                    Err(StoreError::Conflict(_)) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    writers.join_all().await;
    let last = subject.store().request(id(1)).await.unwrap().unwrap();
    assert_eq!((last.chat.parked_notices, last.version.revision), (50, 51));
}

// P5, G18
pub async fn a_commit_under_a_changed_binding_is_refused(subject: impl Subject) {
    let store = subject.store();
    let town = bound("town", "111122223333").bindings.remove(0);
    let guarded = |number, revision: u64| {
        let guard = Guard {
            revision,
            ..Guard::of(&town.account_id, Some(&town).filter(|_| revision > 0))
        };
        creating(&opened(number, at(0))).with([Write::Guard(guard)])
    };
    store.commit(guarded(1, 0)).await.unwrap();
    store
        .commit(writing(&bound("town", "111122223333")))
        .await
        .unwrap();
    assert!(lost(store, guarded(2, 0)).await);
    store.commit(guarded(2, 1)).await.unwrap();
    assert!(lost(store, guarded(3, 2)).await);
}

pub async fn a_late_unbind_changes_nothing(subject: impl Subject) {
    let store = subject.store();
    let town = bound("town", "111122223333");
    store.commit(writing(&town)).await.unwrap();
    let old = town.bindings[0].clone();
    let mut new = old.clone();
    new.revision += 1;
    let rebind = Commit::of([Write::Binding(new.clone())]);
    store.commit(rebind).await.unwrap();
    let unbind = |binding| Commit::of([Write::Unbind(binding)]);
    assert!(lost(store, unbind(old)).await);
    assert_eq!(
        store.binding(&new.account_id).await.unwrap(),
        Some(new.clone())
    );
    store.commit(unbind(new.clone())).await.unwrap();
    assert_eq!(store.binding(&new.account_id).await.unwrap(), None);
}

// K15: two bindings of one account are different, although both begin at revision 1.
pub async fn a_new_binding_of_an_account_differs_from_its_old_one(subject: impl Subject) {
    let store = subject.store();
    let guarded = |number, binding: &Binding| {
        let guard = Guard::of(&binding.account_id, Some(binding));
        creating(&opened(number, at(0))).with([Write::Guard(guard)])
    };
    let first = bound("town", "111122223333");
    store.commit(writing(&first)).await.unwrap();
    let read = store.binding(&first.bindings[0].account_id).await.unwrap();
    store.commit(guarded(1, &read.unwrap())).await.unwrap();

    let unbinding = unbound(&first.channel, &first.bindings[0]);
    store.commit(writing(&unbinding)).await.unwrap();
    let second = bound_again(&unbinding.channel, "111122223333");
    assert_eq!(second.bindings[0].revision, first.bindings[0].revision);
    store.commit(writing(&second)).await.unwrap();
    assert!(lost(store, guarded(2, &first.bindings[0])).await);
    store.commit(guarded(2, &second.bindings[0])).await.unwrap();

    // The account is bound to another channel, where its number is the same.
    let leaving = unbound(&second.channel, &second.bindings[0]);
    store.commit(writing(&leaving)).await.unwrap();
    let elsewhere = bound("village", "111122223333");
    store.commit(writing(&elsewhere)).await.unwrap();
    assert!(lost(store, guarded(3, &first.bindings[0])).await);
    assert!(lost(store, guarded(3, &second.bindings[0])).await);

    // A binding that was written before bindings had numbers.
    let mut old = elsewhere.bindings[0].clone();
    (old.revision, old.bound_seq) = (2, 0);
    let commit = Commit::of([Write::Binding(old.clone())]);
    store.commit(commit).await.unwrap();
    store.commit(guarded(3, &old)).await.unwrap();
    assert!(lost(store, guarded(4, &elsewhere.bindings[0])).await);
}

// P5, G1: the key is not part of the nonce, so no other key can spend it again.
pub async fn a_nonce_is_accepted_once(subject: impl Subject) {
    let store = subject.store();
    let spend = async |text, now| store.spend_nonce(&nonce(text, now, 960)).await.unwrap();
    assert_eq!(spend("a", 0).await, Freshness::Fresh);
    assert_eq!(spend("a", 1).await, Freshness::Spent);
    assert_eq!(spend("b", 1).await, Freshness::Fresh);
    // P8: the store keeps a nonce until its time, whether or not old ones are deleted.
    assert_eq!(spend("a", 960).await, Freshness::Spent);
    assert_eq!(spend("a", 961).await, Freshness::Fresh);
}

/// The nonce is spent in the commit of its change or not at all; after a conflict, the next
/// decision can still spend it.
pub async fn a_nonce_is_spent_in_the_commit_of_its_change(subject: impl Subject) {
    let store = subject.store();
    let with = |commit: Commit, text, now| Commit {
        nonce: Some(nonce(text, now, 960)),
        ..commit
    };
    let first = opened(1, at(0));
    store.commit(with(creating(&first), "a", 0)).await.unwrap();
    let again = with(creating(&opened(2, at(1))), "a", 1);
    assert_eq!(store.commit(again).await, Err(StoreError::Replayed));
    assert_eq!(store.request(id(2)).await.unwrap(), None);
    let alone = store.spend_nonce(&nonce("a", 1, 960)).await.unwrap();
    assert_eq!(alone, Freshness::Spent);

    let late = with(creating(&first), "b", 1);
    assert!(lost(store, late).await);
    let then = with(next(&first.request, |_| {}), "b", 2);
    store.commit(then).await.unwrap();
    let both = with(creating(&opened(3, at(3))), "b", 3);
    assert_eq!(store.commit(both).await, Err(StoreError::Replayed));
}

pub async fn one_of_many_simultaneous_calls_spends_the_nonce(subject: impl Subject) {
    let subject = Arc::new(subject);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let subject = subject.clone();
        callers.spawn(async move {
            subject
                .store()
                .spend_nonce(&nonce("n", 0, 960))
                .await
                .unwrap()
        });
    }
    let answers = callers.join_all().await;
    assert_eq!(
        answers
            .iter()
            .filter(|answer| **answer == Freshness::Fresh)
            .count(),
        1
    );
}

pub async fn an_idempotency_key_is_kept_for_a_day(subject: impl Subject) {
    let store = subject.store();
    let answered = |number, seconds| Answered {
        key: "k".into(),
        fingerprint: format!("f{number}"),
        request_id: id(number),
        at: at(seconds),
    };
    let answering = |number, seconds| {
        let answer = Write::Answer(answered(number, seconds));
        creating(&opened(number, at(seconds))).with([answer])
    };
    store.commit(answering(1, 0)).await.unwrap();
    assert!(lost(store, answering(2, 10)).await);
    assert_eq!(store.request(id(2)).await.unwrap(), None);
    assert_eq!(
        store.answered("k", at(10)).await.unwrap(),
        Some(answered(1, 0))
    );
    assert_eq!(store.answered("other", at(10)).await.unwrap(), None);
    let day = Millis::DAY.0 / 1000;
    assert_eq!(store.answered("k", at(day + 1)).await.unwrap(), None);
    store.commit(answering(3, day + 1)).await.unwrap();
    assert_eq!(
        store.answered("k", at(day + 2)).await.unwrap(),
        Some(answered(3, day + 1))
    );
}

pub async fn due_requests_come_by_lane_and_longest_due_first(subject: impl Subject) {
    let store = subject.store();
    for (number, due) in [
        (1, Some(at(30))),
        (2, Some(at(10))),
        (3, Some(at(20))),
        (4, None),
    ] {
        let request = create(store, number, at(0)).await;
        change(store, &request, |request| request.schedule.due_at = due).await;
    }
    let grant = create(store, 5, at(0)).await;
    change(store, &grant, |request| *request = granted(request, at(15))).await;

    assert!(due(store, Lane::Other, at(9), 10).await.is_empty());
    assert_eq!(due(store, Lane::Other, at(10), 10).await, [id(2)]);
    let all = [id(2), id(3), id(1)];
    assert_eq!(due(store, Lane::Other, at(99), 10).await, all);
    assert_eq!(due(store, Lane::Remove, at(99), 10).await, [id(5)]);
    assert!(due(store, Lane::Revoke, at(99), 10).await.is_empty());

    let first = |ready: &[RequestId], next| Due {
        ready: ready.to_vec(),
        next,
    };
    let search = async |now, limit| store.due(Lane::Other, now, limit).await.unwrap();
    assert_eq!(search(at(99), 2).await, first(&all[..2], Some(at(30))));
    assert_eq!(search(at(10), 2).await, first(&all[..1], Some(at(20))));
    assert_eq!(search(at(9), 2).await, first(&[], Some(at(10))));
    assert_eq!(search(at(99), 3).await, first(&all, None));
}

pub async fn a_leased_request_is_not_claimed(subject: impl Subject) {
    let store = subject.store();
    let request = create(store, 1, at(0)).await;
    let leased = change(store, &request, |request| {
        request.schedule.due_at = Some(at(0));
        request.schedule.lease = Some(lease(7, at(20)));
    })
    .await;
    assert!(due(store, Lane::Other, at(19), 10).await.is_empty());
    assert_eq!(due(store, Lane::Other, at(20), 10).await, [id(1)]);
    assert_eq!(next_due(store, Lane::Other).await, Some(at(20)));
    change(store, &leased, |request| {
        (request.schedule.lease, request.schedule.due_at) = (None, None);
    })
    .await;
    assert_eq!(next_due(store, Lane::Other).await, None);
}

async fn with_notices(store: &dyn Store, number: u128, seqs: &[u64]) {
    let mut decision = opened(number, at(0));
    decision.notices = seqs.iter().map(|seq| notice(number, *seq, at(0))).collect();
    store.commit(creating(&decision)).await.unwrap();
}

async fn claim(store: &dyn Store, now: i64, holder: u128) -> Vec<NoticePlace> {
    let claimed = store
        .claim_notices(at(now), token(holder), at(now + 30), 10)
        .await
        .unwrap();
    let place = |notice: &jit::domain::Notice| NoticePlace {
        request_id: notice.request_id,
        seq: notice.seq,
    };
    claimed
        .ready
        .iter()
        .map(|claimed| place(&claimed.notice))
        .collect()
}

/// When the first notice can be claimed.
async fn next_notice(store: &dyn Store) -> Option<Timestamp> {
    let none = Timestamp::default();
    let claimed = store.claim_notices(none, token(0), none, 1).await;
    claimed.unwrap().next
}

fn place(number: u128, seq: u64) -> NoticePlace {
    NoticePlace {
        request_id: id(number),
        seq,
    }
}

pub async fn notices_of_a_request_are_claimed_in_order_one_at_a_time(subject: impl Subject) {
    let store = subject.store();
    with_notices(store, 1, &[2, 3]).await;
    with_notices(store, 2, &[2]).await;
    assert_eq!(next_notice(store).await, Some(at(0)));
    assert_eq!(claim(store, 1, 7).await, [place(1, 2), place(2, 2)]);
    // Both first notices are claimed, and the second notice of the first request waits for its
    // first.
    assert!(claim(store, 1, 8).await.is_empty());
    store
        .end_claim(place(1, 2), token(7), delivered())
        .await
        .unwrap();
    assert_eq!(claim(store, 2, 8).await, [place(1, 3)]);
    // The released notice can be claimed at once; the failed one, later.
    store
        .end_claim(place(2, 2), token(7), ClaimEnd::Released)
        .await
        .unwrap();
    assert_eq!(claim(store, 2, 9).await, [place(2, 2)]);
    let again = ClaimEnd::TryAgain {
        at: at(60),
        tried: vec![notice(2, 2, at(0))],
    };
    store.end_claim(place(2, 2), token(9), again).await.unwrap();
    assert!(
        claim(store, 59, 9).await == [place(1, 3)],
        "the claim of holder 8 has lapsed"
    );
    let claimed = store
        .claim_notices(at(60), token(9), at(90), 10)
        .await
        .unwrap();
    assert_eq!(claimed.ready.len(), 1);
    assert_eq!(
        (claimed.ready[0].notice.clone(), claimed.ready[0].attempts),
        (notice(2, 2, at(0)), 1)
    );
}

// N1
pub async fn a_notice_keeps_its_receivers_and_a_later_one_waits_for_no_pause(
    subject: impl Subject,
) {
    let store = subject.store();
    with_notices(store, 1, &[2, 3]).await;
    let claim = async |now, holder| {
        let (lease, until) = (token(holder), at(now + 30));
        store
            .claim_notice(id(1), at(now), lease, until)
            .await
            .unwrap()
    };
    let had = |seq| Notice {
        received_by: [ReceiverName::Mattermost].into(),
        ..notice(1, seq, at(0))
    };
    let again = |seqs: &[u64]| ClaimEnd::TryAgain {
        at: at(300),
        tried: seqs.iter().map(|seq| had(*seq)).collect(),
    };
    let end = async |ended| {
        let ended = store.end_claim(place(1, 2), token(7), ended);
        ended.await.unwrap()
    };
    let later = async || store.undelivered(id(1)).await.unwrap()[1..].to_vec();
    let first = claim(1, 7).await.unwrap();
    assert_eq!(first.notice, notice(1, 2, at(0)));
    assert_eq!(later().await, [notice(1, 3, at(0))]);
    // A notice that is added during a claim does not end it.
    with_more_notices(store, 1, 4).await;
    assert_eq!(claim(2, 8).await, None);
    assert_eq!(end(again(&[2, 3])).await, Left::More);
    let second = claim(3, 7).await.unwrap();
    assert_eq!(second.notice, had(2));
    assert_eq!(later().await, [had(3), notice(1, 4, at(1))]);
    assert_eq!(end(again(&[2, 3, 4])).await, Left::Nothing);
    assert_eq!(claim(299, 7).await, None, "all of them wait");
    with_more_notices(store, 1, 5).await;
    assert_eq!(claim(4, 7).await.unwrap().notice, had(2));
    assert_eq!(end(again(&[2, 3, 4, 5])).await, Left::Nothing);
    // A server that starts does not wait.
    assert_eq!(claim(5, 7).await, None);
    store.end_pauses(at(5)).await.unwrap();
    assert_eq!(claim(5, 7).await.unwrap().notice, had(2));
    assert_eq!(later().await, [had(3), had(4), had(5)]);
    assert_eq!(end(delivered()).await, Left::More);
    assert_eq!(claim(6, 7).await.unwrap().notice, had(3));
}

// N2
pub async fn a_delivered_notice_keeps_the_receivers_of_later_ones(subject: impl Subject) {
    let store = subject.store();
    with_notices(store, 1, &[2, 3, 4]).await;
    let claim = async |now| {
        let claimed = store.claim_notice(id(1), at(now), token(7), at(now + 30));
        claimed.await.unwrap()
    };
    let had = Notice {
        received_by: [ReceiverName::Mattermost].into(),
        told: [PersonMark::of(&"bob".parse().unwrap())].into(),
        ..notice(1, 3, at(0))
    };
    assert_eq!(claim(1).await.unwrap().notice, notice(1, 2, at(0)));
    with_more_notices(store, 1, 5).await;
    let ahead = vec![had.clone()];
    let end = async |seq, holder, ahead| {
        let ended = ClaimEnd::Delivered { ahead };
        let ended = store.end_claim(place(1, seq), token(holder), ended);
        ended.await.unwrap()
    };
    // A lost claim keeps nothing.
    assert_eq!(end(2, 8, ahead.clone()).await, Left::Nothing);
    assert_eq!(store.undelivered(id(1)).await.unwrap()[0].seq, 2);
    assert_eq!(end(2, 7, ahead).await, Left::More);
    let left = store.undelivered(id(1)).await.unwrap();
    let seqs: Vec<u64> = left.iter().map(|notice| notice.seq).collect();
    assert_eq!(seqs, [3, 4, 5]);
    assert_eq!(left[0], had);
    let next = claim(2).await.unwrap();
    assert_eq!((next.notice, next.attempts), (had, 0));
    for seq in [3, 4] {
        assert_eq!(end(seq, 7, Vec::new()).await, Left::More);
        assert!(claim(3).await.is_some());
    }
    assert_eq!(end(5, 7, Vec::new()).await, Left::Nothing);
    assert_eq!(store.undelivered(id(1)).await.unwrap(), []);
    let undelivered = store.gauges(at(31)).await.unwrap().undelivered_notices;
    assert_eq!(undelivered, 0);
}

pub async fn notices_can_be_claimed_by_request_id(subject: impl Subject) {
    let store = subject.store();
    with_notices(store, 1, &[2, 3]).await;
    with_notices(store, 2, &[2]).await;
    let claim = async |number, now, holder| {
        let (lease, until) = (token(holder), at(now + 30));
        let claimed = store.claim_notice(id(number), at(now), lease, until).await;
        claimed.unwrap().map(|claimed| claimed.notice.seq)
    };
    let end = async |seq, holder, ended| {
        let ended = store.end_claim(place(1, seq), token(holder), ended);
        ended.await.unwrap()
    };
    assert_eq!(claim(9, 1, 7).await, None);
    assert_eq!(claim(1, 1, 7).await, Some(2));
    assert_eq!(claim(1, 1, 8).await, None, "another worker has claimed it");
    assert_eq!(end(2, 8, delivered()).await, Left::Nothing);
    assert_eq!(end(2, 7, delivered()).await, Left::More);
    assert_eq!(claim(1, 2, 8).await, Some(3));
    let again = ClaimEnd::TryAgain {
        at: at(9),
        tried: vec![notice(1, 3, at(0))],
    };
    assert_eq!(end(3, 8, again).await, Left::Nothing);
    assert_eq!(claim(1, 8, 8).await, None, "the notice is not due yet");
    assert_eq!(claim(1, 9, 8).await, Some(3));
    assert_eq!(end(3, 8, delivered()).await, Left::Nothing);
    assert_eq!(claim(1, 99, 8).await, None);
    assert_eq!(
        claim(2, 99, 8).await,
        Some(2),
        "the other claim is unchanged"
    );
}

pub async fn a_lost_claim_ends_nothing(subject: impl Subject) {
    let store = subject.store();
    with_notices(store, 1, &[2]).await;
    assert_eq!(claim(store, 0, 7).await, [place(1, 2)]);
    assert_eq!(claim(store, 30, 8).await, [place(1, 2)]);
    store
        .end_claim(place(1, 2), token(7), delivered())
        .await
        .unwrap();
    let undelivered = store.gauges(at(31)).await.unwrap().undelivered_notices;
    assert_eq!(
        undelivered, 1,
        "holder 8 has claimed it and has not delivered it"
    );
    store
        .end_claim(place(1, 2), token(8), delivered())
        .await
        .unwrap();
    assert_eq!(next_notice(store).await, None);
}

pub async fn a_parked_notice_does_not_block_the_next(subject: impl Subject) {
    let store = subject.store();
    with_notices(store, 1, &[2, 3]).await;
    let park = Commit::of([Write::Park(place(1, 2))]);
    store.commit(park.clone()).await.unwrap();
    assert!(lost(store, park).await);
    assert_eq!(claim(store, 1, 7).await, [place(1, 3)]);
    let gauges = async || store.gauges(at(1)).await.unwrap();
    assert_eq!(gauges().await.parked_notices, 1);
    // A parked notice stays parked after a change of the other notices.
    let ended = store.end_claim(place(1, 3), token(7), delivered());
    assert_eq!(ended.await.unwrap(), Left::Nothing);
    let left = gauges().await;
    assert_eq!((left.parked_notices, left.undelivered_notices), (1, 0));
    assert_eq!(next_notice(store).await, None);
    with_more_notices(store, 1, 4).await;
    assert_eq!(claim(store, 2, 7).await, [place(1, 4)]);
    assert_eq!(gauges().await.parked_notices, 1);
}

/// Adds a notice to an existing request.
async fn with_more_notices(store: &dyn Store, number: u128, seq: u64) {
    let more = Commit::of([Write::Notice(notice(number, seq, at(1)))]);
    store.commit(more).await.unwrap();
}

// K9: the next commit succeeds with any number of waiting notices.
pub async fn undelivered_notices_are_bounded_and_refuse_no_write(subject: impl Subject) {
    let store = subject.store();
    let mut request = create(store, 1, at(0)).await;
    let most = MOST_PENDING as u64;
    let many = most + MOST_PARKED as u64 + 6;
    for seq in 2..2 + many {
        request = later(&request, |_| {});
        let written = Write::Request(request.clone());
        let commit = Commit::of([written, Write::Notice(notice(1, seq, at(0)))]);
        store.commit(commit).await.unwrap();
        if seq == 10 {
            // A claimed notice stays as it is.
            assert_eq!(claim(store, 1, 7).await, [place(1, 2)]);
        }
    }
    let gauges = async || store.gauges(at(2)).await.unwrap();
    assert_eq!(
        (
            gauges().await.undelivered_notices,
            gauges().await.parked_notices
        ),
        (most, many - most)
    );
    assert_eq!(gauges().await.oldest_undelivered, Some(at(0)));
    let again = store.end_claim(place(1, 2), token(7), ClaimEnd::Released);
    again.await.unwrap();
    let claimed = store.claim_notice(id(1), at(2), token(7), at(60)).await;
    // The notice worker records these in the audit.
    assert_eq!(claimed.unwrap().unwrap().parked, many - most);
    let ended = store.end_claim(place(1, 2), token(7), delivered());
    assert_eq!(ended.await.unwrap(), Left::More);
    // The newest notices remain, in order.
    let first = 2 + many - (most - 1);
    for seq in first..2 + many {
        assert_eq!(claim(store, 3, 7).await, [place(1, seq)]);
        let ended = store.end_claim(place(1, seq), token(7), delivered());
        ended.await.unwrap();
    }
    assert!(claim(store, 4, 7).await.is_empty());
    assert_eq!(gauges().await.undelivered_notices, 0);
    // A notice that is parked after a day is counted like the others.
    with_more_notices(store, 1, 2 + many).await;
    let park = Commit::of([Write::Park(place(1, 2 + many))]);
    store.commit(park).await.unwrap();
    assert_eq!(gauges().await.parked_notices, many - most + 1);
}

// K9
pub async fn notices_that_only_change_the_card_are_merged_first(subject: impl Subject) {
    let store = subject.store();
    create(store, 1, at(0)).await;
    let most = MOST_PENDING as u64;
    for seq in 2..=most + 4 {
        let notice = Notice {
            audience: match seq {
                3 => Audience::Everybody,
                _ => Audience::Card,
            },
            ..notice(1, seq, at(0))
        };
        store
            .commit(Commit::of([Write::Notice(notice)]))
            .await
            .unwrap();
        if seq == 5 {
            assert_eq!(claim(store, 1, 7).await, [place(1, 2)]);
        }
    }
    assert_eq!(store.gauges(at(2)).await.unwrap().parked_notices, 0);
    let mut told = Vec::new();
    for _ in 0..=most {
        for one in claim(store, 40, 8).await {
            told.push(one.seq);
            let ended = store.end_claim(one, token(8), delivered());
            ended.await.unwrap();
        }
    }
    // The notices are merged once, at the limit: later ones stay beside the newest of that time.
    let kept: Vec<u64> = [2, 3].into_iter().chain(most + 2..=most + 4).collect();
    assert_eq!(told, kept);
}

// G17
pub async fn lists_apply_all_filters_together(subject: impl Subject) {
    let store = subject.store();
    for number in 0..32_u128 {
        let mut decision = opened(number, at(i64::try_from(number / 4).unwrap()));
        let request = &mut decision.request;
        if number & 1 == 1 {
            request.asked.channel_id = "other".parse().unwrap();
        }
        if number & 2 == 2 {
            request.asked.account_id = "444455556666".parse().unwrap();
        }
        if number & 4 == 4 {
            request.asked.requester.email = "dave@example.com".parse().unwrap();
        }
        if number & 8 == 8 {
            request.state = State::Cancelled {
                by: None,
                at: at(9),
            };
        }
        store.commit(creating(&decision)).await.unwrap();
    }
    let all = store.list(&Filter::default(), None, 100).await.unwrap();
    assert_eq!(all.len(), 32);
    for given in 0..128_u32 {
        let has = |bit: u32| given & (1 << bit) != 0;
        let filter = Filter {
            channel_id: has(0).then(|| "other".parse().unwrap()),
            account_id: has(1).then(|| "444455556666".parse().unwrap()),
            requester_email: has(2).then(|| "dave@example.com".parse().unwrap()),
            status: has(3).then_some(Status::Cancelled),
            from: has(4).then(|| at(2)),
            before: has(5).then(|| at(6)),
            request_id: has(6).then(|| id(23)),
        };
        let wanted: Vec<RequestId> = all
            .iter()
            .filter(|request| {
                (!has(0) || request.asked.channel_id.as_str() == "other")
                    && (!has(1) || request.asked.account_id.as_str() == "444455556666")
                    && (!has(2) || request.asked.requester.email.as_str() == "dave@example.com")
                    && (!has(3) || request.status() == Status::Cancelled)
                    && (!has(4) || request.asked.created_at >= at(2))
                    && (!has(5) || request.asked.created_at < at(6))
                    && (!has(6) || request.id == id(23))
            })
            .map(|request| request.id)
            .collect();
        assert_eq!(ids(store, &filter).await, wanted, "{filter:?}");
    }
}

// A8, A15
pub async fn pending_requests_are_counted_by_person_and_key(subject: impl Subject) {
    let store = subject.store();
    for number in 0..32_u128 {
        let mut decision = opened(number, at(i64::try_from(number / 8).unwrap()));
        let request = &mut decision.request;
        request.asked.key_id = (number & 1 == 1).then(|| "plugin".to_owned());
        if number & 2 == 2 {
            request.asked.requester.email = "dave@example.com".parse().unwrap();
        }
        if number & 4 == 4 {
            request.state = State::Cancelled {
                by: None,
                at: at(9),
            };
        }
        store.commit(creating(&decision)).await.unwrap();
    }
    for (key_id, from, limit, wanted) in [
        (Some("plugin"), 0, 100, 4),
        (None, 0, 100, 4),
        (Some("other"), 0, 100, 0),
        (Some("plugin"), 2, 100, 2),
        (Some("plugin"), 0, 3, 3),
    ] {
        let of = PendingOf {
            requester_email: "alice@example.com".parse().unwrap(),
            key_id: key_id.map(str::to_owned),
            from: at(from),
        };
        let counted = store.count_pending(&of, limit).await;
        assert_eq!(counted, Ok(wanted), "{of:?} {limit}");
    }
}

pub async fn pages_have_no_gap_and_no_overlap(subject: impl Subject) {
    let store = subject.store();
    for number in 0..25_u128 {
        // Several requests have the same time: the id decides the order.
        create(store, number, at(i64::try_from(number / 5).unwrap())).await;
    }
    let filter = Filter {
        status: Some(Status::Pending),
        ..Filter::default()
    };
    let whole = ids(store, &filter).await;
    assert_eq!((whole.len(), whole[0]), (25, id(24)));
    let mut pages = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = store.list(&filter, after.as_ref(), 4).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Cursor {
            created_at: last.asked.created_at,
            id: last.id,
        });
        pages.extend(page.iter().map(|request| request.id));
    }
    assert_eq!(pages, whole);
    let backwards = Filter {
        from: Some(at(9)),
        before: Some(at(3)),
        ..Filter::default()
    };
    assert!(ids(store, &backwards).await.is_empty());
}

/// Writes two requests. The first one was made later than the second, and is denied.
async fn two_histories(store: &dyn Store) -> Request {
    store
        .commit(writing(&bound("town", "111122223333")))
        .await
        .unwrap();
    for (number, created) in [(1, 10), (2, 5)] {
        create(store, number, at(created)).await;
    }
    let first = store.request(id(1)).await.unwrap().unwrap();
    let by = Person {
        id: "bob".parse().unwrap(),
        email: "bob@example.com".parse().unwrap(),
    };
    let record = Record {
        request: first,
        binding: Some(binding()),
        access: AccessRecord::unread(AccessForm::Assignment),
    };
    let command = Command::Asked {
        by,
        ask: Ask::Deny { reason: None },
    };
    let denied = decide(record, &policy(), command, at(20)).unwrap();
    store.commit(creating(&denied)).await.unwrap();
    denied.request
}

/// The times of the exported events, read in pages of one.
async fn exported(store: &dyn Store, filter: &AuditFilter) -> Vec<i64> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.export(filter, after.as_deref(), 1).await.unwrap();
        let Some(last) = page.last() else {
            return found;
        };
        after = Some(last.sort_key());
        found.extend(page.iter().map(|event| (event.event_time - at(0)).0 / 1000));
    }
}

pub async fn a_history_is_in_order_and_the_export_by_time(subject: impl Subject) {
    let store = subject.store();
    let denied = two_histories(store).await;
    let history = store.audit(&AuditKey::Request(id(1))).await.unwrap();
    let seqs: Vec<u64> = history.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2]);
    jit::domain::audit::verify_against(&history, &denied.version.chain, Some(Status::Denied))
        .unwrap();

    let all = AuditFilter::default();
    assert_eq!(exported(store, &all).await, [0, 5, 10, 20]);
    let span = AuditFilter {
        from: Some(at(5)),
        before: Some(at(20)),
        ..all.clone()
    };
    assert_eq!(exported(store, &span).await, [5, 10]);
    let account = Some("111122223333".parse().unwrap());
    let channel = Some("town".parse().unwrap());
    let both = AuditFilter {
        account_id: account,
        channel_id: channel,
        ..span.clone()
    };
    assert_eq!(exported(store, &both).await, [5, 10]);
    let elsewhere = AuditFilter {
        channel_id: Some("other".parse().unwrap()),
        ..all
    };
    assert!(exported(store, &elsewhere).await.is_empty());
    let backwards = AuditFilter {
        from: Some(at(20)),
        before: Some(at(5)),
        ..AuditFilter::default()
    };
    assert!(exported(store, &backwards).await.is_empty());
}

/// N3: a history of thousands of events, larger than one answer of DynamoDB.
pub async fn a_long_history_comes_in_pages_whole_and_in_order(subject: impl Subject) {
    const EVENTS: usize = 2_400;
    let store = subject.store();
    let mut channel = Channel::unknown("town".parse().unwrap());
    let mut written = Vec::new();
    while written.len() < EVENTS {
        let revision = channel.revision + 1;
        let mut events = Vec::new();
        for number in 0..60 {
            // Many events have the same time.
            let now = at(written.len() as i64 + number / 30);
            let said = [("text".to_owned(), "x".repeat(800))].into();
            let (next, event) = channel.refused(said, now);
            channel = next;
            events.push(event);
        }
        channel.revision = revision;
        let commit = Commit::of([Write::Channel(channel.clone())]);
        let all = events.iter().cloned().map(Write::Event);
        store.commit(commit.with(all)).await.unwrap();
        written.extend(events);
    }
    let key = AuditKey::Config(channel.id.clone());
    for limit in [999, 2_399, 2_400, 5_000] {
        let (mut read, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let after = read.last().map(Event::place);
            let page = store.audit_page(&key, after, limit).await.unwrap();
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= limit, "{} in a page of {limit}", page.len());
            sizes.push(page.len());
            read.extend(page);
        }
        assert!(read == written, "in pages of {limit}");
        let is_full = |size: &usize| *size == limit;
        assert!(
            sizes.iter().rev().skip(1).all(is_full),
            "{limit}: {sizes:?}"
        );
    }
    jit::domain::audit::verify_against(&written, &channel.chain, None).unwrap();
    // Another history ends no page and begins none.
    let other = AuditKey::Config("towns".parse().unwrap());
    assert_eq!(store.audit_page(&other, None, 9).await.unwrap(), []);
}

// N3
pub async fn the_bindings_of_a_channel_come_in_pages(subject: impl Subject) {
    let store = subject.store();
    let mut channel = Channel::unknown("town".parse().unwrap());
    let elsewhere = bound("other", "000000000004");
    store.commit(writing(&elsewhere)).await.unwrap();
    let accounts: Vec<String> = [9, 3, 7, 1, 5].map(|n| format!("{n:012}")).into();
    for account in &accounts {
        let bound = bound_again(&channel, account);
        store.commit(writing(&bound)).await.unwrap();
        channel = bound.channel;
    }
    let mut found: Vec<Binding> = Vec::new();
    loop {
        let after = found.last().map(|binding| &binding.account_id);
        let page = store.bindings_page(&channel.id, after, 2).await.unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2, "{page:?}");
        found.extend(page);
        assert!(found.len() <= 5, "a page repeats a binding: {found:?}");
    }
    assert_eq!(store.bindings(&channel.id).await.unwrap(), found);
    let found = found.iter().map(|binding| binding.account_id.to_string());
    let mut wanted = accounts;
    wanted.sort_unstable();
    assert_eq!(found.collect::<Vec<_>>(), wanted);
}

// P7
pub async fn every_history_has_a_head(subject: impl Subject) {
    let store = subject.store();
    store
        .commit(writing(&bound("town", "111122223333")))
        .await
        .unwrap();
    for number in 1..=4 {
        create(store, number, at(0)).await;
    }
    let mut keys = Vec::new();
    let mut after = None;
    loop {
        let heads = store.heads(after.as_ref(), 2).await.unwrap();
        let Some(last) = heads.last() else { break };
        after = Some(last.key.clone());
        for head in heads {
            let history = store.audit(&head.key).await.unwrap();
            jit::domain::audit::verify_against(&history, &head.chain, head.status).unwrap();
            keys.push(head.key.to_string());
        }
    }
    let mut wanted: Vec<String> = (1..=4).map(|number| id(number).to_string()).collect();
    wanted.push("config#town".into());
    assert_eq!(keys, wanted);
}

pub async fn every_binding_is_found_page_by_page(subject: impl Subject) {
    let store = subject.store();
    let accounts: Vec<String> = (1..=5).map(|number| format!("{number:012}")).collect();
    for account in accounts.iter().rev() {
        let channel = format!("channel-{account}");
        store
            .commit(writing(&bound(&channel, account)))
            .await
            .unwrap();
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.bound(after.as_ref(), 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.account_id.clone());
        found.extend(page.iter().map(|binding| binding.account_id.to_string()));
    }
    assert_eq!(found, accounts);
}

pub async fn a_lease_is_renewed_unless_the_renewal_comes_too_late(subject: impl Subject) {
    let store = subject.store();
    let request = create(store, 1, at(0)).await;
    let until = |to| move |request: &mut Request| request.schedule.lease = Some(lease(7, at(to)));
    let leased = change(store, &request, until(30)).await;
    let renewed = later(&leased, until(60));
    match store.renew(renewed.clone()).await {
        Ok(()) => {}
        // The answer was lost, and the retry conflicts with the first write.
        Err(StoreError::Conflict(Some(winner))) => assert_eq!(*winner, renewed),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(store.request(id(1)).await, Ok(Some(renewed.clone())));

    let taken = change(store, &renewed, |request| {
        request.schedule.lease = Some(lease(8, at(90)));
    });
    let taken = taken.await;
    let late = later(&renewed, until(90));
    match store.renew(late).await {
        Err(StoreError::Conflict(Some(winner))) => assert_eq!(*winner, taken),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.request(id(1)).await, Ok(Some(taken)));
}

/// A lease has one holder at a time, until it is given back or is known to have lapsed.
pub async fn a_named_lease_has_one_holder(subject: impl Subject) {
    let store = subject.store();
    let take = async |name: &str, number, until, lapsed| {
        let lease = lease(number, at(until));
        store.take_lease(name, lease, lapsed).await.unwrap()
    };
    let (first, longer) = (lease(7, at(30)), lease(7, at(60)));
    assert_eq!(take("set", 7, 30, None).await, Taken::Yes);
    assert_eq!(take("set", 8, 60, None).await, Taken::ByAnother(first));
    assert_eq!(take("other", 8, 60, None).await, Taken::Yes);
    assert_eq!(
        take("set", 7, 60, None).await,
        Taken::Yes,
        "the holder renews the lease"
    );
    assert_eq!(
        take("set", 8, 90, Some(first)).await,
        Taken::ByAnother(longer),
        "the holder has renewed the lapsed lease"
    );
    assert_eq!(take("set", 8, 90, Some(longer)).await, Taken::Yes);
    store.give_lease("set", token(7)).await.unwrap();
    let other = lease(8, at(90));
    assert_eq!(take("set", 9, 90, None).await, Taken::ByAnother(other));
    store.give_lease("set", token(8)).await.unwrap();
    assert_eq!(take("set", 9, 90, None).await, Taken::Yes);
}

pub async fn gauges_are_counted(subject: impl Subject) {
    let store = subject.store();
    for (number, until) in [(1, at(10)), (2, at(50))] {
        let request = create(store, number, at(0)).await;
        change(store, &request, |request| {
            *request = granted(request, until);
        })
        .await;
    }
    with_notices(store, 3, &[2, 3]).await;
    let refused = Failing {
        since: at(15),
        attempts: 1,
        refusals: 1,
        why: jit::domain::Text::clip("no"),
    };
    let waiting = create(store, 4, at(0)).await;
    let removed = create(store, 5, at(0)).await;
    for (request, state) in [(waiting, State::Approved), (removed, State::Granted)] {
        change(store, &request, |request| {
            request.state = state;
            request.schedule.due_at = Some(at(80));
            request.schedule.failures = Some(refused.clone());
        })
        .await;
    }
    let gauges = store.gauges(at(20)).await.unwrap();
    assert_eq!(
        gauges.failing_removals, 1,
        "a failing grant leaves no access"
    );
    assert_eq!(gauges.stuck_requests, 0);
    // K7
    assert_eq!(
        store.gauges(at(15 + 300)).await.unwrap().stuck_requests,
        2,
        "a grant without progress is stuck as well"
    );
    assert_eq!(
        (gauges.live_grants, gauges.overdue_grants, gauges.backlog),
        (3, 1, 1)
    );
    assert_eq!((gauges.undelivered_notices, gauges.parked_notices), (2, 0));
    assert_eq!(gauges.oldest_undelivered, Some(at(0)));
    assert_eq!(gauges.oldest_due, Some(at(10)));
    assert_eq!(store.gauges(at(9)).await.unwrap().oldest_due, None);
}

pub async fn tidy_deletes_only_expired_nonces(subject: impl Subject) {
    let store = subject.store();
    store.spend_nonce(&nonce("old", 0, 10)).await.unwrap();
    store.spend_nonce(&nonce("new", 0, 100)).await.unwrap();
    create(store, 1, at(0)).await;
    store.tidy(at(50)).await.unwrap();
    assert_eq!(
        store.spend_nonce(&nonce("new", 50, 100)).await.unwrap(),
        Freshness::Spent
    );
    assert!(store.request(id(1)).await.unwrap().is_some());
}

// P1, P6: a status that an operator wrote does not prove the state at AWS.
pub async fn a_status_written_from_outside_is_returned(subject: impl Subject) {
    let store = subject.store();
    let request = create(store, 1, at(0)).await;
    change(store, &request, |request| {
        *request = granted(request, at(3600));
    })
    .await;
    assert!(due(store, Lane::Remove, at(60), 10).await.is_empty());
    subject.write_status(id(1), "REVOKED", Some(at(40))).await;

    assert_eq!(due(store, Lane::Remove, at(60), 10).await, [id(1)]);
    assert!(next_due(store, Lane::Remove).await.unwrap() <= at(60));
    let heard = store.request(id(1)).await.unwrap().unwrap();
    assert_eq!(heard.status(), Status::Revoked);
    let State::Unsettled {
        end,
        doubt: Doubt::Outside,
    } = &heard.state
    else {
        panic!("{:?}", heard.state);
    };
    assert!(matches!(**end, State::Revoked { at: when, .. } if when == at(40)));
    let filter = Filter {
        status: Some(Status::Revoked),
        ..Filter::default()
    };
    assert_eq!(ids(store, &filter).await, [id(1)]);
    // The record can be changed like any other.
    change(store, &heard, |request| request.schedule.due_at = None).await;
}

pub async fn a_status_written_from_outside_conflicts_with_an_older_commit(subject: impl Subject) {
    let store = subject.store();
    let request = create(store, 1, at(0)).await;
    let seen = change(store, &request, |request| {
        *request = granted(request, at(3600));
    })
    .await;
    subject.write_status(id(1), "REVOKED", Some(at(40))).await;
    let unheard = next(&seen, |request| request.schedule.due_at = Some(at(7200)));
    assert!(lost(store, unheard).await);
    assert_eq!(
        store.request(id(1)).await.unwrap().unwrap().status(),
        Status::Revoked
    );
}
