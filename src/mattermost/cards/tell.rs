//! Delivers notices to Mattermost: one card for each request in its channel, and the history in
//! the thread of the card. `direct` sends the direct messages.
//!
//! A receiver of notices like the webhook: the same outbox, the same order, the same time
//! limits. A repeated notice changes the same post where Mattermost can recognise it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::card::{MARK, Offer, Shown, card, good_until, message, offers, people};
use super::handles::Handles;
use super::history::{self, ExpiredAccess, Line, RevokeLine};
use super::names::Names;
use super::subject;
use super::text::plain;
use crate::config;
use crate::domain::{
    Audience, AuditKey, ChannelId, Command, Event, EventKind, Millis, MmUserId, Notice, PostId,
    ReceiverName, Request, RequestId, State, Timestamp,
};
use crate::lock::locked;
use crate::mattermost::client::api::{Api, ApiError};
use crate::mattermost::client::bot::{Bot, Post};
use crate::mattermost::client::people::People;
use crate::mattermost::trust::seal::{ButtonPlace, Seals};
use crate::mattermost::{ACTION, at};
use crate::service::Service;
use crate::signature::CurrentSecret;
use crate::worker::notices::{DELIVERY_BOUND, NotReceived, Receiver};

/// For one call.
const CALL_TIMEOUT: Millis = Millis::seconds(5);
/// For one notice: its calls, their repeats, and the pause that a server requires after 429.
/// This is within the bound of one delivery.
pub(super) const DELIVERY_TIMEOUT: Millis = Millis::seconds(20);
const _: () = assert!(CALL_TIMEOUT.0 < DELIVERY_TIMEOUT.0);
const _: () = assert!(DELIVERY_TIMEOUT.0 < DELIVERY_BOUND.0);
/// jit may have tried an older notice before: the first pause is longer than this.
pub(super) const FIRST_TRY: Millis = Millis(400);
/// The clocks of jit and Mattermost may differ; the post is newer than its request.
pub(super) const CLOCKS_DIFFER: Millis = Millis(-5 * 60_000);
pub struct Cards {
    service: Arc<Service>,
    pub(super) bot: Bot,
    people: People,
    pub(super) seals: Seals,
    names: Names,
    /// The address to which Mattermost sends clicks.
    action_url: String,
    url: Url,
    /// The address of Mattermost for its users; `None` if the server has none.
    site: OnceCell<Option<Url>>,
    /// The requests whose card is being posted.
    posting: Mutex<HashMap<RequestId, Weak<tokio::sync::Mutex<Posting>>>>,
}

/// Whether one of the receivers tried to post a card a moment ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Posting {
    #[default]
    New,
    Tried,
}

impl Cards {
    pub fn of(
        config: &config::MattermostConfig,
        bot_token: CurrentSecret,
        names: Names,
        service: Arc<Service>,
    ) -> reqwest::Result<Self> {
        let (url, clock) = (config.url.clone(), service.shared_clock());
        let api = Api::new(url, bot_token.clone(), CALL_TIMEOUT.std(), clock)?;
        Ok(Self {
            service,
            bot: Bot::new(api.clone()),
            people: People::new(api),
            seals: Seals::of(bot_token),
            names,
            action_url: at(&config.public_url, ACTION),
            url: config.url.clone(),
            site: OnceCell::new(),
            posting: Mutex::default(),
        })
    }

    async fn deliver(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived> {
        if notice.audience == Audience::Requester {
            return Ok(());
        }
        let request = self.current(notice.request_id).await?;
        let Some(post) = self.card_of(&request, notice, now).await? else {
            // A member may invite the bot while the request waits for approvals.
            let why = "the bot is not in the channel".into();
            return match request.state == State::Pending {
                true => Err(failed(ApiError::Forbidden(why))),
                false => Ok(()),
            };
        };
        let changed = self.renew(&request, &post).await;
        // The history needs a card.
        if is_there(&request, "card", changed)?
            && let Some(event) = self.event(notice).await?
        {
            self.write_history(&request, &post, &event).await?;
        }
        Ok(())
    }

    pub(super) async fn current(&self, id: RequestId) -> Result<Request, NotReceived> {
        let request = self.service.request(id).await;
        request.map_err(NotReceived::because)
    }

    /// The post id of the card; `None` if the bot cannot join the channel. jit posts a new card
    /// without buttons first, because the seal of a button covers the post id. The messages have
    /// a link to the card, so the first of both receivers that needs the card posts it.
    pub(super) async fn card_of(
        &self,
        request: &Request,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<Option<PostId>, NotReceived> {
        if let Some(post) = &request.chat.card {
            return Ok(Some(post.clone()));
        }
        let turn = self.turn_to_post(request.id);
        let mut posting = turn.lock().await;
        // The other receiver may have posted it in the meantime.
        if let Some(post) = self.current(request.id).await?.chat.card {
            return Ok(Some(post));
        }
        let before = std::mem::replace(&mut *posting, Posting::Tried);
        let is_repeated = before == Posting::Tried || now - notice.created_at > FIRST_TRY;
        let found = match is_repeated {
            true => self.find_card(request).await,
            false => Ok(None),
        };
        let post = match found {
            Ok(None) => self.post_card(request).await,
            Ok(Some(post)) => Ok(post),
            Err(why) => Err(why),
        };
        let post = match post {
            Err(why @ ApiError::Forbidden(_)) => {
                tracing::warn!(
                    request_id = %request.id, channel = %request.asked.channel_id, error = %why,
                    "card not posted, the bot is not in the channel; jit sends direct messages, and a member must invite the bot: /invite @jit"
                );
                return Ok(None);
            }
            post => post.map_err(failed)?,
        };
        let posted = Command::CardPosted {
            post: post.clone(),
            key: self.seals.key_name(),
        };
        self.note(request, posted).await?;
        Ok(Some(post))
    }

    fn turn_to_post(&self, id: RequestId) -> Arc<tokio::sync::Mutex<Posting>> {
        let mut posting = locked(&self.posting);
        posting.retain(|_, turn| turn.strong_count() > 0);
        let turn = posting.get(&id).and_then(Weak::upgrade).unwrap_or_default();
        posting.insert(id, Arc::downgrade(&turn));
        turn
    }

    async fn find_card(&self, request: &Request) -> Result<Option<PostId>, ApiError> {
        let since = request.asked.created_at + CLOCKS_DIFFER;
        let marked = (MARK, &*request.id.to_string());
        self.bot
            .find(&request.asked.channel_id, since, marked)
            .await
    }

    async fn post_card(&self, request: &Request) -> Result<PostId, ApiError> {
        let shown = self.shown(request).await;
        let card = Post {
            props: card(request, &shown, &[]),
            ..Post::saying(message(request, &self.names))
        };
        let once = self.seals.once(&["card", &request.id.to_string()]);
        self.bot.post(&request.asked.channel_id, &card, &once).await
    }

    /// The data of the card that the record of the request does not have.
    async fn shown(&self, request: &Request) -> Shown<'_> {
        // Without an answer of the store, the card shows no number of approvals.
        let binding = self.service.binding(&request.asked.account_id).await;
        Shown {
            names: &self.names,
            handles: self.handles(request, None).await,
            binding: binding.ok().flatten(),
            expired: self.expired_access(request).await,
        }
    }

    /// The record does not say whether another request keeps the access; the EXPIRED event does.
    async fn expired_access(&self, request: &Request) -> ExpiredAccess {
        let State::Expired { at } = request.state else {
            return ExpiredAccess::Unknown;
        };
        let key = AuditKey::Request(request.id);
        let events = self.service.events_from(&key, 0, at).await;
        let events = events.unwrap_or_default();
        let mut expired = events.iter().rev();
        expired
            .find(|event| event.event_type == EventKind::Expired)
            .map_or(ExpiredAccess::Unknown, ExpiredAccess::of)
    }

    /// The names in Mattermost of the people of a request, and of the actor of an event.
    pub(super) async fn handles(&self, request: &Request, event: Option<&Event>) -> Handles {
        let mut people = people(request);
        let actor = event.and_then(|event| event.actor_mm_user_id.as_ref()?.parse().ok());
        people.extend(actor);
        Handles::of(&self.people, people).await
    }

    /// Writes the whole card for the current request.
    pub(in crate::mattermost) async fn renew(
        &self,
        request: &Request,
        post: &PostId,
    ) -> Result<(), ApiError> {
        let channel = &request.asked.channel_id;
        let buttons = self.buttons(request, channel, post, &offers(request));
        let props = card(request, &self.shown(request).await, &buttons);
        let message = message(request, &self.names);
        self.bot.change_in(channel, post, &message, &props).await?;
        // `card_of` has just stored the key of a new card.
        if request.chat.card.is_some() {
            self.note_key(request).await;
        }
        Ok(())
    }

    /// Stores the name of the key of new buttons.
    pub(super) async fn note_key(&self, request: &Request) {
        let key = self.seals.key_name();
        if request.chat.button_key.as_ref() != Some(&key)
            && let Err(why) = self.note(request, Command::ButtonsSealed { key }).await
        {
            tracing::warn!(
                request_id = %request.id, error = why.why,
                "key of the buttons not stored; the next change of the card stores it"
            );
        }
    }

    /// The longest time of the access, from its beginning. Without a binding there is no more time.
    pub(super) async fn most_minutes(&self, request: &Request) -> Result<u32, NotReceived> {
        let asked = &request.asked;
        let binding = self.service.binding(&asked.account_id).await;
        let policy = self.service.policy();
        Ok(binding.map_err(NotReceived::because)?.map_or(0, |binding| {
            policy.longest_of(&asked.permission_set, &binding)
        }))
    }

    pub(super) fn buttons(
        &self,
        request: &Request,
        channel_id: &ChannelId,
        post: &PostId,
        offers: &[Offer],
    ) -> Vec<Value> {
        let place = ButtonPlace {
            request_id: request.id,
            channel_id,
            post,
        };
        let until = good_until(request);
        let button = |offer: &Offer| {
            let subject = subject::of_button(request, offer.action);
            let subject = subject.map(|subject| subject.to_string());
            let context = self.seals.button(place, offer.action, subject, until);
            json!({
                "id": offer.action.word(),
                "type": "button",
                "name": offer.name,
                "style": offer.style,
                "integration": {"url": self.action_url, "context": context},
            })
        };
        offers.iter().map(button).collect()
    }

    pub(super) async fn event(&self, notice: &Notice) -> Result<Option<Event>, NotReceived> {
        let key = AuditKey::Request(notice.request_id);
        let (seq, since) = (notice.seq, notice.created_at);
        let event = self.service.event(&key, seq, since).await;
        event.map_err(NotReceived::because)
    }

    /// The event of the notice and the later ones of the request.
    pub(super) async fn events_from(&self, notice: &Notice) -> Result<Vec<Event>, NotReceived> {
        let key = AuditKey::Request(notice.request_id);
        let (seq, since) = (notice.seq, notice.created_at);
        let events = self.service.events_from(&key, seq, since).await;
        events.map_err(NotReceived::because)
    }

    async fn write_history(
        &self,
        request: &Request,
        card: &PostId,
        event: &Event,
    ) -> Result<(), NotReceived> {
        let handles = self.handles(request, Some(event)).await;
        let message = match history::line(event, RevokeLine::in_thread(request), &handles) {
            Line::None => return Ok(()),
            Line::Plain(line) => line,
            // The requester gave the command. The line about the end of the removal mentions them.
            Line::Called(line) if is_own_revoke(request, event) => line,
            Line::Called(line) => format!("{} – {line}", self.call(request).await),
        };
        let line = Post {
            root: Some(card.clone()),
            ..Post::saying(message)
        };
        let (id, seq) = (request.id.to_string(), event.seq.to_string());
        let once = self.seals.once(&["thread", &id, &seq]);
        let written = self.bot.post(&request.asked.channel_id, &line, &once).await;
        is_there(request, "history", written.map(drop)).map(drop)
    }

    /// The name of the requester, so that Mattermost notifies them.
    async fn call(&self, request: &Request) -> String {
        match self.people.user(&request.asked.requester.id).await {
            Ok(user) => format!("@{}", user.username),
            Err(_) => plain(request.requester_email().as_str()),
        }
    }

    pub(super) async fn approvers(&self, request: &Request) -> Result<Vec<MmUserId>, NotReceived> {
        let binding = self.service.binding(&request.asked.account_id).await;
        let binding = binding.map_err(NotReceived::because)?;
        Ok(binding
            .map(|binding| binding.approvers.into_iter().collect())
            .unwrap_or_default())
    }

    /// The permission set and the account, as messages show them.
    pub(super) fn access(&self, request: &Request) -> String {
        let set = plain(request.asked.permission_set.as_str());
        format!("{set} in {}", self.names.shown(&request.asked.account_id))
    }

    /// The link to a post; it works in every team. It begins with the address that users have
    /// for Mattermost, which can differ from the address that jit uses.
    pub(in crate::mattermost) async fn link(&self, post: &PostId) -> String {
        let ask = || self.bot.site_url();
        let site = match self.site.get_or_try_init(ask).await {
            Ok(site) => site.as_ref(),
            Err(why) => {
                tracing::debug!(error = %why, "SiteURL not read from Mattermost; the link has mattermost.url");
                None
            }
        };
        at(site.unwrap_or(&self.url), &format!("/_redirect/pl/{post}"))
    }

    pub(super) async fn note(
        &self,
        request: &Request,
        command: Command,
    ) -> Result<(), NotReceived> {
        let noted = self.service.handle(request.id, command, None).await;
        noted.map(drop).map_err(NotReceived::because)
    }

    /// One attempt to tell a notice, within its time limit.
    pub(super) async fn within_timeout(
        &self,
        told: impl Future<Output = Result<(), NotReceived>>,
    ) -> Result<(), NotReceived> {
        tokio::select! {
            biased;
            told = told => told,
            () = self.service.clock().sleep(DELIVERY_TIMEOUT) => {
                Err(NotReceived::because("Mattermost did not answer in time"))
            }
        }
    }
}

#[async_trait]
impl Receiver for Cards {
    fn name(&self) -> ReceiverName {
        ReceiverName::Mattermost
    }

    fn timeout(&self) -> Millis {
        DELIVERY_TIMEOUT
    }

    async fn receive(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived> {
        self.within_timeout(self.deliver(notice, now)).await
    }
}

fn is_own_revoke(request: &Request, event: &Event) -> bool {
    event.event_type == EventKind::RevokeRequested
        && event.actor_mm_user_id.as_deref() == Some(request.asked.requester.id.as_str())
}

/// A user may have deleted the post: jit does not try again for a day.
pub(super) fn is_there(
    request: &Request,
    what: &str,
    changed: Result<(), ApiError>,
) -> Result<bool, NotReceived> {
    match changed {
        Ok(()) => Ok(true),
        Err(why @ (ApiError::Forbidden(_) | ApiError::NotThere(_) | ApiError::Refused(_))) => {
            tracing::warn!(
                request_id = %request.id, post = what, error = %why,
                "post not changed in Mattermost; jit does not try again"
            );
            Ok(false)
        }
        Err(why) => Err(failed(why)),
    }
}

#[allow(clippy::needless_pass_by_value)] // map_err passes it by value
pub(super) fn failed(error: ApiError) -> NotReceived {
    let next = match error {
        ApiError::Forbidden(_) => "; invite the bot to the channel: /invite @jit",
        ApiError::NotAllowed(_) => {
            "; make a new token with: jit mattermost setup --url URL --team NAME --public-url URL"
        }
        _ => "",
    };
    NotReceived::because(format!("{error}{next}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::{alice, record};
    use crate::domain::{Chain, Person};

    /// W12: the requester revoked, and was mentioned for the revoke and for its end.
    #[test]
    fn a_requester_is_not_mentioned_for_the_own_revoke() {
        let request = record("Revoking").request;
        let bob = request.approvals.given[0].by.clone();
        let event = |by: &Person, kind| {
            let entry = crate::domain::audit::EventDraft {
                key: AuditKey::Request(request.id),
                kind,
                account_id: None,
                channel_id: &request.asked.channel_id,
                actor: Some(by),
                status: None,
                details: std::collections::BTreeMap::new(),
            };
            Chain::default().append(entry, Timestamp::default())
        };
        for (by, kind, is_own) in [
            (alice(), EventKind::RevokeRequested, true),
            (bob, EventKind::RevokeRequested, false),
            (alice(), EventKind::Revoked, false),
        ] {
            assert_eq!(
                is_own_revoke(&request, &event(&by, kind)),
                is_own,
                "{kind:?}"
            );
        }
    }
}
