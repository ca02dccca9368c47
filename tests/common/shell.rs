//! Commands as an operator types them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Setup, binary};

/// One command and its output.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub struct Shell {
    setup: Setup,
    file: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Shell {
    pub fn with(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = setup.write(folder.path());
        Self {
            setup,
            file,
            _folder: Some(folder),
        }
    }

    /// A shell on the store of an existing server.
    pub fn over(setup: Setup, folder: &Path) -> Self {
        let file = folder.join("jit.toml");
        let _folder = None;
        Self {
            setup,
            file,
            _folder,
        }
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.output_of(binary().args(arguments))
    }

    /// Runs a command line; `aws` is Amazon's command line.
    pub fn line(&self, line: &str) -> Said {
        let bin = concat!(env!("CARGO_MANIFEST_DIR"), "/target/moto/bin");
        let line = line.replacen("aws ", &format!("{bin}/aws --output json "), 1);
        // The region that only Amazon's command line reads.
        let mut shell = Command::new("sh");
        shell.env("AWS_DEFAULT_REGION", super::dynamo::REGION);
        self.output_of(shell.args(["-c", &line]))
    }

    fn output_of(&self, command: &mut Command) -> Said {
        let output = command
            .envs(self.setup.environment())
            .env("JIT_CONFIG", &self.file)
            .output()
            .unwrap();
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
