//! The verification of the audit in DynamoDB, and the head log in each store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use jit::clock::{Clock, SystemClock, Uptime};
use jit::domain::{
    AccessFacts, Admin, Ask, AssignmentFacts, AssignmentOutcome, AuditKey, BindTerms, Claim,
    Command, Draft, Hash, HeadEntry, HistoryEnd, LeaseHolder, Millis, Minutes, OldCredentials,
    OldCredentialsRule, Policy, Preparation, Presence, Proof, Request, State, Text, Timestamp,
};
use jit::service::{Announce, Configure, Service};
use jit::signature::{SealKeys, Secret, seal};
use jit::store::dynamodb::Table;
use jit::store::sqlite::SqliteStore;
use jit::store::{Commit, Store, StoreError, Write};

use crate::build::{
    at, bound, creating, held, id, key, lease, next, opened, token, with_user, writing,
};
use crate::dynamo::Tables;
use crate::fixtures::{person, policy};
use crate::memory::MemoryStore;

fn service(store: Arc<dyn Store>) -> Service {
    let clock = Arc::new(SystemClock);
    Service::new(store, clock, policy(), Announce::None)
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// Returns the fields and sentences of all findings about this history.
async fn found(service: &Service, key: &AuditKey) -> Vec<(Option<String>, String)> {
    let log = service.verify_log().await.unwrap();
    assert_eq!(log.findings, []);
    let verified = service.verify_history(key, &log).await.unwrap();
    let each = verified.findings.into_iter();
    each.map(|one| (one.field, one.why)).collect()
}

struct Subject {
    tables: Tables,
    service: Service,
}

impl Subject {
    async fn open() -> Self {
        let tables = Tables::fresh().await;
        let store = tables.store();
        let binding = bound("town", "111122223333");
        store.commit(writing(&binding)).await.unwrap();
        store.commit(creating(&opened(1, at(0)))).await.unwrap();
        let service = service(Arc::new(store));
        // The first call begins the log, the second one adds what was there before it.
        service.catch_up_heads().await.unwrap();
        service.catch_up_heads().await.unwrap();
        Self { tables, service }
    }

    /// Replaces an item by one in which an attribute has another value or is absent.
    async fn put(
        &self,
        table: Table,
        item: &BTreeMap<String, AttributeValue>,
        name: &str,
        value: Option<AttributeValue>,
    ) {
        let mut item = item.clone();
        match value {
            Some(value) => drop(item.insert(name.to_owned(), value)),
            None => drop(item.remove(name)),
        }
        let call = self.tables.client().put_item();
        let call = call.table_name(self.tables.name(table));
        let item = item.into_iter().collect();
        call.set_item(Some(item)).send().await.unwrap();
    }

    async fn item(&self, table: Table, key: &str, value: &str) -> BTreeMap<String, AttributeValue> {
        let call = self.tables.client().query();
        let answer = call
            .table_name(self.tables.name(table))
            .key_condition_expression("#key = :value")
            .expression_attribute_names("#key", key)
            .expression_attribute_values(":value", text(value))
            .send()
            .await
            .unwrap();
        answer.items.unwrap().remove(0).into_iter().collect()
    }
}

/// An item by its table, and the name and the value of its key.
#[derive(Clone, Copy)]
struct Item<'a>(Table, &'static str, &'a str);

// C
#[tokio::test]
async fn an_attribute_of_dynamodb_that_differs_from_its_document_is_found() {
    let subject = Subject::open().await;
    let request = AuditKey::Request(id(1));
    let channel = AuditKey::Config("town".parse().unwrap());
    let name = id(1).to_string();
    let other = || Some(text("other"));
    let audit = Item(Table::Audit, "request_id", &name);
    let record = Item(Table::Requests, "request_id", &name);
    let account = Item(Table::Bindings, "binding_key", "account#111122223333");
    let town = Item(Table::Bindings, "binding_key", "channel#town");
    let ways = [
        (record, "account_id", other()),
        (record, "requester_email", other()),
        (record, "created_at_request_id", other()),
        (record, "status_shard", other()),
        (record, "due_lane", None),
        (record, "watch_shard", None),
        (audit, "shard", None),
        (account, "channel_id", other()),
        (account, "kind", other()),
        (town, "kind", None),
    ];
    assert_eq!(found(&subject.service, &request).await, []);
    assert_eq!(found(&subject.service, &channel).await, []);
    for (Item(table, key, value), attribute, changed) in ways {
        let item = subject.item(table, key, value).await;
        subject.put(table, &item, attribute, changed).await;
        let of = match table {
            Table::Bindings => &channel,
            _ => &request,
        };
        let findings = found(&subject.service, of).await;
        let field = findings.first().and_then(|(field, _)| field.as_deref());
        assert_eq!(field, Some(attribute), "{findings:?}");
        let value = item.get(attribute).cloned();
        subject.put(table, &item, attribute, value).await;
    }
    assert_eq!(found(&subject.service, &request).await, []);
    assert_eq!(found(&subject.service, &channel).await, []);
}

// C
#[tokio::test]
async fn a_change_of_a_document_in_dynamodb_is_found() {
    let subject = Subject::open().await;
    let request = AuditKey::Request(id(1));
    let channel = AuditKey::Config("town".parse().unwrap());
    let (name, binding) = (id(1).to_string(), "account#111122223333");
    let changed = |item: &BTreeMap<String, AttributeValue>, from: &str, to: &str| {
        let doc = item["doc"].as_s().unwrap();
        assert!(doc.contains(from), "{doc}");
        Some(text(&doc.replace(from, to)))
    };
    let item = subject.item(Table::Requests, "request_id", &name).await;
    let doc = changed(&item, "INC-42", "INC-43");
    subject.put(Table::Requests, &item, "doc", doc).await;
    let findings = found(&subject.service, &request).await;
    assert_eq!(findings[0].0.as_deref(), Some("reason"), "{findings:?}");

    let item = subject.item(Table::Bindings, "binding_key", binding).await;
    let doc = changed(&item, r#""approvers":[]"#, r#""approvers":["mallory"]"#);
    subject.put(Table::Bindings, &item, "doc", doc).await;
    let findings = found(&subject.service, &channel).await;
    assert_eq!(findings[0].0.as_deref(), Some("approvers"), "{findings:?}");
}

// C
#[tokio::test]
async fn verify_finds_items_deleted_or_added_in_dynamodb() {
    let subject = Subject::open().await;
    let request = AuditKey::Request(id(1));
    let name = id(1).to_string();
    let client = subject.tables.client();
    let requests = subject.tables.name(Table::Requests);
    let call = client.delete_item().table_name(requests);
    call.key("request_id", text(&name)).send().await.unwrap();
    let findings = found(&subject.service, &request).await;
    assert!(findings[0].1.contains("there is no record"), "{findings:?}");
    let keys = subject.service.audit_keys().await.unwrap();
    assert!(keys.contains(&name) && keys.len() == 2, "{keys:?}");

    let event = subject.item(Table::Audit, "request_id", &name).await;
    let audit = subject.tables.name(Table::Audit);
    let call = client.delete_item().table_name(audit);
    let sort = event["event_time_event_id"].clone();
    let call = call
        .key("request_id", text(&name))
        .key("event_time_event_id", sort);
    call.send().await.unwrap();
    let findings = found(&subject.service, &request).await;
    assert!(findings[0].1.contains("were deleted"), "{findings:?}");

    // A binding that no event and no list of its channel knows.
    let item = subject
        .item(Table::Bindings, "binding_key", "account#111122223333")
        .await;
    let doc = item["doc"]
        .as_s()
        .unwrap()
        .replace("111122223333", "444455556666");
    let mut slipped = item.clone();
    slipped.insert("doc".into(), text(&doc));
    let key = Some(text("account#444455556666"));
    subject
        .put(Table::Bindings, &slipped, "binding_key", key)
        .await;
    let channels = subject.service.bound_channels().await.unwrap();
    let findings = &channels[&"town".parse().unwrap()];
    assert!(findings[0].why.contains("does not list it"), "{findings:?}");
}

async fn keeps_a_head_log(store: &dyn Store) {
    let end = |version| HistoryEnd {
        version,
        head: Hash::of(b"event"),
    };
    let ends = |version| BTreeMap::from([(id(1).to_string(), end(version))]);
    assert_eq!(store.last_head_entry().await, Ok(None));
    let first = HeadEntry::after(None, ends(1), true, at(0));
    store.add_head_entry(&first).await.unwrap();
    let twice = HeadEntry::after(None, ends(2), true, at(0));
    let refused = store.add_head_entry(&twice).await;
    assert_eq!(refused, Err(StoreError::Conflict(None)));
    let second = HeadEntry::after(Some(&first), ends(2), false, at(1));
    store.add_head_entry(&second).await.unwrap();
    assert_eq!(store.last_head_entry().await, Ok(Some(second.clone())));
    let all = store.head_entries(0, 10).await.unwrap();
    assert_eq!(all, [first.clone(), second.clone()]);
    assert_eq!(store.head_entries(0, 1).await.unwrap(), [first]);
    assert_eq!(store.head_entries(1, 10).await.unwrap(), [second]);
    assert_eq!(store.head_entries(2, 10).await.unwrap(), []);
    // No export and no audit key shows the log.
    assert!(store.audit_keys().await.unwrap().is_empty());
}

// C
#[tokio::test]
async fn each_store_keeps_a_head_log_whose_numbers_are_taken_once() {
    keeps_a_head_log(&MemoryStore::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
    keeps_a_head_log(&file).await;
    keeps_a_head_log(&Tables::fresh().await.store()).await;
}

// C
#[tokio::test]
async fn replicas_add_to_one_head_log_and_a_later_start_adds_what_is_missing() {
    let store = MemoryStore::default();
    let (one, other) = (
        service(Arc::new(store.clone())),
        service(Arc::new(store.clone())),
    );
    one.begin_heads().await.unwrap();
    other.begin_heads().await.unwrap();
    // Another process committed this and ended without an entry.
    store.commit_now(creating(&opened(1, at(0)))).unwrap();
    one.catch_up_heads().await.unwrap();
    other.catch_up_heads().await.unwrap();
    let log = one.verify_log().await.unwrap();
    assert_eq!((log.entries, log.findings.len()), (2, 0));
    assert_eq!(log.ends[&id(1).to_string()].version, 1);
    assert!(log.is_whole);
}

fn secret(text: &str) -> Secret {
    Secret::new(format!("{text} of sixteen characters"))
}

fn keys(present: &str, older: &[&str]) -> SealKeys {
    let older = older.iter().map(|text| secret(text));
    SealKeys::new(secret(present), older.collect())
}

/// The findings of `jit audit verify` about the log itself, with these keys.
async fn defects(store: &Arc<dyn Store>, keys: SealKeys) -> Vec<String> {
    let verifier = service(store.clone()).sealing(keys);
    let log = verifier.verify_log().await.unwrap();
    log.findings.into_iter().map(|one| one.why).collect()
}

async fn rotates_the_seal_key(store: Arc<dyn Store>) {
    let before = service(store.clone()).sealing(keys("first", &[]));
    before.begin_heads().await.unwrap();
    store.commit(creating(&opened(1, at(0)))).await.unwrap();
    before.catch_up_heads().await.unwrap();
    assert_eq!(defects(&store, keys("first", &[])).await, [""; 0]);
    // Until a jit with the new key has started, the old one made the last seal.
    let rotated = || keys("second", &["first"]);
    let said = defects(&store, rotated()).await;
    assert!(
        said.len() == 1 && said[0].contains("the last entry is sealed with one of"),
        "{said:?}"
    );
    let after = service(store.clone()).sealing(rotated());
    after.begin_heads().await.unwrap();
    assert_eq!(defects(&store, rotated()).await, [""; 0]);
    let twice = || keys("third", &["second", "first"]);
    let third = service(store.clone()).sealing(twice());
    third.catch_up_heads().await.unwrap();
    assert_eq!(defects(&store, twice()).await, [""; 0]);
    // The list must have every key that made a seal.
    let said = defects(&store, keys("third", &["first"])).await;
    assert!(said[0].contains("one of audit.old_seal_keys"), "{said:?}");
    // A process with the old key adds nothing any more.
    store.commit(creating(&opened(2, at(0)))).await.unwrap();
    assert!(matches!(
        before.catch_up_heads().await,
        Err(StoreError::Corrupt(_))
    ));
    // Nor does an entry of a person who has the old key count.
    let last = store.last_head_entry().await.unwrap();
    let mut forged = HeadEntry::after(last.as_ref(), BTreeMap::new(), false, at(900));
    forged.seal = Some(seal(&secret("second"), &forged.sealed_text()));
    store.add_head_entry(&forged).await.unwrap();
    let said = defects(&store, twice()).await;
    assert!(said[0].contains("sealed with an older key"), "{said:?}");
    assert!(matches!(
        third.catch_up_heads().await,
        Err(StoreError::Corrupt(_))
    ));
}

// C
#[tokio::test]
async fn a_rotated_seal_key_checks_old_seals_and_makes_no_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
    rotates_the_seal_key(Arc::new(file)).await;
    rotates_the_seal_key(Arc::new(Tables::fresh().await.store())).await;
}

// C
#[tokio::test]
async fn a_catch_up_reads_only_the_entries_since_the_one_before() {
    let store = MemoryStore::default();
    let one = service(Arc::new(store.clone()));
    one.begin_heads().await.unwrap();
    for number in 1..=100 {
        store.commit_now(creating(&opened(number, at(0)))).unwrap();
        one.catch_up_heads().await.unwrap();
    }
    let log = one.verify_log().await.unwrap();
    assert_eq!((log.entries, log.findings.len()), (101, 0));
    let read = store.head_entries_read();
    for _ in 0..2 {
        one.catch_up_heads().await.unwrap();
        assert_eq!(
            store.head_entries_read(),
            read + 1,
            "its own last entry, once"
        );
    }
    let read = store.head_entries_read();
    // A process that just started reads them once.
    let other = service(Arc::new(store.clone()));
    other.catch_up_heads().await.unwrap();
    assert_eq!(store.head_entries_read(), read + 101);
}

/// One store of each kind. The folder contains the file of SQLite.
pub async fn each_store() -> (tempfile::TempDir, Vec<Arc<dyn Store>>) {
    let folder = tempfile::tempdir().unwrap();
    let file = SqliteStore::open(&folder.path().join("jit.db")).unwrap();
    let tables = Tables::fresh().await.store();
    let stores: Vec<Arc<dyn Store>> = vec![
        Arc::new(MemoryStore::default()),
        Arc::new(file),
        Arc::new(tables),
    ];
    (folder, stores)
}

/// The claim of a worker whose lease has this number.
fn claim(service: &Service, number: u128) -> Command {
    let as_of = service.clock().now();
    let claim = Claim {
        lease: lease(number, as_of + Millis::seconds(12)),
        lapsed: None,
        as_of,
    };
    Command::Due { claim }
}

/// The outcome that the worker with this lease reports.
fn finished(number: u128, outcome: AssignmentOutcome) -> Command {
    Command::Finished {
        lease: token(number),
        outcome: outcome.into(),
        calls: None,
    }
}

/// A grant that went through all its steps, so that its history explains everything.
pub async fn granted(service: &Service) -> Request {
    approved(service).await;
    let prepared = prepared(service, Presence::Absent).await;
    for command in [
        claim(service, 7),
        finished(7, prepared),
        finished(7, AssignmentOutcome::Created),
    ] {
        service.handle(id(1), command, None).await.unwrap();
    }
    service.request(id(1)).await.unwrap()
}

/// The facts that a worker found before its create.
async fn prepared(service: &Service, presence: Presence) -> AssignmentOutcome {
    AssignmentOutcome::Prepared(Preparation {
        user: key().user,
        presence,
        revision: service.holding(key()).await.unwrap().revision,
        permission_set_arn: "arn".into(),
    })
}

/// A request that its channel approved.
async fn approved(service: &Service) {
    let admin = Admin {
        person: None,
        key_id: "plugin".into(),
    };
    let (town, account_id) = ("town".parse().unwrap(), key().account_id);
    let terms = BindTerms::default();
    let bind = Configure::Bind { account_id, terms };
    let approvers = vec!["bob".parse().unwrap()];
    for configure in [bind, Configure::SetApprovers { approvers }] {
        let done = service.configure(&town, &configure, &admin).await;
        assert_eq!(done.unwrap().len(), 1);
    }
    let draft = Draft {
        id: id(1),
        account_id: key().account_id,
        channel_id: town,
        requester: person("alice"),
        reason: Some(Text::clip("INC-42: db down")),
        jira: None,
        duration: Minutes::new(60).unwrap(),
        permission_set: None,
        start_at: None,
    };
    service.open(draft, None, None).await.unwrap();
    let (by, ask) = (person("bob"), Ask::Approve);
    let approve = Command::Asked { by, ask };
    service.handle(id(1), approve, None).await.unwrap();
}

// C
#[tokio::test]
async fn a_lease_or_a_holder_that_no_event_explains_is_found_in_each_store() {
    let (_folder, stores) = each_store().await;
    for store in stores {
        let service = service(store.clone());
        service.begin_heads().await.unwrap();
        let request = granted(&service).await;
        service.write_heads().await.unwrap();
        let own = AuditKey::Request(id(1));
        assert_eq!(found(&service, &own).await, []);
        let far = service.clock().now() + Millis::hours(24 * 365);
        let leased = next(&request, |request| {
            let by = LeaseHolder::Operator;
            let lease = lease(9, far);
            request.schedule.lease = Some(jit::domain::Lease { by, ..lease });
        });
        store.commit(leased).await.unwrap();
        let findings = found(&service, &own).await;
        assert_eq!(findings[0].0.as_deref(), Some("lease"), "{findings:?}");
        // The store lists it as due when its end comes, whatever the lease says.
        let lane = request.lane();
        let due = store.due(lane, request.end_time() + Millis::minutes(1), 9);
        assert_eq!(due.await.unwrap().ready, [id(1)]);

        let request = service.request(id(1)).await.unwrap();
        let freed = next(&request, |request| request.schedule.lease = None);
        store.commit(freed).await.unwrap();
        assert_eq!(found(&service, &own).await, []);
        let holding = store.holding(&key()).await.unwrap().unwrap();
        let more = held(holding.revision + 1, &[id(1), id(2)]);
        let added = Commit::of([Write::Holding(more)]);
        store.commit(added).await.unwrap();
        let findings = found(&service, &own).await;
        assert_eq!(findings[0].0.as_deref(), Some("holders"), "{findings:?}");
    }
}

// C: no event said that the old credentials must end, so they stayed valid.
#[tokio::test]
async fn old_credentials_that_were_to_be_denied_and_were_removed_are_found_in_each_store() {
    let (_folder, stores) = each_store().await;
    for store in stores {
        let rules = Policy {
            end_sessions: OldCredentialsRule::PermissionSet,
            ..policy()
        };
        let clock = Arc::new(SystemClock);
        let service = Service::new(store.clone(), clock, rules, Announce::None);
        service.begin_heads().await.unwrap();
        granted(&service).await;
        let (by, ask) = (person("bob"), Ask::Revoke { reason: None });
        for command in [
            Command::Asked { by, ask },
            claim(&service, 8),
            finished(8, AssignmentOutcome::Gone),
        ] {
            service.handle(id(1), command, None).await.unwrap();
        }
        service.write_heads().await.unwrap();
        let own = AuditKey::Request(id(1));
        assert_eq!(found(&service, &own).await, []);
        let revoked = service.request(id(1)).await.unwrap();
        assert!(revoked.access.old_credentials().is_some());
        let removed = next(&revoked, |request| {
            request.access = with_user(key().user);
            request.schedule.due_at = None;
        });
        store.commit(removed).await.unwrap();
        let findings = found(&service, &own).await;
        let field = findings.first().and_then(|(field, _)| field.as_deref());
        assert_eq!(field, Some("sessions_ending_before"), "{findings:?}");
    }
}

// C: the access stayed in AWS, and no worker looked at it any more.
#[tokio::test]
async fn an_end_whose_check_was_cut_out_of_its_record_is_found_in_each_store() {
    let (_folder, stores) = each_store().await;
    for store in stores {
        let service = service(store.clone());
        service.begin_heads().await.unwrap();
        granted(&service).await;
        let cleaned_up = Command::CleanedUp {
            by: person("ops"),
            reason: Text::clip("by hand"),
            credentials: Text::clip("arn"),
            proof: Proof::None,
        };
        service.handle(id(1), cleaned_up, None).await.unwrap();
        service.write_heads().await.unwrap();
        let own = AuditKey::Request(id(1));
        assert_eq!(found(&service, &own).await, []);
        let holding = store.holding(&key()).await.unwrap().unwrap();
        let emptied = Commit::of([Write::Holding(held(holding.revision + 1, &[]))]);
        store.commit(emptied).await.unwrap();
        let findings = found(&service, &own).await;
        assert_eq!(findings[0].0.as_deref(), Some("holders"), "{findings:?}");
        let unsettled = service.request(id(1)).await.unwrap();
        let cut = next(&unsettled, |request| {
            let State::Unsettled { end, .. } = request.state.clone() else {
                panic!("{:?}", request.state);
            };
            request.state = *end;
            request.schedule.due_at = None;
        });
        store.commit(cut).await.unwrap();
        let findings = found(&service, &own).await;
        assert_eq!(findings[0].0.as_deref(), Some("state"), "{findings:?}");
        assert_eq!(findings.len(), 1, "{findings:?}");
    }
}

// C: the revoke asked AWS about another user, and said that nothing is left.
#[tokio::test]
async fn the_user_of_a_request_in_error_and_added_old_credentials_are_found_in_each_store() {
    let (_folder, stores) = each_store().await;
    for store in stores {
        let service = service(store.clone());
        service.begin_heads().await.unwrap();
        approved(&service).await;
        service
            .handle(id(1), claim(&service, 7), None)
            .await
            .unwrap();
        let refused = finished(7, prepared(&service, Presence::Present).await);
        service.handle(id(1), refused, None).await.unwrap();
        service.write_heads().await.unwrap();
        let own = AuditKey::Request(id(1));
        assert_eq!(found(&service, &own).await, []);
        let error = service.request(id(1)).await.unwrap();
        let changed = next(&error, |request| {
            request.access = with_user("another".parse().unwrap());
        });
        store.commit(changed).await.unwrap();
        let findings = found(&service, &own).await;
        let user = Some("identity_store_user_id");
        assert_eq!(findings[0].0.as_deref(), user, "{findings:?}");
        let error = service.request(id(1)).await.unwrap();
        let added = next(&error, |request| {
            let before = service.clock().now();
            let old_credentials = Some(OldCredentials::Ending { before });
            request.access = AccessFacts::Assignment(AssignmentFacts {
                user: Some(key().user),
                old_credentials,
            });
            request.schedule.due_at = Some(before);
        });
        store.commit(added).await.unwrap();
        let findings = found(&service, &own).await;
        assert_eq!(findings[0].0.as_deref(), Some("sessions"), "{findings:?}");
    }
}

fn sealing(store: &Arc<dyn Store>, since: Option<u64>) -> Service {
    service(store.clone())
        .sealing(keys("first", &[]))
        .sealed_since(since)
}

async fn log_findings(service: &Service) -> Vec<String> {
    let log = service.verify_log().await.unwrap();
    log.findings.into_iter().map(|one| one.why).collect()
}

// C
#[tokio::test]
async fn entries_before_the_first_seal_are_a_finding_unless_the_configuration_states_it() {
    let (_folder, stores) = each_store().await;
    for store in stores {
        service(store.clone()).begin_heads().await.unwrap();
        let first = sealing(&store, None);
        first.begin_heads().await.unwrap();
        let findings = log_findings(&first).await;
        assert!(
            findings[0].contains("set audit.sealed_since = 2"),
            "{findings:?}"
        );
        assert!(log_findings(&sealing(&store, Some(2))).await.is_empty());
        let findings = log_findings(&sealing(&store, Some(1))).await;
        assert!(findings[0].contains("says 1"), "{findings:?}");

        // A process that has no key, or an attacker, adds an entry; the others add none.
        store.commit(creating(&opened(1, at(0)))).await.unwrap();
        service(store.clone()).catch_up_heads().await.unwrap();
        store.commit(creating(&opened(2, at(0)))).await.unwrap();
        for sealed in [first, sealing(&store, Some(2))] {
            let refused = sealed.catch_up_heads().await;
            assert!(
                matches!(refused, Err(StoreError::Corrupt(_))),
                "{refused:?}"
            );
        }
        // The log was cut off before the entry that the configuration names.
        let refused = sealing(&store, Some(9)).begin_heads().await;
        assert!(
            matches!(refused, Err(StoreError::Corrupt(_))),
            "{refused:?}"
        );
    }
}

// C
#[tokio::test]
async fn a_process_adds_nothing_to_a_longer_log_without_its_own_entry() {
    let store = MemoryStore::default();
    let own = service(Arc::new(store.clone()));
    own.begin_heads().await.unwrap();
    let end = HistoryEnd {
        version: 1,
        head: Hash::of(b"event"),
    };
    let ends = BTreeMap::from([(id(3).to_string(), end)]);
    let first = HeadEntry::after(None, ends.clone(), true, at(0));
    let second = HeadEntry::after(Some(&first), ends, true, at(0));
    store.replace_head_log(vec![first, second]);
    store.commit_now(creating(&opened(1, at(0)))).unwrap();
    let refused = own.catch_up_heads().await.unwrap_err();
    assert!(
        refused.to_string().contains("entry 1 is not the one"),
        "{refused}"
    );
}

/// A clock that a test sets.
struct SetClock(Arc<AtomicI64>);

#[async_trait]
impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
    fn uptime(&self) -> Uptime {
        SystemClock.uptime()
    }
    async fn wait_until(&self, at: Timestamp) {
        SystemClock.wait_until(at).await;
    }
    async fn sleep_until(&self, at: Uptime) {
        SystemClock.sleep_until(at).await;
    }
    fn draw(&self) -> uuid::Uuid {
        SystemClock.draw()
    }
}

/// C: the clock was an hour ahead for one entry. Events of other processes, such as an operator's
/// command, still come into the log: in the same process, and after a restart.
#[tokio::test]
async fn an_entry_of_a_wrong_clock_hides_no_event_of_another_process() {
    let (_folder, stores) = each_store().await;
    for store in stores {
        let now = Arc::new(AtomicI64::new(at(0).millis()));
        let process = || {
            let clock = Arc::new(SetClock(now.clone()));
            Service::new(store.clone(), clock, policy(), Announce::None)
        };
        let set = |seconds| now.store(at(seconds).millis(), Ordering::SeqCst);
        let commits = async |number, seconds| {
            let decision = opened(number, at(seconds));
            store.commit(creating(&decision)).await.unwrap();
        };
        let running = process();
        running.begin_heads().await.unwrap();
        running.catch_up_heads().await.unwrap();
        for (number, seconds) in [(1, 60), (2, 3_700), (3, 120)] {
            set(seconds);
            commits(number, seconds).await;
            running.catch_up_heads().await.unwrap();
        }
        // The process ends under the wrong clock.
        set(7_200);
        commits(4, 7_200).await;
        running.catch_up_heads().await.unwrap();
        drop(running);
        commits(5, 1_000).await;
        set(8_000);
        let restarted = process();
        restarted.catch_up_heads().await.unwrap();
        let log = restarted.verify_log().await.unwrap();
        assert_eq!(log.findings, []);
        for number in 1..=5 {
            let found = log.ends.get(&id(number).to_string());
            assert_eq!(found.map(|end| end.version), Some(1), "request {number}");
        }
    }
}
