//! The options of the command line for the fields of the HTTP API: an error of the server names
//! fields, which a person at the terminal did not type.

use serde_json::Value;

use super::typed::nearest;
use crate::signature;

/// Each field, and the option or the argument that sets it.
const OPTIONS: [(&str, &str); 25] = [
    ("account_id", "--account"),
    ("actor_email", "--as"),
    ("actor_mm_user_id", "--as-id"),
    ("additional_minutes", "--minutes"),
    ("allow_self_approval", "--allow-self-approval"),
    ("approvals_required", "--approvals-required"),
    ("approver_email", "--as"),
    ("approver_ids", "ID"),
    ("approver_mm_user_id", "--as-id"),
    ("channel_id", "--channel"),
    ("denier_email", "--as"),
    ("denier_mm_user_id", "--as-id"),
    ("end_date", "--to"),
    ("jira", "--jira"),
    ("limit", "--limit"),
    ("max_request_hours", "--max-hours"),
    ("next_token", "--next-token"),
    ("permission_set", "--permission-set"),
    ("permission_sets", "--permission-set"),
    ("reason", "--reason"),
    ("requested_duration_minutes", "--minutes"),
    ("requester_mm_user_id", "--as-id"),
    ("start_at", "--start-at"),
    ("start_date", "--from"),
    ("status", "--status"),
];
/// In a list it is a filter; in a new request it is the person who acts.
const REQUESTER: &str = "requester_email";

/// The values of a call, as the person typed them.
pub(super) struct TypedFields<'c> {
    pub query: &'c str,
    pub body: &'c str,
}

impl TypedFields<'_> {
    fn option(&self, field: &str) -> Option<&'static str> {
        if field == REQUESTER {
            return Some(if self.body.is_empty() {
                "--requester"
            } else {
                "--as"
            });
        }
        let found = OPTIONS.iter().find(|(name, _)| *name == field);
        found.map(|(_, option)| *option)
    }

    /// The message of a refusal with options in place of fields, and with the value of the field
    /// that the message is about.
    pub fn explained(&self, message: &str) -> String {
        let (first, rest) = message.split_once(' ').unwrap_or((message, ""));
        let (field, place) = indexed(first.trim_end_matches(':'));
        let about = self
            .option(field)
            .filter(|_| first.ends_with(':') || rest.starts_with("must ") || field.contains('_'));
        let Some(option) = about else {
            return self.renamed(message);
        };
        let typed = self.value(field, place);
        let value = match &typed {
            Some(Value::String(text)) => format!(" {text:?}"),
            Some(other) => format!(" {other}"),
            None => String::new(),
        };
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        let near = nearest_of_list(word, rest);
        // The option is shown with its value already.
        let is_shown = typed.as_ref().and_then(Value::as_str) == Some(word);
        let rest = if is_shown { after } else { rest };
        let near = near.map_or_else(String::new, |near| format!("; nearest: {near}"));
        format!("{option}{value} {}{near}", self.renamed(rest))
    }

    /// Only a name with `_` is certainly a field: `reason` is also a word of a sentence.
    fn renamed(&self, message: &str) -> String {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let mut renamed = String::with_capacity(message.len());
        let mut rest = message;
        while !rest.is_empty() {
            let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let option = self.option(word).filter(|_| word.contains('_'));
            renamed.push_str(option.unwrap_or(word));
            let end = after.find(is_of_name).unwrap_or(after.len());
            let (between, next) = after.split_at(end);
            renamed.push_str(between);
            rest = next;
        }
        renamed
    }

    fn value(&self, field: &str, place: Option<usize>) -> Option<Value> {
        if let Some((_, value)) = signature::pairs(self.query)?
            .into_iter()
            .find(|(name, _)| name == field)
        {
            return Some(value.into());
        }
        let body: Value = serde_json::from_str(self.body).ok()?;
        let value = body.get(field)?;
        let value = match place {
            Some(place) => value.get(place)?,
            None => value,
        };
        Some(value.clone())
    }
}

/// The word of the list at the end of a refusal that the person probably meant.
fn nearest_of_list<'m>(word: &str, message: &'m str) -> Option<&'m str> {
    let lists = ["; known: ", "; allowed: "];
    let (_, list) = lists.iter().find_map(|before| message.split_once(before))?;
    nearest(word, list.split(", "))
}

/// The name of the field, and the place in its list: `approver_ids[0]`.
fn indexed(path: &str) -> (&str, Option<usize>) {
    let Some((field, place)) = path.split_once('[') else {
        return (path, None);
    };
    (field, place.trim_end_matches(']').parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: TypedFields<'_> = TypedFields {
        query: "",
        body: r#"{"approver_ids": ["bob", "@bob"], "requester_email": "x", "start_at": "tomorrow"}"#,
    };

    // H6
    #[test]
    fn a_refusal_names_the_option_and_the_typed_value() {
        let query = "requester_email=alice&start_date=yesterday&status=granted&limit=10";
        let listed = TypedFields { query, body: "" };
        for (fields, message, wanted) in [
            (
                &listed,
                "requester_email must be an address",
                "--requester \"alice\" must be an address",
            ),
            (
                &listed,
                "start_date must be a date",
                "--from \"yesterday\" must be a date",
            ),
            (
                &listed,
                "status must be PENDING",
                "--status \"granted\" must be PENDING",
            ),
            (
                &SENT,
                "approver_ids[1]: must be a user id",
                "ID \"@bob\" must be a user id",
            ),
            (
                &SENT,
                "requester_email: must be an address",
                "--as \"x\" must be an address",
            ),
            (
                &SENT,
                "start_at: must be a time",
                "--start-at \"tomorrow\" must be a time",
            ),
            (
                &SENT,
                "no user has it; give approver_mm_user_id",
                "no user has it; give --as-id",
            ),
            (&SENT, "denier_mm_user_id is missing", "--as-id is missing"),
        ] {
            assert_eq!(fields.explained(message), wanted);
        }
        let body = r#"{"permission_set": "redonly"}"#;
        let set = TypedFields { query: "", body };
        let near = "permission_set redonly is not configured; known: admin, readonly";
        assert_eq!(
            set.explained(near),
            "--permission-set \"redonly\" is not configured; known: admin, readonly; nearest: readonly"
        );
    }

    // H6
    #[test]
    fn a_setting_of_the_server_and_an_ordinary_word_stay() {
        for same in [
            "policy.max_request_hours of the server allows no more",
            "the reason is missing: give reason or jira",
            "reason for the access: none",
            "status GRANTED allows no deny",
        ] {
            assert_eq!(SENT.explained(same), same);
        }
    }
}
