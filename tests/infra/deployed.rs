//! The template deployed at moto, as far as moto supports it: the environment of the functions fits
//! the program, and the resources that the program uses exist.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::dynamo::Tables;
use crate::common::moto::Moto;
use crate::common::shell::Shell;
use crate::common::{Setup, binary};
use crate::template::{self, tool};

const PARAMETERS: [(&str, &str); 4] = [
    (
        "InstanceArn",
        "arn:aws:sso:::instance/ssoins-1111111111111111",
    ),
    ("IdentityStoreId", "d-1111111111"),
    (
        "PermissionSetArns",
        "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-1111111111111111",
    ),
    (
        "WebhookUrl",
        "https://mattermost.example.com/plugins/com.example.jit/webhook",
    ),
];

struct Account {
    moto: Moto,
}

impl Account {
    fn command(&self) -> Command {
        let mut command = tool("aws");
        command
            .env("AWS_ENDPOINT_URL", &self.moto.url)
            .env("AWS_ACCESS_KEY_ID", "jittests")
            .env("AWS_SECRET_ACCESS_KEY", "secret");
        command
    }

    fn aws(&self, words: &[&str]) -> Value {
        let mut command = self.command();
        let said = command
            .args(words)
            .args(["--output", "json"])
            .output()
            .unwrap();
        assert!(said.status.success(), "{words:?}: {said:?}");
        serde_json::from_slice(&said.stdout).unwrap_or_default()
    }
}

/// moto creates nothing for a type that it does not know, and fails on its attributes.
fn without_outputs_of_others(mut template: Value) -> Value {
    let outputs = template["Outputs"].as_object_mut().unwrap();
    outputs.retain(|_, output| !output.to_string().contains("Fn::GetAtt"));
    template
}

/// Runs the command of docs/lambda.md in a copy of this folder with a package in it.
fn packaged(account: &Account, folder: &Path) -> PathBuf {
    let page = include_str!("../../docs/lambda.md");
    let mut lines = page.lines();
    let line = lines.find(|line| line.starts_with("aws cloudformation package"));
    let words: Vec<String> = line
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|word| word.replace("\"$BUCKET\"", "packages"))
        .collect();
    for inside in ["infra", "target/lambda"] {
        std::fs::create_dir_all(folder.join(inside)).unwrap();
    }
    std::fs::copy(template::file(), folder.join("infra/template.yaml")).unwrap();
    let empty = b"PK\x05\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    std::fs::write(folder.join("target/lambda/jit.zip"), empty).unwrap();
    let said = account
        .command()
        .args(words)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    folder.join("target/lambda/template.yaml")
}

fn deploy() -> Account {
    let account = Account {
        moto: Moto::start(),
    };
    let folder = tempfile::tempdir().unwrap();
    account.aws(&[
        "s3api",
        "create-bucket",
        "--bucket",
        "packages",
        "--create-bucket-configuration",
        "LocationConstraint=eu-central-1",
    ]);
    let packaged = packaged(&account, folder.path());
    let body = without_outputs_of_others(template::translated(&packaged));
    let file = folder.path().join("template.json");
    std::fs::write(&file, body.to_string()).unwrap();
    let given: Vec<Value> = PARAMETERS
        .iter()
        .map(|(name, value)| json!({"ParameterKey": name, "ParameterValue": value}))
        .collect();
    let (body, given) = (
        format!("file://{}", file.display()),
        json!(given).to_string(),
    );
    account.aws(&[
        "cloudformation",
        "create-stack",
        "--stack-name",
        "jit",
        "--template-body",
        &body,
        "--capabilities",
        "CAPABILITY_IAM",
        "--parameters",
        &given,
    ]);
    account
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deployed_template_fits_jit() {
    let account = deploy();
    let stacks = account.aws(&["cloudformation", "describe-stacks", "--stack-name", "jit"]);
    assert_eq!(stacks["Stacks"][0]["StackStatus"], "CREATE_COMPLETE");
    let outputs = stacks["Stacks"][0]["Outputs"].to_string();
    assert!(outputs.contains("lambda:jit-api"), "{outputs}");

    // `jit tables check` checks the tables.
    let tables = Tables::usually_named().through(&account.moto.url);
    let shell = Shell::with(Setup::in_dynamo(&tables));
    let checked = shell.run(&["tables", "check"]);
    // moto's CloudFormation creates tables without recovery and TTL; nothing else may be missing.
    // tests/infra/tables.rs checks these two in the template.
    for line in checked
        .out
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let is_motos = line.contains("cannot be restored") || line.contains("grows for ever");
        assert!(is_motos, "{line}");
    }

    for name in ["jit-api", "jit-worker"] {
        let function = account.aws(&[
            "lambda",
            "get-function-configuration",
            "--function-name",
            name,
        ]);
        assert_eq!(function["Runtime"], "provided.al2023");
        starts_with(&function["Environment"]["Variables"]);
    }
    let mappings = account.aws(&[
        "lambda",
        "list-event-source-mappings",
        "--function-name",
        "jit-worker",
    ]);
    let stream = mappings["EventSourceMappings"][0]["EventSourceArn"]
        .as_str()
        .unwrap();
    assert!(stream.contains("table/jit_requests/stream/"), "{stream}");
}

/// Uses the permission sets of the package's configuration, with keys in place of those from
/// Secrets Manager.
fn starts_with(variables: &Value) {
    let folder = tempfile::tempdir().unwrap();
    let config = template::home().join("infra/lambda.toml");
    let mut command = binary();
    command
        .arg("config")
        .arg("check")
        .arg("--offline")
        .arg("--config")
        .arg(config)
        .current_dir(folder.path());
    for (name, value) in variables.as_object().unwrap() {
        if let Some(value) = value.as_str() {
            command.env(name, value);
        }
    }
    // moto creates no secrets from a template, so their names are not resolved there.
    let template = template::written();
    let named = &template["Globals"]["Function"]["Environment"]["Variables"];
    let mut secrets = 0;
    for name in named.as_object().unwrap().keys() {
        if let Some(name) = name.strip_suffix("__SECRET_ID") {
            secrets += 1;
            command.env(format!("{name}__SECRET"), format!("{secrets:032}"));
            command.env_remove(format!("{name}__SECRET_ID"));
        }
    }
    assert_eq!(secrets, 3, "plugin, operator, backend");
    let said = command.output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let told = String::from_utf8(said.stdout).unwrap();
    assert!(told.contains("DynamoDB, jit_requests"), "{told}");
}
