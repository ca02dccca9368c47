//! Deny statements for old credentials in a permission set's inline policy: this adds them to
//! the text of the policy and removes them.
//!
//! The rest of the policy stays byte for byte: jit inserts its statements into the text and
//! cuts them out, and reformats nothing.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::domain::{RequestId, Timestamp, UserId};

/// The longest policy that AWS accepts, in characters.
pub const LONGEST: usize = 10_240;
/// The prefix of the Sid of each of jit's statements.
const PREFIX: &str = "JitEndSessions";
const EMPTY: &str = r#"{"Version":"2012-10-17","Statement":[]}"#;

/// Denies everything to this user's credentials that were fetched before this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDeny {
    pub request: RequestId,
    pub user: UserId,
    pub before: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub policy: String,
    /// The requests whose deny statements were removed to make room, the oldest first.
    pub dropped: Vec<RequestId>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DenyError {
    #[error("the permission set's inline policy cannot be read: {0}; jit does not change it")]
    Unreadable(String),
    #[error(
        "the permission set's inline policy has no room for a deny statement: other statements use \
         {others} of {LONGEST} characters"
    )]
    NoRoom {
        /// The number of characters that the statements of others use.
        others: usize,
    },
}

/// The policy with this deny statement in it, once.
pub fn placed(policy: Option<&str>, deny: &PolicyDeny) -> Result<Placed, DenyError> {
    let mut policy = without(policy, deny.request)?.unwrap_or_else(|| EMPTY.to_owned());
    let statement = deny.statement();
    let mut dropped = Vec::new();
    loop {
        let with = appended(&policy, &statement)?;
        if with.chars().count() <= LONGEST {
            return Ok(Placed {
                policy: with,
                dropped,
            });
        }
        // The statements are in the order in which they were added.
        let oldest = statements(&policy)?.into_iter().find_map(|one| one.request);
        let Some(oldest) = oldest else {
            let others = policy.chars().count();
            return Err(DenyError::NoRoom { others });
        };
        policy = without(Some(&policy), oldest)?.unwrap_or_else(|| EMPTY.to_owned());
        dropped.push(oldest);
    }
}

/// The policy without the deny statement of this request. None if no statement is left, so
/// that the policy has to be deleted.
pub fn without(policy: Option<&str>, request: RequestId) -> Result<Option<String>, DenyError> {
    let Some(policy) = policy.filter(|policy| !policy.trim().is_empty()) else {
        return Ok(None);
    };
    let mut text = policy.to_owned();
    loop {
        let all = statements(&text)?;
        let Some(at) = all.iter().position(|one| one.request == Some(request)) else {
            return Ok(Some(text));
        };
        if all.len() == 1 {
            return Ok(None);
        }
        // Also cuts the comma and the space on one side.
        let (from, to) = match at {
            0 => (all[0].from, all[1].from),
            at => (all[at - 1].to, all[at].to),
        };
        text.replace_range(from..to, "");
    }
}

/// Whether the policy has this deny statement.
pub fn holds(policy: Option<&str>, deny: &PolicyDeny) -> bool {
    policy.is_some_and(|policy| policy.contains(&deny.statement()))
}

impl PolicyDeny {
    fn statement(&self) -> String {
        json!({
            "Sid": sid(self.request),
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {
                "StringEquals": {"identitystore:userId": self.user},
                "DateLessThan": {"aws:TokenIssueTime": whole_second(self.before)},
            },
        })
        .to_string()
    }
}

/// The time rounded up to a second: AWS compares only seconds.
fn whole_second(time: Timestamp) -> String {
    let rounded = Timestamp::from_millis(time.millis() + 999).to_string();
    let second = rounded.split('.').next().unwrap_or(&rounded);
    format!("{}Z", second.trim_end_matches('Z'))
}

/// A Sid may have only letters and digits.
fn sid(request: RequestId) -> String {
    format!("{PREFIX}{}", request.to_string().replace('-', ""))
}

/// The position of a statement in the text, and its request if it is one of jit's.
struct Statement {
    from: usize,
    to: usize,
    request: Option<RequestId>,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(rename = "Statement", borrow)]
    statement: &'a RawValue,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "Sid", default)]
    sid: Option<String>,
}

fn statements(policy: &str) -> Result<Vec<Statement>, DenyError> {
    let unreadable = |why: serde_json::Error| DenyError::Unreadable(why.to_string());
    let document: Document = serde_json::from_str(policy).map_err(unreadable)?;
    let raw = document.statement.get();
    // A single statement may have no brackets.
    let all: Vec<&RawValue> = if raw.starts_with('[') {
        serde_json::from_str(raw).map_err(unreadable)?
    } else {
        vec![document.statement]
    };
    let place = |one: &RawValue| {
        let from = one.get().as_ptr() as usize - policy.as_ptr() as usize;
        let named: Named = serde_json::from_str(one.get()).map_err(unreadable)?;
        let ours = named
            .sid
            .as_deref()
            .and_then(|sid| sid.strip_prefix(PREFIX));
        Ok(Statement {
            from,
            to: from + one.get().len(),
            request: ours.and_then(request_of),
        })
    };
    all.into_iter().map(place).collect()
}

fn request_of(hex: &str) -> Option<RequestId> {
    let id = uuid::Uuid::try_parse(hex).ok()?;
    Some(RequestId::from_uuid(id))
}

fn appended(policy: &str, statement: &str) -> Result<String, DenyError> {
    let unreadable = |why: serde_json::Error| DenyError::Unreadable(why.to_string());
    let document: Document = serde_json::from_str(policy).map_err(unreadable)?;
    let raw = document.statement.get();
    let from = raw.as_ptr() as usize - policy.as_ptr() as usize;
    let to = from + raw.len();
    let mut text = policy.to_owned();
    if !raw.starts_with('[') {
        text.replace_range(from..to, &format!("[{raw},{statement}]"));
        return Ok(text);
    }
    match statements(policy)?.last() {
        Some(last) => text.insert_str(last.to, &format!(",{statement}")),
        None => text.replace_range(from..to, &format!("[{statement}]")),
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn deny(number: u128) -> PolicyDeny {
        PolicyDeny {
            request: RequestId::from_uuid(uuid::Uuid::from_u128(number)),
            user: "u-1".parse().unwrap(),
            before: Timestamp::from_seconds(1_800_000_000),
        }
    }

    const OTHERS: &str = "{ \"Version\" : \"2012-10-17\",\n  \"Statement\": [ {\"Sid\":\"Ours\",\
        \"Effect\":\"Allow\",\"Action\":\"s3:*\",\"Resource\":\"*\"} ,\n {\"Effect\":\"Deny\",\
        \"Action\":\"iam:*\",\"Resource\":\"*\"}\n ], \"Id\": \"x\" }";

    #[test]
    fn a_deny_statement_is_removed_without_any_other_change() {
        let placed = placed(Some(OTHERS), &deny(1)).unwrap();
        assert!(holds(Some(&placed.policy), &deny(1)));
        let read: serde_json::Value = serde_json::from_str(&placed.policy).unwrap();
        let ours = &read["Statement"][2];
        assert_eq!(
            ours["Sid"],
            "JitEndSessions00000000000000000000000000000001"
        );
        let condition = &ours["Condition"];
        assert_eq!(condition["StringEquals"]["identitystore:userId"], "u-1");
        let before = &condition["DateLessThan"]["aws:TokenIssueTime"];
        assert_eq!(before, "2027-01-15T08:00:00Z");
        let without = without(Some(&placed.policy), deny(1).request).unwrap();
        assert_eq!(without.as_deref(), Some(OTHERS));
    }

    #[test]
    fn a_set_without_a_policy_has_none_after_the_removal() {
        for none in [None, Some(""), Some(" ")] {
            let placed = placed(none, &deny(1)).unwrap().policy;
            assert_eq!(without(Some(&placed), deny(1).request), Ok(None));
        }
    }

    #[test]
    fn a_single_statement_without_brackets_is_read() {
        let single = r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}"#;
        let placed = placed(Some(single), &deny(1)).unwrap().policy;
        let left = without(Some(&placed), deny(1).request).unwrap().unwrap();
        let bracketed = r#"{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
        assert_eq!(left, bracketed);
    }

    #[test]
    fn a_deny_statement_placed_twice_is_in_the_policy_once() {
        let once = placed(Some(OTHERS), &deny(1)).unwrap().policy;
        assert_eq!(placed(Some(&once), &deny(1)).unwrap().policy, once);
    }

    #[test]
    fn the_oldest_of_jits_statements_make_room_and_no_others() {
        let long = "x".repeat(9_000);
        let others = format!(r#"{{"Statement":[{{"Sid":"{long}"}}]}}"#);
        let mut policy = Some(others.clone());
        let mut dropped = Vec::new();
        for number in 1..=20 {
            let placed = placed(policy.as_deref(), &deny(number)).unwrap();
            assert!(placed.policy.chars().count() <= LONGEST);
            assert!(holds(Some(&placed.policy), &deny(number)));
            dropped.extend(placed.dropped);
            policy = Some(placed.policy);
        }
        assert!(dropped.len() > 10);
        let oldest: Vec<_> = (1..)
            .map(|number| deny(number).request)
            .take(dropped.len())
            .collect();
        assert_eq!(dropped, oldest);
        for number in 1..=20 {
            policy = without(policy.as_deref(), deny(number).request).unwrap();
        }
        assert_eq!(policy.as_deref(), Some(others.as_str()));
    }

    #[test]
    fn a_full_policy_and_an_unreadable_one_are_refused() {
        let long = "x".repeat(10_100);
        let others = format!(r#"{{"Statement":[{{"Sid":"{long}"}}]}}"#);
        let refused = placed(Some(&others), &deny(1));
        assert!(
            matches!(refused, Err(DenyError::NoRoom { .. })),
            "{refused:?}"
        );
        for odd in ["{", "[]", "{}", r#"{"Statement":[1]}"#] {
            let refused = placed(Some(odd), &deny(1));
            assert!(matches!(refused, Err(DenyError::Unreadable(_))), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn other_statements_stay_byte_for_byte(
            spaces in proptest::collection::vec("[ \n\t]{0,3}", 4),
            sids in proptest::collection::vec("[a-zA-Z0-9é\"\\\\]{0,12}", 1..5),
            order in proptest::collection::vec(1_u128..6, 1..12),
        ) {
            let statements: Vec<String> = sids
                .iter()
                .map(|sid| format!("{}{}{}", spaces[0], json!({"Sid": sid, "Effect": "Allow"}), spaces[1]))
                .collect();
            let others = format!(
                "{{{}\"Statement\":{}[{}]{}}}", spaces[2], spaces[3], statements.join(","), spaces[2]
            );
            let mut policy = Some(others.clone());
            for number in &order {
                policy = Some(placed(policy.as_deref(), &deny(*number)).unwrap().policy);
            }
            for number in order.iter().rev() {
                policy = without(policy.as_deref(), deny(*number).request).unwrap();
            }
            prop_assert_eq!(policy, Some(others));
        }
    }
}
