//! Parses the text after `/jit`. An error names the problem and the command that was
//! probably meant.

use super::parts::{
    Known, ParseResult, TYPED, TypedRequest, account, command, first, nothing_after, reason,
};
use super::request_line::request;
use super::time::{TIME, meant_time, minutes, time_within};
use crate::domain::{AccountId, BindTerms, Minutes, PermissionSet, Text};
use crate::mattermost::cards::text::short;

/// The commands, with their lines in `/jit help`.
pub const VERBS: [(&str, &str, &str); 13] = [
    (
        "request",
        "[ACCOUNT [SET] [TIME] REASON]",
        "ask for access, in a dialog or in one line: `/jit request 123456789012 admin 2h INC-42 db down`",
    ),
    (
        "approve",
        "ID",
        "approve a request, or the extension that it waits for: `/jit approve 01a1fd36-48a0`",
    ),
    (
        "deny",
        "ID [REASON]",
        "deny a request or an extension: `/jit deny 01a1fd36-48a0 use readonly`",
    ),
    (
        "revoke",
        "ID [REASON]",
        "end access now: `/jit revoke 01a1fd36-48a0 laptop stolen`",
    ),
    (
        "cancel",
        "ID",
        "withdraw your own request: `/jit cancel 01a1fd36-48a0`",
    ),
    (
        "extend",
        "ID TIME",
        "ask for more time: `/jit extend 01a1fd36-48a0 30m`",
    ),
    (
        "status",
        "[ID]",
        "show one request, or your own open requests: `/jit status 01a1fd36-48a0`",
    ),
    (
        "list",
        "",
        "show the open requests of this channel; in a direct message, those that you may decide or that are yours: `/jit list`",
    ),
    (
        "info",
        "",
        "show the accounts of this channel and their approvers: `/jit info`",
    ),
    (
        "bind",
        "ACCOUNT [approvals N] [max 8h] [sets A,B] [self yes|no]",
        "admins: bind an account to this channel, or change its terms: `/jit bind 123456789012 approvals 2 max 4h`",
    ),
    (
        "unbind",
        "ACCOUNT",
        "admins: remove the binding; jit cancels its pending requests: `/jit unbind 123456789012`",
    ),
    (
        "approvers",
        "@NAME …",
        "admins: set all approvers of this channel: `/jit approvers @bob @carol`",
    ),
    ("help", "", "show this list: `/jit help`"),
];

/// A typed command. An `id` is as the person typed it, often only the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatCommand {
    /// A request, in a dialog.
    Ask,
    Request(TypedRequest),
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

pub fn understand(text: &str, known: &Known<'_>) -> ParseResult<ChatCommand> {
    let (verb, rest) = first(text);
    let id = || one_id(verb, rest);
    let only_id = || only_one_id(verb, rest);
    Ok(match verb.to_lowercase().as_str() {
        "" | "help" => ChatCommand::Help,
        "request" if rest.is_empty() => ChatCommand::Ask,
        "request" => ChatCommand::Request(request(rest, known)?),
        "approve" => ChatCommand::Approve { id: only_id()? },
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
        "cancel" => ChatCommand::Cancel { id: only_id()? },
        "extend" => {
            let (id, typed) = id()?;
            let time = minutes(typed).ok_or_else(|| no_time(&id, typed))?;
            ChatCommand::Extend { id, time }
        }
        "status" if rest.is_empty() => ChatCommand::Status { id: None },
        "status" => ChatCommand::Status {
            id: Some(only_id()?),
        },
        "list" => {
            nothing_after(&["list"], rest, "no other words")?;
            ChatCommand::List
        }
        "info" => {
            nothing_after(&["info"], rest, "no other words")?;
            ChatCommand::Info
        }
        "bind" => {
            let (account, after) = account("bind", rest, known.names)?;
            ChatCommand::Bind {
                account,
                terms: terms(first(rest).0, after)?,
            }
        }
        "unbind" => {
            let (account, after) = account("unbind", rest, known.names)?;
            nothing_after(&["unbind", first(rest).0], after, "one account")?;
            ChatCommand::Unbind { account }
        }
        "approvers" => ChatCommand::Approvers {
            names: names(rest)?,
        },
        unknown => return Err(meant(unknown, rest)),
    })
}

fn one_id<'t>(verb: &str, rest: &'t str) -> ParseResult<(String, &'t str)> {
    let (id, rest) = first(rest);
    let is_like_one = id.len() >= 4 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if is_like_one {
        return Ok((id.to_lowercase(), rest));
    }
    let verb = verb.to_lowercase();
    Err(match id {
        "" => format!("the id is missing: `/jit {verb} ID`; `/jit list` shows the open requests"),
        _ => format!(
            "\"{}\" is not a request id; `/jit list` shows the ids of the open requests, and the beginning of an id is enough: `/jit {verb} 01a1fd36-48a0`",
            short(id, TYPED)
        ),
    })
}

/// For a command that takes no reason.
fn only_one_id(verb: &str, rest: &str) -> ParseResult<String> {
    let (id, after) = one_id(verb, rest)?;
    let whole = [&verb.to_lowercase(), first(rest).0];
    nothing_after(&whole, after, "one id and no reason")?;
    Ok(id)
}

/// A space would end the list of the sets.
const SETS: &str = "permission sets without spaces between them, like `admin,readonly`";

/// The typed time is none; the answer repeats the id.
fn no_time(id: &str, typed: &str) -> String {
    let within = || time_within(typed).map(|(_, meant)| meant);
    let meant = meant_time(typed).or_else(within);
    let command = command(&["extend", id, meant.as_deref().unwrap_or(TIME)]);
    match typed {
        "" => format!("the time is missing: type `{command}`, with a time like `30m`"),
        _ => format!(
            "\"{}\" is not a time: type a time like `30m`, `2h` or `1h30m`: `{command}`",
            short(typed, TYPED)
        ),
    }
}

/// Each term with its value, in any order; a term that is not named stays as it is.
fn terms(account: &str, rest: &str) -> ParseResult<BindTerms> {
    let mut terms = BindTerms::default();
    check_terms_once(account, rest)?;
    let mut words = rest.split_whitespace();
    let mut before = "";
    while let Some(name) = words.next() {
        let value = words.next().unwrap_or_default();
        let wrong = |like: &str| format!("`{name}` needs {like}");
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
                terms.permission_sets = Some(sets.map_err(|_| wrong(SETS))?);
            }
            "self" => {
                terms.allow_self_approval = Some(match value.to_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(wrong("`yes` or `no`")),
                });
            }
            _ => {
                let like = "approvals 2 max 8h sets admin,readonly self no";
                let after = match before.eq_ignore_ascii_case("sets") {
                    true => format!("; `sets` needs {SETS}"),
                    false => String::new(),
                };
                return Err(format!(
                    "\"{}\" is not a term of a binding{after}: `{}`",
                    short(name, TYPED),
                    command(&["bind", account, like])
                ));
            }
        }
        before = name;
    }
    Ok(terms)
}

/// Refuses a term that comes twice, with the command that has only the first of them.
fn check_terms_once(account: &str, rest: &str) -> ParseResult<()> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (mut kept, mut named, mut twice) = (vec!["bind", account], Vec::new(), None);
    for term in words.chunks(2) {
        let name = term.first().map(|name| name.to_lowercase());
        match named.contains(&name) {
            true => twice = twice.or(Some(term)),
            false => kept.extend(term),
        }
        named.push(name);
    }
    match twice {
        None => Ok(()),
        Some(term) => Err(format!(
            "\"{}\" is the second time that this term is named, so jit did nothing; type each term once, for example `{}`",
            short(&term.join(" "), TYPED),
            command(&kept)
        )),
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
        _ => Err("name all approvers of this channel with @: `/jit approvers @bob @carol`".into()),
    }
}

fn meant(unknown: &str, rest: &str) -> String {
    let typed = short(unknown, TYPED);
    let near = |verb: &&str| strsim::damerau_levenshtein(unknown, verb);
    let verbs = VERBS.iter().map(|(verb, _, _)| *verb);
    match verbs.min_by_key(near).filter(|verb| near(verb) <= 2) {
        Some(verb) => format!(
            "\"{typed}\" is not a command; did you mean `{}`? `/jit help` shows all commands",
            command(&[verb, rest])
        ),
        None => format!("\"{typed}\" is not a command; `/jit help` shows all commands"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mattermost::cards::names::Names;

    fn parse(text: &str) -> ParseResult<ChatCommand> {
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
        match parse(text) {
            Ok(ChatCommand::Request(typed)) => (
                typed.set,
                typed.time.map(Minutes::get),
                typed.why.map(|why| why.to_string()),
                typed.ticket.map(|ticket| ticket.to_string()),
            ),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_request_in_one_line_is_parsed() {
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
        ] {
            assert_eq!(request(text), wanted, "{text}");
        }
    }

    #[test]
    fn an_account_name_and_the_terms_of_a_bind_are_parsed() {
        assert_eq!(parse("request"), Ok(ChatCommand::Ask));
        let account = "111122223333".parse().unwrap();
        let terms = BindTerms {
            approvals_required: Some(2),
            allow_self_approval: Some(true),
            max_request_hours: Some(8),
            session_duration_minutes: None,
            permission_sets: Some(vec!["admin".parse().unwrap(), "readonly".parse().unwrap()]),
        };
        let typed = parse("bind Acme-Prod max 8h self yes sets admin,readonly approvals 2");
        assert_eq!(typed, Ok(ChatCommand::Bind { account, terms }));
        let account = "111122223333".parse().unwrap();
        assert_eq!(
            parse("unbind acme-prod"),
            Ok(ChatCommand::Unbind { account })
        );
    }

    #[test]
    fn a_time_needs_a_number_and_a_unit() {
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
    fn an_error_names_the_problem_and_the_right_command() {
        for (text, wanted) in [
            ("aprove 01a1", "`/jit approve 01a1`"),
            // W1
            (
                "requst acme-prod admin 1h x",
                "`/jit request acme-prod admin 1h x`",
            ),
            (
                "request acme-prdo admin 1h x",
                "nearest: acme\\-prod: `/jit request acme-prod admin 1h x`",
            ),
            ("bind acme-prdo max 2h", "`/jit bind acme-prod max 2h`"),
            ("bind acme-prod sets admin, readonly", "without spaces"),
            ("bind acme-prod sets admin readonly", "without spaces"),
            ("bind acme-prod forever", "`/jit bind acme-prod approvals 2"),
            (
                "extend 01a1fd36 30",
                "\"30\" is not a time: type a time like `30m`, `2h` or `1h30m`: `/jit extend 01a1fd36 30m`",
            ),
            ("extend 01a1fd36 0m", "`/jit extend 01a1fd36 TIME`"),
            ("extend 01a1fd36 half an hour", "`/jit extend 01a1fd36 30m`"),
            (
                "extend 01a1fd36",
                "the time is missing: type `/jit extend 01a1fd36 TIME`",
            ),
            ("revok", "`/jit revoke`"),
            ("xyzzy", "`/jit help`"),
            ("approve", "`/jit approve ID`"),
            ("deny it's wrong", "is not a request id"),
            ("bind 111122223333 approvals none", "a number"),
            ("bind 111122223333 max 90m", "whole hours"),
            ("bind 111122223333 sets a,,b", "permission sets"),
            ("bind 111122223333 self maybe", "`yes` or `no`"),
            ("bind 111122223333 forever", "is not a term"),
            ("unbind", "twelve digits"),
            ("request 12345 why", "twelve digits"),
            ("request 111122223333 admin readonly 1h", "type one of them"),
            ("request 111122223333 admin 1h", "the reason is missing"),
            ("extend 01a1fd36 soon", "\"soon\" is not a time"),
            ("approvers bob", "@bob"),
        ] {
            let told = parse(text).unwrap_err();
            assert!(told.contains(wanted), "{text}: {told}");
        }
    }

    /// W16: `/jit approve ID ID` approved the first request only, and of a term that came twice, the
    /// last one counted.
    #[test]
    fn a_word_that_jit_does_not_use_is_refused_with_a_command_that_works() {
        for (text, extra, wanted) in [
            ("approve 01a1fd36 01a1fd37", "01a1fd37", "approve 01a1fd36"),
            ("APPROVE 01A1FD36 now", "now", "approve 01A1FD36"),
            (
                "cancel 01a1fd36 not needed",
                "not needed",
                "cancel 01a1fd36",
            ),
            ("status 01a1fd36 x", "x", "status 01a1fd36"),
            (
                "unbind acme-prod 444455556666",
                "444455556666",
                "unbind acme-prod",
            ),
            ("list GRANTED", "GRANTED", "list"),
            ("info acme-prod", "acme\\-prod", "info"),
            (
                "bind acme-prod approvals 2 max 4h Approvals 1",
                "Approvals 1",
                "bind acme-prod approvals 2 max 4h",
            ),
            (
                "bind acme-prod sets admin sets readonly self no",
                "sets readonly",
                "bind acme-prod sets admin self no",
            ),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.starts_with(&format!("\"{extra}\" ")), "{text}: {said}");
            assert!(said.contains(&format!("`/jit {wanted}`")), "{text}: {said}");
            assert!(parse(wanted).is_ok(), "{wanted}");
        }
    }

    #[test]
    fn every_command_of_the_help_is_a_command() {
        for (verb, arguments, _) in VERBS {
            let told = parse(&format!("{verb} 01a1fd36 1h"));
            let is_known = !matches!(&told, Err(told) if told.contains("is not a command"));
            assert!(is_known, "{verb} {arguments}: {told:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in "(request|approve|deny|extend|status|approvers|.{0,4}) .{0,80}") {
            parse(&text).ok();
        }
    }
}
