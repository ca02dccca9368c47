//! A simulated Mattermost with its users, and a jit process.

use jit::signature::{self, Secret};
use serde_json::Value;

pub use crate::common::chat::{
    ACCOUNT, ADA, ALICE, BOB, BOT, BOT_TOKEN, CHANNEL, MALLORY, Mattermost, Post, TEAM, TOKEN,
    form, now, trigger,
};
use crate::common::{Caller, Jit, Setup};

/// A team in Mattermost, and the jit process that serves it.
pub struct Team {
    pub mattermost: Mattermost,
    pub jit: Jit,
    pub caller: Caller,
}

impl Team {
    pub async fn with(setup: Setup) -> Self {
        let mattermost = Mattermost::open().await;
        let more = format!("{}\n{}", mattermost.config(), setup.more);
        let jit = Setup { more, ..setup }.start();
        let caller = jit.caller();
        Self {
            mattermost,
            jit,
            caller,
        }
    }

    /// Starts jit with this configuration for this Mattermost.
    pub fn on(mattermost: Mattermost, config: &str) -> Self {
        let jit = Setup::with(config).start();
        Self {
            mattermost,
            caller: jit.caller(),
            jit,
        }
    }

    /// Binds an account, with bob as its approver.
    pub async fn bound() -> Self {
        Self::bound_with(Setup::default()).await
    }

    pub async fn bound_with(setup: Setup) -> Self {
        let team = Self::with(setup).await;
        let bound = team.type_command(ADA, &format!("bind {ACCOUNT}")).await;
        assert!(bound.contains(ACCOUNT), "{bound}");
        let set = team.type_command(ADA, "approvers @bob").await;
        assert!(set.contains("1 of 1"), "{set}");
        team
    }

    /// Grants alice access with a slow AWS; returns the team and the id of the request.
    pub async fn slowly_granted() -> (Self, String) {
        let slow = Setup {
            latency_ms: 6_000,
            ..Setup::default()
        };
        let team = Self::bound_with(slow).await;
        let id = team.requested().await;
        team.type_command(BOB, &format!("approve {id}")).await;
        team.caller.until(&team.newest().await, "GRANTED").await;
        (team, id)
    }

    /// Types this text after `/jit` in the channel of the team; returns the answer.
    pub async fn type_command(&self, who: &str, text: &str) -> String {
        self.type_command_in(CHANNEL, "aws-prod", who, text).await
    }

    pub async fn type_command_in(
        &self,
        channel: &str,
        name: &str,
        who: &str,
        text: &str,
    ) -> String {
        let body = form(TOKEN, TEAM, channel, name, who, text);
        command_answer(&self.send(body).await)
    }

    /// Requests access for alice for an hour; returns the short id.
    pub async fn requested(&self) -> String {
        id_in(
            &self
                .type_command(ALICE, &format!("request {ACCOUNT} admin 1h x"))
                .await,
        )
    }

    /// The whole id of the newest request.
    pub async fn newest(&self) -> String {
        let path = format!("/requests?channel_id={CHANNEL}");
        let all = self.caller.get(&path).await.is(200);
        all["items"][0]["request_id"].as_str().unwrap().to_owned()
    }

    /// Waits until jit has delivered all its notices: after a kill, it would deliver one of them again
    /// and renew the card.
    pub async fn all_delivered(&self) {
        let db = rusqlite::Connection::open(self.jit.folder.path().join("jit.db")).unwrap();
        let pending = "SELECT count(*) FROM jit_notices WHERE state = 'pending'";
        let left = || {
            db.query_row(pending, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        let begun = std::time::Instant::now();
        while left() > 0 {
            assert!(
                begun.elapsed() < crate::common::TIMEOUT,
                "{} notices wait",
                left()
            );
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Kills jit, changes its files and starts it again.
    pub fn restarted(self, change: impl FnOnce(&std::path::Path)) -> Self {
        let folder = self.jit.kill();
        change(folder.path());
        let jit = Jit::start_in(folder);
        Self {
            caller: jit.caller(),
            jit,
            ..self
        }
    }

    /// Presses a button; returns the text that only this user sees.
    pub async fn presses(&self, who: &str, post: &Post, button: &str) -> String {
        let click = self.mattermost.click(post, button, who);
        click_answer(&self.sends("/mattermost/action", &click).await)
    }

    pub async fn sends(&self, path: &str, body: &Value) -> crate::common::Reply {
        let headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Accept", "application/json".to_owned()),
        ];
        let body = body.to_string().into_bytes();
        self.caller.send("POST", path, headers, body).await
    }

    /// The FORGERY_REFUSED events in the history of a channel.
    fn forgeries_in(&self, channel: &str) -> Vec<Value> {
        let config = self.jit.folder.path().join("jit.toml");
        let mut export = crate::common::binary();
        let export = export.args(["audit", "export", "--channel", channel, "--config"]);
        let run = export.arg(config).output().unwrap();
        let text = String::from_utf8(run.stdout).unwrap();
        let events = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .filter(|event| event["event_type"] == "FORGERY_REFUSED")
            .collect()
    }

    /// Waits for this number of FORGERY_REFUSED events in the channel of the team. The history
    /// of a channel that jit does not know gets none.
    pub async fn forgeries(&self, many: usize) -> Vec<Value> {
        let begun = std::time::Instant::now();
        loop {
            let found = self.forgeries_in(CHANNEL);
            if found.len() >= many {
                assert!(self.forgeries_in("f3h9orfn33ge7nxnhyaj1kdqqo").is_empty());
                return found;
            }
            assert!(begun.elapsed() < crate::common::TIMEOUT, "{found:?}");
        }
    }

    pub async fn send(&self, body: String) -> crate::common::Reply {
        let form = "application/x-www-form-urlencoded";
        let headers = vec![
            ("Content-Type", form.to_owned()),
            ("Accept", "application/json".to_owned()),
        ];
        self.caller
            .send("POST", "/mattermost/command", headers, body.into_bytes())
            .await
    }
}

/// The text of the answer to a command. Mattermost accepts only the status 200, and shows a body
/// that is not JSON as it is.
pub fn command_answer(reply: &crate::common::Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "application/json");
    let answer = reply.json();
    assert_eq!(answer["response_type"], "ephemeral");
    // 4: the user can read the whole answer, so it must not contain a secret.
    let keys: Vec<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(keys, ["response_type", "skip_slack_parsing", "text"]);
    answer["text"].as_str().unwrap().to_owned()
}

/// Makes a seal as jit does, with the bot's token.
pub fn sealed(text: &str) -> String {
    let secret = |text: &str| Secret::new(text.to_owned());
    let key = signature::seal(&secret(BOT_TOKEN), "jit: buttons and dialogs");
    signature::seal(&secret(&key), text)
}

/// The text of the answer to a click. For Mattermost, anything but the status 200 with an object
/// is an error.
pub fn click_answer(reply: &crate::common::Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.headers["content-type"], "application/json");
    let answer = reply.json();
    assert!(answer.is_object(), "{reply:?}");
    answer["ephemeral_text"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// The id that an answer shows.
pub fn id_in(answer: &str) -> String {
    let at = answer.find('`').unwrap() + 1;
    answer[at..].split('`').next().unwrap().to_owned()
}
