//! A request in one line: the account, the permission set and the time in any order, then the
//! reason. jit does not take a word for the reason that was probably meant as a set or a time.

use super::parts::{Known, ParseResult, TYPED, TypedRequest, account, command, first, reason};
use super::time::{TIME, TypedTime, meant_time, time_within};
use crate::domain::{Minutes, TypedSet};
use crate::mattermost::cards::text::{plain, short};

/// Stand for a permission set and a reason in a proposed command.
const SET: &str = "SET";
const REASON: &str = "REASON";

/// The words of the line so far.
#[derive(Default)]
struct RequestLine<'t> {
    account: &'t str,
    set: Option<&'t str>,
    time: Option<(Minutes, &'t str)>,
}

pub(super) fn request(rest: &str, known: &Known<'_>) -> ParseResult<TypedRequest> {
    let (account, after) = account("request", rest, known.names)?;
    let (line, rest) = words(rest, after, known)?;
    line.check_reason(rest, known)?;
    let ticket = rest.split_whitespace().find(|word| is_ticket(word));
    let ticket = ticket
        .map(str::parse)
        .transpose()
        .map_err(|why| format!("the ticket {why}"))?;
    let why = reason(rest)?.filter(|why| why.as_str() != REASON);
    if why.is_none() {
        let command = line.command(None, None, "");
        return Err(format!("the reason is missing: {command}"));
    }
    Ok(TypedRequest {
        account,
        set: line.set.map(str::to_owned),
        time: line.time.map(|(minutes, _)| minutes),
        why,
        ticket,
    })
}

/// The set and the time after the account, in any order, and the rest.
fn words<'t>(
    typed: &'t str,
    mut rest: &'t str,
    known: &Known<'t>,
) -> ParseResult<(RequestLine<'t>, &'t str)> {
    let mut line = RequestLine {
        account: first(typed).0,
        ..RequestLine::default()
    };
    loop {
        let (word, after) = first(rest);
        match (TypedSet::of(word, known.sets.iter().copied()), line.set) {
            (TypedSet::Unknown, _) => {}
            (TypedSet::Known(_) | TypedSet::Several(_), Some(first)) => {
                return Err(line.twice("permission sets", first, word, after));
            }
            (TypedSet::Several(same), None) => return Err(line.several(word, &same, after)),
            (TypedSet::Known(set), None) => {
                line.set = Some(set);
                rest = after;
                continue;
            }
        }
        match TypedTime::at_the_beginning_of(rest) {
            TypedTime::Is(minutes, after) => {
                let typed = rest.strip_suffix(after).unwrap_or(rest).trim_end();
                if let Some((_, first)) = line.time {
                    return Err(line.twice("times", first, typed, after));
                }
                line.time = Some((minutes, typed));
                rest = after;
            }
            TypedTime::Odd(typed) if line.time.is_none() => return Err(line.odd(typed, rest)),
            TypedTime::Odd(_) | TypedTime::No => return Ok((line, rest)),
        }
    }
}

impl RequestLine<'_> {
    /// Refuses a reason that begins with a word that was probably meant as a set or a time.
    fn check_reason(&self, rest: &str, known: &Known<'_>) -> ParseResult<()> {
        let (word, after) = first(rest);
        match word {
            SET if self.set.is_none() => return Err(self.unknown_set(rest, known.sets)),
            TIME if self.time.is_none() => return Err(self.odd(word, rest)),
            _ => {}
        }
        if self.set.is_none()
            && let Some(set) = near(word, known.sets)
        {
            return Err(self.misspelt(set, rest));
        }
        if self.time.is_some() || rest.starts_with('"') {
            return Ok(());
        }
        let is_before_time = matches!(TypedTime::at_the_beginning_of(after), TypedTime::Is(..));
        if self.set.is_none() && is_before_time {
            return Err(self.unknown_set(rest, known.sets));
        }
        match time_within(rest) {
            Some((typed, meant)) => Err(self.late_time(typed, &meant, rest)),
            None => Ok(()),
        }
    }

    /// The command with these words, ready to copy.
    fn command(&self, set: Option<&str>, time: Option<&str>, why: &str) -> String {
        let why = match why {
            "" => REASON,
            why => why,
        };
        let time = time.or(self.time.map(|(_, typed)| typed));
        let words = ["request", self.account]
            .into_iter()
            .chain(set.or(self.set))
            .chain(time)
            .chain([why]);
        let words: Vec<&str> = words.collect();
        format!("`{}`", command(&words))
    }

    /// The command with the whole rest as the reason.
    fn as_reason(&self, rest: &str) -> String {
        let command = self.quoted(rest);
        format!("If the reason begins with this word, put the reason in quotes: {command}")
    }

    fn quoted(&self, rest: &str) -> String {
        let quoted = format!("\"{}\"", rest.replace('"', ""));
        self.command(None, None, &quoted)
    }

    fn unknown_set(&self, rest: &str, sets: &[&str]) -> String {
        let (word, after) = first(rest);
        let set = match sets {
            [only] => only,
            _ => SET,
        };
        format!(
            "\"{}\" is no permission set of this account; known: {}. Type one of them: {}\n{}",
            short(word, TYPED),
            plain(&sets.join(", ")),
            self.command(Some(set), None, after),
            self.as_reason(rest),
        )
    }

    fn several(&self, word: &str, same: &[&str], after: &str) -> String {
        format!(
            "\"{}\" can be each of the permission sets {}: type its exact name, for example {}",
            short(word, TYPED),
            plain(&same.join(", ")),
            self.command(same.first().copied(), None, after),
        )
    }

    fn late_time(&self, typed: &str, meant: &str, rest: &str) -> String {
        // Words at the beginning are only about the time.
        let after = rest.strip_prefix(typed).map(str::trim_start);
        let why = after.filter(|after| !after.is_empty()).unwrap_or(rest);
        format!(
            "\"{}\" looks like a time, but the time belongs before the reason, for example {}\nIf it belongs to the reason, put the reason in quotes: {}",
            short(typed, TYPED),
            self.command(None, Some(meant), why),
            self.quoted(rest),
        )
    }

    fn misspelt(&self, set: &str, rest: &str) -> String {
        let (word, after) = first(rest);
        // A time may follow the misspelt set.
        format!(
            "\"{}\" is not a permission set; did you mean {set}? {}\n{}",
            short(word, TYPED),
            self.command(Some(set), None, after),
            self.as_reason(rest),
        )
    }

    fn odd(&self, typed: &str, rest: &str) -> String {
        let after = rest.trim_start().strip_prefix(typed).unwrap_or_default();
        let meant = meant_time(typed).unwrap_or_else(|| TIME.to_owned());
        let said = format!(
            "\"{}\" is not a time: type a time like `30m`, `2h` or `1h30m`, for example {}",
            short(typed, TYPED),
            self.command(None, Some(&meant), after.trim_start()),
        );
        match after.trim_start() {
            // A time alone is no reason.
            "" => said,
            _ => format!("{said}\n{}", self.as_reason(rest)),
        }
    }

    fn twice(&self, what: &str, one: &str, other: &str, after: &str) -> String {
        format!(
            "there are two {what}, {} and {}: type one of them, for example {}\n{}",
            short(one, TYPED),
            short(other, TYPED),
            self.command(None, None, after),
            self.as_reason(&format!("{other} {after}")),
        )
    }
}

/// The permission set that a word probably stands for.
fn near<'s>(word: &str, sets: &[&'s str]) -> Option<&'s str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let word = plain(word);
    if word.starts_with('"') || word.chars().count() < 3 {
        return None;
    }
    let apart = |set: &&&str| strsim::damerau_levenshtein(&word, &plain(set));
    let is_near = |set: &&&str| {
        let name = plain(set);
        let most = if name.chars().count() > 5 { 2 } else { 1 };
        let is_part = name.starts_with(&word) || (name.len() > 3 && word.starts_with(&name));
        is_part || apart(set) <= most
    };
    sets.iter().filter(is_near).min_by_key(apart).copied()
}

/// A ticket is a word like INC-42.
fn is_ticket(word: &str) -> bool {
    word.split_once('-').is_some_and(|(project, number)| {
        project.len() >= 2
            && project.starts_with(|c: char| c.is_ascii_uppercase())
            && project
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
            && !number.is_empty()
            && number.chars().all(|c| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mattermost::cards::names::Names;

    fn parse(text: &str) -> ParseResult<TypedRequest> {
        let names = [("111122223333".parse().unwrap(), "acme-prod".to_owned())];
        let names = Names::new(names.into());
        let known = Known {
            sets: &["admin", "readonly"],
            names: &names,
        };
        request(text, &known)
    }

    const ASKED_BACK: &[(&str, &str)] = &[
        (
            "acme-prod readnly 30m look at logs",
            "`/jit request acme-prod readonly 30m look at logs`",
        ),
        (
            "acme-prod 30m Read-Only look",
            "`/jit request acme-prod readonly 30m look`",
        ),
        ("acme-prod admn 1h x", "`/jit request acme-prod admin 1h x`"),
        (
            "acme-prod administrator 1h x",
            "`/jit request acme-prod admin 1h x`",
        ),
        (
            "acme-prod read 1h x",
            "`/jit request acme-prod readonly 1h x`",
        ),
        (
            "acme-prod readonly 30 look at logs",
            "`/jit request acme-prod readonly 30m look at logs`",
        ),
        (
            "acme-prod 0m readonly look",
            "`/jit request acme-prod TIME readonly look`",
        ),
        (
            "acme-prod admin readonly 1h x",
            "`/jit request acme-prod admin 1h x`",
        ),
        (
            "acme-prod admin 1h 30m x",
            "`/jit request acme-prod admin 1h x`",
        ),
        (
            "acme-prod readonly 30mn look",
            "`/jit request acme-prod readonly 30m look`",
        ),
        (
            "acme-prod readonly 30-minutes look",
            "`/jit request acme-prod readonly 30m look`",
        ),
        (
            "acme-prod readonly 2huors look",
            "`/jit request acme-prod readonly 120m look`",
        ),
        (
            "acme-prod admin thirty minutes logs",
            "`/jit request acme-prod admin 30m logs`",
        ),
        (
            "acme-prod admin a few hours logs",
            "`/jit request acme-prod admin TIME logs`",
        ),
        (
            "acme-prod readonly 30m. logs",
            "`/jit request acme-prod readonly 30m logs`",
        ),
        (
            "acme-prod readonly 1,5h logs",
            "`/jit request acme-prod readonly 90m logs`",
        ),
        (
            "acme-prod readonly 30m; logs",
            "`/jit request acme-prod readonly 30m logs`",
        ),
        (
            "acme-prod readonly (1h) logs",
            "`/jit request acme-prod readonly 60m logs`",
        ),
        (
            "acme-prod readonly \"30m\" logs",
            "`/jit request acme-prod readonly 30m logs`",
        ),
        (
            "acme-prod readonly \"1 hour\"",
            "`/jit request acme-prod readonly 60m REASON`",
        ),
        (
            "acme-prod readonly 30m/1h logs",
            "`/jit request acme-prod readonly TIME logs`",
        ),
        (
            "acme-prod readonly PT1H logs",
            "`/jit request acme-prod readonly 60m logs`",
        ),
        (
            "acme-prod readonly please 15m;",
            "`/jit request acme-prod readonly 15m please 15m;`",
        ),
        (
            "acme-prod readonly please 15m",
            "`/jit request acme-prod readonly 15m please 15m`",
        ),
        (
            "acme-prod readonly half an hour",
            "`/jit request acme-prod readonly 30m half an hour`",
        ),
        (
            "acme-prod readonly admn 30m x",
            "`/jit request acme-prod readonly 30m admn 30m x`",
        ),
        (
            "acme-prod admin 500 errors `now`",
            "`/jit request acme-prod admin \"500 errors 'now'\"`",
        ),
    ];

    /// W1: jit took these words for the reason, and the request was for the default set for an
    /// hour.
    #[test]
    fn a_misspelt_set_or_time_is_asked_back_with_a_command_that_works() {
        for (text, wanted) in ASKED_BACK {
            let said = parse(text).unwrap_err();
            assert!(said.contains(wanted), "{text}: {said}");
            commands_are_accepted(&said);
        }
    }

    /// Each proposed command is accepted, or asks for less than the typed one, or contains a word
    /// in the place of a set or a time. jit takes such a word for no reason.
    fn commands_are_accepted(said: &str) {
        let commands = said
            .split('`')
            .filter_map(|part| part.strip_prefix("/jit request "));
        for command in commands {
            let mut words = command.split(' ');
            let is_whole = !words.any(|word| [SET, TIME, REASON].contains(&word));
            assert_eq!(parse(command).is_ok(), is_whole, "{command}");
        }
    }

    /// W1: jit took the word for the begin of a reason, and named neither the word nor the sets.
    #[test]
    fn an_unknown_set_before_a_time_is_named_with_the_known_sets() {
        for (text, word, wanted) in [
            ("root 30m logs", "\"root\"", "SET 30m logs`"),
            ("ro 30m x", "\"ro\"", "SET 30m x`"),
            ("view 1h db", "\"view\"", "SET 1h db`"),
        ] {
            let said = parse(&format!("acme-prod {text}")).unwrap_err();
            assert!(said.starts_with(word), "{said}");
            assert!(said.contains("known: admin, readonly"), "{said}");
            assert!(
                said.contains(&format!("`/jit request acme-prod {wanted}")),
                "{said}"
            );
            commands_are_accepted(&said);
        }
    }

    /// W1: the example was for another account and another set.
    #[test]
    fn without_a_reason_the_example_has_the_typed_account_set_and_time() {
        for (text, wanted) in [
            ("acme-prod readonly", "acme-prod readonly REASON"),
            ("acme-prod 2h", "acme-prod 2h REASON"),
            ("acme-prod readonly 2h", "acme-prod readonly 2h REASON"),
            ("acme-prod admin REASON", "acme-prod admin REASON"),
        ] {
            let said = parse(text).unwrap_err();
            let command = format!("the reason is missing: `/jit request {wanted}`");
            assert_eq!(said, command, "{text}");
            commands_are_accepted(&said);
        }
    }

    /// W16: with the sets Admin and admin, the word `admin` requested Admin.
    #[test]
    fn an_exact_set_comes_first_and_sets_that_differ_in_case_are_asked_back() {
        let names = Names::new([("111122223333".parse().unwrap(), "acme-prod".to_owned())].into());
        let known = Known {
            sets: &["Admin", "admin", "readonly"],
            names: &names,
        };
        let typed = |word: &str| request(&format!("acme-prod {word} 1h x"), &known);
        for (word, wanted) in [
            ("admin", "admin"),
            ("Admin", "Admin"),
            ("READONLY", "readonly"),
        ] {
            assert_eq!(typed(word).unwrap().set.as_deref(), Some(wanted), "{word}");
        }
        let said = typed("ADMIN").unwrap_err();
        assert!(said.starts_with("\"ADMIN\" can be each of"), "{said}");
        assert!(said.contains("Admin, admin"), "{said}");
        assert!(
            said.contains("`/jit request acme-prod Admin 1h x`"),
            "{said}"
        );
    }

    /// W1
    #[test]
    fn a_quoted_reason_may_begin_with_any_word() {
        for (text, why) in [
            ("acme-prod admin \"500 errors\"", "500 errors"),
            ("acme-prod \"admins locked out\"", "admins locked out"),
            ("acme-prod 1h look at readonly", "look at readonly"),
        ] {
            let typed = parse(text).unwrap();
            assert_eq!(typed.why.unwrap().to_string(), why, "{text}");
        }
    }
}
