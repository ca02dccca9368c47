//! A small file system that a test fills and empties.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A tmpfs that is mounted for one test and unmounted when the test ends in any way.
pub struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    pub fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "jit-test"])
            .arg(folder.path())
            .output();
        let mounted = mounted.is_ok_and(|done| done.status.success());
        assert!(
            mounted,
            "this test fills a small disk and needs the right to mount a tmpfs: run it as root"
        );
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes until the disk is full.
    pub fn fill(&self) {
        let ballast = self.folder.path().join("ballast");
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(ballast);
        let mut file = file.unwrap();
        let zeros = vec![0; 1 << 16];
        for size in [1 << 16, 1 << 12, 1] {
            while file.write_all(&zeros[..size]).is_ok() {}
        }
    }

    pub fn free(&self) {
        std::fs::remove_file(self.folder.path().join("ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: an exiting process may still have a file open.
        let done = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.folder.path().display());
        }
    }
}
