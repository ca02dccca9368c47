//! The fields of a submitted dialog, which the user can change.

use std::collections::BTreeMap;

use serde_json::Value;

/// The fields of the form; clients send texts or numbers.
pub(super) struct Fields<'f> {
    fields: &'f BTreeMap<String, Value>,
    /// The errors so far, by field.
    pub wrong: BTreeMap<&'static str, String>,
}

impl<'f> Fields<'f> {
    pub fn of(fields: &'f BTreeMap<String, Value>) -> Self {
        let wrong = BTreeMap::new();
        Self { fields, wrong }
    }

    pub fn one<T: std::str::FromStr<Err: ToString>>(&mut self, name: &'static str) -> Option<T> {
        let text = match self.fields.get(name) {
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return None,
        };
        if text.is_empty() {
            return None;
        }
        match text.parse() {
            Ok(value) => Some(value),
            Err(why) => {
                self.wrong.insert(name, why.to_string());
                None
            }
        }
    }

    pub fn needed<T: std::str::FromStr<Err: ToString>>(&mut self, name: &'static str) -> Option<T> {
        let value = self.one(name);
        if value.is_none() && !self.wrong.contains_key(name) {
            self.wrong.insert(name, "is required".into());
        }
        value
    }
}
