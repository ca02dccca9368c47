//! The permissions of the roles: the calls that jit makes, and no others. tests/identity_center and
//! tests/dynamodb compare infra/iam-policy.json with the calls over the wire.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::template;

type Allowed = BTreeMap<String, BTreeSet<String>>;

fn listed(value: &Value) -> BTreeSet<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match value {
        Value::Array(all) => all.iter().map(text).collect(),
        one => BTreeSet::from([text(one)]),
    }
}

fn statements(document: &Value) -> Vec<&Value> {
    let all: Vec<&Value> = document["Statement"].as_array().unwrap().iter().collect();
    assert!(all.iter().all(|one| one["Effect"] == "Allow"), "{all:?}");
    all
}

fn by_sid(document: &Value) -> Allowed {
    let sid = |one: &&Value| {
        (
            one["Sid"].as_str().unwrap().to_owned(),
            listed(&one["Action"]),
        )
    };
    statements(document).iter().map(sid).collect()
}

// E15
#[test]
fn function_roles_allow_the_calls_of_jit_and_no_others() {
    let policy = include_str!("../../infra/iam-policy.json");
    let mut called = by_sid(&serde_json::from_str(policy).unwrap());
    // Only jit config check makes these calls.
    for sid in ["CheckTheConfiguration", "KnowTheSets"] {
        called.remove(sid).unwrap();
    }
    let keys = BTreeSet::from(["secretsmanager:GetSecretValue".to_owned()]);
    called.insert("ReadItsKeys".into(), keys);
    let template = template::written();
    let mut allowed = Allowed::new();
    for (_, policy) in template::of_type(&template, "AWS::IAM::ManagedPolicy") {
        allowed.extend(by_sid(&policy["Properties"]["PolicyDocument"]));
    }
    assert_eq!(allowed, called);
}

/// The actions of AWS itself in the name of a role, and the part of the template that causes each.
const BY_AWS: &[(&str, &[&str])] = &[
    ("ApiRole", &["logs:CreateLogStream", "logs:PutLogEvents"]),
    (
        "WorkerRole",
        &[
            "dynamodb:DescribeStream",
            "dynamodb:GetRecords",
            "dynamodb:GetShardIterator",
            "dynamodb:ListStreams",
            "logs:CreateLogStream",
            "logs:PutLogEvents",
            "sqs:SendMessage",
        ],
    ),
    (
        "SchedulerRole",
        &["lambda:InvokeFunction", "sqs:SendMessage"],
    ),
];

#[test]
fn roles_allow_aws_the_actions_that_the_template_needs() {
    let template = template::written();
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, role) in template::of_type(&template, "AWS::IAM::Role") {
        let policies = role["Properties"]["Policies"].as_array().unwrap();
        let actions = policies
            .iter()
            .flat_map(|policy| statements(&policy["PolicyDocument"]))
            .flat_map(|one| listed(&one["Action"]));
        found.insert(name, actions.collect());
    }
    let wanted = BY_AWS.iter().map(|(role, actions)| {
        let actions = actions.iter().map(|action| (*action).to_owned());
        (*role, actions.collect())
    });
    assert_eq!(found, wanted.collect());
}

/// Only an action without an ARN may use a star, and no role may pass a role.
#[test]
fn only_actions_without_an_arn_use_a_star() {
    let template = template::written();
    let text = template.to_string();
    for never in [
        "iam:PassRole",
        "sts:AssumeRole\",\"Resource",
        "\"*:*\"",
        "sso:*",
        "dynamodb:*",
    ] {
        assert!(!text.contains(never), "{never}");
    }
    let everywhere = |document: &Value| -> Vec<String> {
        let stars = statements(document)
            .into_iter()
            .filter(|one| one["Resource"] == "*");
        stars.flat_map(|one| listed(&one["Action"])).collect()
    };
    let mut starred = Vec::new();
    for (_, policy) in template::of_type(&template, "AWS::IAM::ManagedPolicy") {
        starred.extend(everywhere(&policy["Properties"]["PolicyDocument"]));
    }
    for (_, role) in template::of_type(&template, "AWS::IAM::Role") {
        for policy in role["Properties"]["Policies"].as_array().unwrap() {
            starred.extend(everywhere(&policy["PolicyDocument"]));
        }
    }
    assert_eq!(starred, ["dynamodb:ListStreams"]);
}
