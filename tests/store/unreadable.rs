//! An unreadable record hides no other record: in both stores.

use std::path::PathBuf;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use jit::domain::{AccountId, AuditKey, ChannelId, Lane, RequestId};
use jit::store::dynamodb::{DynamoStore, Table};
use jit::store::sqlite::SqliteStore;
use jit::store::{AuditFilter, Cursor, Filter, Found, Left, Store, StoreError};

use crate::build::{at, bound, creating, delivered, id, notice, opened, token, writing};
use crate::dynamo::Tables;

/// The record whose document is damaged, outside jit.
enum Damage {
    Request(RequestId),
    Binding(AccountId),
    Channel(ChannelId),
    /// The first event of a request.
    Event(RequestId),
    /// The first notice of a request.
    Notice(RequestId),
}

#[async_trait]
trait DamagedStore: Send + Sync {
    fn store(&self) -> &dyn Store;
    async fn damage(&self, what: Damage);
    /// Adds a due entry whose key is not a request id.
    async fn add_an_invalid_key(&self, like: RequestId);
}

struct File {
    store: SqliteStore,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl File {
    fn fresh() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jit.db");
        let store = SqliteStore::open(&path).unwrap();
        Self {
            store,
            path,
            _folder: folder,
        }
    }

    fn sql(&self, sql: &str, key: &str) {
        let db = rusqlite::Connection::open(&self.path).unwrap();
        assert_eq!(db.execute(sql, [key]), Ok(1));
    }
}

#[async_trait]
impl DamagedStore for File {
    fn store(&self) -> &dyn Store {
        &self.store
    }
    async fn damage(&self, what: Damage) {
        let (table, key) = match what {
            Damage::Request(id) => (
                "jit_requests SET doc = '{}' WHERE request_id",
                id.to_string(),
            ),
            Damage::Binding(id) => (
                "jit_bindings SET doc = '{}' WHERE account_id",
                id.to_string(),
            ),
            Damage::Channel(id) => {
                let key = AuditKey::Config(id).to_string();
                ("jit_channels SET doc = x'ff' WHERE request_id", key)
            }
            Damage::Event(id) => {
                let table = "jit_audit SET doc = '{}' WHERE seq = 1 AND request_id";
                (table, id.to_string())
            }
            Damage::Notice(id) => {
                let table = "jit_notices SET doc = '{}' WHERE seq = 2 AND request_id";
                (table, id.to_string())
            }
        };
        self.sql(&format!("UPDATE {table} = ?1"), &key);
    }
    async fn add_an_invalid_key(&self, like: RequestId) {
        let columns = "status, account_id, channel_id, requester_email, created_at, revision, doc, \
                       written_status, written_lane, written_claimable_at";
        let sql = format!(
            "INSERT INTO jit_requests (request_id, {columns})
             SELECT 'strange', {columns} FROM jit_requests WHERE request_id = ?1"
        );
        self.sql(&sql, &like.to_string());
    }
}

struct Dynamo {
    store: DynamoStore,
    tables: Tables,
}

impl Dynamo {
    async fn fresh() -> Self {
        let tables = Tables::fresh().await;
        let store = tables.store();
        Self { store, tables }
    }

    async fn set(&self, table: Table, keys: &[(&str, String)], path: &str) {
        let mut call = self.tables.client().update_item();
        for (name, key) in keys {
            call = call.key(*name, AttributeValue::S(key.clone()));
        }
        call.table_name(self.tables.name(table))
            .update_expression(format!("SET {path} = :spoilt"))
            .expression_attribute_values(":spoilt", AttributeValue::S("{}".into()))
            .send()
            .await
            .unwrap();
    }
}

#[async_trait]
impl DamagedStore for Dynamo {
    fn store(&self) -> &dyn Store {
        &self.store
    }
    async fn damage(&self, what: Damage) {
        match what {
            Damage::Request(id) => {
                let key = ("request_id", id.to_string());
                self.set(Table::Requests, &[key], "doc").await;
            }
            Damage::Binding(id) => {
                let key = ("binding_key", format!("account#{id}"));
                self.set(Table::Bindings, &[key], "doc").await;
            }
            Damage::Channel(id) => {
                let key = ("binding_key", format!("channel#{id}"));
                self.set(Table::Bindings, &[key], "doc").await;
            }
            Damage::Event(id) => {
                let events = self.store.audit(&AuditKey::Request(id)).await.unwrap();
                let keys = [
                    ("request_id", id.to_string()),
                    ("event_time_event_id", events[0].sort_key()),
                ];
                self.set(Table::Audit, &keys, "event_type").await;
            }
            Damage::Notice(id) => {
                let key = ("request_id", id.to_string());
                self.set(Table::Outbox, &[key], "notices[0].doc").await;
            }
        }
    }
    async fn add_an_invalid_key(&self, like: RequestId) {
        let (client, name) = (self.tables.client(), self.tables.name(Table::Requests));
        let key = AttributeValue::S(like.to_string());
        let found = client.get_item().table_name(name).key("request_id", key);
        let mut item = found.send().await.unwrap().item.unwrap();
        item.insert("request_id".into(), AttributeValue::S("strange".into()));
        let put = client.put_item().table_name(name).set_item(Some(item));
        put.send().await.unwrap();
    }
}

async fn both() -> [Box<dyn DamagedStore>; 2] {
    [Box::new(File::fresh()), Box::new(Dynamo::fresh().await)]
}

async fn with_requests(store: &dyn Store, many: u128) {
    for number in 1..=many {
        let created = at(i64::try_from(number).unwrap());
        let decision = opened(number, created);
        store.commit(creating(&decision)).await.unwrap();
    }
}

// K12
#[tokio::test]
async fn a_list_names_the_unreadable_records() {
    for subject in both().await {
        let store = subject.store();
        with_requests(store, 6).await;
        for number in [2, 4, 5] {
            subject.damage(Damage::Request(id(number))).await;
        }
        let here = Filter {
            channel_id: Some("town".parse().unwrap()),
            ..Filter::default()
        };
        let (mut found, mut named, mut after) = (Vec::new(), Vec::new(), None::<Cursor>);
        loop {
            let page = store.list(&here, after.as_ref(), 2).await.unwrap();
            named.extend(page.unreadable.iter().map(|one| one.name.clone()));
            let Some(last) = page.last() else { break };
            after = Some(Cursor::from(last));
            found.extend(page.iter().map(|request| request.id));
        }
        assert_eq!(found, [id(6), id(3), id(1)]);
        assert_eq!(named, [5, 4, 2].map(|number| id(number).to_string()));
        // The list of another channel does not mention it.
        let elsewhere = Filter {
            channel_id: Some("village".parse().unwrap()),
            from: Some(at(0)),
            ..Filter::default()
        };
        assert!(
            store
                .list(&elsewhere, None, 10)
                .await
                .unwrap()
                .unreadable
                .is_empty()
        );
        let one = store.request(id(2)).await;
        assert!(matches!(one, Err(StoreError::Corrupt(_))), "{one:?}");
    }
}

// K12
#[tokio::test]
async fn heads_and_events_are_found_beside_unreadable_ones() {
    for subject in both().await {
        let store = subject.store();
        for (channel, account) in [
            ("a", "111122223331"),
            ("b", "111122223332"),
            ("c", "111122223333"),
        ] {
            store
                .commit(writing(&bound(channel, account)))
                .await
                .unwrap();
        }
        with_requests(store, 3).await;
        subject.damage(Damage::Request(id(1))).await;
        subject.damage(Damage::Channel("b".parse().unwrap())).await;
        let (mut keys, mut named, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let heads = store.heads(after.as_ref(), 1).await.unwrap();
            named.extend(heads.unreadable.iter().map(|one| one.name.clone()));
            let Some(last) = heads.last() else { break };
            after = Some(last.key.clone());
            keys.extend(heads.iter().map(|head| head.key.to_string()));
        }
        let requests = [id(2), id(3)].map(|id| id.to_string());
        let wanted = requests
            .into_iter()
            .chain(["config#a", "config#c"].map(String::from));
        assert_eq!(keys, wanted.collect::<Vec<_>>());
        assert_eq!(named, [id(1).to_string(), "config#b".into()]);

        subject.damage(Damage::Event(id(2))).await;
        let all = AuditFilter {
            from: Some(at(1)),
            ..AuditFilter::default()
        };
        let (mut found, mut named, mut after) = (Vec::new(), Vec::new(), None::<String>);
        loop {
            let page = store.export(&all, after.as_deref(), 1).await.unwrap();
            named.extend(page.unreadable.iter().map(|one| one.name.clone()));
            let Some(last) = page.last() else { break };
            after = Some(last.sort_key());
            found.extend(page.iter().map(|event| event.request_id.to_string()));
        }
        assert_eq!(found, [id(1), id(3)].map(|id| id.to_string()));
        assert_eq!(named.len(), 1);
        assert!(named[0].contains(&id(2).to_string()), "{named:?}");
    }
}

// K12
#[tokio::test]
async fn bindings_are_found_beside_an_unreadable_one() {
    for subject in both().await {
        let store = subject.store();
        let mut town = bound("town", "111122223331");
        store.commit(writing(&town)).await.unwrap();
        for account in ["111122223332", "111122223333"] {
            town = crate::build::bound_again(&town.channel, account);
            store.commit(writing(&town)).await.unwrap();
        }
        subject
            .damage(Damage::Binding("111122223332".parse().unwrap()))
            .await;
        let accounts = |found: Found<jit::domain::Binding>| -> Vec<String> {
            found.iter().map(|one| one.account_id.to_string()).collect()
        };
        let left = ["111122223331", "111122223333"];
        assert_eq!(
            accounts(store.bindings(&town.channel.id).await.unwrap()),
            left
        );
        let first = store.bound(None, 1).await.unwrap();
        let rest = store.bound(Some(&first[0].account_id), 1).await.unwrap();
        assert_eq!([accounts(first), accounts(rest)].concat(), left);
        let named = store.bound(None, 9).await.unwrap().unreadable;
        assert!(named[0].name.contains("111122223332"), "{named:?}");
        let account = "111122223332".parse().unwrap();
        assert!(
            matches!(store.binding(&account).await, Err(StoreError::Corrupt(_))),
            "fail closed"
        );
    }
}

// K12
#[tokio::test]
async fn notices_are_delivered_beside_an_unreadable_one() {
    for subject in both().await {
        let store = subject.store();
        for number in [1, 2] {
            let mut decision = opened(number, at(0));
            decision.notices = vec![notice(number, 2, at(0)), notice(number, 3, at(0))];
            store.commit(creating(&decision)).await.unwrap();
        }
        subject.damage(Damage::Notice(id(1))).await;
        let mut told = Vec::new();
        for _ in 0..3 {
            let claimed = store
                .claim_notices(at(9), token(7), at(40), 10)
                .await
                .unwrap();
            for one in claimed.ready {
                let place = jit::store::NoticePlace {
                    request_id: one.notice.request_id,
                    seq: one.notice.seq,
                };
                told.push((place.request_id, place.seq));
                let ended = store.end_claim(place, token(7), delivered());
                let left: Left = ended.await.unwrap();
                assert!(matches!(left, Left::More | Left::Nothing));
            }
        }
        told.sort_unstable();
        assert_eq!(told, [(id(1), 3), (id(2), 2), (id(2), 3)]);
        let gauges = store.gauges(at(9)).await.unwrap();
        assert_eq!((gauges.parked_notices, gauges.undelivered_notices), (1, 0));
    }
}

// K12
#[tokio::test]
async fn due_work_is_found_beside_an_invalid_key() {
    for subject in both().await {
        let store = subject.store();
        with_requests(store, 2).await;
        subject.add_an_invalid_key(id(1)).await;
        let day = at(86_400);
        let mut ready = store.due(Lane::Other, day, 10).await.unwrap().ready;
        ready.sort_unstable();
        assert_eq!(ready, [id(1), id(2)]);
        let all = store.heads(None, 10).await.unwrap();
        assert_eq!((all.len(), all.unreadable.len()), (2, 1));
        assert_eq!(all.unreadable[0].name, "strange");
    }
}

// K12
#[tokio::test]
async fn due_work_is_found_beside_an_unreadable_time() {
    let subject = Dynamo::fresh().await;
    with_requests(&subject.store, 3).await;
    let mut call = subject.tables.client().update_item();
    call = call.table_name(subject.tables.name(Table::Requests));
    call.key("request_id", AttributeValue::S(id(2).to_string()))
        .update_expression("SET claimable_at = :odd")
        .expression_attribute_values(":odd", AttributeValue::N("1.5".into()))
        .send()
        .await
        .unwrap();
    let day = at(86_400);
    let mut ready = subject.store.due(Lane::Other, day, 10).await.unwrap().ready;
    ready.sort_unstable();
    assert_eq!(ready, [id(1), id(2), id(3)]);
}
