//! One process as Lambda starts it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::{Setup, TIMEOUT};
use super::Cloud;

pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    log: Arc<Mutex<String>>,
    _folder: Arc<tempfile::TempDir>,
}

impl Process {
    /// Starts `bootstrap` with nothing but an environment.
    pub fn start(cloud: &Cloud, setup: &Setup) -> Self {
        Self::start_in(cloud, setup, Arc::new(tempfile::tempdir().unwrap()))
    }

    pub fn start_in(cloud: &Cloud, setup: &Setup, folder: Arc<tempfile::TempDir>) -> Self {
        let config = setup.write(folder.path());
        Self::begin(cloud, setup, folder, &config)
    }

    /// Starts a process with an existing configuration.
    pub fn start_on(cloud: &Cloud, setup: &Setup, config: &Path) -> Self {
        Self::begin(cloud, setup, Arc::new(tempfile::tempdir().unwrap()), config)
    }

    fn begin(cloud: &Cloud, setup: &Setup, folder: Arc<tempfile::TempDir>, config: &Path) -> Self {
        let mut command = Command::new(bootstrap());
        command
            .arg0("/var/task/bootstrap")
            .current_dir(folder.path())
            .env_clear()
            .envs(setup.environment())
            .env("JIT_CONFIG", config)
            .env("AWS_LAMBDA_RUNTIME_API", &cloud.runtime_api)
            .env("AWS_LAMBDA_FUNCTION_NAME", "jit-api");
        Self::spawn(command, folder)
    }

    pub fn spawn(mut command: Command, folder: Arc<tempfile::TempDir>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, log) = (
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::<Mutex<String>>::default(),
        );
        let (told, sink) = (lines.clone(), log.clone());
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                told.lock().unwrap().push(line);
            }
        });
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let _folder = folder;
        Self {
            child,
            lines,
            log,
            _folder,
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The metrics written for CloudWatch.
    pub fn figures(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        let figures = lines.iter().map(|line| serde_json::from_str(line).unwrap());
        figures
            .filter(|line: &Value| line["_aws"].is_object())
            .collect()
    }

    /// Waits for metrics that meet the condition; returns the first of them.
    pub async fn metrics_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let figures = self.figures();
            if let Some(line) = figures.iter().find(|line| wanted(line)) {
                return line.clone();
            }
            assert!(begun.elapsed() < TIMEOUT, "no such metrics: {figures:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM; returns the exit status and the time that it took.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal("-TERM");
        (self.child.wait().unwrap(), asked.elapsed())
    }

    pub fn ends(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The packaged binary, or else the one that was just built.
fn bootstrap() -> PathBuf {
    let packaged = std::env::var_os("JIT_BOOTSTRAP");
    packaged.map_or_else(|| env!("CARGO_BIN_EXE_jit").into(), PathBuf::from)
}
