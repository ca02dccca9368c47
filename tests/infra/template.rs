//! infra/template.yaml as JSON, read by the Python of the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The template as written.
pub fn written() -> Value {
    read("written", &file())
}

/// The template after the SAM transform.
pub fn translated(file: &Path) -> Value {
    read("translated", file)
}

pub fn file() -> PathBuf {
    home().join("infra/template.yaml")
}

pub fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of the Python of the tests.
pub fn tool(name: &str) -> Command {
    let program = home().join("target/moto/bin").join(name);
    assert!(program.exists(), "{name} is not here: make moto");
    let mut command = Command::new(program);
    command.env("AWS_DEFAULT_REGION", crate::common::dynamo::REGION);
    command
}

fn read(how: &str, file: &Path) -> Value {
    let said = try_read(how, file);
    assert!(said.status.success(), "{said:?}");
    serde_json::from_slice(&said.stdout).unwrap()
}

pub fn try_read(how: &str, file: &Path) -> Output {
    let script = home().join("tests/infra/template.py");
    tool("python")
        .arg(script)
        .arg(how)
        .arg(file)
        .output()
        .unwrap()
}

/// All resources of a type, by name.
pub fn of_type<'t>(template: &'t Value, kind: &str) -> Vec<(&'t String, &'t Value)> {
    let all = template["Resources"].as_object().unwrap();
    let found: Vec<_> = all
        .iter()
        .filter(|(_, resource)| resource["Type"] == kind)
        .collect();
    assert!(!found.is_empty(), "no {kind}");
    found
}
