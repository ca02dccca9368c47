//! `jit tables`: creates the tables once and checks them at any time.

use aws_sdk_dynamodb::types::{PointInTimeRecoverySpecification, TimeToLiveSpecification};
use jit::store::dynamodb::Table;
use serde_json::Value;

use crate::common::dynamo::Tables;
use crate::common::moto::Moto;
use crate::common::shell::Shell;
use crate::common::{Setup, binary};

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_created_once_and_pass_the_check() {
    let tables = Tables::named();
    let shell = Shell::with(Setup::in_dynamo(&tables));
    let missing = shell.run(&["tables", "check"]);
    assert_eq!(missing.code, 1);
    let name = tables.name(Table::Audit);
    let line = format!("{name} is not there: `jit tables create` makes it");
    assert!(missing.out.contains(&line), "{}", missing.out);
    let refused = shell.run(&["serve"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("jit tables create"), "{}", refused.err);

    let checked = shell.run(&["config", "check"]);
    assert_eq!(checked.code, 1);
    assert!(
        checked.err.contains(
            "store.tables: the store is unavailable: DynamoDB: ResourceNotFoundException"
        ),
        "{}",
        checked.err
    );

    let made = shell.run(&["tables", "create", "-o", "json"]);
    let made: Value = serde_json::from_str(&made.out).unwrap();
    let made = made["tables"].as_array().unwrap();
    assert_eq!(made.len(), Table::ALL.len());
    assert!(made.iter().all(|table| table["made"] == true), "{made:?}");
    let checked = shell.run(&["config", "check"]);
    assert!(
        checked.out.contains("exist, and jit may read them"),
        "{}",
        checked.err
    );
    let again = shell.run(&["tables", "create"]);
    assert_eq!(
        (again.code, again.out.matches("exists already").count()),
        (0, Table::ALL.len())
    );
    let good = shell.run(&["tables", "check"]);
    assert_eq!(
        (good.code, good.out.trim()),
        (0, "all 8 tables are correct"),
        "{}",
        good.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_check_names_each_difference() {
    let tables = Tables::fresh().await;
    let client = tables.client();
    let name = tables.name(Table::Requests);
    client
        .update_table()
        .table_name(name)
        .deletion_protection_enabled(false)
        .send()
        .await
        .unwrap();
    let shell = Shell::with(Setup::in_dynamo(&tables));
    let found = shell.run(&["tables", "check"]);
    assert_eq!(found.code, 1);
    let line = format!("{name} can be deleted by mistake: turn on deletion protection");
    assert!(found.out.contains(&line), "{}", found.out);

    client.delete_table().table_name(name).send().await.unwrap();
    let nonces = tables.name(Table::Nonces);
    let mut swapped = tables.clone();
    swapped.names.insert("requests".into(), nonces.to_owned());
    swapped.names.insert("nonces".into(), name.to_owned());
    let shell = Shell::with(Setup::in_dynamo(&swapped));
    let found = shell.run(&["tables", "check", "-o", "json"]);
    let found: Value = serde_json::from_str(&found.out).unwrap();
    let what = found["wrong"].to_string();
    assert!(
        what.contains("has the key nonce (S) instead of request_id (S)"),
        "{what}"
    );
    assert!(what.contains("lacks the index by_due"), "{what}");
    assert!(what.contains("is not there"), "{what}");
}

#[test]
fn jit_tables_is_refused_for_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = Setup::default().write(folder.path());
    let said = binary()
        .env("JIT_CONFIG", file)
        .args(["tables", "check"])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(2));
    let err = String::from_utf8(said.stderr).unwrap();
    assert!(err.contains("store.kind"), "{err}");
}

/// moto simulates point-in-time recovery, which DynamoDB Local does not have.
#[tokio::test(flavor = "multi_thread")]
async fn tables_create_turns_on_recovery_and_ttl_and_the_check_misses_them() {
    let moto = Moto::start();
    let tables = Tables::named().through(&moto.url);
    let shell = Shell::with(Setup::in_dynamo(&tables));
    let made = shell.run(&["tables", "create"]);
    assert_eq!(made.code, 0, "{}", made.err);
    let good = shell.run(&["tables", "check"]);
    assert_eq!(good.code, 0, "{} {}", good.out, good.err);

    let client = tables.client();
    let off = PointInTimeRecoverySpecification::builder()
        .point_in_time_recovery_enabled(false)
        .build()
        .unwrap();
    let audit = tables.name(Table::Audit);
    let call = client.update_continuous_backups().table_name(audit);
    let call = call.point_in_time_recovery_specification(off);
    call.send().await.unwrap();
    let nonces = tables.name(Table::Nonces);
    let off = TimeToLiveSpecification::builder()
        .enabled(false)
        .attribute_name("expires_at")
        .build()
        .unwrap();
    let call = client.update_time_to_live().table_name(nonces);
    call.time_to_live_specification(off).send().await.unwrap();
    let found = shell.run(&["tables", "check"]);
    assert_eq!(found.code, 1);
    for line in [
        format!("{audit} cannot be restored: turn on point-in-time recovery"),
        format!("{nonces} grows for ever: turn on TTL by expires_at"),
    ] {
        assert!(found.out.contains(&line), "{}", found.out);
    }
    // `tables create` corrects it again.
    assert_eq!(shell.run(&["tables", "create"]).code, 0);
    assert_eq!(shell.run(&["tables", "check"]).code, 0);
}
