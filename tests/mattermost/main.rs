//! `/jit` in a Mattermost without a plugin. The tests replay the bytes that a real server sent,
//! and use a simulated server that is modelled on it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod captures;
mod card;
mod clicks;
mod dialog;
mod life;
mod messages;
mod readme;
mod reason;
mod repeats;
mod server;
mod setup;
mod told;
mod traps;
mod unseen;

/// The design depends on fourteen observed facts. Each fact has a test whose doc comment begins
/// with the number of the fact and a colon.
#[test]
fn each_observed_fact_of_mattermost_has_a_test() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mattermost");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let texts = files
        .filter(|file| file.extension().is_some_and(|kind| kind == "rs"))
        .map(|file| std::fs::read_to_string(file).unwrap());
    let mut said = std::collections::BTreeSet::new();
    for text in texts {
        let comments = text.lines().filter_map(|line| line.strip_prefix("/// "));
        for numbers in comments.filter_map(|line| line.split_once(':').map(|(before, _)| before)) {
            let numbers: Result<Vec<u32>, _> = numbers.split(", ").map(str::parse).collect();
            said.extend(numbers.unwrap_or_default());
        }
    }
    let missing: Vec<u32> = (1..=14).filter(|number| !said.contains(number)).collect();
    assert!(missing.is_empty(), "no doc comment begins with {missing:?}");
}
