//! The calls that the server sends to jit when a person types a command or presses a button.

use serde_json::{Value, json};

use super::users::mentioned;
use super::{Mattermost, PUBLIC, Post, TEAM, now, trigger};

impl Mattermost {
    /// The call that jit gets for a press of a button, as the server sends it.
    pub fn click(&self, post: &Post, button: &str, who: &str) -> Value {
        let integration = &post.button(button).expect("the card has this button")["integration"];
        assert_eq!(integration["url"], format!("{PUBLIC}/mattermost/action"));
        let is_direct = post.channel_id.starts_with("dm");
        json!({
            "user_id": who, "user_name": "whatever-she-calls-herself",
            "channel_id": post.channel_id, "channel_name": "aws-prod",
            "team_id": if is_direct { "" } else { TEAM }, "team_domain": "acme",
            "post_id": post.id, "trigger_id": trigger(who, now()), "type": "button",
            "data_source": "", "context": integration["context"],
        })
    }
}

/// The form of a slash command as a server sends it, with the mentioned users.
pub fn form(token: &str, team: &str, channel: &str, name: &str, who: &str, text: &str) -> String {
    let trigger = trigger(who, now());
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("channel_id", channel)
        .append_pair("channel_name", name)
        .append_pair("command", "/jit")
        .append_pair(
            "response_url",
            "http://127.0.0.1:8065/hooks/commands/x6y4y57sx7dztykfqkmoo5ethy",
        )
        .append_pair("team_domain", "acme")
        .append_pair("team_id", team)
        .append_pair("text", text)
        .append_pair("token", token)
        .append_pair("trigger_id", &trigger)
        .append_pair("user_id", who);
    for (id, name) in mentioned(text).rev() {
        form.append_pair("user_mentions", name)
            .append_pair("user_mentions_ids", id);
    }
    form.append_pair("user_name", "whatever-she-calls-herself");
    form.finish()
}
