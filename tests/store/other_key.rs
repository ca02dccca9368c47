//! A row whose key differs from its document repeats no page for ever: in SQLite, where a person
//! who may write the file can change a key.

use std::collections::BTreeMap;

use jit::domain::{AuditKey, HeadEntry};
use jit::store::sqlite::SqliteStore;
use jit::store::{AuditFilter, Cursor, Filter, Found, Store, StoreError};

use crate::build::{at, bound, bound_again, creating, id, opened, writing};

/// More pages than the records of these tests need, one by one.
const MOST_PAGES: usize = 20;

struct ChangedFile {
    store: SqliteStore,
    folder: tempfile::TempDir,
}

impl ChangedFile {
    /// Three requests, and a channel with three bindings; then one row gets another key.
    async fn with(change: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
        for number in 1..=3 {
            let decision = opened(number, at(i64::try_from(number).unwrap()));
            store.commit(creating(&decision)).await.unwrap();
        }
        let mut town = bound("town", "111122223331");
        store.commit(writing(&town)).await.unwrap();
        for account in ["111122223332", "111122223333"] {
            town = bound_again(&town.channel, account);
            store.commit(writing(&town)).await.unwrap();
        }
        let mut last: Option<HeadEntry> = None;
        for _ in 0..3 {
            let entry = HeadEntry::after(last.as_ref(), BTreeMap::new(), true, at(9));
            store.add_head_entry(&entry).await.unwrap();
            last = Some(entry);
        }
        let db = rusqlite::Connection::open(folder.path().join("jit.db")).unwrap();
        assert_eq!(db.execute(change, []), Ok(1), "{change}");
        Self { store, folder }
    }
}

/// Reads page by page with one item each, and returns the items and the names of unreadable ones.
async fn in_pages<T: Clone>(
    change: &str,
    mut page: impl AsyncFnMut(Option<T>) -> Found<T>,
) -> (Vec<T>, Vec<String>) {
    let (mut items, mut named) = (Vec::new(), Vec::new());
    for _ in 0..MOST_PAGES {
        let found = page(items.last().cloned()).await;
        named.extend(found.unreadable.iter().map(|one| one.name.clone()));
        if found.items.is_empty() {
            return (items, named);
        }
        items.extend(found.items);
    }
    panic!("a page repeats after: {change}");
}

// C
#[tokio::test]
async fn c_a_request_listed_at_another_time_repeats_no_page() {
    for time in ["2000-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"] {
        let change = format!(
            "UPDATE jit_requests SET created_at = '{time}' WHERE request_id = '{}'",
            id(2)
        );
        let file = ChangedFile::with(&change).await;
        let own = Filter {
            requester_email: Some("alice@example.com".parse().unwrap()),
            ..Filter::default()
        };
        for filter in [Filter::default(), own] {
            let (found, named) = in_pages(&change, async |last| {
                let after = last.as_ref().map(Cursor::from);
                file.store.list(&filter, after.as_ref(), 1).await.unwrap()
            })
            .await;
            let found: Vec<_> = found.iter().map(|request| request.id).collect();
            assert_eq!(found, [id(3), id(1)], "{change}");
            assert!(named.contains(&id(2).to_string()), "{named:?}");
        }
        // The record is still found by its id, so that it can be revoked.
        assert!(file.store.request(id(2)).await.unwrap().is_some());
        drop(file.folder);
    }
}

// C
#[tokio::test]
async fn c_an_event_exported_at_another_time_repeats_no_page() {
    let change = format!(
        "UPDATE jit_audit SET event_time_event_id = '9' || event_time_event_id
         WHERE request_id = '{}' AND seq = 1",
        id(2)
    );
    let file = ChangedFile::with(&change).await;
    let (found, named) = in_pages(&change, async |last: Option<jit::domain::Event>| {
        let after = last.map(|event| event.sort_key());
        let all = AuditFilter::default();
        file.store.export(&all, after.as_deref(), 1).await.unwrap()
    })
    .await;
    let of = |id| found.iter().filter(|event| event.request_id == id).count();
    let counts = [1, 2, 3].map(|number| of(AuditKey::Request(id(number))));
    assert_eq!(counts, [1, 0, 1]);
    assert!(named[0].contains(&id(2).to_string()), "{named:?}");
}

// C
#[tokio::test]
async fn c_a_binding_under_another_account_repeats_no_page() {
    let change = "UPDATE jit_bindings SET account_id = account_id || 'x'
                  WHERE account_id = '111122223332'";
    let file = ChangedFile::with(change).await;
    let (found, named) = in_pages(change, async |last: Option<jit::domain::Binding>| {
        let after = last.map(|binding| binding.account_id);
        file.store.bound(after.as_ref(), 1).await.unwrap()
    })
    .await;
    let found: Vec<_> = found.iter().map(|one| one.account_id.as_str()).collect();
    assert_eq!(found, ["111122223331", "111122223333"]);
    assert!(
        named.contains(&"binding of 111122223332x".to_owned()),
        "{named:?}"
    );
}

// C
#[tokio::test]
async fn c_a_channel_under_another_key_repeats_no_page() {
    for change in [
        "UPDATE jit_channels SET request_id = request_id || 'x'",
        "UPDATE jit_channels SET doc = json_set(doc, '$.id', 'another')",
    ] {
        let file = ChangedFile::with(change).await;
        let (found, named) = in_pages(change, async |last: Option<jit::store::Head>| {
            let after = last.map(|head| head.key);
            file.store.heads(after.as_ref(), 1).await.unwrap()
        })
        .await;
        assert_eq!(found.len(), 3, "the requests: {change}");
        assert!(named[0].starts_with("config#town"), "{named:?}");
    }
}

// C
#[tokio::test]
async fn c_a_head_entry_under_another_number_is_an_error() {
    let change = "UPDATE jit_head_log SET number = number + 1000000 WHERE number = 2";
    let file = ChangedFile::with(change).await;
    let read = file.store.head_entries(0, 10).await;
    assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
    let last = file.store.last_head_entry().await;
    assert!(matches!(last, Err(StoreError::Corrupt(_))), "{last:?}");
}
