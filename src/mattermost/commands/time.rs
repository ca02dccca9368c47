//! Times as people type them: `30m`, `1h30m`, `90min`, `1 hour`, `2 days`.

use super::parts::first;
use crate::domain::Minutes;

/// What the beginning of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypedTime<'t> {
    /// A time, and the text after it.
    Is(Minutes, &'t str),
    /// Words that look like a time and are none that jit knows, such as `30` or `0m`.
    Odd(&'t str),
    /// Something else.
    No,
}

impl<'t> TypedTime<'t> {
    pub fn at_the_beginning_of(text: &'t str) -> Self {
        let text = text.trim_start();
        let (word, rest) = first(text);
        if !word.starts_with(|c: char| c.is_ascii_digit()) {
            return Self::No;
        }
        let is_number = word.bytes().all(|b| b.is_ascii_digit());
        let (unit, after) = first(rest);
        if is_number && minutes_of(&unit.to_lowercase()).is_some() {
            let typed = text.get(..text.len() - after.len()).unwrap_or(text);
            return match compound(&format!("{word}{unit}")) {
                Some(minutes) => Self::Is(minutes, after),
                None => Self::Odd(typed.trim_end()),
            };
        }
        match compound(word) {
            Some(minutes) => Self::Is(minutes, rest),
            None if looks_like_one(word) => Self::Odd(word),
            None => Self::No,
        }
    }
}

/// How many words at the beginning of a reason jit searches for a time. A time behind them is about
/// something else.
const SEARCHED_WORDS: usize = 4;

/// Words that count units of time.
const NUMBERS: [&str; 18] = [
    "a", "an", "half", "quarter", "one", "two", "three", "four", "five", "six", "eight", "ten",
    "twelve", "fifteen", "twenty", "thirty", "couple", "few",
];

/// A time among the first words of a text, and the time that it probably stands for: `please 15m`,
/// `half an hour`.
pub fn time_within(text: &str) -> Option<(&str, String)> {
    let text = text.trim();
    let (mut rest, mut counted_from) = (text, None);
    for _ in 0..SEARCHED_WORDS {
        if let TypedTime::Is(minutes, after) = TypedTime::at_the_beginning_of(rest) {
            let typed = rest.strip_suffix(after).unwrap_or(rest).trim_end();
            return Some((typed, format!("{}m", minutes.get())));
        }
        let (word, after) = first(rest);
        let lower = word.to_lowercase();
        let is_unit = lower.len() > 2 && minutes_of(&lower).is_some();
        let begin = text.len() - rest.len();
        if let Some(from) = counted_from.filter(|_| is_unit) {
            let typed = text.get(from..begin + word.len())?;
            let is_half = typed.to_lowercase().starts_with("half");
            return Some((typed, if is_half { "30m" } else { "1h" }.to_owned()));
        }
        if NUMBERS.contains(&lower.as_str()) {
            counted_from = counted_from.or(Some(begin));
        }
        rest = after;
    }
    None
}

/// The time that the whole text is.
pub fn minutes(text: &str) -> Option<Minutes> {
    match TypedTime::at_the_beginning_of(text) {
        TypedTime::Is(minutes, "") => Some(minutes),
        TypedTime::Is(..) | TypedTime::Odd(_) | TypedTime::No => None,
    }
}

/// The minutes of a unit.
fn minutes_of(unit: &str) -> Option<i64> {
    Some(match unit {
        "m" | "min" | "mins" | "minute" | "minutes" => 1,
        "h" | "hr" | "hrs" | "hour" | "hours" => 60,
        "d" | "day" | "days" => 24 * 60,
        _ => return None,
    })
}

/// Numbers, each with its unit, in one word.
fn compound(word: &str) -> Option<Minutes> {
    let (mut all, mut rest) = (0_i64, word);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit())?;
        let (digits, after) = rest.split_at(number);
        let unit = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let number: i64 = digits.parse().ok()?;
        let minutes = number.checked_mul(minutes_of(&unit.to_lowercase())?)?;
        all = all.checked_add(minutes)?;
        rest = after;
    }
    Minutes::new(all).ok()
}

/// A number alone, or a number with one separator, or numbers with words that are near a unit of
/// time.
fn looks_like_one(word: &str) -> bool {
    let is_separator = |c: char| matches!(c, '.' | ',' | ':' | '-' | '_');
    let is_range = word.contains(['-', '_']) && !word.contains(char::is_alphabetic);
    if is_range {
        return false;
    }
    if word.chars().filter(|c| is_separator(*c)).count() > 1 {
        return false;
    }
    let units = word.split(|c: char| c.is_ascii_digit() || is_separator(c));
    let mut units = units.filter(|unit| !unit.is_empty());
    units.all(|unit| is_near_a_unit(&unit.to_lowercase()))
}

fn is_near_a_unit(unit: &str) -> bool {
    const OTHERS: [&str; 9] = [
        "s", "sec", "secs", "second", "seconds", "w", "wk", "week", "weeks",
    ];
    const LONG: [&str; 9] = [
        "min", "mins", "minute", "minutes", "hrs", "hour", "hours", "day", "days",
    ];
    let most = if unit.chars().count() > 3 { 2 } else { 1 };
    let is_near = |known: &&str| strsim::damerau_levenshtein(unit, known) <= most;
    minutes_of(unit).is_some()
        || OTHERS.contains(&unit)
        || (unit.chars().count() > 1 && LONG.iter().any(is_near))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W1
    #[test]
    fn usual_ways_to_type_a_time_are_understood() {
        for (text, wanted, rest) in [
            ("30m", 30, ""),
            ("1d2h look", 1560, "look"),
            ("90min at logs", 90, "at logs"),
            ("1 hour", 60, ""),
            ("2 Hours db down", 120, "db down"),
            ("1h30m", 90, ""),
            ("1h30min x", 90, "x"),
            ("15 m x", 15, "x"),
        ] {
            let wanted = TypedTime::Is(Minutes::new(wanted).unwrap(), rest);
            assert_eq!(TypedTime::at_the_beginning_of(text), wanted, "{text}");
        }
    }

    /// W1
    #[test]
    fn a_time_among_the_first_words_is_found() {
        for (text, wanted) in [
            ("please 15m", Some(("15m", "15m"))),
            ("admn 30m x", Some(("30m", "30m"))),
            ("look for 2 hours now", Some(("2 hours", "120m"))),
            ("half an hour", Some(("half an hour", "30m"))),
            ("for Two hours x", Some(("Two hours", "1h"))),
            ("look at the logs of 3h", None),
            ("an outage", None),
            ("look at 500 errors", None),
            ("", None),
        ] {
            let found = time_within(text);
            let found = found
                .as_ref()
                .map(|(typed, meant)| (*typed, meant.as_str()));
            assert_eq!(found, wanted, "{text}");
        }
    }

    /// W1
    #[test]
    fn a_misspelt_time_is_distinguished_from_a_word() {
        for (text, odd) in [
            ("30 look at logs", "30"),
            ("0m x", "0m"),
            ("0 minutes x", "0 minutes"),
            ("1.5h x", "1.5h"),
            ("1:30 x", "1:30"),
            ("1h30 x", "1h30"),
            ("90s x", "90s"),
            ("1week x", "1week"),
            ("30mn x", "30mn"),
            ("30-minutes x", "30-minutes"),
            ("2huors x", "2huors"),
            ("99999999999999999999h x", "99999999999999999999h"),
        ] {
            let read = TypedTime::at_the_beginning_of(text);
            assert_eq!(read, TypedTime::Odd(odd), "{text}");
        }
        for text in [
            "",
            "h",
            "2x",
            "3rd try",
            "5xx errors",
            "24/7",
            "24-7",
            "2026-01-15",
            "16gb",
            "500ms",
            "2nd",
            "10.0.0.1",
            "\"30 x\"",
        ] {
            assert_eq!(
                TypedTime::at_the_beginning_of(text),
                TypedTime::No,
                "{text}"
            );
        }
    }
}
