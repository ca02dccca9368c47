//! What the bot does: it posts, changes what it posted, and opens dialogs.

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::api::{Api, ApiError};
use crate::domain::{ChannelId, MmUserId, PostId, Timestamp};

pub struct Bot {
    api: Api,
    me: OnceCell<MmUserId>,
}

/// A post as it is to be.
pub struct Post {
    pub message: String,
    pub props: Value,
    /// In whose thread, if in one.
    pub root: Option<PostId>,
}

impl Post {
    /// Nothing but words, and in nobody's thread.
    pub fn saying(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            props: json!({}),
            root: None,
        }
    }
}

impl Bot {
    pub fn new(api: Api) -> Self {
        let me = OnceCell::new();
        Self { api, me }
    }

    /// Posts, and joins the channel for that where it may. `once` is nobody's to guess: of
    /// two posts with one such word within half a minute there is only the first, whoever
    /// made it.
    pub async fn post(
        &self,
        channel: &ChannelId,
        post: &Post,
        once: &str,
    ) -> Result<PostId, ApiError> {
        let wanted = json!({
            "channel_id": channel,
            "root_id": post.root.as_ref().map_or("", PostId::as_str),
            "message": post.message,
            "props": post.props,
            "pending_post_id": once,
        });
        let made = self.as_member(channel, || self.api.post("posts", &wanted));
        let made = made.await?;
        let is_ours =
            made["user_id"] == self.me().await?.as_str() && made["channel_id"] == channel.as_str();
        let id = made["id"].as_str().filter(|_| is_ours);
        id.and_then(|id| id.parse().ok())
            .ok_or_else(|| not_meant("a post that is not the one that was made"))
    }

    /// Always whole: what is not sent again is lost, and what is read back is less.
    pub async fn change(
        &self,
        post: &PostId,
        message: &str,
        props: &Value,
    ) -> Result<(), ApiError> {
        let whole = json!({"message": message, "props": props});
        let changed = self.api.put(&format!("posts/{post}/patch"), &whole).await;
        changed.map(drop)
    }

    /// The same in a channel; who was put out of it comes back where anybody may.
    pub async fn change_in(
        &self,
        channel: &ChannelId,
        post: &PostId,
        props: &Value,
    ) -> Result<(), ApiError> {
        self.as_member(channel, || self.change(post, "", props))
            .await
    }

    /// Once more as a member, if that is what was missing and can be had.
    async fn as_member<T, F>(
        &self,
        channel: &ChannelId,
        call: impl Fn() -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        match call().await {
            Err(ApiError::Forbidden(why)) => match self.join(channel).await {
                Ok(()) => call().await,
                Err(_) => Err(ApiError::Forbidden(why)),
            },
            done => done,
        }
    }

    /// A post of the bot's own with this in its props, if there is one since then.
    pub async fn find(
        &self,
        channel: &ChannelId,
        since: Timestamp,
        marked: (&str, &str),
    ) -> Result<Option<PostId>, ApiError> {
        let path = format!("channels/{channel}/posts?since={}", since.millis());
        let me = self.me().await?.as_str();
        let found = self.api.get(&path).await?;
        let posts = found["posts"].as_object().into_iter().flatten();
        let is_it = |post: &&Value| {
            let (name, value) = marked;
            post["user_id"] == me && post["props"][name] == value && post["delete_at"] == 0
        };
        let post = posts.map(|(_, post)| post).find(is_it);
        Ok(post.and_then(|post| post["id"].as_str()?.parse().ok()))
    }

    /// To one person alone.
    pub async fn send(&self, to: &MmUserId, message: &str, once: &str) -> Result<(), ApiError> {
        let channel = self.direct(to).await?;
        let post = Post::saying(message);
        self.post(&channel, &post, once).await.map(drop)
    }

    /// Where one person alone reads it.
    pub async fn direct(&self, user: &MmUserId) -> Result<ChannelId, ApiError> {
        let both = json!([self.me().await?, user]);
        let channel = self.api.post("channels/direct", &both).await?;
        let id = channel["id"].as_str().and_then(|id| id.parse().ok());
        id.ok_or_else(|| not_meant("a channel without an id"))
    }

    /// A public channel takes the bot in; into any other somebody invites it.
    pub async fn join(&self, channel: &ChannelId) -> Result<(), ApiError> {
        let member = json!({"user_id": self.me().await?});
        let path = format!("channels/{channel}/members");
        self.api.post(&path, &member).await.map(drop)
    }

    pub async fn open_dialog(
        &self,
        trigger_id: &str,
        url: &str,
        dialog: &Value,
    ) -> Result<(), ApiError> {
        let asked = json!({"trigger_id": trigger_id, "url": url, "dialog": dialog});
        let opened = self.api.post("actions/dialogs/open", &asked).await;
        opened.map(drop)
    }

    async fn me(&self) -> Result<&MmUserId, ApiError> {
        let ask = || async {
            let me = self.api.get("users/me").await?;
            let id = me["id"].as_str().and_then(|id| id.parse().ok());
            id.ok_or_else(|| not_meant("nobody, asked whose the bot's token is"))
        };
        self.me.get_or_try_init(ask).await
    }
}

fn not_meant(what: &str) -> ApiError {
    ApiError::NoAnswer(format!("it answered with {what}"))
}
