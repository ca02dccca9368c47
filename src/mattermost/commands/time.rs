//! Times as people type them: `30m`, `1h30m`, `90min`, `1 hour`, `2 days`.

use super::parts::first;
use crate::domain::Minutes;

/// The beginning of a text, as a time.
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
        let is_number = word.bytes().all(|b| b.is_ascii_digit()) || is_decimal(word);
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

/// Stands for a time in a proposed command when jit does not know which time was meant.
pub const TIME: &str = "TIME";

/// How many words at the beginning of a reason jit searches for a time. A time behind them is about
/// something else.
const SEARCHED_WORDS: usize = 4;

/// Words that count units of time; 0 if the number is not known.
const NUMBERS: [(&str, i64); 25] = [
    ("a", 1),
    ("an", 1),
    ("half", 0),
    ("quarter", 0),
    ("one", 1),
    ("two", 2),
    ("three", 3),
    ("four", 4),
    ("five", 5),
    ("six", 6),
    ("seven", 7),
    ("eight", 8),
    ("nine", 9),
    ("ten", 10),
    ("eleven", 11),
    ("twelve", 12),
    ("fifteen", 15),
    ("twenty", 20),
    ("thirty", 30),
    ("forty", 40),
    ("fifty", 50),
    ("sixty", 60),
    ("ninety", 90),
    ("couple", 0),
    ("few", 0),
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
            return Some((typed, spoken(typed).unwrap_or_else(|| TIME.to_owned())));
        }
        if NUMBERS.iter().any(|(number, _)| *number == lower) {
            counted_from = counted_from.or(Some(begin));
        }
        rest = after;
    }
    None
}

/// The time that a person probably meant with words that jit does not take for a time: `30m.`,
/// `1,5h`, `30mn`. `None` if they stand for no known time.
pub fn meant_time(typed: &str) -> Option<String> {
    let typed = typed.trim().trim_end_matches(['.', ',', ';', ':', '!']);
    let joined = typed.replace(['-', '_', ' '], "").to_lowercase();
    let number = typed.parse().ok().and_then(|all| Minutes::new(all).ok());
    let minutes = number
        .or_else(|| minutes(&joined))
        .or_else(|| minutes(&format!("{joined}m")))
        .or_else(|| Minutes::new(decimal(&joined)?).ok())
        .or_else(|| misspelt(&joined))?;
    Some(format!("{}m", minutes.get()))
}

/// Digits with one separator between them.
fn is_decimal(word: &str) -> bool {
    let parts = word.split_once(['.', ',']);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    parts.is_some_and(|(whole, part)| is_number(whole) && is_number(part))
}

/// The minutes of a decimal number with its unit.
fn decimal(word: &str) -> Option<i64> {
    let unit = word.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = word.split_at(unit);
    let (whole, part) = number.split_once(['.', ','])?;
    let scale = 10_i64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let number: i64 = format!("{whole}{part}").parse().ok()?;
    let scaled = number.checked_mul(minutes_of(unit)?)?;
    (scaled % scale == 0).then_some(scaled / scale)
}

/// The time of a number with a misspelt unit.
fn misspelt(word: &str) -> Option<Minutes> {
    let unit = word.find(|c: char| !c.is_ascii_digit())?;
    let (number, typed) = word.split_at(unit);
    let apart = |known: &&str| strsim::damerau_levenshtein(typed, known);
    let near = LONG.iter().copied().filter(|known| is_near(typed, known));
    minutes(&format!("{number}{}", near.min_by_key(apart)?))
}

/// The time of a word that counts and a unit: `thirty minutes`, `half an hour`.
fn spoken(typed: &str) -> Option<String> {
    let typed = typed.to_lowercase();
    let words = typed.split_whitespace();
    let words: Vec<&str> = words
        .filter(|word| !["a", "an", "of"].contains(word))
        .collect();
    let (unit, counted) = words.split_last()?;
    let unit = minutes_of(unit)?;
    let minutes = match counted {
        [] => unit,
        ["half"] => unit / 2,
        ["quarter"] => unit / 4,
        [word] => unit * NUMBERS.iter().find(|(number, _)| number == word)?.1,
        _ => return None,
    };
    Some(format!("{}m", Minutes::new(minutes).ok()?.get()))
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
    minutes_of(unit).is_some()
        || OTHERS.contains(&unit)
        || LONG.iter().any(|known| is_near(unit, known))
}

/// Units with enough letters to recognise a misspelt one.
const LONG: [&str; 9] = [
    "min", "mins", "minute", "minutes", "hrs", "hour", "hours", "day", "days",
];

fn is_near(unit: &str, known: &str) -> bool {
    let letters = unit.chars().count();
    let most = if letters > 3 { 2 } else { 1 };
    letters > 1 && strsim::damerau_levenshtein(unit, known) <= most
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
            ("for Two hours x", Some(("Two hours", "120m"))),
            ("thirty minutes logs", Some(("thirty minutes", "30m"))),
            ("quarter of an hour", Some(("quarter of an hour", "15m"))),
            ("an hour x", Some(("an hour", "60m"))),
            ("a few hours x", Some(("a few hours", "TIME"))),
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

    /// W1: jit proposed an hour, although another time was meant.
    #[test]
    fn the_number_of_a_misspelt_time_is_kept_or_no_time_is_proposed() {
        for (typed, wanted) in [
            ("30", Some("30m")),
            ("30m.", Some("30m")),
            ("2h,", Some("120m")),
            ("1,5h", Some("90m")),
            ("1.5 hours", Some("90m")),
            ("1h30", Some("90m")),
            ("30-minutes", Some("30m")),
            ("30mn", Some("30m")),
            ("2huors", Some("120m")),
            ("0m", None),
            ("0", None),
            ("90s", None),
            ("1week", None),
            ("1:30", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(meant_time(typed).as_deref(), wanted, "{typed}");
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
            ("1.5 hours x", "1.5 hours"),
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
