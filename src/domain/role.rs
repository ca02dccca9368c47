//! The IAM role of a permission set that is given as credential sessions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{AccountId, Invalid};

/// The place of the account in the ARN of a configured role.
const ACCOUNT: &str = "{account_id}";
const RULE: &str = "must be like arn:aws:iam::{account_id}:role/jit/deploy, with {account_id} in place of the account";
const PARTITIONS: [&str; 3] = ["aws", "aws-cn", "aws-us-gov"];
/// IAM's limits for the path and for the name of a role.
const LONGEST_PATH: usize = 512;
const LONGEST_NAME: usize = 64;

/// A role as the configuration names it: its ARN in every account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoleTemplate {
    partition: &'static str,
    /// The path and the name, without the first slash.
    name: String,
}

impl RoleTemplate {
    /// The role in this account.
    pub fn in_account(&self, account: &AccountId) -> RoleArn {
        let Self { partition, name } = self;
        RoleArn(format!("arn:{partition}:iam::{account}:role/{name}"))
    }
}

impl FromStr for RoleTemplate {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts = || {
            let rest = text.strip_prefix("arn:")?;
            let (partition, rest) = rest.split_once(":iam::")?;
            let partition = PARTITIONS.into_iter().find(|known| *known == partition)?;
            let (account, name) = rest.split_once(":role/")?;
            (account == ACCOUNT && is_name_of_role(name)).then_some((partition, name))
        };
        let (partition, name) = parts().ok_or(Invalid(RULE))?;
        Ok(Self {
            partition,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for RoleTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, name } = self;
        write!(f, "arn:{partition}:iam::{ACCOUNT}:role/{name}")
    }
}

/// Whether this is the path and the name of a role: IAM allows these characters, and no empty part.
fn is_name_of_role(text: &str) -> bool {
    let (path, name) = text.rsplit_once('/').unwrap_or(("", text));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "+=,.@-_/".contains(c);
    text.chars().all(is_allowed)
        && (1..=LONGEST_NAME).contains(&name.len())
        && path.len() <= LONGEST_PATH
        && (path.is_empty() != text.contains('/'))
        && !text.starts_with('/')
        && !text.contains("//")
}

/// The ARN of a role in one account. The configuration makes it, never a caller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RoleArn(String);

impl RoleArn {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for RoleArn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A stored ARN was made from a template and an account.
        let text = String::deserialize(deserializer)?;
        let account = text.split(':').nth(4).and_then(|part| part.parse().ok());
        let is_known = account.is_some_and(|account: AccountId| {
            let template = text.replacen(account.as_str(), ACCOUNT, 1);
            template
                .parse::<RoleTemplate>()
                .is_ok_and(|template| template.in_account(&account).as_str() == text)
        });
        match is_known {
            true => Ok(Self(text)),
            false => Err(serde::de::Error::custom("must be the ARN of an IAM role")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> AccountId {
        "111122223333".parse().unwrap()
    }

    #[test]
    fn a_template_is_a_role_in_each_account() {
        for (text, arn) in [
            (
                "arn:aws:iam::{account_id}:role/jit/deploy",
                "arn:aws:iam::111122223333:role/jit/deploy",
            ),
            (
                "arn:aws-us-gov:iam::{account_id}:role/Admin+x=1,y.@_-",
                "arn:aws-us-gov:iam::111122223333:role/Admin+x=1,y.@_-",
            ),
        ] {
            let template: RoleTemplate = text.parse().unwrap();
            assert_eq!(template.to_string(), text);
            let role = template.in_account(&account());
            assert_eq!(role.as_str(), arn);
            let stored = serde_json::to_string(&role).unwrap();
            assert_eq!(serde_json::from_str::<RoleArn>(&stored).unwrap(), role);
        }
    }

    #[test]
    fn other_texts_are_no_templates() {
        let long = format!("arn:aws:iam::{{account_id}}:role/{}", "x".repeat(65));
        for text in [
            "",
            "deploy",
            "arn:aws:iam::111122223333:role/jit/deploy",
            "arn:aws:iam::{account}:role/deploy",
            "arn:aws:iam::{account_id}:user/deploy",
            "arn:aws:iam::{account_id}:role/",
            "arn:aws:iam::{account_id}:role//deploy",
            "arn:aws:iam::{account_id}:role/jit//deploy",
            "arn:aws:iam::{account_id}:role/jit/",
            "arn:aws:iam::{account_id}:role/de ploy",
            "arn:aws:iam::{account_id}:role/déploy",
            "arn:gcp:iam::{account_id}:role/deploy",
            "arn:aws:iam:eu:{account_id}:role/deploy",
            &long,
        ] {
            assert!(text.parse::<RoleTemplate>().is_err(), "{text:?}");
        }
        for stored in [
            "arn:aws:iam::1:role/x",
            "arn:aws:iam::{account_id}:role/x",
            "x",
        ] {
            let stored = serde_json::to_string(stored).unwrap();
            assert!(
                serde_json::from_str::<RoleArn>(&stored).is_err(),
                "{stored}"
            );
        }
    }
}
