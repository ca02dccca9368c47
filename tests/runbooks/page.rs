//! A page of runbooks/: its sections with their commands.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::common::Caller;
use crate::common::shell::Said;
use crate::stage::Stage;

pub struct Page {
    sections: Vec<Section>,
    played: RefCell<BTreeSet<String>>,
}

struct Section {
    title: String,
    blocks: Vec<Block>,
}

enum Block {
    Shell(String),
    Chat(String),
}

impl Page {
    pub fn open(name: &str) -> Self {
        let file = format!("{}/runbooks/{name}.md", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        let mut sections: Vec<Section> = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(kind) = line.strip_prefix("```") {
                let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                let inside = inside.join("\n");
                let block = match kind {
                    "sh" => Block::Shell(inside),
                    "chat" => Block::Chat(inside),
                    other => panic!("{name}: unknown block {other:?}"),
                };
                sections.last_mut().unwrap().blocks.push(block);
            } else if line.starts_with('#') {
                let title = line.trim_start_matches('#').trim().to_owned();
                let blocks = Vec::new();
                sections.push(Section { title, blocks });
            }
        }
        Self {
            sections,
            played: RefCell::default(),
        }
    }

    pub fn titles(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|section| section.title.as_str())
    }

    /// Runs all shell commands of a section in one shell.
    pub fn play(&self, title: &str, stage: &Stage) -> Said {
        let shell = self.section(title).blocks.iter().map(|block| match block {
            Block::Shell(script) => script.as_str(),
            Block::Chat(_) => panic!("{title} has a chat command"),
        });
        let script = shell.collect::<Vec<_>>().join("\n");
        let said = stage.run(&script);
        assert_eq!(
            said.code, 0,
            "{title}: {script}\n{}\n{}",
            said.out, said.err
        );
        said
    }

    /// Sends the command of a section as the signed call that the plugin makes of it.
    pub async fn send_command(
        &self,
        title: &str,
        caller: &Caller,
        id: &str,
    ) -> crate::common::Reply {
        let [Block::Chat(line)] = &self.section(title).blocks[..] else {
            panic!("{title} needs one chat command");
        };
        let id = line
            .replace("$ID", id)
            .strip_prefix("/jit revoke ")
            .expect(line)
            .to_owned();
        caller.revoke(&id).await
    }

    fn section(&self, title: &str) -> &Section {
        let mut found = self
            .sections
            .iter()
            .filter(|section| section.title == title);
        let section = found
            .next()
            .unwrap_or_else(|| panic!("no section {title:?}"));
        assert!(found.next().is_none(), "two sections are {title:?}");
        self.played.borrow_mut().insert(title.to_owned());
        section
    }

    /// Checks that the test used every section.
    pub fn ends(self) {
        let played = self.played.borrow();
        let with_commands = self
            .sections
            .iter()
            .filter(|section| !section.blocks.is_empty());
        let left: Vec<&str> = with_commands
            .map(|section| section.title.as_str())
            .filter(|title| !played.contains(*title))
            .collect();
        assert!(left.is_empty(), "the test did not use {left:?}");
    }
}
