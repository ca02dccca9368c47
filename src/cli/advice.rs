//! Checks that every command that jit advises can be typed as it is advised.
#![allow(clippy::unwrap_used, clippy::panic)]

mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use clap::{CommandFactory, Parser};

    use super::super::arguments::Arguments;

    /// Each placeholder in an advised command, and a value of that kind.
    const VALUES: [(&str, &str); 6] = [
        ("EMAIL", "sec@example.com"),
        ("ID", "01a1fd36-48a0-790d-8297-f43722aa0cb8"),
        ("ACCOUNT", "123456789012"),
        ("{}", "sec@example.com"),
        ("…", "text"),
        ("{acting}", "--as=sec@example.com"),
    ];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }

    /// The code of a file without comments and tests; a string of several lines is one line.
    fn code(path: &Path) -> String {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().take_while(|line| *line != "mod tests {");
        let mut code = String::new();
        for line in lines.filter(|line| !line.trim_start().starts_with("//")) {
            match line.strip_suffix('\\') {
                Some(open) => code.push_str(open),
                None => {
                    code.push_str(line);
                    code.push('\n');
                }
            }
        }
        let words: Vec<String> = code
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        words.join("\n").replace("\\n", "\n")
    }

    /// The commands in backticks, and those after a colon, up to the end of the sentence.
    fn advised(code: &str) -> Vec<String> {
        let mut found = Vec::new();
        for line in code.lines() {
            for after in line.split("`jit ").skip(1) {
                found.extend(after.split_once('`').map(|(command, _)| command.to_owned()));
            }
            let known = Arguments::command();
            for after in line.split(": jit ").skip(1) {
                let end = after.find(|c| "\"`;,()".contains(c)).unwrap_or(after.len());
                let command = after[..end].trim().trim_end_matches('.');
                let verb = command.split(' ').next().unwrap_or_default();
                if known.find_subcommand(verb).is_some() {
                    found.push(command.to_owned());
                }
            }
        }
        found
    }

    /// The examples of the help: one command on each line, maybe with its output.
    fn examples(command: &clap::Command, found: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default().replace("\\\n", " ");
        found.extend(help.lines().filter_map(|line| {
            let command = line.trim_start().strip_prefix("jit ")?;
            let end = command.find(['|', '>']).unwrap_or(command.len());
            line.starts_with("  ").then(|| command[..end].to_owned())
        }));
        for inner in command.get_subcommands() {
            examples(inner, found);
        }
    }

    /// The words of a command as a shell reads them, with values in place of their names.
    fn words(command: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (vec!["jit".to_owned()], String::new(), false);
        for c in command.chars().filter(|c| !"[]".contains(*c)).chain([' ']) {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => {
                    if !word.is_empty() {
                        words.push(std::mem::take(&mut word));
                    }
                }
                c => word.push(c),
            }
        }
        let value = |word: String| {
            let named = VALUES.iter().find(|(name, _)| *name == word);
            match named {
                Some((_, value)) => (*value).to_owned(),
                None if word.starts_with('{') => VALUES[1].1.to_owned(),
                None => word,
            }
        };
        words.into_iter().map(value).collect()
    }

    fn wrong(commands: &[String]) -> Vec<String> {
        let refused = commands.iter().filter_map(|command| {
            let error = Arguments::try_parse_from(words(command)).err()?;
            let why = error.to_string();
            // `--help` and `--version` print a text.
            let is_help = error.exit_code() == 0;
            (!is_help).then(|| format!("jit {command}: {}", why.lines().next().unwrap()))
        });
        refused.collect()
    }

    // H6
    #[test]
    fn every_advised_command_can_be_typed() {
        let mut files = Vec::new();
        sources(Path::new("src"), &mut files);
        let mut commands = Vec::new();
        for file in files {
            commands.extend(advised(&code(&file)));
        }
        assert!(commands.len() > 25, "found only {commands:#?}");
        let wrong = wrong(&commands);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    // H6
    #[test]
    fn every_example_of_the_help_can_be_typed() {
        let mut commands = Vec::new();
        examples(&Arguments::command(), &mut commands);
        assert!(commands.len() > 25, "found only {commands:#?}");
        let wrong = wrong(&commands);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn an_invalid_advice_is_noticed() {
        let told = advised("\"bind it with: jit bind {account_id} --channel {channel_id}\"");
        assert_eq!(told, ["bind {account_id} --channel {channel_id}"]);
        assert_eq!(wrong(&told).len(), 1);
        let told = advised("\"see `jit status {id}`, or wait with `jit revoke {id} --wait`\"");
        assert_eq!(told, ["status {id}", "revoke {id} --wait"]);
        assert!(wrong(&told).is_empty());
        assert!(advised("\"the question is: jit or not\"").is_empty());
    }
}
