//! What somebody typed after `/jit`, as what it must be; what it is not is told with what
//! was probably meant.

use super::names::Names;
use crate::domain::{AccountId, BindTerms, Minutes, PermissionSet, Text};

/// What a word may stand for.
pub struct Known<'k> {
    pub sets: &'k [&'k str],
    pub names: &'k Names,
}

/// What can be said, with the line that `help` has for it.
pub const VERBS: [(&str, &str, &str); 13] = [
    (
        "request",
        "[ACCOUNT [SET] [TIME] WHY]",
        "ask for access, in a dialog or in one line: `/jit request 123456789012 admin 2h INC-42 db down`",
    ),
    (
        "approve",
        "ID",
        "approve a request, or the extension it waits for",
    ),
    ("deny", "ID [WHY]", "deny it"),
    ("revoke", "ID [WHY]", "take access away, now"),
    ("cancel", "ID", "take your own request back"),
    (
        "extend",
        "ID TIME",
        "ask for more time: `/jit extend 01a1fd36-48a0 30m`",
    ),
    ("status", "[ID]", "one request, or your own that are open"),
    ("list", "", "what is open in this channel"),
    (
        "info",
        "",
        "which accounts can be had here, and who decides",
    ),
    (
        "bind",
        "ACCOUNT [approvals N] [max 8h] [sets A,B] [self yes|no]",
        "admins: let this channel ask for an account: `/jit bind 123456789012 approvals 2 max 4h`",
    ),
    (
        "unbind",
        "ACCOUNT",
        "admins: no longer; what waits for approval is cancelled",
    ),
    (
        "approvers",
        "@NAME …",
        "admins: say who decides here, all of them",
    ),
    ("help", "", "this"),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatCommand {
    /// A request, in a dialog.
    Ask,
    Request {
        account: AccountId,
        /// Of those that are configured, as it is configured.
        set: Option<String>,
        time: Option<Minutes>,
        why: Option<Text>,
        ticket: Option<Text>,
    },
    Approve {
        id: String,
    },
    Deny {
        id: String,
        why: Option<Text>,
    },
    Revoke {
        id: String,
        why: Option<Text>,
    },
    Cancel {
        id: String,
    },
    Extend {
        id: String,
        time: Minutes,
    },
    Status {
        id: Option<String>,
    },
    List,
    Info,
    Bind {
        account: AccountId,
        terms: BindTerms,
    },
    Unbind {
        account: AccountId,
    },
    Approvers {
        names: Vec<String>,
    },
    Help,
}

/// What is wrong, and what to type instead.
type ParseResult<T> = Result<T, String>;

pub fn understand(text: &str, known: &Known<'_>) -> ParseResult<ChatCommand> {
    let (verb, rest) = first(text);
    let id = || one_id(verb, rest);
    Ok(match verb.to_lowercase().as_str() {
        "" | "help" => ChatCommand::Help,
        "request" if rest.is_empty() => ChatCommand::Ask,
        "request" => request(rest, known)?,
        "approve" => ChatCommand::Approve { id: id()?.0 },
        "deny" => {
            let (id, why) = id()?;
            ChatCommand::Deny {
                id,
                why: reason(why)?,
            }
        }
        "revoke" => {
            let (id, why) = id()?;
            ChatCommand::Revoke {
                id,
                why: reason(why)?,
            }
        }
        "cancel" => ChatCommand::Cancel { id: id()?.0 },
        "extend" => {
            let (id, time) = id()?;
            let time = minutes(time).ok_or("say for how long: `/jit extend ID 30m`")?;
            ChatCommand::Extend { id, time }
        }
        "status" if rest.is_empty() => ChatCommand::Status { id: None },
        "status" => ChatCommand::Status { id: Some(id()?.0) },
        "list" => ChatCommand::List,
        "info" => ChatCommand::Info,
        "bind" => {
            let (word, rest) = first(rest);
            ChatCommand::Bind {
                account: account("bind", word, known.names)?,
                terms: terms(rest)?,
            }
        }
        "unbind" => ChatCommand::Unbind {
            account: account("unbind", first(rest).0, known.names)?,
        },
        "approvers" => ChatCommand::Approvers {
            names: names(rest)?,
        },
        unknown => return Err(meant(unknown)),
    })
}

/// The first word, and what follows it.
fn first(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn one_id<'t>(verb: &str, rest: &'t str) -> ParseResult<(String, &'t str)> {
    let (id, rest) = first(rest);
    let is_like_one = id.len() >= 4 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if is_like_one {
        return Ok((id.to_lowercase(), rest));
    }
    let verb = verb.to_lowercase();
    Err(match id {
        "" => format!("which request? `/jit {verb} ID`; `/jit list` shows those that are open"),
        _ => format!(
            "that is no request's id; `/jit list` shows them, and its beginning is enough: `/jit {verb} 01a1fd36-48a0`"
        ),
    })
}

fn reason(text: &str) -> ParseResult<Option<Text>> {
    let inside = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    match inside.unwrap_or(text) {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|why| format!("the reason {why}")),
    }
}

fn account(verb: &str, word: &str, names: &Names) -> ParseResult<AccountId> {
    names.meant(word).ok_or_else(|| {
        format!("which account? Its name, or its twelve digits: `/jit {verb} 123456789012`; `/jit info` shows those of this channel")
    })
}

/// Each with its value, in any order; what is not mentioned stays as it is.
fn terms(rest: &str) -> ParseResult<BindTerms> {
    let mut terms = BindTerms::default();
    let mut words = rest.split_whitespace();
    while let Some(name) = words.next() {
        let value = words.next().unwrap_or_default();
        let wrong = |like: &str| format!("after `{name}` there must be {like}");
        match name.to_lowercase().as_str() {
            "approvals" => {
                let number = value.parse().ok().filter(|number| *number > 0);
                terms.approvals_required = Some(number.ok_or_else(|| wrong("a number, like 2"))?);
            }
            "max" => {
                let hours = minutes(value).filter(|time| time.get() % 60 == 0);
                let hours = hours.ok_or_else(|| wrong("whole hours, like `8h`"))?;
                terms.max_request_hours = Some(hours.get() / 60);
            }
            "sets" => {
                let sets: Result<Vec<PermissionSet>, _> =
                    value.split(',').map(str::parse).collect();
                terms.permission_sets =
                    Some(sets.map_err(|_| wrong("permission sets, like `admin,readonly`"))?);
            }
            "self" => {
                terms.allow_self_approval = Some(match value.to_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(wrong("`yes` or `no`")),
                });
            }
            _ => {
                return Err("that is no term: `/jit bind 123456789012 approvals 2 max 8h sets admin,readonly self no`".into());
            }
        }
    }
    Ok(terms)
}

/// The account, then in any order the set and the time, then why.
fn request(rest: &str, known: &Known<'_>) -> ParseResult<ChatCommand> {
    let (word, mut rest) = first(rest);
    let account = account("request", word, known.names)?;
    let (mut set, mut time) = (None, None);
    loop {
        let (word, after) = first(rest);
        let named = known.sets.iter().find(|set| set.eq_ignore_ascii_case(word));
        match (named, minutes(word)) {
            (Some(named), _) if set.is_none() => set = Some((*named).to_owned()),
            (_, Some(minutes)) if time.is_none() => time = Some(minutes),
            _ => break,
        }
        rest = after;
    }
    let ticket = rest.split_whitespace().find(|word| is_ticket(word));
    let ticket = ticket
        .map(str::parse)
        .transpose()
        .map_err(|why| format!("the ticket {why}"))?;
    let why = reason(rest)?;
    if why.is_none() {
        return Err(
            "say why, or name a ticket: `/jit request 123456789012 admin 2h INC-42 db down`".into(),
        );
    }
    Ok(ChatCommand::Request {
        account,
        set,
        time,
        why,
        ticket,
    })
}

/// Like INC-42.
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

/// `30m`, `2h`, `1h30m` or `1d`.
fn minutes(text: &str) -> Option<Minutes> {
    let (mut all, mut number) = (0_i64, None::<i64>);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(
                number
                    .unwrap_or(0)
                    .checked_mul(10)?
                    .checked_add(i64::from(digit))?,
            );
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            'm' => 1,
            'h' => 60,
            'd' => 24 * 60,
            _ => return None,
        };
        all = all.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    match number {
        Some(_) => None,
        None => Minutes::new(all).ok(),
    }
}

fn names(rest: &str) -> ParseResult<Vec<String>> {
    let words = rest
        .split([',', ' ', '\t', '\n'])
        .filter(|word| !word.is_empty());
    let names: Option<Vec<String>> = words
        .map(|word| word.strip_prefix('@').map(str::to_lowercase))
        .collect();
    match names {
        Some(names) if !names.is_empty() => Ok(names),
        _ => Err("name all who may decide here: `/jit approvers @bob @carol`".into()),
    }
}

fn meant(unknown: &str) -> String {
    let near = |verb: &&str| strsim::damerau_levenshtein(unknown, verb);
    let verbs = VERBS.iter().map(|(verb, _, _)| *verb);
    match verbs.min_by_key(near).filter(|verb| near(verb) <= 2) {
        Some(verb) => format!("did you mean `/jit {verb}`? `/jit help` shows all there is"),
        None => "that is nothing jit knows; `/jit help` shows all there is".into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> ParseResult<ChatCommand> {
        let names = [("111122223333".parse().unwrap(), "acme-prod".to_owned())];
        let names = Names::new(names.into());
        understand(
            text,
            &Known {
                sets: &["admin", "readonly"],
                names: &names,
            },
        )
    }

    fn request(text: &str) -> (Option<String>, Option<u32>, Option<String>, Option<String>) {
        match told(text) {
            Ok(ChatCommand::Request {
                set,
                time,
                why,
                ticket,
                ..
            }) => (
                set,
                time.map(Minutes::get),
                why.map(|why| why.to_string()),
                ticket.map(|ticket| ticket.to_string()),
            ),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_request_in_one_line() {
        for (text, wanted) in [
            (
                "request 111122223333 ReadOnly 1h \"deploy fix\" JIRA-42",
                (
                    some("readonly"),
                    Some(60),
                    some("\"deploy fix\" JIRA-42"),
                    some("JIRA-42"),
                ),
            ),
            (
                "request 111122223333 1h30m admin db down",
                (some("admin"), Some(90), some("db down"), None),
            ),
            (
                "REQUEST  111122223333\tdb   down",
                (None, None, some("db   down"), None),
            ),
            (
                "request 111122223333 2h \"look at 3h of logs\"",
                (None, Some(120), some("look at 3h of logs"), None),
            ),
            // Only once each: what comes then is the reason.
            (
                "request 111122223333 admin readonly 1h",
                (some("admin"), None, some("readonly 1h"), None),
            ),
        ] {
            assert_eq!(request(text), wanted, "{text}");
        }
    }

    #[test]
    fn an_account_has_a_name_and_a_bind_has_terms() {
        assert_eq!(told("request"), Ok(ChatCommand::Ask));
        let account = "111122223333".parse().unwrap();
        let terms = BindTerms {
            approvals_required: Some(2),
            allow_self_approval: Some(true),
            max_request_hours: Some(8),
            session_duration_minutes: None,
            permission_sets: Some(vec!["admin".parse().unwrap(), "readonly".parse().unwrap()]),
        };
        let typed = told("bind Acme-Prod max 8h self yes sets admin,readonly approvals 2");
        assert_eq!(typed, Ok(ChatCommand::Bind { account, terms }));
        let account = "111122223333".parse().unwrap();
        assert_eq!(
            told("unbind acme-prod"),
            Ok(ChatCommand::Unbind { account })
        );
    }

    #[test]
    fn a_time_is_a_time() {
        for (text, wanted) in [
            ("30m", Some(30)),
            ("1d2h", Some(1560)),
            ("0m", None),
            ("30", None),
            ("h", None),
            ("2x", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(minutes(text).map(Minutes::get), wanted, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told_with_what_was_meant() {
        for (text, wanted) in [
            ("aprove 01a1", "`/jit approve`"),
            ("revok", "`/jit revoke`"),
            ("xyzzy", "`/jit help`"),
            ("approve", "`/jit approve ID`"),
            ("deny it's wrong", "no request's id"),
            ("bind 111122223333 approvals none", "a number"),
            ("bind 111122223333 max 90m", "whole hours"),
            ("bind 111122223333 sets a,,b", "permission sets"),
            ("bind 111122223333 self maybe", "`yes` or `no`"),
            ("bind 111122223333 forever", "no term"),
            ("unbind", "twelve digits"),
            ("request 12345 why", "twelve digits"),
            ("request 111122223333 admin 1h", "say why"),
            ("extend 01a1fd36 soon", "`/jit extend ID 30m`"),
            ("approvers bob", "@bob"),
        ] {
            let told = told(text).unwrap_err();
            assert!(told.contains(wanted), "{text}: {told}");
        }
    }

    #[test]
    fn every_verb_is_one() {
        for (verb, arguments, _) in VERBS {
            let told = told(&format!("{verb} 01a1fd36 1h"));
            let is_known = !matches!(&told, Err(told) if told.contains("did you mean") || told.contains("nothing jit knows"));
            assert!(is_known, "{verb} {arguments}: {told:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_a_panic(text in "(request|approve|deny|extend|status|approvers|.{0,4}) .{0,80}") {
            told(&text).ok();
        }
    }
}
