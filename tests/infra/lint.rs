//! cfn-lint checks the template as written and as translated, because each check alone misses
//! errors.

use std::path::PathBuf;

use crate::template::{self, tool};

/// The findings of the linter about each of these templates. The linter reads its rules for some
/// seconds, so it checks all of them in one run.
fn findings(templates: &[String]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut found = vec![String::new(); templates.len()];
    let mut linted: Vec<(usize, PathBuf)> = Vec::new();
    for (number, text) in templates.iter().enumerate() {
        let file = folder.path().join(format!("template-{number}.yaml"));
        std::fs::write(&file, text).unwrap();
        let translated = template::try_read("translated", &file);
        if !translated.status.success() {
            found[number] = String::from_utf8(translated.stderr).unwrap();
            continue;
        }
        let json = file.with_extension("json");
        std::fs::write(&json, translated.stdout).unwrap();
        linted.extend([(number, file), (number, json)]);
    }
    let files = linted.iter().map(|(_, file)| file);
    let said = tool("cfn-lint")
        .args([
            "--format",
            "parseable",
            "-r",
            "eu-central-1",
            "us-east-1",
            "-t",
        ])
        .args(files)
        .output()
        .unwrap();
    let text = String::from_utf8([said.stdout, said.stderr].concat()).unwrap();
    for line in text.lines() {
        let is_about = |file: &PathBuf| line.starts_with(&format!("{}:", file.display()));
        let about = linted.iter().find(|(_, file)| is_about(file));
        let (number, _) = about.unwrap_or_else(|| panic!("cfn-lint says: {text}"));
        found[*number] += line;
    }
    found
}

fn text() -> String {
    std::fs::read_to_string(template::file()).unwrap()
}

#[test]
fn cfn_lint_finds_no_error() {
    assert_eq!(findings(&[text()]), [""]);
}

/// The linter must find each of these errors.
#[test]
fn cfn_lint_finds_each_planted_error() {
    let faults = [
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
    ];
    let planted = faults.map(|(good, bad)| {
        let text = text();
        assert!(
            text.contains(good),
            "the template no longer contains {good}"
        );
        text.replacen(good, bad, 1)
    });
    for ((_, bad), found) in faults.iter().zip(findings(&planted)) {
        assert_ne!(found, "", "cfn-lint missed {bad}");
    }
}
