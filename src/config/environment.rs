//! Reads keys from environment variables, such as `JIT_SERVER__LISTEN`, which override jit.toml.

use std::path::Path;

use toml::{Table, Value};

use super::file::File;
use super::{ConfigError, Variables};

/// One key that an environment variable sets.
struct EnvironmentKey {
    variable: String,
    path: Vec<String>,
    text: String,
}

/// Parses the text of the file and applies the environment variables to it.
pub(super) fn overlay(path: &Path, text: &str, variables: &Variables) -> Result<File, ConfigError> {
    let name = path.display();
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start].lines().count().max(1));
        // The parser's own message quotes the line, which may contain a secret.
        ConfigError::new(
            format!("{name} line {line}"),
            format!("is not TOML: {}", error.message()),
        )
    })?;
    let in_file = table.clone();
    let said = environment_keys(variables, &table);
    for one in &said {
        put(&mut table, one, Value::String(one.text.clone()))?;
    }
    // A variable is a text first. If the key needs another type, it is parsed as TOML.
    for _ in 0..=said.len() {
        let error = match read(&table, path) {
            Ok(file) => return Ok(file),
            Err(error) => error,
        };
        let typed = said
            .iter()
            .filter(|one| error.key.starts_with(&one.path.join(".")))
            .find_map(|one| Some((one, typed(&one.text)?)));
        match typed {
            Some((one, value)) if get(&table, &one.path).is_some_and(Value::is_str) => {
                put(&mut table, one, value)?;
            }
            _ => return Err(blamed(error, &said, &in_file)),
        }
    }
    read(&table, path)
}

fn read(table: &Table, file: &Path) -> Result<File, ConfigError> {
    serde_path_to_error::deserialize(table.clone()).map_err(|error| {
        let path = error.path().to_string();
        let why = without_value(error.inner().message());
        let key = match path.as_str() {
            "." => file.display().to_string(),
            _ => path,
        };
        ConfigError::new(key, why)
    })
}

/// Removes the value from a message of serde, for every key: a secret may stand under any of them
/// by mistake. The key says where to look. The values are followed by the last `, expected`.
fn without_value(message: &str) -> String {
    let quotes = [
        "invalid type",
        "invalid value",
        "invalid length",
        "unknown variant",
    ];
    let found = quotes
        .into_iter()
        .filter_map(|kind| Some(message.find(kind)? + kind.len()));
    let Some(end) = found.min() else {
        return message.to_owned();
    };
    let expected = message.rfind(", expected ").filter(|at| *at >= end);
    let expected = expected.map_or("", |at| &message[at..]);
    format!("{}{expected}", &message[..end])
}

fn environment_keys(variables: &Variables, table: &Table) -> Vec<EnvironmentKey> {
    let named = variables.iter().filter_map(|(variable, text)| {
        let name = variable.strip_prefix("JIT_")?;
        let (_, _) = name.split_once("__")?;
        Some(EnvironmentKey {
            variable: variable.clone(),
            path: spelled(name, table),
            text: text.clone(),
        })
    });
    named.collect()
}

/// Returns the path of a variable. A variable's name cannot contain lower case or hyphens, so
/// it matches a key of the file that differs only in these.
fn spelled(name: &str, table: &Table) -> Vec<String> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let mut at = Some(table);
    let mut path = Vec::new();
    for part in name.split("__") {
        let known = at.and_then(|table| table.keys().find(|key| plain(key) == plain(part)));
        let key = known.cloned().unwrap_or_else(|| part.to_lowercase());
        at = at.and_then(|table| table.get(&key)?.as_table());
        path.push(key);
    }
    path
}

fn put(table: &mut Table, said: &EnvironmentKey, value: Value) -> Result<(), ConfigError> {
    let mut at = table;
    let Some((last, sections)) = said.path.split_last() else {
        return Ok(());
    };
    for section in sections {
        let inside = at
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        at = inside.as_table_mut().ok_or_else(|| {
            let why = format!("names a section, but {section} is not one");
            ConfigError::new(said.variable.clone(), why)
        })?;
    }
    at.insert(last.clone(), value);
    Ok(())
}

fn get<'t>(table: &'t Table, path: &[String]) -> Option<&'t Value> {
    let (last, sections) = path.split_last()?;
    let mut at = table;
    for section in sections {
        at = at.get(section)?.as_table()?;
    }
    at.get(last)
}

fn typed(text: &str) -> Option<Value> {
    let mut table: Table = format!("value = {text}").parse().ok()?;
    table.remove("value").filter(|value| !value.is_str())
}

/// Adds the variable's name to an error about its key, because the operator set the variable. A
/// section that the file does not have comes from a variable as well.
fn blamed(error: ConfigError, said: &[EnvironmentKey], in_file: &Table) -> ConfigError {
    let section: Vec<String> = error.key.split('.').map(str::to_owned).collect();
    let is_of_file = get(in_file, &section).is_some();
    let one = said
        .iter()
        .find(|one| one.path == section || (!is_of_file && one.path.starts_with(&section)));
    match one {
        Some(one) => ConfigError::new(format!("{} ({})", error.key, one.variable), error.why),
        None => error,
    }
}
