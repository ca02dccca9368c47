//! Parts that all typed commands share: words, reasons and accounts.

use crate::domain::{AccountId, Minutes, Text};
use crate::mattermost::cards::names::Names;
use crate::mattermost::cards::text::{code, plain, short};

/// The length of a typed word in an error.
pub(super) const TYPED: usize = 40;
/// The length of a proposed command.
const PROPOSED: usize = 300;

/// The names that a word can stand for.
pub struct Known<'k> {
    pub sets: &'k [&'k str],
    pub names: &'k Names,
}

/// A request in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedRequest {
    pub account: AccountId,
    /// The configured name of the permission set.
    pub set: Option<String>,
    pub time: Option<Minutes>,
    pub why: Option<Text>,
    pub ticket: Option<Text>,
}

/// The error names the problem and a command that works.
pub(super) type ParseResult<T> = Result<T, String>;

/// The first word and the rest.
pub(super) fn first(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// Refuses words after the end of a command. `takes` says what the command takes.
pub(super) fn nothing_after(whole: &[&str], rest: &str, takes: &str) -> ParseResult<()> {
    match rest {
        "" => Ok(()),
        _ => Err(format!(
            "\"{}\" does not belong to this command, so jit did nothing; it takes {takes}: `{}`",
            short(rest, TYPED),
            command(whole)
        )),
    }
}

pub(super) fn reason(text: &str) -> ParseResult<Option<Text>> {
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

/// The account at the beginning of the arguments of a command, and the rest.
pub(super) fn account<'t>(
    verb: &str,
    arguments: &'t str,
    names: &Names,
) -> ParseResult<(AccountId, &'t str)> {
    let (word, rest) = first(arguments);
    if let Some(account) = names.meant(word) {
        return Ok((account, rest));
    }
    let typed = match word {
        "" => "the account is missing".to_owned(),
        _ => format!("\"{}\" is not an account", short(word, TYPED)),
    };
    Err(match names.nearest(word) {
        Some(near) => format!(
            "{typed}; nearest: {}: `{}`",
            plain(near),
            command(&[verb, near, rest])
        ),
        None => format!(
            "{typed}: type its name or its twelve digits, like `/jit {verb} 123456789012`; `/jit info` shows the accounts of this channel"
        ),
    })
}

/// A command, ready to copy from between backticks.
pub(super) fn command(words: &[&str]) -> String {
    let words = words.iter().filter(|word| !word.is_empty());
    let words: Vec<&str> = ["/jit"].iter().chain(words).copied().collect();
    code(&words.join(" "), PROPOSED)
}
