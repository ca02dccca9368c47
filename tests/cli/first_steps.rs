//! The first steps of README.md and docs/install.md, as a newcomer types them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Ran;
use crate::common::binary;

/// The first block of commands after `cargo install`.
fn steps(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let block = text
        .split_once("cargo install --path . --locked\n")
        .unwrap()
        .1;
    let block = block.split_once("```").unwrap().0;
    block.lines().map(str::to_owned).collect()
}

/// A shell in which `jit` is the program of this build.
fn shell(folder: &Path, line: &str) -> Command {
    let jit = binary();
    let bin = Path::new(jit.get_program()).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-e", "-c", line])
        .current_dir(folder)
        .env_remove("JIT_CONFIG")
        .env("PATH", format!("{}:{path}", bin.display()))
        // The port of the example may be in use.
        .env("JIT_SERVER__LISTEN", "127.0.0.1:0");
    shell
}

fn ran(folder: &Path, line: &str) -> Ran {
    Ran::new(&[line], &shell(folder, line).output().unwrap())
}

// H5
#[test]
fn the_first_steps_of_the_readme_lead_to_a_server_and_a_client() {
    let steps_of_readme = steps("README.md");
    assert_eq!(steps_of_readme, steps("docs/install.md"));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::copy("jit.example.toml", folder.join("jit.example.toml")).unwrap();
    let (serve, steps) = steps_of_readme.split_last().unwrap();
    assert_eq!(serve, "jit serve");
    let told = ran(folder, &steps.join("\n")).exits(0);
    let told = told.prints(&["jit.toml", "can start"]);
    assert!(!told.err.contains("warning"), "{}", told.err);
    let mut server = shell(folder, &format!("exec {serve}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    let url = first.split_whitespace().last().unwrap();
    // The client of the example signs with the new key.
    let list = ran(
        folder,
        &format!("JIT_CLIENT__URL={url} jit list --status PENDING"),
    );
    server.kill().unwrap();
    server.wait().unwrap();
    list.exits(0);
}

// H5: a section that is added to a file may be there already.
#[test]
fn a_key_that_is_printed_says_if_its_section_exists() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = "jit keys generate plugin >> jit.toml; jit keys generate ci >> jit.toml";
    let first = ran(folder, first).exits(0);
    assert_eq!(first.err, "");
    let check = "JIT_IDENTITY_CENTER__MODE=sandbox jit config check";
    ran(folder, check).exits(0).prints(&["plugin (", "ci ("]);
    ran(folder, "jit keys generate ci")
        .exits(0)
        .prints(&["[keys.ci] already", "--write"]);
    ran(folder, "jit keys generate ci --write")
        .exits(1)
        .prints(&["has a secret already", "ci-2"]);
    ran(folder, "jit keys generate ci-2 --write").exits(0);
    ran(folder, check).exits(0).prints(&["ci-2 ("]);
}
