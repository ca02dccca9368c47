//! The answers of jit as text.

use serde_json::Value;

use crate::cli::output::{clipped, facts, one_line, table};
use crate::clock::{Clock, SystemClock};
use crate::domain::{Timestamp, counted, status_in_words};

/// The length of a reason in a list; `jit status` shows the whole reason.
const WHY_SHOWN: usize = 60;

pub(in crate::cli) fn page(value: &Value) -> String {
    let items = value["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if items.is_empty() {
        return "no requests match".into();
    }
    let word = |item: &Value, name: &str| one_line(item[name].as_str().unwrap_or_default());
    let rows: Vec<Vec<String>> = items
        .iter()
        .map(|item| {
            let why = if item["reason"].is_null() {
                "jira"
            } else {
                "reason"
            };
            vec![
                word(item, "request_id"),
                one_line(&listed_status(item)),
                word(item, "account_id"),
                word(item, "permission_set"),
                word(item, "requester_email"),
                time_left(item)
                    .or_else(|| Some(format!("starts {}", start(item)?)))
                    .unwrap_or_else(|| word(item, "created_at")),
                clipped(&word(item, why), WHY_SHOWN),
            ]
        })
        .collect();
    let head = [
        "REQUEST",
        "STATUS",
        "ACCOUNT",
        "PERMISSION SET",
        "REQUESTER",
        "TIME",
        "REASON",
    ];
    let mut text = table(&head, &rows);
    if let Some(token) = value["next_token"].as_str() {
        text.push_str(&format!(
            "\nmore requests: add --next-token {}",
            one_line(token)
        ));
    }
    text
}

/// Any answer of jit as text.
pub(in crate::cli) fn describe(value: &Value) -> String {
    match value {
        Value::Array(items) if items.is_empty() => {
            "no account is bound to this channel: bind one with `jit bind --channel CHANNEL --account ACCOUNT`".into()
        }
        Value::Array(items) => items.iter().map(describe).collect::<Vec<_>>().join("\n\n"),
        _ if value["request_id"].is_string() => describe_request(value),
        _ => describe_binding(value),
    }
}

/// A field as text; empty if it is absent.
pub(super) fn word(value: &Value, name: &str) -> String {
    match &value[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) => {
            let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            words.join(", ")
        }
        other => other.to_string(),
    }
}

fn describe_request(value: &Value) -> String {
    let word = |name: &str| word(value, name);
    let status = match time_left(value) {
        Some(left) => format!("GRANTED, {left}"),
        None => shown_status(value),
    };
    // Before the grant, the end is only a guess; a removal ends the access at another time.
    let end = match is_held(value) {
        true => word("end_time"),
        false => String::new(),
    };
    let person = |role: &str| match (
        word(&format!("{role}_email")),
        word(&format!("{role}_mm_user_id")),
    ) {
        (email, id) if id.is_empty() => email,
        (email, id) => format!("{email} ({id})"),
    };
    facts(&[
        ("request", word("request_id")),
        ("status", status),
        ("account", word("account_id")),
        ("permission set", word("permission_set")),
        ("channel", word("channel_id")),
        ("requester", person("requester")),
        ("reason", word("reason")),
        ("jira", word("jira")),
        ("minutes", word("requested_duration_minutes")),
        ("starts", word("start_at")),
        ("created", word("created_at")),
        ("approved", word("approved_at")),
        ("approver", person("approver")),
        ("granted", word("grant_time")),
        ("ends", end),
        ("extension requested", word("extension_minutes")),
        ("denied", word("denied_at")),
        ("deny reason", word("deny_reason")),
        ("cancelled", word("cancelled_at")),
        ("expired", word("expired_at")),
        ("revoked", word("revoked_at")),
        ("revoked by", word("revoked_by")),
        ("revoke reason", word("revoke_reason")),
        (
            "old credentials denied until",
            word("sessions_denied_until"),
        ),
        ("error", word("error_details")),
        ("parked notices", word("undelivered_notices")),
        ("note", word("message")),
    ])
}

/// The status, and what jit is doing at AWS.
fn shown_status(value: &Value) -> String {
    status_in_words(&word(value, "status"), value["assignment_status"].as_str())
}

/// The status in a list, which also shows that an extension waits for its approvals.
fn listed_status(value: &Value) -> String {
    let status = shown_status(value);
    match is_held(value) && !value["extension_minutes"].is_null() {
        true => format!("{status}, extension requested"),
        false => status,
    }
}

/// Whether the access exists and jit does not remove it yet.
fn is_held(value: &Value) -> bool {
    value["status"] == "GRANTED" && value["assignment_status"] != "DELETING"
}

/// The time that is left of a grant.
fn time_left(value: &Value) -> Option<String> {
    if !is_held(value) {
        return None;
    }
    let end = Timestamp::parse(value["end_time"].as_str()?)?;
    let left = end - SystemClock.now();
    Some(match left.0 {
        ..=0 => "past its end".into(),
        _ => format!("{left} left"),
    })
}

/// When the access is to begin, if it has not begun.
fn start(value: &Value) -> Option<String> {
    let is_ahead = ["PENDING", "APPROVED"].contains(&value["status"].as_str()?);
    value["start_at"]
        .as_str()
        .filter(|_| is_ahead)
        .map(one_line)
}

fn describe_binding(value: &Value) -> String {
    let word = |name: &str| word(value, name);
    let approvers = match word("approver_mm_user_ids") {
        none if none.is_empty() => {
            "no approvers yet: name them with `jit approvers --channel CHANNEL USER_ID`".into()
        }
        some => some,
    };
    facts(&[
        ("channel", word("channel_id")),
        ("account", word("account_id")),
        ("approvers", approvers),
        ("policy", word("approval_policy")),
        ("self approval", word("allow_self_approval")),
        ("longest duration, hours", word("max_request_hours")),
        ("permission sets", sets_with_limits(value)),
        ("changed", word("updated_at")),
        ("note", word("message")),
    ])
}

/// The permission sets that a request may name. H7: a set that allows less than the binding shows
/// its own limit.
fn sets_with_limits(binding: &Value) -> String {
    let sets = binding["allowed_permission_sets"].as_array();
    let names = sets.into_iter().flatten().filter_map(Value::as_str);
    let shown = names.map(
        |name| match binding["max_request_hours_by_set"][name].as_u64() {
            Some(most) => format!("{name} (at most {})", counted(most, "hour")),
            None => name.to_owned(),
        },
    );
    shown.collect::<Vec<_>>().join(", ")
}

/// Where a new binding allows less than the person wanted, one sentence each.
pub(super) fn lowered_limits(binding: &Value, wanted: u32) -> Vec<String> {
    let mut told = Vec::new();
    let most = binding["max_request_hours"].as_u64();
    if let Some(most) = most.filter(|most| *most < u64::from(wanted)) {
        told.push(format!(
            "the longest duration here is {}, not {wanted}: policy.max_request_hours of the \
             server allows no more",
            counted(most, "hour")
        ));
    }
    let names = |field: &str| {
        let names = binding[field].as_array().into_iter().flatten();
        names.filter_map(Value::as_str).collect::<Vec<_>>()
    };
    let lower: Vec<(&str, u64)> = names("allowed_permission_sets")
        .into_iter()
        .filter_map(|name| {
            let most = binding["max_request_hours_by_set"][name].as_u64()?;
            Some((name, most))
        })
        .collect();
    // One set that allows less is no surprise, unless the binding names it or has no other.
    let is_named = !names("permission_sets").is_empty();
    if is_named || lower.len() == names("allowed_permission_sets").len() {
        told.extend(lower.into_iter().map(|(name, most)| {
            format!(
                "with {name} the longest duration is {}, not {wanted}: max_request_hours of this \
                 permission set on the server allows no more",
                counted(most, "hour")
            )
        }));
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn granted() -> Value {
        json!({"request_id": "1", "status": "GRANTED", "end_time": "2999-01-01T00:00:00Z",
               "start_at": "2026-03-01T09:00:00Z", "created_at": "2026-02-01T09:00:00Z"})
    }

    // H7
    #[test]
    fn a_list_shows_that_an_extension_waits() {
        let mut request = granted();
        let listed = |request: &Value| page(&json!({"items": [request]}));
        assert!(!listed(&request).contains("extension"));
        request["extension_minutes"] = 30.into();
        let shown = listed(&request);
        assert!(shown.contains("GRANTED, extension requested"), "{shown}");
        request["assignment_status"] = "DELETING".into();
        assert!(!listed(&request).contains("extension"));
    }

    // H7
    #[test]
    fn a_status_shows_no_old_end_during_a_removal() {
        let mut request = granted();
        assert!(describe(&request).contains("\nends "));
        request["assignment_status"] = "DELETING".into();
        let shown = describe(&request);
        assert!(shown.contains("GRANTED, being removed"), "{shown}");
        assert!(!shown.contains("\nends "), "{shown}");
    }

    // H7
    #[test]
    fn a_status_shows_the_start_once() {
        for status in ["PENDING", "APPROVED", "GRANTED"] {
            let mut request = granted();
            request["status"] = status.into();
            let shown = describe(&request);
            let starts = shown.lines().filter(|line| line.starts_with("starts"));
            assert_eq!(starts.count(), 1, "{shown}");
        }
    }
}
