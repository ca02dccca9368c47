//! The output: text for people, JSON for programs.

use std::io::Write;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::Failure;
use crate::domain::is_odd;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Output {
    /// Prints it on stdout in the format that the caller chose.
    pub fn print(self, text: impl FnOnce() -> String, value: &Value) -> Result<(), Failure> {
        match self {
            Self::Text => print(&clean(&text())),
            Self::Json => print(&value.to_string()),
        }
    }

    pub fn failure(self, message: &str, code: &str) {
        match self {
            Self::Text => tell(message),
            Self::Json => eprintln!("{}", json!({"message": message, "code": code})),
        }
    }
}

/// A progress bar on a terminal.
pub(crate) fn progress(length: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}");
    // The template is constant; every test that runs this checks it.
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

/// A line on stdout. A closed pipe is not a failure.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Failed(format!(
            "jit cannot write to stdout: {why}"
        ))),
        _ => Ok(()),
    }
}

/// Text from outside must not control the terminal or look like another text.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if is_odd(c) && c != '\n' { ' ' } else { c })
        .collect()
}

/// A message on stderr for the person at the terminal.
pub(crate) fn tell(message: &str) {
    eprintln!("{}", message_of_jit(message));
}

/// A5: only the first line begins with `jit:`, and the others are indented: a line break in text
/// from outside cannot make a line that looks like a message of its own.
fn message_of_jit(message: &str) -> String {
    format!("jit: {}", clean(message).replace('\n', "\n     "))
}

/// The same, on one line.
pub(crate) fn one_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

/// At most so many characters; `…` at the end shows that the text is cut.
pub(crate) fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let shown = text.chars().take(most.saturating_sub(1));
    shown.chain(['…']).collect()
}

/// Columns as wide as their longest cell.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widths = cells.map(|cell| cell.chars().count());
        widths
            .chain(head.get(column).map(|title| title.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|title| (*title).to_owned()).collect();
    std::iter::once(line(&head))
        .chain(rows.iter().map(|row| line(row)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Names and values, one pair a line. A5: a value with a line break would look like other pairs.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let said: Vec<_> = facts
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let width = said.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    said.iter()
        .map(|(name, value)| format!("{name:<width$}  {}", one_line(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced_by_spaces() {
        assert_eq!(clean("a\u{1b}[31mred\u{7}\nb"), "a [31mred \nb");
        assert_eq!(one_line("a\nb"), "a b");
    }

    // A5
    #[test]
    fn a5_a_line_break_in_a_message_makes_no_second_message() {
        let told = message_of_jit("AWS says: slow\njit: all access is gone");
        assert_eq!(told, "jit: AWS says: slow\n     jit: all access is gone");
    }

    // A5
    #[test]
    fn a5_each_fact_has_one_line() {
        let shown = facts(&[("reason", "db down\nstatus  DENIED".into())]);
        assert_eq!(shown, "reason  db down status  DENIED");
    }

    // A5
    #[test]
    fn marks_of_direction_are_replaced_by_spaces() {
        assert_eq!(clean("a\u{202e}b\u{2066}c\u{200f}d"), "a b c d");
        assert_eq!(one_line("a\u{2028}b\u{2029}c"), "a b c");
    }

    #[test]
    fn a_text_that_is_too_long_ends_with_an_ellipsis() {
        assert_eq!(clipped("äöü", 3), "äöü");
        assert_eq!(clipped("äöüß", 3), "äö…");
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = vec![
            vec!["1".into(), "long".into()],
            vec!["22".into(), "x".into()],
        ];
        assert_eq!(table(&["ID", "B"], &rows), "ID  B\n1   long\n22  x");
    }
}
