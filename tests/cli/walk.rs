//! `jit sandbox`: shows one request from its creation to its revoke in one command.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::Ran;
use crate::common::binary;

#[test]
fn the_sandbox_shows_the_life_of_one_request() {
    let words = ["sandbox", "--once"];
    let output = binary().args(words).output().unwrap();
    let ran = Ran::new(&words, &output).exits(0);
    // README.md shows these lines, in this order.
    let readme = include_str!("../../README.md");
    let shown = readme.split_once("prints this and a little\nmore:\n\n```\n");
    let shown = shown.unwrap().1.split_once("```").unwrap().0;
    assert!(shown.lines().count() > 20, "{shown}");
    let printed = without_ids_and_times(&ran.out);
    let mut rest = printed.lines();
    for line in without_ids_and_times(shown).lines() {
        assert!(
            rest.any(|one| one == line),
            "not printed: {line:?}\n{printed}"
        );
    }
}

/// The text with a word in the place of each id and each time.
fn without_ids_and_times(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-:.".contains(c);
    let pieces = text.split_inclusive(|c| !is_word(c)).map(|piece| {
        let word = piece.trim_end_matches(|c| !is_word(c));
        let mut digits = word.chars().filter(|c| *c != '-');
        let is_id = word.len() == 36 && digits.all(|c| c.is_ascii_hexdigit());
        let is_time = word.len() == 24 && word.starts_with("20") && word.ends_with('Z');
        match (is_id, is_time) {
            (true, _) => piece.replace(word, "ID"),
            (_, true) => piece.replace(word, "TIME"),
            (false, false) => piece.to_owned(),
        }
    });
    pieces.collect()
}

#[test]
fn the_sandbox_then_serves_until_it_is_stopped() {
    let mut child = binary()
        .arg("sandbox")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    loop {
        let mut line = String::new();
        let read = stdout.read_line(&mut line).unwrap();
        assert!(read > 0, "jit sandbox ended: {said}");
        said.push_str(&line);
        if said.contains("REVOKED") && line.contains("Ctrl-C") {
            break;
        }
    }
    // H8: the commands work when they are pasted together.
    let commands = said.rsplit_once("terminal:\n").unwrap().1;
    let commands = commands.split_once("Ctrl-C").unwrap().0;
    let mut shell = std::process::Command::new("sh");
    shell.env_remove("JIT_CONFIG").args(["-e", "-c", commands]);
    let words = ["the commands of the sandbox"];
    Ran::new(&words, &shell.output().unwrap())
        .exits(0)
        .prints(&["APPROVED", "REVOKED", "PENDING", "audit chains verified"]);
    let stop = std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(stop.success());
    let status = child.wait().unwrap();
    let mut err = String::new();
    child.stderr.unwrap().read_to_string(&mut err).unwrap();
    assert!(status.success(), "{status}: {err}");
}
