//! A wall clock that a test sets for one process. `wall_clock.c` is preloaded into that process and
//! does not change its uptime.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// How far the wall clock of one process is ahead of the machine's.
pub struct WallClock {
    folder: tempfile::TempDir,
    file: std::fs::File,
    seconds: Arc<AtomicI64>,
}

impl WallClock {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/wall_clock.c");
        let built = Command::new("cc")
            .args([
                "-std=gnu11",
                "-O1",
                "-Wall",
                "-Werror",
                "-shared",
                "-fPIC",
                "-o",
            ])
            .arg(folder.path().join("wall_clock.so"))
            .arg(source)
            .output()
            .expect("setting the clock of a process needs a C compiler: install cc");
        assert!(built.status.success(), "{built:?}");
        let file = std::fs::File::create_new(folder.path().join("seconds_ahead")).unwrap();
        file.write_all_at(&0_i64.to_ne_bytes(), 0).unwrap();
        let seconds = Arc::default();
        Self {
            folder,
            file,
            seconds,
        }
    }

    /// The environment variables for the process.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let place = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            ("LD_PRELOAD", place("wall_clock.so")),
            ("WALL_CLOCK_FILE", place("seconds_ahead")),
        ]
    }

    /// Sets the clock to this number of seconds before or after the machine's.
    pub fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    /// The offset, for a caller that signs with the time of this clock.
    pub fn ahead(&self) -> Arc<AtomicI64> {
        self.seconds.clone()
    }
}
