//! `store copy` from one store to any other: complete, once, and never over another history.

use jit::domain::{AuditKey, Holding, Request, Timestamp};
use jit::store::StoreError;
use jit::store::portable::{Copied, OutboxEntry, Portable, Took};
use jit::store::sqlite::SqliteStore;

use crate::build::{
    at, bound, delivered, granted, held, id, key, lease, next, notice, opened, token,
};
use crate::dynamo::Tables;

fn entry(seq: u64, parked: bool) -> OutboxEntry {
    OutboxEntry {
        notice: notice(1, seq, at(1)),
        attempts: 0,
        next_at: at(1),
        parked,
    }
}

fn copied(
    request: Request,
    events: Vec<jit::domain::Event>,
    outbox_entries: Vec<OutboxEntry>,
) -> Copied {
    let kept = outbox_entries.iter().filter(|entry| entry.parked);
    Copied::Request {
        request: Box::new(request),
        parked: kept.count() as u64,
        holding: Some(held(4, &[id(1)])),
        outbox_entries,
        events,
    }
}

async fn copies_a_whole_request(store: &dyn Portable) {
    let decision = opened(1, at(0));
    let mut request = granted(&decision.request, at(3600)).at_revision(7);
    request.schedule.lease = Some(lease(9, at(30)));
    let outbox_entries = vec![
        entry(2, true),
        OutboxEntry {
            attempts: 3,
            next_at: at(50),
            ..entry(3, false)
        },
        entry(4, false),
    ];
    let mut whole = copied(
        request.clone(),
        decision.events.clone(),
        outbox_entries.clone(),
    );
    // The source has forgotten the documents of two more.
    if let Copied::Request { parked, .. } = &mut whole {
        *parked += 2;
    }
    assert_eq!(store.take_over(&whole).await, Ok(Took::Now));
    assert_eq!(store.take_over(&whole).await, Ok(Took::Before));
    assert_eq!(store.request(id(1)).await.unwrap(), Some(request.clone()));
    assert_eq!(store.outbox_entries(id(1)).await.unwrap(), outbox_entries);
    assert_eq!(store.parked(id(1)).await, Ok(3));
    let holding: Option<Holding> = store.holding(&key()).await.unwrap();
    assert_eq!(holding, Some(held(4, &[id(1)])));
    let history = store.audit(&AuditKey::Request(id(1))).await.unwrap();
    assert_eq!(history, decision.events);
    // The copied record can be changed like any other.
    let on = next(&request, |request| request.chat.parked_notices = 1);
    store.commit(on).await.unwrap();
    // A store may claim them earlier, because no receiver was tried with the second one (N1).
    let claimed = store.claim_notice(id(1), at(50), token(1), at(80)).await;
    let claimed = claimed.unwrap().unwrap();
    assert_eq!((claimed.notice.seq, claimed.attempts), (3, 3));
    assert_eq!(claimed.parked, 3);
    let place = jit::store::NoticePlace {
        request_id: id(1),
        seq: 3,
    };
    let ended = store.end_claim(place, token(1), delivered()).await;
    assert_eq!(ended, Ok(jit::store::Left::More));
    assert_eq!(store.gauges(at(1)).await.unwrap().parked_notices, 3);
}

async fn continues_only_its_own_history(store: &dyn Portable) {
    let (one, other) = (opened(1, at(0)), opened(1, at(5)));
    let behind = copied(one.request.clone(), one.events.clone(), Vec::new());
    store.take_over(&behind).await.unwrap();
    // The same request with another creation time: the record here is not part of that history.
    let else_where = other.request.at_revision(9);
    let diverged = copied(else_where, other.events, Vec::new());
    let error = store.take_over(&diverged).await.unwrap_err();
    assert_eq!(error, StoreError::Diverged(id(1).to_string()));
    // The store refuses an older version of a request that it has.
    let mut further = one.request.at_revision(3);
    further.chat.parked_notices = 1;
    let ahead = copied(further.clone(), one.events.clone(), vec![entry(2, false)]);
    assert_eq!(store.take_over(&ahead).await, Ok(Took::Now));
    assert_eq!(store.request(id(1)).await.unwrap(), Some(further));
    assert_eq!(store.outbox_entries(id(1)).await.unwrap().len(), 1);
    assert!(matches!(
        store.take_over(&behind).await,
        Err(StoreError::Diverged(_))
    ));
}

async fn copies_channels_with_bindings(store: &dyn Portable) {
    let town = bound("town", "111122223333");
    let with = |bindings| Copied::Channel {
        channel: town.channel.clone(),
        bindings,
        events: town.events.clone(),
    };
    let whole = with(town.bindings.clone());
    assert_eq!(store.take_over(&whole).await, Ok(Took::Now));
    assert_eq!(store.take_over(&whole).await, Ok(Took::Before));
    assert_eq!(
        store.bindings(&town.channel.id).await.unwrap(),
        town.bindings
    );
    // A binding that was removed meanwhile is removed here as well.
    assert_eq!(store.take_over(&with(Vec::new())).await, Ok(Took::Now));
    assert!(store.bindings(&town.channel.id).await.unwrap().is_empty());
    let account = &town.bindings[0].account_id;
    assert_eq!(store.binding(account).await.unwrap(), None);

    assert_eq!(store.copied_at().await, Ok(None));
    store.note_copied(at(7)).await.unwrap();
    let noted: Option<Timestamp> = store.copied_at().await.unwrap();
    assert_eq!(noted, Some(at(7)));
}

fn in_a_file() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
    (store, folder)
}

#[tokio::test]
async fn a_request_is_copied_completely() {
    copies_a_whole_request(&in_a_file().0).await;
    copies_a_whole_request(&Tables::fresh().await.store()).await;
}

#[tokio::test]
async fn a_copy_continues_only_the_history_that_it_has() {
    continues_only_its_own_history(&in_a_file().0).await;
    continues_only_its_own_history(&Tables::fresh().await.store()).await;
}

#[tokio::test]
async fn a_channel_is_copied_with_its_bindings() {
    copies_channels_with_bindings(&in_a_file().0).await;
    copies_channels_with_bindings(&Tables::fresh().await.store()).await;
    // The time survives a restart.
    let (store, folder) = in_a_file();
    store.note_copied(at(7)).await.unwrap();
    drop(store);
    let again = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
    assert_eq!(jit::store::Store::copied_at(&again).await, Ok(Some(at(7))));
}
