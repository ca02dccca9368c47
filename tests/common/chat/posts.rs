//! The posts of the bot: cards, replies and direct messages.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::api::{Answered, no, yes};
use super::{BOT, CHANNEL, MALLORY, Mattermost, direct, now};

#[derive(Clone, Debug)]
pub struct Post {
    pub id: String,
    pub user_id: String,
    pub channel_id: String,
    pub root_id: String,
    pub message: String,
    pending: String,
    is_deleted: bool,
    /// The props of the post as created and after each change.
    pub props: Vec<Value>,
    /// The time of each change.
    pub changed_at: Vec<Instant>,
}

impl Post {
    fn card(&self) -> &Value {
        &self.props.last().unwrap()["attachments"][0]
    }

    pub fn title(&self) -> &str {
        self.card()["title"].as_str().unwrap()
    }

    /// The fields that the card shows, by their titles.
    pub fn fields(&self) -> BTreeMap<String, String> {
        let fields = self.card()["fields"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        fields
            .map(|field| (text(&field["title"]), text(&field["value"])))
            .collect()
    }

    /// The buttons of the card that act at once.
    pub fn buttons(&self) -> Vec<&str> {
        let mut buttons = self.all_buttons();
        buttons.retain(|id| !id.ends_with("withreason"));
        buttons
    }

    /// The buttons of the card that open a dialog for a reason.
    pub fn reason_buttons(&self) -> Vec<&str> {
        let mut buttons = self.all_buttons();
        buttons.retain(|id| id.ends_with("withreason"));
        buttons
    }

    fn all_buttons(&self) -> Vec<&str> {
        let actions = self.card()["actions"].as_array();
        let actions = actions.map_or(&[][..], Vec::as_slice).iter();
        actions.map(|one| one["id"].as_str().unwrap()).collect()
    }

    pub fn button(&self, id: &str) -> Option<&Value> {
        let actions = self.card()["actions"].as_array()?.iter();
        actions.into_iter().find(|one| one["id"] == id)
    }

    /// 4: the post as the API returns it, without the addresses and contexts of actions.
    fn stripped(&self) -> Value {
        let mut props = self.props.last().unwrap().clone();
        for attachment in props["attachments"].as_array_mut().into_iter().flatten() {
            for action in attachment["actions"].as_array_mut().into_iter().flatten() {
                action.as_object_mut().unwrap().remove("integration");
            }
        }
        json!({
            "id": self.id, "create_at": now(), "delete_at": i64::from(self.is_deleted), "user_id": self.user_id,
            "channel_id": self.channel_id, "root_id": self.root_id, "message": self.message,
            "props": props, "pending_post_id": "",
        })
    }
}

impl Mattermost {
    fn posts(&self, which: impl Fn(&Post) -> bool) -> Vec<Post> {
        let kept = self.kept();
        kept.posts
            .iter()
            .filter(|post| which(post))
            .cloned()
            .collect()
    }

    /// The posts in channels that are not replies.
    pub fn cards(&self) -> Vec<Post> {
        self.posts(|post| post.root_id.is_empty() && !post.channel_id.starts_with("dm"))
    }

    /// The replies to a card.
    pub fn thread(&self, card: &str) -> Vec<String> {
        let posts = self.posts(|post| post.root_id == card);
        posts.into_iter().map(|post| post.message).collect()
    }

    /// The direct messages to one user.
    pub fn sent(&self, user: &str) -> Vec<Post> {
        self.posts(|post| post.channel_id == direct(user))
    }

    /// Adds an existing post; its author chooses its props.
    pub fn has_post(&self, user: &str, props: Value, is_deleted: bool) {
        let mut kept = self.kept();
        let id = format!("planted{}", kept.posts.len());
        kept.posts.push(Post {
            id,
            user_id: user.to_owned(),
            channel_id: CHANNEL.to_owned(),
            // It is not a reply to a card.
            root_id: "planted".into(),
            message: String::new(),
            pending: String::new(),
            is_deleted,
            props: vec![props],
            changed_at: vec![Instant::now()],
        });
    }

    pub(super) fn create(&self, body: &Value) -> Answered {
        let mut kept = self.kept();
        if let Some(status) = kept.refuses {
            return no(status, "x");
        }
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        if kept.closed.contains_key(&text("channel_id")) {
            return no(403, "api.context.permissions.app_error");
        }
        if kept.limits_posts.0 == text("channel_id") && kept.limits_posts.1 > 0 {
            kept.limits_posts.1 -= 1;
            return kept.too_many_calls();
        }
        if kept.answers_with_another_post > 0 {
            kept.answers_with_another_post -= 1;
            let channel = text("channel_id");
            return yes(
                201,
                &json!({"id": "hers", "user_id": MALLORY, "channel_id": channel}),
            );
        }
        let pending = text("pending_post_id");
        // 10h: the server compares only the pending post id, and not the author.
        if let Some(first) = kept.posts.iter().find(|post| post.pending == pending) {
            return yes(201, &first.stripped());
        }
        let post = Post {
            id: format!("post{}", kept.posts.len()),
            user_id: BOT.into(),
            channel_id: text("channel_id"),
            root_id: text("root_id"),
            message: text("message"),
            pending,
            is_deleted: false,
            props: vec![body["props"].clone()],
            changed_at: vec![Instant::now()],
        };
        let answer = post.stripped();
        kept.posts.push(post);
        let is_lost_here = kept.loses_answers_in.0 == text("channel_id");
        if kept.loses_answers > 0 || is_lost_here && kept.loses_answers_in.1 > 0 {
            match kept.loses_answers > 0 {
                true => kept.loses_answers -= 1,
                false => kept.loses_answers_in.1 -= 1,
            }
            // The server keeps a pending post id for half a minute only.
            kept.posts.last_mut().unwrap().pending.clear();
            return no(502, "x");
        }
        yes(201, &answer)
    }

    pub(super) fn patch(&self, id: &str, body: &Value) -> Answered {
        let mut kept = self.kept();
        if let Some(status) = kept.refuses {
            return no(status, "x");
        }
        let channel = kept.posts.iter().find(|post| post.id == id);
        if channel.is_some_and(|post| kept.closed.contains_key(&post.channel_id)) {
            return no(403, "api.context.permissions.app_error");
        }
        let failing = kept.fails_changes.0.clone();
        let fails = kept
            .posts
            .iter()
            .any(|post| post.id == id && post.channel_id == failing);
        if fails && kept.fails_changes.1 > 0 {
            kept.fails_changes.1 -= 1;
            return no(500, "x");
        }
        let Some(post) = kept.posts.iter_mut().find(|post| post.id == id) else {
            return no(404, "app.post.get.app_error");
        };
        post.message = body["message"].as_str().unwrap().to_owned();
        post.props.push(body["props"].clone());
        post.changed_at.push(Instant::now());
        yes(200, &post.stripped())
    }

    /// The answer with all posts of a channel.
    pub(super) fn list(&self, channel: &str) -> Answered {
        let posts = self.posts(|post| post.channel_id == channel);
        let posts: serde_json::Map<String, Value> = posts
            .iter()
            .map(|post| (post.id.clone(), post.stripped()))
            .collect();
        yes(200, &json!({"order": [], "posts": posts}))
    }
}
