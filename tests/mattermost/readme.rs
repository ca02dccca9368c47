//! The example in docs/mattermost.md agrees with the output of the binary: the answers to
//! commands and clicks, and the cards.

use jit::domain::{Millis, Timestamp};

use crate::server::{ACCOUNT, ADA, ALICE, BOB, CHANNEL, Mattermost, Post, TEAM, Team};

/// README.md shows the first card of the example as Mattermost draws it.
#[test]
fn the_card_in_the_readme_is_the_first_card_of_the_example() {
    let (readme, example) = (
        include_str!("../../README.md"),
        include_str!("../../docs/mattermost.md"),
    );
    let drawn = readme.split_once(" jit  BOT\n").unwrap().1;
    let drawn = drawn.split_once("```").unwrap().0;
    let card = example.split_once("\ncard ").unwrap().1;
    let card = card.split_once("\nto bob").unwrap().0;
    let mut pieces = Vec::new();
    for piece in card.lines().flat_map(|line| line.split(" | ")) {
        match piece.trim().split_once(": ") {
            Some((title, value)) if !title.contains(' ') && title != "Approvers" => {
                pieces.extend([title, value]);
            }
            Some(_) | None => pieces.push(piece.trim()),
        }
    }
    assert!(pieces.len() > 10, "{pieces:?}");
    for piece in pieces {
        let buttons = piece.starts_with('[');
        let spaced = piece.replace("] [", " ]  [ ");
        let piece = match buttons {
            true => spaced
                .replacen('[', "[ ", 1)
                .trim_end_matches(']')
                .to_owned(),
            false => piece.to_owned(),
        };
        assert!(
            drawn.contains(&piece),
            "{piece:?} is not in the card of README.md"
        );
    }
}

/// Stands for the id before the request exists.
const NO_ID: &str = "\0";

/// The lines that users see.
#[derive(Default)]
struct Told {
    lines: Vec<String>,
    threads_seen: usize,
    /// The first end time in the output. The document shows it as 14:00.
    first_end: Option<Timestamp>,
    /// Whether the output had the begin of the grant. The document shows it as 13:00.
    begin_told: bool,
}

impl Told {
    /// The text as Mattermost shows it: without the characters that escape Markdown.
    fn seen(&mut self, text: &str, id: &str) -> String {
        let text = without_seconds(&text.replace(['\u{200b}', '\\'], ""));
        let mut seen = String::new();
        let mut rest = text.as_str();
        while let Some(end) = rest.find(" UTC") {
            let (before, time) = rest[..end].split_at(end - 16);
            seen.push_str(before);
            seen.push_str(&self.time(time));
            seen.push_str(" UTC");
            rest = &rest[end + " UTC".len()..];
        }
        seen.push_str(rest);
        seen.replace(id, "01a1fd36-48a0")
    }

    /// The time as the document shows it, with the first end at 14:00. The test does not wait
    /// until 13:55: the document shows this time for the revoke, which is the next time before
    /// the first end after the begin of the grant.
    fn time(&mut self, text: &str) -> String {
        let (day, time) = text.split_once(' ').unwrap();
        let at = Timestamp::parse(&format!("{day}T{time}:00Z")).unwrap();
        let first_end = *self.first_end.get_or_insert(at);
        let mut minutes = (at - first_end).0 / 60_000;
        if minutes < 0 && self.begin_told {
            assert!(minutes >= -60, "revoked before the grant began: {text}");
            minutes = -5;
        }
        self.begin_told |= minutes < 0;
        let end = Timestamp::parse("2027-01-15T14:00:00Z").unwrap();
        let shown = (end + Millis::minutes(minutes)).to_string();
        shown[..16].replace('T', " ")
    }

    fn add(&mut self, who: &str, text: &str, id: &str) {
        let seen = self.seen(text, id);
        for (number, line) in seen.lines().enumerate() {
            let who = if number == 0 { who } else { "" };
            self.lines
                .push(format!("{who:<9}{line}").trim_end().to_owned());
        }
    }

    async fn card(&mut self, team: &Team, id: &str, status: &str, buttons: &[&str]) -> Post {
        let card = team.mattermost.card(status, buttons).await;
        let attachment = &card.props.last().unwrap()["attachments"][0];
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let fields = attachment["fields"].as_array().unwrap().iter();
        let fields =
            fields.map(|field| format!("{}: {}", text(&field["title"]), text(&field["value"])));
        let pressed = attachment["actions"].as_array().unwrap().iter();
        let pressed: Vec<String> = pressed
            .map(|one| format!("[{}]", text(&one["name"])))
            .collect();
        let mut lines = vec![card.title().to_owned(), text(&attachment["text"])];
        lines.push(fields.collect::<Vec<_>>().join(" | "));
        lines.push(pressed.join(" "));
        self.add("card", lines.join("\n").trim_end(), id);
        card
    }

    /// The direct message to alice with these words.
    async fn message(&mut self, team: &Team, card: &Post, id: &str, words: &str) {
        let is_it = |post: &Post| post.message.contains(words);
        let sent = |mattermost: &Mattermost| mattermost.sent(ALICE).into_iter().find(is_it);
        let sent = team.mattermost.until(sent).await;
        let link = format!("({}/_redirect/pl/{})", team.mattermost.url, card.id);
        self.add("to alice", &sent.message.replace(&link, ""), id);
    }

    async fn thread(&mut self, team: &Team, card: &Post, id: &str, many: usize) {
        let wanted = self.threads_seen + many;
        let enough = |mattermost: &Mattermost| {
            let thread = mattermost.thread(&card.id);
            (thread.len() >= wanted).then_some(thread)
        };
        let thread = team.mattermost.until(enough).await;
        for line in &thread[self.threads_seen..] {
            self.add("thread", line, id);
        }
        self.threads_seen = thread.len();
    }

    /// The requester asks for more time with a button of the reminder, and bob approves.
    async fn extension(&mut self, team: &Team, id: &str) {
        let offers = |mattermost: &Mattermost| {
            mattermost
                .sent(ALICE)
                .pop()
                .filter(|post| !post.buttons().is_empty())
        };
        let reminder = team.mattermost.until(offers).await;
        let offered = "[Ask for 30 more minutes] [Ask for 60 more minutes]";
        self.add("to alice", &format!("{}\n{offered}", reminder.message), id);
        self.add("alice", "presses [Ask for 30 more minutes]", id);
        team.presses(ALICE, &reminder, "extend30").await;
        let buttons = ["approve", "deny", "revoke"];
        let card = self.card(team, id, "GRANTED", &buttons).await;
        self.add("bob", "presses [Approve 30 more minutes]", id);
        team.presses(BOB, &card, "approve").await;
        self.thread(team, &card, id, 2).await;
        self.message(team, &card, id, "access extended").await;
    }
}

/// jit shows seconds if an access began and ended in one minute, as it does in the test.
fn without_seconds(text: &str) -> String {
    let mut parts = text.split(" UTC").peekable();
    let mut all = String::new();
    while let Some(part) = parts.next() {
        let before = part.rsplit(' ').next().unwrap_or_default();
        let has_seconds = before.len() == 8 && before.matches(':').count() == 2;
        let kept = if has_seconds {
            part.len() - 3
        } else {
            part.len()
        };
        all.push_str(&part[..kept]);
        if parts.peek().is_some() {
            all.push_str(" UTC");
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_in_the_mattermost_page_matches_the_binary() {
    let mattermost = Mattermost::open().await;
    let more = format!(
        "{}remind_before = \"3599s\"\n[accounts]\n{ACCOUNT} = \"acme-prod\"\n",
        mattermost.config()
    );
    let team = Team::on(mattermost, &more);
    let mut told = Told::default();
    for typed in ["bind acme-prod max 2h", "approvers @bob"] {
        told.add("ada", &format!("/jit {typed}"), NO_ID);
        told.add("jit", &team.type_command(ADA, typed).await, NO_ID);
    }
    told.add(
        "alice",
        "/jit request acme-prod admin 1h INC-42 db down",
        NO_ID,
    );
    let asked = team
        .type_command(ALICE, "request acme-prod admin 1h INC-42 db down")
        .await;
    let id = crate::server::id_in(&asked);
    told.add("jit", &asked, &id);
    let card = told.card(&team, &id, "PENDING", &["approve", "deny"]).await;
    let sent = |who: &'static str| move |mattermost: &Mattermost| mattermost.sent(who).pop();
    let call = team.mattermost.until(sent(BOB)).await;
    let link = format!("{}/_redirect/pl/{}", team.mattermost.url, card.id);
    let call = call.message.replace(&format!("]({link})"), "]");
    told.add("to bob", &call, &id);
    told.add("bob", "presses [Approve]", &id);
    assert_eq!(team.presses(BOB, &card, "approve").await, "");
    let card = told.card(&team, &id, "GRANTED", &["revoke"]).await;
    told.thread(&team, &card, &id, 2).await;
    told.message(&team, &card, &id, "access granted").await;
    told.extension(&team, &id).await;
    told.add("bob", &format!("/jit revoke {id} laptop stolen"), &id);
    told.add(
        "jit",
        &team
            .type_command(BOB, &format!("revoke {id} laptop stolen"))
            .await,
        &id,
    );
    let card = told.card(&team, &id, "REVOKED", &[]).await;
    told.thread(&team, &card, &id, 2).await;
    told.message(&team, &card, &id, "revoked by").await;
    let told = told.lines.join("\n");
    let page = include_str!("../../docs/mattermost.md");
    assert!(
        page.contains(&format!("```text\n{told}\n```")),
        "docs/mattermost.md should say:\n{told}\n"
    );
    assert!(!told.contains(CHANNEL) && !told.contains(TEAM));
}
