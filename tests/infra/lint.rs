//! Looked over by cfn-lint, as written and as translated: either alone overlooks much.

use std::path::Path;

use crate::template::{self, tool};

/// What is wrong with it, in the linter's words.
fn findings(file: &Path) -> String {
    let lint = |file: &Path| {
        let said = tool("cfn-lint")
            .args(["-r", "eu-central-1", "us-east-1", "-t"])
            .arg(file)
            .output()
            .unwrap();
        String::from_utf8(said.stdout).unwrap() + &String::from_utf8(said.stderr).unwrap()
    };
    let translated = template::try_read("translated", file);
    if !translated.status.success() {
        return String::from_utf8(translated.stderr).unwrap();
    }
    let json = file.with_extension("json");
    std::fs::write(&json, translated.stdout).unwrap();
    lint(file) + &lint(&json)
}

fn planted(fault: impl Fn(&str) -> String) -> String {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("template.yaml");
    let text = std::fs::read_to_string(template::file()).unwrap();
    std::fs::write(&copy, fault(&text)).unwrap();
    findings(&copy)
}

#[test]
fn nothing_is_found() {
    assert_eq!(planted(str::to_owned), "");
}

/// A check that finds nothing in this has not looked.
#[test]
fn each_planted_fault_is_found() {
    for (good, bad) in [
        ("!GetAtt WorkerRole.Arn", "!GetAtt WorkerRoll.Arn"),
        ("Timeout: 900", "Timeout: 9000"),
        ("Runtime: provided.al2023", "Runtime: provided.al2099"),
        (
            "MessageRetentionPeriod: 1209600",
            "MessageRetentionPeriod: 12096000",
        ),
        (
            "AttributeName: due_lane, KeyType",
            "AttributeName: due_line, KeyType",
        ),
        ("TreatMissingData: breaching", "TreatMissingData: shouting"),
        ("Condition: HasWebhook", "Condition: HasNoWebhook"),
        ("BatchSize: 10", "BatchSize: ten"),
        ("RetentionInDays: !Ref LogDays", "RetentionInDays: 8"),
    ] {
        let found = planted(|text| {
            assert!(
                text.contains(good),
                "{good} is not in the template any more"
            );
            text.replacen(good, bad, 1)
        });
        assert_ne!(found, "", "{bad} was overlooked");
    }
}
