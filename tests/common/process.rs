//! One process of jit: its start, its log and its end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{CHANNEL, Caller, SECRET, Setup, TIMEOUT};

pub struct Jit {
    child: Child,
    pub url: String,
    pub folder: Arc<tempfile::TempDir>,
    log: Arc<(Mutex<String>, Condvar)>,
}

impl Setup {
    pub fn start(&self) -> Jit {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        self.write(folder.path());
        Jit::start_with(folder, &self.environment())
    }

    /// Starts jit with a limit of open files, which it cannot raise.
    pub fn start_with_files(&self, most: u32) -> Jit {
        self.start_after(&format!("ulimit -n {most}"))
    }

    /// Starts jit after a command of the shell.
    pub fn start_after(&self, command: &str) -> Jit {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let config = self.write(folder.path());
        let jit = binary();
        let mut limited = Command::new("sh");
        limited
            .args(["-c", &format!("{command} && exec \"$@\""), "sh"])
            .arg(jit.get_program());
        Jit::spawn(folder, &config, limited)
    }

    /// Starts jit and binds an account with an approver.
    pub async fn bound(&self) -> (Jit, Caller) {
        let jit = self.start();
        let caller = jit.caller();
        caller.bind().await;
        (jit, caller)
    }

    /// Starts jit and binds this number of accounts, from 000000000001.
    pub async fn start_with_accounts(&self, count: usize) -> (Jit, Caller) {
        let jit = self.start();
        let caller = jit.caller();
        for number in 1..=count {
            let account = format!("{number:012}");
            let terms = json!({"channel_id": CHANNEL, "account_id": account});
            caller.post("/config/bind", &terms).await.is(200);
        }
        let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob", "carol"]});
        caller.post("/config/approvers", &approvers).await.is(200);
        (jit, caller)
    }
}

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jit"));
    // `make bite` sets JIT_PLANTED for every process.
    let ours = |name: &str| {
        name != "JIT_PLANTED" && (name.starts_with("JIT_") || name.starts_with("AWS_"))
    };
    for (name, _) in std::env::vars().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command
}

impl Jit {
    pub fn start_in(folder: Arc<tempfile::TempDir>) -> Self {
        Self::start_with(folder, &[])
    }

    pub fn start_with(
        folder: Arc<tempfile::TempDir>,
        environment: &[(&'static str, String)],
    ) -> Self {
        let config = folder.path().join("jit.toml");
        let mut jit = binary();
        jit.envs(environment.iter().cloned());
        Self::spawn(folder, &config, jit)
    }

    /// Starts jit with an existing configuration.
    pub fn start_on(config: &Path) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::spawn(folder, config, binary())
    }

    fn spawn(folder: Arc<tempfile::TempDir>, config: &Path, mut jit: Command) -> Self {
        let mut child = jit
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new((Mutex::new(String::new()), Condvar::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.0.lock().unwrap().push_str(&(line + "\n"));
                sink.1.notify_all();
            }
        });
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let Some(at) = first.find("http://") else {
            let status = child.wait().unwrap();
            panic!(
                "jit did not start ({status}): {first} {}",
                log.0.lock().unwrap()
            );
        };
        let url = first[at..].split_whitespace().next().unwrap().to_owned();
        Self {
            child,
            url,
            folder,
            log,
        }
    }

    pub fn log(&self) -> String {
        self.log.0.lock().unwrap().clone()
    }

    /// Waits until the log contains this text.
    pub fn logs(&self, word: &str) {
        let (log, more) = &*self.log;
        let log = log.lock().unwrap();
        let without = |log: &mut String| !log.contains(word);
        let (log, waited) = more.wait_timeout_while(log, TIMEOUT, without).unwrap();
        assert!(!waited.timed_out(), "no {word:?} in the log: {log}");
    }

    /// The same for a test that runs other tasks meanwhile.
    pub async fn comes_to_log(&self, word: &str) {
        let begun = Instant::now();
        while !self.log().contains(word) {
            let waited = begun.elapsed();
            assert!(waited < TIMEOUT, "no {word:?} in the log: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGHUP: jit reads the keys again.
    pub fn hang_up(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// kill -9; returns the folder of the store for the next process.
    pub fn kill(mut self) -> Arc<tempfile::TempDir> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.folder.clone()
    }

    /// SIGTERM, as an operator or systemd sends it.
    pub fn terminate(mut self) -> (std::process::ExitStatus, Duration, Arc<tempfile::TempDir>) {
        let asked = Instant::now();
        let sent = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
        let status = self.child.wait().unwrap();
        (status, asked.elapsed(), self.folder.clone())
    }

    pub fn caller(&self) -> Caller {
        Caller::new(&self.url, "plugin", SECRET)
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("jit.db")
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
