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
    // The output shows each step, and the notice of the step, in this order.
    let mut rest = ran.out.as_str();
    for step in [
        "request", "PENDING", "approve", "GRANTED", "revoke", "REVOKED",
    ] {
        let Some(at) = rest.find(step) else {
            panic!("no {step:?} in the rest of {}", ran.out);
        };
        rest = &rest[at..];
    }
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
