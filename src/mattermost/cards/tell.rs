//! Delivers notices to Mattermost: one card for each request in its channel; the history in
//! the thread of the card; direct messages to the approvers, and a reminder to the requester.
//!
//! A receiver of notices like the webhook: the same outbox, the same order, the same time
//! limits. A repeated notice changes the same post where Mattermost can recognise it.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::card::{MARK, Offer, Shown, card, good_until, message, offers, people};
use super::handles::Handles;
use super::history::{self, Line};
use super::names::Names;
use super::text::{counted_minutes, moment, more_minutes, plain, short, short_id};
use crate::config;
use crate::domain::{
    Audience, AuditKey, ChannelId, Command, Event, EventKind, Millis, Minutes, MmUserId, Notice,
    PostId, ReceiverName, Reminder, Request, State, Timestamp,
};
use crate::mattermost::client::api::{Api, ApiError};
use crate::mattermost::client::bot::{Bot, Post};
use crate::mattermost::client::people::People;
use crate::mattermost::trust::seal::{Action, ButtonPlace, Seals};
use crate::mattermost::{ACTION, at};
use crate::service::Service;
use crate::worker::notices::{DELIVERY_BOUND, NotReceived, Receiver};

/// For one call.
const PATIENCE: Millis = Millis::seconds(5);
/// For one notice: its calls, their repeats, and the pause that a server requires after 429.
/// This is within the bound of one delivery.
const PATIENCE_IN_ALL: Millis = Millis::seconds(20);
const _: () = assert!(PATIENCE.0 < PATIENCE_IN_ALL.0);
const _: () = assert!(PATIENCE_IN_ALL.0 < DELIVERY_BOUND.0);
/// jit may have tried an older notice before: the first pause is longer than this.
pub(super) const FIRST_TRY: Millis = Millis(400);
/// The clocks of jit and Mattermost may differ; the post is newer than its request.
const CLOCKS_DIFFER: Millis = Millis(-5 * 60_000);
/// Mattermost limits the rate of calls, also for a long list of approvers.
const CALLED_AT_ONCE: usize = 8;
/// The extensions that a reminder offers, in minutes.
const MORE: [i64; 2] = [30, 60];

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
}

impl Cards {
    pub fn of(
        config: &config::MattermostConfig,
        names: Names,
        service: Arc<Service>,
    ) -> reqwest::Result<Self> {
        let (url, token) = (config.url.clone(), config.bot_token.clone());
        let api = Api::new(url, token, PATIENCE.std(), service.shared_clock())?;
        Ok(Self {
            service,
            bot: Bot::new(api.clone()),
            people: People::new(api),
            seals: Seals::of(&config.bot_token),
            names,
            action_url: at(&config.public_url, ACTION),
            url: config.url.clone(),
            site: OnceCell::new(),
        })
    }

    async fn tell(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived> {
        let request = self.service.request(notice.request_id).await;
        let request = request.map_err(|error| NotReceived(error.to_string()))?;
        if notice.audience == Audience::Requester {
            return self.remind(&request, notice).await;
        }
        let Some(post) = self.card_of(&request, notice, now).await? else {
            self.tell_without_card(&request, notice, now).await?;
            return self.settle_reminder(&request).await;
        };
        let changed = self.renew(&request, &post).await;
        // The history needs a card.
        if is_there(&request, "card", changed)?
            && let Some(event) = self.event(notice).await?
        {
            self.write_history(&request, &post, &event).await?;
            if event.event_type == EventKind::Requested
                || event.event_type == EventKind::ExtensionRequested
            {
                self.call_approvers(&request, &post, &event).await?;
            }
        }
        self.settle_reminder(&request).await
    }

    /// The post id of the card; `None` if the bot cannot join the channel. jit posts a new card
    /// without buttons first, because the seal of a button covers the post id.
    async fn card_of(
        &self,
        request: &Request,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<Option<PostId>, NotReceived> {
        if let Some(post) = &request.chat.card {
            return Ok(Some(post.clone()));
        }
        let post = match self.found_or_posted(request, notice, now).await {
            Err(why @ ApiError::Forbidden(_)) => {
                tracing::warn!(
                    request_id = %request.id, channel = %request.asked.channel_id, %why,
                    "card not posted, the bot is not in the channel; jit sends direct messages, and a member must invite the bot: /invite @jit"
                );
                return Ok(None);
            }
            post => post.map_err(failed)?,
        };
        let posted = Command::CardPosted { post: post.clone() };
        self.note(request, posted).await?;
        Ok(Some(post))
    }

    async fn found_or_posted(
        &self,
        request: &Request,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<PostId, ApiError> {
        let channel = &request.asked.channel_id;
        if now - notice.created_at > FIRST_TRY {
            let since = request.asked.created_at + CLOCKS_DIFFER;
            let marked = (MARK, &*request.id.to_string());
            if let Some(post) = self.bot.find(channel, since, marked).await? {
                return Ok(post);
            }
        }
        let shown = self.shown(request).await;
        let card = Post {
            props: card(request, &shown, &[]),
            ..Post::saying(message(request, &self.names))
        };
        let once = self.seals.once(&["card", &request.id.to_string()]);
        self.bot.post(channel, &card, &once).await
    }

    /// What the record of the request does not have.
    async fn shown(&self, request: &Request) -> Shown<'_> {
        // Without an answer of the store, the card shows no number of approvals.
        let binding = self.service.binding(&request.asked.account_id).await;
        Shown {
            names: &self.names,
            handles: self.handles(request, None).await,
            binding: binding.ok().flatten(),
        }
    }

    /// The names in Mattermost of the people of a request, and of the actor of an event.
    pub(super) async fn handles(&self, request: &Request, event: Option<&Event>) -> Handles {
        let mut people = people(request);
        let actor = event.and_then(|event| event.actor_mm_user_id.as_ref()?.parse().ok());
        people.extend(actor);
        let answers = join_all(people.iter().map(|id| self.people.user(id))).await;
        let named = people.iter().zip(answers);
        let named = named.filter_map(|(id, answer)| Some((id.clone(), answer.ok()?.username)));
        Handles::new(named.collect())
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
        self.bot.change_in(channel, post, &message, &props).await
    }

    fn buttons(
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
            let context = self.seals.button(place, offer.action, until);
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
        event.map_err(|error| NotReceived(error.to_string()))
    }

    async fn write_history(
        &self,
        request: &Request,
        card: &PostId,
        event: &Event,
    ) -> Result<(), NotReceived> {
        let message = match history::line(event, &self.handles(request, Some(event)).await) {
            Line::None => return Ok(()),
            Line::Told(line) => line,
            // The requester knows; the end of the removal mentions them.
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

    /// Sends a message to each approver except the requester.
    async fn call_approvers(
        &self,
        request: &Request,
        card: &PostId,
        event: &Event,
    ) -> Result<(), NotReceived> {
        let message = self.asks(request, Some(card)).await;
        let others = self.others(request).await?;
        for some in others.chunks(CALLED_AT_ONCE) {
            let calls = some
                .iter()
                .map(|approver| self.send(request, event.seq, approver, &message));
            // One failed message is no reason to send all others again.
            for told in join_all(calls).await {
                if let Err(why) = told {
                    tracing::warn!(
                        request_id = %request.id,
                        %why,
                        "message to an approver not sent; the approver sees the card in the channel"
                    );
                }
            }
        }
        Ok(())
    }

    /// The approvers except the requester.
    pub(super) async fn others(&self, request: &Request) -> Result<Vec<MmUserId>, NotReceived> {
        let binding = self.service.binding(&request.asked.account_id).await;
        let binding = binding.map_err(|error| NotReceived(error.to_string()))?;
        let approvers = binding.map(|binding| binding.approvers).unwrap_or_default();
        let requester = &request.asked.requester.id;
        let others = approvers.into_iter().filter(|one| one != requester);
        Ok(others.collect())
    }

    pub(super) async fn asks(&self, request: &Request, card: Option<&PostId>) -> String {
        let what = match &request.grant.extension {
            Some(extension) => more_minutes(extension.minutes.get()),
            None => counted_minutes(request.asked.duration.get()),
        };
        let why = request
            .asked
            .reason
            .as_ref()
            .map_or_else(String::new, |why| format!(": {}", short(why.as_str(), 300)));
        let start = request.starts_at().map_or_else(String::new, |start| {
            format!(" from {}", moment(&start.to_string()))
        });
        let id = short_id(request.id);
        let next = match card {
            Some(card) => format!("[Decide on the card]({}) · `{id}`", self.link(card).await),
            None => format!("Decide here: `/jit approve {id}` or `/jit deny {id} REASON`"),
        };
        format!(
            "{} asks for {what} of {} in {}{start}{why}\n{next}",
            self.handles(request, None)
                .await
                .named(&request.asked.requester),
            plain(request.asked.permission_set.as_str()),
            self.names.shown(&request.asked.account_id),
        )
    }

    /// The link to a post; it works in every team. It begins with the address that users have
    /// for Mattermost, which can differ from the address that jit uses.
    pub(in crate::mattermost) async fn link(&self, post: &PostId) -> String {
        let ask = || self.bot.site_url();
        let site = match self.site.get_or_try_init(ask).await {
            Ok(site) => site.as_ref(),
            Err(why) => {
                tracing::debug!(%why, "SiteURL not read from Mattermost; the link has mattermost.url");
                None
            }
        };
        at(site.unwrap_or(&self.url), &format!("/_redirect/pl/{post}"))
    }

    async fn send(
        &self,
        request: &Request,
        seq: u64,
        to: &MmUserId,
        message: &str,
    ) -> Result<(), ApiError> {
        let (id, seq) = (request.id.to_string(), seq.to_string());
        let once = self.seals.once(&["direct", &id, &seq, to.as_str()]);
        self.bot.send(to, message, &once).await
    }

    /// Reminds the requester before the access ends.
    async fn remind(&self, request: &Request, notice: &Notice) -> Result<(), NotReceived> {
        let Some(period) = request
            .grant
            .period
            .filter(|_| request.state == State::Granted)
        else {
            return Ok(());
        };
        let mut message = format!(
            "Your access ends at {2}: {0} in {1}.",
            plain(request.asked.permission_set.as_str()),
            self.names.shown(&request.asked.account_id),
            moment(&period.until.to_string()),
        );
        if request.grant.extension.is_some() {
            message.push_str(" You asked for an extension; the approvers decide.");
        }
        let to = &request.asked.requester.id;
        let channel = self.bot.direct(to).await.map_err(failed)?;
        let known = request.chat.reminder.as_ref();
        let known = known.filter(|reminder| reminder.of == notice.seq);
        let post = match known {
            Some(reminder) => reminder.post.clone(),
            None => {
                let plain = Post::saying(message.as_str());
                let (id, seq) = (request.id.to_string(), notice.seq.to_string());
                let once = self.seals.once(&["reminder", &id, &seq]);
                let post = self.bot.post(&channel, &plain, &once).await;
                let reminder = Reminder {
                    post: post.map_err(failed)?,
                    of: notice.seq,
                };
                let post = reminder.post.clone();
                self.note(request, Command::ReminderPosted { reminder })
                    .await?;
                post
            }
        };
        let offers = more_time(request);
        let buttons = self.buttons(request, &channel, &post, &offers);
        let props = json!({"attachments": [{"fallback": message, "actions": buttons}]});
        let changed = self.bot.change(&post, &message, &props).await;
        is_there(request, "reminder", changed).map(drop)
    }

    /// Removes the buttons of a reminder after a later event.
    async fn settle_reminder(&self, request: &Request) -> Result<(), NotReceived> {
        let Some(reminder) = &request.chat.reminder else {
            return Ok(());
        };
        let live = request
            .grant
            .period
            .filter(|_| request.state == State::Granted);
        let message = match (live, &request.grant.extension) {
            (Some(_), Some(_)) => "You asked for an extension; the approvers decide.".to_owned(),
            (Some(period), None) => {
                format!("The access ends at {}.", moment(&period.until.to_string()))
            }
            (None, _) => format!("The request is {}.", request.status()),
        };
        let message = format!("{message} `{}`", short_id(request.id));
        let changed = self.bot.change(&reminder.post, &message, &json!({})).await;
        is_there(request, "reminder", changed).map(drop)
    }

    async fn note(&self, request: &Request, command: Command) -> Result<(), NotReceived> {
        let noted = self.service.handle(request.id, command, None).await;
        noted
            .map(drop)
            .map_err(|error| NotReceived(error.to_string()))
    }
}

#[async_trait]
impl Receiver for Cards {
    fn name(&self) -> ReceiverName {
        ReceiverName::Mattermost
    }

    async fn receive(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived> {
        tokio::select! {
            biased;
            told = self.tell(notice, now) => told,
            () = self.service.clock().sleep(PATIENCE_IN_ALL) => {
                Err(NotReceived("Mattermost did not answer in time".into()))
            }
        }
    }
}

/// The extensions that a reminder offers. While one waits for approvals, there can be no other.
fn more_time(request: &Request) -> Vec<Offer> {
    let more = MORE
        .iter()
        .filter_map(|minutes| Minutes::new(*minutes).ok());
    let offers = more.map(|minutes| Offer {
        action: Action::Extend(minutes),
        name: format!("Ask for {}", more_minutes(minutes.get())),
        style: "primary",
    });
    match request.grant.extension {
        Some(_) => Vec::new(),
        None => offers.collect(),
    }
}

fn is_own_revoke(request: &Request, event: &Event) -> bool {
    event.event_type == EventKind::RevokeRequested
        && event.actor_mm_user_id.as_deref() == Some(request.asked.requester.id.as_str())
}

/// A user may have deleted the post: jit does not try again for a day.
fn is_there(
    request: &Request,
    what: &str,
    changed: Result<(), ApiError>,
) -> Result<bool, NotReceived> {
    match changed {
        Ok(()) => Ok(true),
        Err(why @ (ApiError::Forbidden(_) | ApiError::NotThere(_) | ApiError::Refused(_))) => {
            tracing::warn!(
                request_id = %request.id, post = what, %why,
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
    NotReceived(format!("{error}{next}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::{alice, record};
    use crate::domain::{Chain, Person};

    /// W7: jit refuses a second extension while one waits.
    #[test]
    fn a_reminder_offers_no_extension_while_one_waits() {
        for (state, many) in [("Granted", 2), ("Extending", 0)] {
            assert_eq!(more_time(&record(state).request).len(), many, "{state}");
        }
    }

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
