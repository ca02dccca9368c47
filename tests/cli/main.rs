//! Every command of the real binary, with its output for people and for programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod access_left;
mod audit;
mod emergency;
mod errors;
mod first_steps;
mod hidden;
mod lives;
mod shell;
mod terminal;
mod typed;
mod verify;
mod walk;

use std::process::{Output, Stdio};

use common::aws::Aws;
use common::{ACCOUNT, CHANNEL, Jit, SECRET, Setup};
use serde_json::Value;

/// Alice requests access for an hour.
pub const ASKING: [&str; 13] = [
    "request",
    "--account",
    ACCOUNT,
    "--channel",
    CHANNEL,
    "--minutes",
    "60",
    "--permission-set",
    "admin",
    "--reason",
    "INC-42: db down",
    "--as",
    "alice@example.com",
];

/// An operator's shell and a jit that serves it.
pub struct Shell {
    pub jit: Jit,
    /// The variables for the simulated AWS, if the setup has one.
    aws: Vec<(&'static str, String)>,
}

impl Shell {
    pub fn open() -> Self {
        Self::with(&Setup::default())
    }

    pub fn with(setup: &Setup) -> Self {
        let jit = setup.start();
        let aws = setup.aws.iter().flat_map(Aws::environment).collect();
        Self { jit, aws }
    }

    pub fn run(&self, words: &[&str]) -> Ran {
        self.run_with(words, "")
    }

    /// Runs a command that has no key to sign with, and therefore reads the store.
    pub fn without_client(&self, words: &[&str]) -> Ran {
        let config = self.jit.folder.path().join("jit.toml");
        let mut command = common::binary();
        let output = command.args(words).env("JIT_CONFIG", config).output();
        Ran::new(words, &output.unwrap())
    }

    pub fn run_with(&self, words: &[&str], input: &str) -> Ran {
        use std::io::Write;
        let mut child = common::binary()
            .args(words)
            .env("JIT_CONFIG", self.jit.folder.path().join("jit.toml"))
            .env("JIT_CLIENT__URL", &self.jit.url)
            .env("JIT_CLIENT__KEY_ID", "plugin")
            .env("JIT_CLIENT__SECRET", SECRET)
            .envs(self.aws.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        Ran::new(words, &child.wait_with_output().unwrap())
    }

    pub fn ok(&self, words: &[&str]) -> String {
        self.run(words).exits(0).out
    }

    /// Returns the JSON output of a command.
    pub fn json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        let out = self.ok(&words);
        serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}"))
    }

    pub fn bind(&self) {
        self.ok(&["bind", "--channel", CHANNEL, "--account", ACCOUNT]);
        self.ok(&["approvers", "--channel", CHANNEL, "bob", "carol"]);
    }

    pub fn request(&self) -> String {
        let created = self.json(&ASKING);
        created["request_id"].as_str().unwrap().to_owned()
    }

    pub async fn granted(&self) -> String {
        let id = self.request();
        self.ok(&["approve", &id, "--as", "bob@example.com"]);
        self.jit.caller().until(&id, "GRANTED").await;
        id
    }
}

#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
    words: String,
}

impl Ran {
    pub fn new(words: &[&str], output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self {
            code: output.status.code().unwrap(),
            out: text(&output.stdout),
            err: text(&output.stderr),
            words: words.join(" "),
        }
    }

    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "jit {}: {self:?}", self.words);
        if code != 0 {
            assert!(
                !self.err.is_empty(),
                "jit {} fails without a message",
                self.words
            );
        }
        self
    }

    /// Checks that the output contains each of these.
    pub fn prints(self, words: &[&str]) -> Self {
        for word in words {
            let said = self.out.contains(word) || self.err.contains(word);
            assert!(said, "jit {}: no {word:?} in {self:?}", self.words);
        }
        self
    }
}
