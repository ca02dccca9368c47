//! The normal form of what names a person. B3: one person has one spelling, so that no second
//! spelling counts as a second person.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};

use super::{Email, Invalid, MmUserId, plain_word};

/// The length of an address in SMTP.
const LONGEST: usize = 254;
const USER_ID: &str = "must be a Mattermost user id: 1 to 64 letters, digits, - or _";
const ADDRESS: &str = "must be an e-mail address of letters, digits and signs of ASCII, without \
                       spaces or invisible characters";

/// Mattermost makes ids in lower case.
pub(super) fn user_id(text: &str) -> Result<String, Invalid> {
    if text.starts_with('.') || text.ends_with('.') {
        return Err(Invalid(USER_ID));
    }
    stored_form_of_id(text)
}

fn stored_form_of_id(text: &str) -> Result<String, Invalid> {
    plain_word(text, USER_ID).map(|word| word.to_ascii_lowercase())
}

/// Identity Center ignores the case of an address, and a domain with a dot at its end is the same
/// domain. Beyond ASCII there are invisible characters and several codes for one letter.
pub(super) fn address(text: &str) -> Result<String, Invalid> {
    let rule = || Invalid(ADDRESS);
    let (name, domain) = text.split_once('@').ok_or_else(rule)?;
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let in_name = |b: u8| b.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&b);
    let in_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(in_label);
    let is_clean = !name.is_empty() && name.bytes().all(in_name) && domain.split('.').all(is_label);
    if is_clean && text.len() <= LONGEST {
        Ok(format!("{name}@{domain}").to_ascii_lowercase())
    } else {
        Err(rule())
    }
}

/// Reads an address out of the store: older versions of jit accepted more characters.
pub(super) fn stored_address<'de, D: Deserializer<'de>>(stored: D) -> Result<Email, D::Error> {
    let text = String::deserialize(stored)?;
    let old_form = |new_rule: Invalid| {
        let is_clean = |part: &str| {
            !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        match text.split_once('@') {
            Some((name, domain)) if is_clean(name) && is_clean(domain) => Ok(text.to_lowercase()),
            Some(_) | None => Err(new_rule),
        }
    };
    let form = address(&text).or_else(old_form);
    form.map(Email).map_err(serde::de::Error::custom)
}

/// Reads a user id out of the store: older versions of jit accepted a dot at its end.
pub(super) fn stored_user_id<'de, D: Deserializer<'de>>(stored: D) -> Result<MmUserId, D::Error> {
    let form = stored_form_of_id(&String::deserialize(stored)?);
    form.map(MmUserId).map_err(serde::de::Error::custom)
}

#[derive(Deserialize)]
struct StoredUserId(#[serde(deserialize_with = "stored_user_id")] MmUserId);

/// Reads user ids out of the store. Ids that older versions of jit told apart become one.
pub(in crate::domain) fn stored_user_ids<'de, D: Deserializer<'de>>(
    stored: D,
) -> Result<Vec<MmUserId>, D::Error> {
    let ids: Vec<StoredUserId> = Vec::deserialize(stored)?;
    let mut seen = BTreeSet::new();
    let each = ids.into_iter().map(|StoredUserId(id)| id);
    Ok(each.filter(|id| seen.insert(id.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Binding, Person};

    fn email(text: &str) -> String {
        let email: Email = text.parse().unwrap();
        email.to_string()
    }

    // B3
    #[test]
    fn one_person_has_one_spelling() {
        for same in ["bob@example.com", "BOB@Example.COM", "bob@example.com."] {
            assert_eq!(email(same), "bob@example.com", "{same}");
        }
        assert_eq!(
            email("o'neil+jit.x_y@ops-1.example.com"),
            "o'neil+jit.x_y@ops-1.example.com"
        );
        let (one, other): (MmUserId, MmUserId) =
            ("U-BOB".parse().unwrap(), "u-bob".parse().unwrap());
        assert_eq!((&one, one.as_str()), (&other, "u-bob"));
        assert!("u.bob".parse::<MmUserId>().is_ok());
    }

    // B3
    #[test]
    fn a_second_spelling_of_a_person_is_refused() {
        for odd in [
            "bo\u{200b}b@example.com",
            "bo\u{ad}b@example.com",
            "bob@exam\u{200d}ple.com",
            "\u{feff}bob@example.com",
            "b\u{43e}b@example.com",
            "\u{ff42}ob@example.com",
            "bob@example.com..",
            "bob@.example.com",
            "bob@example\u{3002}com",
            "bob@",
            "@example.com",
            "bob@@example.com",
            "\"bob\"@example.com",
            " bob@example.com",
        ] {
            let refused = odd.parse::<Email>().unwrap_err();
            assert!(
                refused.0.starts_with("must be an e-mail address"),
                "{odd:?}"
            );
        }
        for odd in ["u-bob.", ".u-bob", "u-bo\u{200b}b", "u-bo\u{ad}b", " u-bob"] {
            assert!(odd.parse::<MmUserId>().is_err(), "{odd:?}");
        }
    }

    // B3: a record of an older version is read, and its persons are compared in the normal form.
    #[test]
    fn a_stored_person_of_an_older_version_is_read() {
        let read = |id: &str, email: &str| -> Person {
            let stored = serde_json::json!({"id": id, "email": email});
            serde_json::from_value(stored).unwrap()
        };
        let bob = read("u-bob", "bob@example.com");
        for (id, address) in [
            ("U-BOB", "b\u{fc}b@example.com"),
            ("u-bob.", "bob@example.com."),
        ] {
            assert!(read(id, address).is(&bob), "{id} {address}");
        }
        assert_eq!(read("x", "B\u{dc}b@x").email.as_str(), "b\u{fc}b@x");
        for bad in ["bob", "@x", "b b@x"] {
            let stored = serde_json::json!({"id": "bob", "email": bad});
            assert!(serde_json::from_value::<Person>(stored).is_err(), "{bad}");
        }
        let mut stored =
            serde_json::to_value(crate::domain::decide::fixtures::record("Pending").binding);
        stored.as_mut().unwrap()["approvers"] = serde_json::json!(["U-BOB", "u-bob", "carol."]);
        let binding: Binding = serde_json::from_value(stored.unwrap()).unwrap();
        let approvers: Vec<&str> = binding.approvers.iter().map(MmUserId::as_str).collect();
        assert_eq!(approvers, ["u-bob", "carol."]);
    }
}
