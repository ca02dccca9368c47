//! The package for Lambda: it starts there, and the packer refuses a binary that would not.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use crate::common::lambda::{Cloud, Process, minute};
use crate::common::{Caller, SECRET};
use crate::template::home;

fn pack(binary: &Path, config: &Path, out: &Path) -> Output {
    let script = home().join("infra/package.py");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .arg(binary)
        .arg(config)
        .arg(out)
        .output()
        .unwrap()
}

fn built() -> PathBuf {
    env!("CARGO_BIN_EXE_jit").into()
}

fn refused(said: &Output) -> String {
    assert!(!said.status.success(), "{said:?}");
    String::from_utf8(said.stderr.clone()).unwrap()
}

/// Unpacks the package as Lambda does and starts it with the environment of the template.
#[tokio::test(flavor = "multi_thread")]
async fn the_package_starts_and_answers() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let package = folder.path().join("jit.zip");
    let said = pack(&built(), &home().join("infra/lambda.toml"), &package);
    assert!(said.status.success(), "{said:?}");
    let told = String::from_utf8(said.stdout).unwrap();
    assert!(told.contains("needs glibc 2."), "{told}");
    let task = folder.path().join("task");
    let unpacked = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&package)
        .arg(&task)
        .status()
        .unwrap();
    assert!(unpacked.success());
    // Python unpacks without the file permissions of the package; Lambda applies them.
    let listed = Command::new("python3")
        .args(["-c", "import sys, zipfile; print(oct(zipfile.ZipFile(sys.argv[1]).getinfo('bootstrap').external_attr >> 16))"])
        .arg(&package)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap().trim(), "0o100755");
    let bootstrap = task.join("bootstrap");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&bootstrap, mode).unwrap();

    let cloud = Cloud::open().await;
    let mut command = Command::new(&bootstrap);
    command
        .current_dir(&task)
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", &cloud.runtime_api)
        .env("JIT_IDENTITY_CENTER__MODE", "sandbox")
        .env("JIT_STORE__PATH", folder.path().join("jit.db"))
        .env("JIT_KEYS__PLUGIN__SECRET", SECRET)
        .env(
            "JIT_KEYS__OPERATOR__SECRET",
            "fedcba9876543210fedcba9876543210",
        );
    let process = Process::spawn(command, folder.clone());
    let gateway = cloud.gateway("$default").await;
    let caller = Caller::new(&gateway, "plugin", SECRET);
    caller.bind().await;
    let id = caller.granted().await;
    assert_eq!(
        caller.show(&id).await["permission_set"],
        "readonly",
        "the packed configuration has this set"
    );
    cloud.event(&minute()).await.answer();
    drop(process);
}

#[test]
fn a_binary_that_lambda_cannot_start_is_not_packed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("jit.zip");
    let config = folder.path().join("jit.toml");
    std::fs::write(&config, "[policy]\nmax_request_hours = 0\n").unwrap();
    let why = refused(&pack(&built(), &config, &out));
    assert!(why.contains("jit.toml: jit: permission_sets"), "{why}");
    assert!(!out.exists());
    std::fs::write(&config, include_str!("../../infra/lambda.toml")).unwrap();
    // A binary that was built with a newer C library.
    let newer = folder.path().join("newer");
    let mut bytes = std::fs::read(built()).unwrap();
    let (old, new) = (b"GLIBC_2.34\0", b"GLIBC_2.99\0");
    let at = bytes.windows(old.len()).position(|window| window == old);
    let at = at.expect("this binary needs no version of the C library that is patched here");
    bytes[at..at + new.len()].copy_from_slice(new);
    std::fs::write(&newer, bytes).unwrap();
    let why = refused(&pack(&newer, &config, &out));
    let told = "needs glibc 2.99, and provided.al2023 has 2.34";
    assert!(why.contains(told), "{why}");
    assert!(!out.exists());
    let new = folder.path().join("new");
    std::fs::write(&new, "#!/bin/sh\n").unwrap();
    let why = refused(&pack(&new, &config, &out));
    assert!(why.contains("readelf"), "{why}");
}
