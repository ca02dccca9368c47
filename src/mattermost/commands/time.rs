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
        if let Some(quoted) = text.strip_prefix('"') {
            return Self::in_quotes(text, quoted);
        }
        let (word, rest) = first(text);
        let bare = Bare::of(word);
        let (unit, after) = first(rest);
        let known = Bare::of(unit).word;
        if is_number(&bare.word) && minutes_of(&known).is_some() {
            let typed = text.get(..text.len() - after.len()).unwrap_or(text);
            let is_exact = bare.is_exact(word) && known == unit.to_lowercase();
            return match compound(&format!("{word}{unit}")).filter(|_| is_exact) {
                Some(minutes) => Self::Is(minutes, after),
                None => Self::Odd(typed.trim_end()),
            };
        }
        match compound(word) {
            Some(minutes) => Self::Is(minutes, rest),
            None if bare.looks_like_one() => Self::Odd(word),
            None => Self::No,
        }
    }

    /// A time alone in quotes is still a time; longer quoted words are a reason.
    fn in_quotes(text: &'t str, quoted: &'t str) -> Self {
        let inside = quoted.split_once('"').map(|(inside, _)| inside);
        let Some(inside) = inside else {
            return Self::No;
        };
        let is_time = match Self::at_the_beginning_of(inside) {
            Self::Is(_, rest) => rest.is_empty(),
            Self::Odd(typed) => typed == inside.trim(),
            Self::No => false,
        };
        match text.get(..inside.len() + 2) {
            Some(typed) if is_time => Self::Odd(typed),
            Some(_) | None => Self::No,
        }
    }
}

/// A word without the characters around it, such as `30m` of `(30m)`.
struct Bare<'t> {
    front: &'t str,
    /// In lower case, with the digits and letters of full width as usual ones.
    word: String,
    back: &'t str,
}

impl<'t> Bare<'t> {
    fn of(typed: &'t str) -> Self {
        let inner = typed.trim_start_matches(|c: char| !c.is_alphanumeric());
        let front = typed.strip_suffix(inner).unwrap_or_default();
        let word = inner.trim_end_matches(|c: char| !c.is_alphanumeric());
        let back = inner.strip_prefix(word).unwrap_or_default();
        let word: String = word.chars().map(of_usual_width).collect();
        let word = word.to_lowercase();
        Self { front, word, back }
    }

    /// Whether the word was typed without other characters around it and without wide ones.
    fn is_exact(&self, typed: &str) -> bool {
        self.word == typed.to_lowercase()
    }

    fn looks_like_one(&self) -> bool {
        let word = &self.word;
        if is_iso(word) {
            return true;
        }
        match word.chars().any(char::is_alphabetic) {
            true => word.starts_with(char::is_numeric) && looks_like_one(word),
            false => {
                word.starts_with(|c: char| c.is_ascii_digit())
                    && looks_like_one(word)
                    && self.is_apart()
            }
        }
    }

    /// Whether the characters around a number without a unit say nothing of it: `30;`, `(30)`.
    /// `#42`, `30%`, `+1` and `1)` are no times.
    fn is_apart(&self) -> bool {
        const OPEN: &str = "([{*_'`“‘«";
        const CLOSE: &str = ")]}*_'`”’»";
        let opened = self.front.chars().filter(|c| OPEN.contains(*c)).count();
        let closed = self.back.chars().filter(|c| CLOSE.contains(*c)).count();
        let may_precede = |c: char| OPEN.contains(c) || "~≈<".contains(c);
        let may_follow = |c: char| CLOSE.contains(c) || ".,;:!?>".contains(c);
        opened == closed && self.front.chars().all(may_precede) && self.back.chars().all(may_follow)
    }
}

/// The usual form of a digit, a letter or a sign of full width.
fn of_usual_width(c: char) -> char {
    const APART: u32 = '！' as u32 - '!' as u32;
    match c {
        '！'..='～' => char::from_u32(u32::from(c) - APART).unwrap_or(c),
        c => c,
    }
}

/// A number, a decimal number or a fraction.
fn is_number(word: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_fraction = |(above, below): (&str, &str)| is_digits(above) && is_digits(below);
    is_digits(&decimal_fraction(word).replacen(['.', ','], "", 1))
        && word.starts_with(char::is_numeric)
        || word.split_once('/').is_some_and(is_fraction)
}

/// The number with a decimal part in place of a sign such as `½`.
fn decimal_fraction(word: &str) -> String {
    let signs = [('½', "5"), ('¼', "25"), ('¾', "75")];
    let Some((sign, part)) = signs.iter().find(|(sign, _)| word.contains(*sign)) else {
        return word.to_owned();
    };
    let whole = if word.starts_with(*sign) { "0." } else { "." };
    word.replacen(*sign, &format!("{whole}{part}"), 1)
}

/// A duration of ISO 8601, such as `PT1H30M` or `P1D`.
fn is_iso(word: &str) -> bool {
    let Some(parts) = word.strip_prefix('p') else {
        return false;
    };
    let (date, time) = parts.split_once('t').unwrap_or((parts, ""));
    let is_part = |part: &str, units: &[char]| {
        let mut numbers: Vec<&str> = part.split_inclusive(units).collect();
        numbers.retain(|number| !number.is_empty());
        numbers.iter().all(|number| {
            let number = number.strip_suffix(units);
            number.is_some_and(|number| is_number(number) && !number.contains('/'))
        })
    };
    !(date.is_empty() && time.is_empty())
        && is_part(date, &['y', 'm', 'w', 'd'])
        && is_part(time, &['h', 'm', 's'])
}

/// The minutes of a duration of ISO 8601 in days, hours and minutes.
fn iso(word: &str) -> Option<Minutes> {
    let parts = word.strip_prefix('p').filter(|_| is_iso(word))?;
    let (date, time) = parts.split_once('t').unwrap_or((parts, ""));
    // A month has the letter of a minute.
    let is_known = !date.contains('m');
    compound(&format!("{date}{time}")).filter(|_| is_known)
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
        let spoken_word = word.trim_end_matches(['.', ',', ';', ':', '!', '?']);
        if let Some(minutes) = compound(spoken_word) {
            return Some((word, format!("{}m", minutes.get())));
        }
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
    let typed = Bare::of(typed).word;
    let joined = decimal_fraction(&typed.replace(['-', '_', ' '], ""));
    let number = typed.parse().ok().and_then(|all| Minutes::new(all).ok());
    let minutes = number
        .or_else(|| minutes(&joined))
        .or_else(|| minutes(&format!("{joined}m")))
        .or_else(|| Minutes::new(decimal(&joined)?).ok())
        .or_else(|| Minutes::new(fraction(&joined)?).ok())
        .or_else(|| iso(&joined))
        .or_else(|| misspelt(&joined))?;
    Some(format!("{}m", minutes.get()))
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

/// The minutes of a fraction with its unit: `1/2hour`.
fn fraction(word: &str) -> Option<i64> {
    let unit = word.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = word.split_at(unit);
    let (above, below) = number.split_once('/')?;
    let (above, below): (i64, i64) = (above.parse().ok()?, below.parse().ok()?);
    let scaled = above.checked_mul(minutes_of(unit)?)?;
    (scaled.checked_rem(below)? == 0).then(|| scaled / below)
}

/// The time of a number with a misspelt unit.
fn misspelt(word: &str) -> Option<Minutes> {
    let unit = word.find(|c: char| !c.is_ascii_digit())?;
    let (number, typed) = word.split_at(unit);
    if !typed.chars().all(char::is_alphabetic) {
        return None;
    }
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
    let is_separator = |c: char| !c.is_alphanumeric();
    let is_in_number = |c: char| c.is_alphanumeric() || matches!(c, '.' | ',' | ':');
    let is_range = !word.chars().all(is_in_number) && !word.contains(char::is_alphabetic);
    if is_range || word.chars().filter(|c| is_separator(*c)).count() > 1 {
        return false;
    }
    let units = word.split(|c: char| c.is_numeric() || is_separator(c));
    let mut units = units.filter(|unit| !unit.is_empty());
    units.all(is_near_a_unit)
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
            ("please 15m;", Some(("15m;", "15m"))),
            ("please (15m)", None),
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
            ("(1h)", Some("60m")),
            ("\"30m\"", Some("30m")),
            ("-5m", Some("5m")),
            ("３０ｍ", Some("30m")),
            ("½h", Some("30m")),
            ("1½ hours", Some("90m")),
            ("1/2 hour", Some("30m")),
            ("1/0 hour", None),
            ("PT1H30M", Some("90m")),
            ("P1DT2H", Some("1560m")),
            ("P3M", None),
            ("30m/1h", None),
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

    const ODD: &str = "30m; | 30m! | 30m? | 30m… | (1h) | (1h | [1h] | \"30m\" | \"1 hour\" | *30m* \
        | `30m` | “30m” | ~1h | +1h | -5m | <1h | >1h | 30m/1h | 30m–1h | ½h | 1½h | 1/2h | ½ hour \
        | 1/2 hour | (1 hour) | ~1 hour | 1 hour, | ３０m | ３０ｍ | ３０ m | ٣٠m | PT1H | pt1h30m \
        | P1D | P1DT2H | PT0.5H | (PT1H) | 30; | (30) | *30* | ~30 | \"30\"";
    const NO_TIMES: &str = "INC-42 | 3x-large | (see INC-42) | v1.2 | 2FA | (5xx errors) | (500 errors) \
        | #42 login | !42 | $30 | 30% of calls | 100+ users | +1 from bob | 1) check | ½ of the pods \
        | 1/2 of the pods | 24/7. | (24/7) | 2026-01-15, | 10.0.0.1: | P1 incident | P2 | PT | pt-1 \
        | p99 | \"30m look at logs\" | \"30m look | \"\" | () | -";

    /// W1: these words became the reason, and the request was for the default time.
    #[test]
    fn w1_a_time_with_other_characters_around_it_is_asked_back() {
        for odd in ODD.split(" | ") {
            for text in [odd.to_owned(), format!("{odd} look at logs")] {
                let read = TypedTime::at_the_beginning_of(&text);
                assert_eq!(read, TypedTime::Odd(odd), "{text}");
            }
        }
        for text in NO_TIMES.split(" | ") {
            let read = TypedTime::at_the_beginning_of(text);
            assert_eq!(read, TypedTime::No, "{text}");
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
