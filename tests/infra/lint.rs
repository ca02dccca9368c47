//! cfn-lint checks the template as written and as translated, because each check alone misses
//! errors.

use std::path::Path;

use crate::template::{self, tool};

/// The findings of the linter.
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
fn cfn_lint_finds_no_error() {
    assert_eq!(planted(str::to_owned), "");
}

/// The linter must find each of these errors.
#[test]
fn cfn_lint_finds_each_planted_error() {
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
                "the template no longer contains {good}"
            );
            text.replacen(good, bad, 1)
        });
        assert_ne!(found, "", "cfn-lint missed {bad}");
    }
}
