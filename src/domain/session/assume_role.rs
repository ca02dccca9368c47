//! The parameters with which jit asks STS for the credentials of a session. AWS accepts only some
//! characters and lengths, whatever the name of the person is.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Session, Terms};
use crate::domain::{RoleArn, Timestamp};

/// The limits of AWS for the name of a session, for its source identity and for a tag.
const LONGEST_SOURCE_IDENTITY: usize = 256;
const LONGEST_TAG: usize = 256;
/// In front of the person in the source identity, which CloudTrail shows for every call.
const SOURCE: &str = "jit,";

/// The tag by which a deny statement ends one session.
pub const SESSION_TAG: &str = "JitSessionId";
const REQUEST_TAG: &str = "JitRequestId";

/// The parameters of AssumeRole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssumeRole {
    pub role: RoleArn,
    pub duration_seconds: u32,
    pub role_session_name: String,
    pub source_identity: String,
    /// Keys and values. They are not transitive: each further role would have to allow them.
    pub tags: Vec<(String, String)>,
    /// The session policy, which only takes away from the permissions of the role.
    pub policy: String,
}

/// The settings of the configuration for these parameters.
#[derive(Clone, Copy, Debug)]
pub struct AssumeRoleOptions<'a> {
    /// The key of the tag with the person; the policies of a company may know it already.
    pub user_tag: &'a str,
    /// Whether the credentials may assume a further role, whose credentials have neither the tag of
    /// the session nor its deadline.
    pub may_assume_roles: bool,
}

impl AssumeRole {
    pub fn of(session: &Session, terms: &Terms, options: AssumeRoleOptions<'_>) -> Self {
        let person = session.person.email.as_str();
        let user = within(&escaped(person), LONGEST_TAG);
        let tag = |key: &str, value: String| (key.to_owned(), value);
        Self {
            role: session.role.clone(),
            duration_seconds: terms.duration_seconds,
            role_session_name: format!("jit-{}", session.id),
            source_identity: within(
                &format!("{SOURCE}{}", escaped(person)),
                LONGEST_SOURCE_IDENTITY,
            ),
            tags: vec![
                tag(SESSION_TAG, session.id.to_string()),
                tag(REQUEST_TAG, session.request_id.to_string()),
                tag(options.user_tag, user),
            ],
            policy: policy(terms.deadline, options.may_assume_roles),
        }
    }
}

/// Allows everything that the role allows until the deadline, although STS gives no credentials of
/// less than 15 minutes.
fn policy(deadline: Timestamp, may_assume_roles: bool) -> String {
    let mut statements = vec![json!({
        "Effect": "Allow", "Action": "*", "Resource": "*",
        "Condition": {"DateLessThan": {"aws:CurrentTime": whole_second(deadline)}},
    })];
    if !may_assume_roles {
        statements.push(json!({"Effect": "Deny", "Action": "sts:AssumeRole", "Resource": "*"}));
    }
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

/// The time without its fraction, which not every part of AWS reads.
fn whole_second(time: Timestamp) -> String {
    let text = time.to_string();
    let seconds = text
        .split_once('.')
        .map_or(text.as_str(), |(seconds, _)| seconds);
    format!("{seconds}Z")
}

/// Writes each byte that AWS does not accept everywhere as `=` and two digits, so that two persons
/// never get the same name.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'+' | b'.' | b'@' | b'-' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("={other:02X}")),
        }
    }
    text
}

/// Cuts a text of escaped characters, and adds a hash of the whole, so that it stays unique.
fn within(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(text)[..8]);
    let kept = &text[..most - hash.len() - 1];
    format!("{kept}={hash}")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{now, session};
    use super::*;
    use crate::domain::Millis;
    use crate::domain::session::Cap;
    use proptest::prelude::*;

    fn terms() -> Terms {
        Terms {
            deadline: now() + Millis::minutes(5),
            duration_seconds: 900,
            cap: Cap::Grant,
        }
    }

    const OPTIONS: AssumeRoleOptions<'_> = AssumeRoleOptions {
        user_tag: "JitUser",
        may_assume_roles: false,
    };

    fn of(email: &str) -> AssumeRole {
        let mut session = session();
        session.person.email = email.parse().unwrap();
        AssumeRole::of(&session, &terms(), OPTIONS)
    }

    /// The pattern of AWS for the name of a session and for a source identity.
    fn is_name(text: &str, longest: usize) -> bool {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        (2..=longest).contains(&text.len()) && text.chars().all(is_allowed)
    }

    /// The part of the pattern of AWS for a tag that needs no Unicode.
    fn is_tag(text: &str, longest: usize) -> bool {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.:/=+-@ ".contains(c);
        text.len() <= longest && text.chars().all(is_allowed)
    }

    #[test]
    fn the_parameters_name_the_session_the_person_and_the_deadline() {
        let asked = of("alice@example.com");
        let session = session();
        assert_eq!(
            asked.role.as_str(),
            "arn:aws:iam::111122223333:role/jit/deploy"
        );
        assert_eq!(asked.role_session_name, "jit-00000000000000ab");
        assert_eq!(asked.source_identity, "jit,alice@example.com");
        assert_eq!(asked.duration_seconds, 900);
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            asked.tags,
            [
                tag("JitSessionId", "00000000000000ab"),
                tag("JitRequestId", &session.request_id.to_string()),
                tag("JitUser", "alice@example.com"),
            ]
        );
        let deadline = "2027-01-15T08:05:00Z";
        assert_eq!(
            asked.policy,
            format!(
                "{{\"Statement\":[{{\"Action\":\"*\",\"Condition\":{{\"DateLessThan\":\
                 {{\"aws:CurrentTime\":\"{deadline}\"}}}},\"Effect\":\"Allow\",\"Resource\":\"*\"}},\
                 {{\"Action\":\"sts:AssumeRole\",\"Effect\":\"Deny\",\"Resource\":\"*\"}}],\
                 \"Version\":\"2012-10-17\"}}"
            )
        );
    }

    #[test]
    fn a_set_may_allow_its_credentials_to_assume_roles() {
        let options = AssumeRoleOptions {
            user_tag: "Owner",
            may_assume_roles: true,
        };
        let asked = AssumeRole::of(&session(), &terms(), options);
        assert!(!asked.policy.contains("sts:AssumeRole"), "{}", asked.policy);
        assert_eq!(asked.tags[2].0, "Owner");
    }

    #[test]
    fn two_persons_have_two_names() {
        for (one, other) in [
            ("o'brien@example.com", "o_brien@example.com"),
            ("a/b@example.com", "a=2Fb@example.com"),
            ("a#b@example.com", "a=23b@example.com"),
        ] {
            assert_ne!(of(one).source_identity, of(other).source_identity);
            assert_ne!(of(one).tags, of(other).tags);
        }
    }

    proptest! {
        #[test]
        fn aws_accepts_the_parameters_of_every_person(local in "[!-?A-~]{1,120}") {
            let Ok(email) = format!("{local}@example.com").parse::<crate::domain::Email>() else {
                return Ok(());
            };
            let asked = of(email.as_str());
            prop_assert!(is_name(&asked.role_session_name, 64));
            prop_assert!(is_name(&asked.source_identity, 256), "{}", asked.source_identity);
            for (key, value) in &asked.tags {
                prop_assert!(is_tag(key, 128));
                prop_assert!(is_tag(value, 256), "{value}");
            }
            prop_assert!(asked.policy.len() <= 2048);
        }
    }
}
