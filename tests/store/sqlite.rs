//! Tests of the store in a file.

use std::path::Path;

use jit::domain::{AuditKey, Holding, Lane, Lease, LeaseHolder, State};
use jit::store::sqlite::{OpenError, SqliteStore};
use jit::store::{Commit, Freshness, Store, StoreError, Taken, Write};
use rusqlite::Connection;

use crate::build::{
    at, creating, held, id, key, later, lease, next, nonce, opened, token, with_user,
};

fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jit.db");
    (folder, path)
}

fn sql(path: &Path, statement: &str) {
    Connection::open(path)
        .unwrap()
        .execute_batch(statement)
        .unwrap();
}

#[tokio::test]
async fn a_restart_keeps_everything_except_the_leases() {
    let (_folder, path) = file();
    let decision = opened(1, at(0));
    {
        let store = SqliteStore::open(&path).unwrap();
        store.commit(creating(&decision)).await.unwrap();
        let leased = next(&decision.request, |request| {
            request.schedule.due_at = Some(at(5));
            request.schedule.lease = Some(lease(7, at(3600)));
        });
        store.commit(leased).await.unwrap();
        store.spend_nonce(&nonce("n", 0, 960)).await.unwrap();
        let set = store.take_lease("set", lease(7, at(3600)), None).await;
        assert_eq!(set, Ok(Taken::Yes));
    }
    let store = SqliteStore::open(&path).unwrap();
    // The store does not know the process of a named lease, so the lease only lapses.
    let set = store.take_lease("set", lease(8, at(3600)), None).await;
    assert_eq!(set, Ok(Taken::ByAnother(lease(7, at(3600)))));
    // The server that held the lease has ended: the request is due and can be claimed.
    assert_eq!(
        store.due(Lane::Other, at(5), 10).await.unwrap().ready,
        [id(1)]
    );
    let request = store.request(id(1)).await.unwrap().unwrap();
    assert_eq!(
        (request.schedule.lease, request.version.revision),
        (None, 3)
    );
    assert_eq!(
        store.audit(&AuditKey::Request(id(1))).await.unwrap(),
        decision.events
    );
    assert_eq!(
        store.spend_nonce(&nonce("n", 1, 960)).await.unwrap(),
        Freshness::Spent
    );
}

#[tokio::test]
async fn a_second_server_on_the_same_file_is_refused() {
    let (_folder, path) = file();
    let first = SqliteStore::open(&path).unwrap();
    assert!(matches!(
        SqliteStore::open(&path),
        Err(OpenError::InUse { .. })
    ));
    drop(first);
    assert!(SqliteStore::open(&path).is_ok());
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_not_changed() {
    let (_folder, path) = file();
    drop(SqliteStore::open(&path).unwrap());
    sql(&path, "PRAGMA user_version = 99");
    for opened in [SqliteStore::open(&path), SqliteStore::open_read_only(&path)] {
        let refused = opened.err().unwrap();
        assert!(
            matches!(refused, OpenError::Newer { found: 99, .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("upgrade jit"));
    }
    let version: u32 = Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
}

#[tokio::test]
async fn a_file_that_is_not_a_store_is_refused() {
    let (_folder, path) = file();
    std::fs::write(
        &path,
        "this is a letter to my aunt, and quite a long one at that".repeat(50),
    )
    .unwrap();
    let refused = SqliteStore::open(&path).err().unwrap();
    assert!(matches!(refused, OpenError::CannotOpen { .. }), "{refused}");
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_rolls_back() {
    let (_folder, path) = file();
    let store = SqliteStore::open(&path).unwrap();
    store.commit(creating(&opened(1, at(0)))).await.unwrap();
    // At the limit of its pages, the file cannot grow: SQLite reports a full disk.
    store.on_writer("PRAGMA max_page_count = 1").await.unwrap();
    let mut full = None;
    for number in 2..2000 {
        let written = store.commit(creating(&opened(number, at(0)))).await;
        if let Err(error) = written {
            full = Some((number, error));
            break;
        }
    }
    let (number, error) = full.expect("the disk was never full");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert_eq!(store.request(id(number)).await.unwrap(), None);
    let key = AuditKey::Request(id(number));
    assert!(store.audit(&key).await.unwrap().is_empty());
    assert!(
        store.request(id(1)).await.unwrap().is_some(),
        "the store cannot read an earlier request"
    );
    store
        .on_writer("PRAGMA max_page_count = 1000000")
        .await
        .unwrap();
    store
        .commit(creating(&opened(number, at(0))))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_read_only_file_is_unavailable() {
    let (_folder, path) = file();
    let store = SqliteStore::open(&path).unwrap();
    store.on_writer("PRAGMA query_only = ON").await.unwrap();
    let refused = store.commit(creating(&opened(1, at(0)))).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    assert_eq!(store.request(id(1)).await.unwrap(), None);
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    store.commit(creating(&opened(1, at(0)))).await.unwrap();
}

/// An operator's command works on the file beside a server: each sees the writes of the other, and
/// keeps its leases. Only the server can spend signatures.
#[tokio::test]
async fn an_operators_command_works_beside_a_server() {
    let (_folder, path) = file();
    let none = SqliteStore::open_for_operator(&path);
    assert!(
        none.is_err(),
        "an operator's command needs an existing store"
    );
    let server = SqliteStore::open(&path).unwrap();
    let opened = opened(1, at(0));
    server.commit(creating(&opened)).await.unwrap();
    let leased = next(&opened.request, |request| {
        request.schedule.due_at = Some(at(5));
        request.schedule.lease = Some(lease(7, at(3600)));
    });
    server.commit(leased.clone()).await.unwrap();
    let operator = SqliteStore::open_for_operator(&path).unwrap();
    let seen = operator.request(id(1)).await.unwrap().unwrap();
    assert_eq!(seen.schedule.lease, Some(lease(7, at(3600))));
    let changed = later(&seen, |request| request.schedule.due_at = Some(at(9)));
    let commit = Commit::of([Write::Request(changed.clone())]);
    operator.commit(commit.clone()).await.unwrap();
    let winner = Err(StoreError::Conflict(Some(Box::new(changed.clone()))));
    assert_eq!(server.commit(commit).await, winner);
    let seen = server.request(id(1)).await.unwrap().unwrap();
    assert_eq!(seen, changed);
    let spent = operator.spend_nonce(&nonce("n", 0, 960)).await;
    assert!(
        matches!(spent, Err(StoreError::Unavailable(_))),
        "{spent:?}"
    );
    drop((server, operator));
    let alone = SqliteStore::open_for_operator(&path).unwrap();
    let freed = alone.request(id(1)).await.unwrap().unwrap();
    assert_eq!(freed.schedule.lease, None, "no other process uses the file");
}

// K13
#[tokio::test]
async fn a_starting_server_keeps_the_leases_of_an_operators_command() {
    let (_folder, path) = file();
    let server = SqliteStore::open(&path).unwrap();
    let opened = opened(1, at(0));
    server.commit(creating(&opened)).await.unwrap();
    let operators = Lease {
        by: LeaseHolder::Operator,
        ..lease(7, at(3600))
    };
    let operator = SqliteStore::open_for_operator(&path).unwrap();
    let leased = next(&opened.request, |request| {
        request.schedule.due_at = Some(at(5));
        request.schedule.lease = Some(operators);
    });
    operator.commit(leased).await.unwrap();
    drop(server);
    let server = SqliteStore::open(&path).unwrap();
    let kept = server.request(id(1)).await.unwrap().unwrap();
    assert_eq!(kept.schedule.lease, Some(operators));
    drop(operator);
}

// K12: one such record stopped every start, so no access in the installation ended.
#[tokio::test]
async fn a_server_starts_beside_unreadable_records_with_leases() {
    let (_folder, path) = file();
    let store = SqliteStore::open(&path).unwrap();
    for number in 1..=3 {
        let opened = opened(number, at(0));
        store.commit(creating(&opened)).await.unwrap();
        let leased = next(&opened.request, |request| {
            request.schedule.due_at = Some(at(5));
            request.schedule.lease = Some(lease(7, at(3600)));
            if number == 2 {
                request.access = with_user(key().user);
                request.asked.account_id = key().account_id;
            }
        });
        let holding = Write::Holding(held(1, &[id(2)]));
        let writes = (number == 2).then_some(holding);
        store.commit(leased.with(writes)).await.unwrap();
    }
    drop(store);
    let request = format!(
        "UPDATE jit_requests SET doc = x'ff' WHERE request_id = '{}'",
        id(1)
    );
    for damage in [&*request, "UPDATE jit_holdings SET doc = '{}'"] {
        sql(&path, damage);
    }
    let store = SqliteStore::open(&path).unwrap();
    let lease_of = async |number| {
        let request = store.request(id(number)).await?;
        Ok(request.unwrap().schedule.lease)
    };
    assert!(matches!(lease_of(1).await, Err(StoreError::Corrupt(_))));
    assert_eq!(lease_of(2).await, Ok(Some(lease(7, at(3600)))));
    assert_eq!(lease_of(3).await, Ok(None));
}

/// The holding after a restart, if a request in this state has a lease of the dead server.
async fn after_a_restart(state: State, holding: &Holding) -> Holding {
    let (_folder, path) = file();
    let store = SqliteStore::open(&path).unwrap();
    let opened = opened(1, at(0));
    store.commit(creating(&opened)).await.unwrap();
    let leased = next(&opened.request, |request| {
        request.access = with_user(key().user);
        request.asked.account_id = key().account_id;
        request.state = state;
        request.schedule.lease = Some(lease(7, at(3600)));
    });
    let holding = Write::Holding(holding.clone());
    store.commit(leased.with([holding])).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    let freed = store.request(id(1)).await.unwrap().unwrap();
    assert_eq!(freed.schedule.lease, None);
    store.holding(&key()).await.unwrap().unwrap()
}

// K1, K4
#[tokio::test]
async fn a_restart_keeps_the_calls_in_flight_of_the_dead_server() {
    let held = held(1, &[id(1)]);
    let after = after_a_restart(State::Assigning, &held).await;
    assert_eq!(after, held.orphaned(token(7)));
}

/// P4: only the worker of a holder sends a create or a delete. Other work looks at AWS, or ends old
/// credentials.
#[tokio::test]
async fn a_restart_invents_no_calls_of_a_request_that_holds_nothing() {
    let free = held(1, &[]);
    let after = after_a_restart(State::Expired { at: at(5) }, &free).await;
    assert_eq!(after, free);
}

#[tokio::test]
async fn a_read_only_store_disturbs_no_server() {
    let (_folder, path) = file();
    let store = SqliteStore::open(&path).unwrap();
    store.commit(creating(&opened(1, at(0)))).await.unwrap();
    let look = SqliteStore::open_read_only(&path).unwrap();
    assert!(look.request(id(1)).await.unwrap().is_some());
    let refused = look.commit(creating(&opened(2, at(0)))).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    store.commit(creating(&opened(2, at(0)))).await.unwrap();
    assert!(look.request(id(2)).await.unwrap().is_some());
}

/// A record is read again only after a change, by any process.
#[tokio::test]
async fn every_change_is_seen_at_once_from_any_process() {
    let (_folder, path) = file();
    let store = SqliteStore::open(&path).unwrap();
    let mut latest = opened(1, at(0)).request;
    store.commit(creating(&opened(1, at(0)))).await.unwrap();
    let outside = Connection::open(&path).unwrap();
    for minute in 1..50 {
        for _ in 0..2 {
            assert_eq!(store.request(id(1)).await.unwrap().unwrap(), latest);
        }
        if minute % 2 == 0 {
            latest = later(&latest, |request| {
                request.schedule.due_at = Some(at(minute * 60));
            });
            let commit = Commit::of([Write::Request(latest.clone())]);
            store.commit(commit).await.unwrap();
        } else {
            // Every second change comes from another process.
            let sql = "UPDATE jit_requests SET revision = revision + 1";
            outside.execute(sql, []).unwrap();
            latest.version.revision += 1;
        }
    }
    outside.execute("DELETE FROM jit_requests", []).unwrap();
    assert_eq!(store.request(id(1)).await.unwrap(), None);
}

#[tokio::test]
async fn an_invalid_row_is_named() {
    let (_folder, path) = file();
    let store = SqliteStore::open(&path).unwrap();
    store.commit(creating(&opened(1, at(0)))).await.unwrap();
    sql(&path, "UPDATE jit_requests SET doc = '{}'");
    match store.request(id(1)).await {
        Err(StoreError::Corrupt(why)) => assert!(why.contains(&id(1).to_string()), "{why}"),
        other => panic!("{other:?}"),
    }
}

// The runbook statement of CONTRACT §5 finds its columns under their names.
#[tokio::test]
async fn the_columns_of_the_runbook_exist() {
    let (_folder, path) = file();
    let store = SqliteStore::open(&path).unwrap();
    store.commit(creating(&opened(1, at(0)))).await.unwrap();
    let db = Connection::open(&path).unwrap();
    let status: String = db
        .query_row(
            "SELECT status FROM jit_requests WHERE request_id = ?1",
            [id(1).to_string()],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(status, "PENDING");
    let key: String = db
        .query_row(
            "SELECT event_time_event_id FROM jit_audit WHERE request_id = ?1",
            [id(1).to_string()],
            |row| row.get(0),
        )
        .unwrap();
    assert!(key.contains('#'), "{key}");
}
