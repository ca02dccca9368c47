//! The bot: it posts, changes its posts, and opens dialogs.

use reqwest::Url;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::api::{Api, ApiError};
use crate::domain::{ChannelId, MmUserId, PostId, Timestamp};
use crate::signature::Secret;

pub struct Bot {
    api: Api,
    /// The user id of the bot, and the token that it belongs to: a new token can be of another bot.
    me: Mutex<Option<(Secret, MmUserId)>>,
}

/// A post to write.
pub struct Post {
    pub message: String,
    pub props: Value,
    /// The post whose thread it belongs to.
    pub root: Option<PostId>,
}

impl Post {
    /// A post with only a message, outside every thread.
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
        let me = Mutex::default();
        Self { api, me }
    }

    /// Posts, and joins a public channel for that. `once` is secret: Mattermost makes only one
    /// of two posts with the same `once` within half a minute, for all users.
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
            .ok_or_else(|| not_meant("another post than the one that jit made"))
    }

    /// Writes the whole post: Mattermost drops every field that is not sent again.
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

    /// The same in a channel; a removed bot joins a public channel again.
    pub async fn change_in(
        &self,
        channel: &ChannelId,
        post: &PostId,
        message: &str,
        props: &Value,
    ) -> Result<(), ApiError> {
        self.as_member(channel, || self.change(post, message, props))
            .await
    }

    /// Repeats the call as a member if the bot can join the channel.
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

    /// The post of the bot with this property, if one exists since then.
    pub async fn find(
        &self,
        channel: &ChannelId,
        since: Timestamp,
        marked: (&str, &str),
    ) -> Result<Option<PostId>, ApiError> {
        let path = format!("channels/{channel}/posts?since={}", since.millis());
        let me = self.me().await?;
        let found = self.as_member(channel, || self.api.get(&path)).await?;
        let posts = found["posts"].as_object().into_iter().flatten();
        let is_it = |post: &&Value| {
            let (name, value) = marked;
            post["user_id"] == me.as_str() && post["props"][name] == value && post["delete_at"] == 0
        };
        let post = posts.map(|(_, post)| post).find(is_it);
        Ok(post.and_then(|post| post["id"].as_str()?.parse().ok()))
    }

    /// A direct message to one person.
    pub async fn send(&self, to: &MmUserId, message: &str, once: &str) -> Result<(), ApiError> {
        let channel = self.direct(to).await?;
        let post = Post::saying(message);
        self.post(&channel, &post, once).await.map(drop)
    }

    /// The direct message channel with one person.
    pub async fn direct(&self, user: &MmUserId) -> Result<ChannelId, ApiError> {
        let both = json!([self.me().await?, user]);
        let channel = self.api.post("channels/direct", &both).await?;
        let id = channel["id"].as_str().and_then(|id| id.parse().ok());
        id.ok_or_else(|| not_meant("a channel without an id"))
    }

    /// The bot can join a public channel; a member must invite it into any other.
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

    /// The address of Mattermost for its users, if it is configured there.
    pub async fn site_url(&self) -> Result<Option<Url>, ApiError> {
        let config = self.api.get("config/client?format=old").await?;
        let site = config["SiteURL"].as_str().and_then(|url| url.parse().ok());
        Ok(site.filter(|url: &Url| matches!(url.scheme(), "http" | "https")))
    }

    async fn me(&self) -> Result<MmUserId, ApiError> {
        let token = self.api.token();
        let mut known = self.me.lock().await;
        if let Some((of, id)) = &*known
            && of.is_same_as(&token)
        {
            return Ok(id.clone());
        }
        let me = self.api.get("users/me").await?;
        let id = me["id"].as_str().and_then(|id| id.parse::<MmUserId>().ok());
        let id = id.ok_or_else(|| not_meant("no user for the token of the bot"))?;
        *known = Some((token, id.clone()));
        Ok(id)
    }
}

fn not_meant(what: &str) -> ApiError {
    ApiError::NoAnswer(format!("it answered with {what}"))
}
