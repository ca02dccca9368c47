//! The shell of an operator: jit's command line and Amazon's, a configuration, and a simulated AWS.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use crate::common::Setup;
use crate::common::shell::Said;

pub struct Stage {
    pub folder: tempfile::TempDir,
    variables: Mutex<BTreeMap<String, String>>,
}

impl Stage {
    pub fn with(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = setup.write(folder.path());
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_jit"), bin.join("jit")).unwrap();
        let home = concat!(env!("CARGO_MANIFEST_DIR"), "/target/moto/bin/aws");
        assert!(std::path::Path::new(home).exists(), "make moto");
        // Amazon's command line ignores the endpoint of the environment for queues.
        let wrapper = format!(
            "#!/bin/sh\n[ \"$1\" != sqs ] || set -- --endpoint-url \"$AWS_ENDPOINT_URL\" \"$@\"\nexec {home} \"$@\"\n"
        );
        let aws = bin.join("aws");
        std::fs::write(&aws, wrapper).unwrap();
        std::fs::set_permissions(&aws, Permissions::from_mode(0o755)).unwrap();
        let stage = Self {
            folder,
            variables: Mutex::default(),
        };
        let path = std::env::var("PATH").unwrap();
        stage.set("PATH", &format!("{}:{path}", bin.display()));
        stage.set("HOME", &stage.folder.path().display().to_string());
        stage.set("JIT_CONFIG", &config.display().to_string());
        stage.set("AWS_DEFAULT_REGION", crate::common::dynamo::REGION);
        stage.set("AWS_PAGER", "");
        for (name, value) in setup.environment() {
            stage.set(name, &value);
        }
        stage
    }

    pub fn set(&self, name: &str, value: &str) {
        self.variables
            .lock()
            .unwrap()
            .insert(name.to_owned(), value.to_owned());
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    /// Runs a script in one shell that stops at the first failed command. Variables that it sets
    /// stay set.
    pub fn run(&self, script: &str) -> Said {
        let kept = self.file(".variables");
        let script = format!(
            "set -eua\n{script}\nset +a\nexport -p > '{}'\n",
            kept.display()
        );
        let variables = self.variables.lock().unwrap().clone();
        let output = Command::new("sh")
            .args(["-c", &script])
            .current_dir(self.folder.path())
            .env_clear()
            .envs(variables)
            .output()
            .unwrap();
        if output.status.success() {
            self.keep(&std::fs::read_to_string(kept).unwrap());
        }
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Keeps the variables with plain values; the pages set no others.
    fn keep(&self, exported: &str) {
        for line in exported.lines() {
            let set = line
                .strip_prefix("export ")
                .and_then(|set| set.split_once('='));
            if let Some((name, value)) = set {
                let value = value.trim_matches(['\'', '"']);
                self.variables
                    .lock()
                    .unwrap()
                    .entry(name.to_owned())
                    .or_insert_with(|| value.to_owned());
            }
        }
    }
}
