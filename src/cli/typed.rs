//! Parses the account, the time or the request that a person types, as `/jit` does.

use std::collections::BTreeMap;

use super::Failure;
use crate::domain::{AccountId, Minutes, TypedSet};
pub(super) use crate::mattermost::nearest;
use crate::mattermost::{Names, typed_minutes};

/// An account by its twelve digits, or by its name in `[accounts]`.
pub(super) fn account(
    word: &str,
    names: &BTreeMap<AccountId, String>,
) -> Result<AccountId, Failure> {
    if let Some(id) = Names::new(names.clone()).meant(word) {
        return Ok(id);
    }
    let known: Vec<&str> = names.values().map(String::as_str).collect();
    let known = match (known.is_empty(), nearest(word, known.iter().copied())) {
        (true, _) => "this jit.toml names no accounts".to_owned(),
        (false, Some(near)) => format!("nearest: {near}"),
        (false, None) => format!("known: {}", known.join(", ")),
    };
    Err(Failure::Usage(format!(
        "{word:?} is not an account: type its 12 digits, or its name in [accounts] of jit.toml; \
         {known}"
    )))
}

/// The known permission set that a person means: `/jit` understands it in any case as well. A set
/// that is not known here stays as it is, because the server may know it.
pub(super) fn permission_set(word: &str, known: &[String]) -> String {
    match TypedSet::of(word, known.iter().map(String::as_str)) {
        TypedSet::Known(set) => set.to_owned(),
        TypedSet::Several(_) | TypedSet::Unknown => word.to_owned(),
    }
}

/// A number of minutes, or a time like `1h30m` as in `/jit request`.
pub(super) fn minutes(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().map(Minutes::new);
    let known = match number {
        Some(number) => number.ok(),
        None => typed_minutes(text),
    };
    known
        .map(Minutes::get)
        .ok_or_else(|| "expected minutes, like 90, or a time like 1h30m".to_owned())
}

/// A number of hours, or a time that is whole hours.
pub(super) fn hours(text: &str) -> Result<u32, String> {
    if let Ok(hours) = text.parse() {
        return Ok(hours);
    }
    let minutes = typed_minutes(text).map(Minutes::get);
    minutes
        .filter(|minutes| minutes % 60 == 0)
        .map(|minutes| minutes / 60)
        .ok_or_else(|| "expected whole hours, like 4, or a time like 4h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    // H4
    #[test]
    fn a_duration_is_minutes_or_a_time() {
        for (text, wanted) in [("90", 90), ("90m", 90), ("1h30m", 90), ("2h", 120)] {
            assert_eq!(minutes(text), Ok(wanted), "{text}");
        }
        for wrong in ["", "0", "-5", "1x", "h"] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }

    // H4
    #[test]
    fn h4_a_permission_set_is_typed_in_any_case() {
        let known = ["admin", "Admin", "readonly"].map(str::to_owned);
        for (word, wanted) in [
            ("ReadOnly", "readonly"),
            ("Admin", "Admin"),
            ("ADMIN", "ADMIN"),
            ("other", "other"),
        ] {
            assert_eq!(permission_set(word, &known), wanted);
        }
    }

    // H4
    #[test]
    fn a_longest_duration_is_hours_or_a_time_of_whole_hours() {
        for (text, wanted) in [("4", 4), ("4h", 4), ("120m", 2)] {
            assert_eq!(hours(text), Ok(wanted), "{text}");
        }
        for wrong in ["", "-5", "1h30m", "x"] {
            assert!(hours(wrong).is_err(), "{wrong}");
        }
    }

    // H4
    #[test]
    fn an_account_is_typed_by_its_name_or_its_digits() {
        let id: AccountId = "111122223333".parse().unwrap();
        let names = BTreeMap::from([(id.clone(), "acme-prod".to_owned())]);
        for word in ["acme-prod", "ACME-Prod", "111122223333"] {
            assert_eq!(account(word, &names).unwrap(), id);
        }
        let refused = account("acme-prdo", &names).unwrap_err().to_string();
        assert!(refused.contains("nearest: acme-prod"), "{refused}");
        let refused = account("acme", &BTreeMap::new()).unwrap_err().to_string();
        assert!(refused.contains("names no accounts"), "{refused}");
    }
}
