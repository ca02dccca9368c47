//! Keeps everybody told: one card for each request in its channel, as the request is by
//! now; its history in the card's thread; a message to those who decide, and one to who
//! has access before that ends.
//!
//! A receiver of notices like the webhook: one outbox, one order, the same patience. What
//! is told twice is told by the same post, as far as Mattermost can know it for the same.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use reqwest::Url;
use serde_json::{Value, json};

use super::api::{Api, ApiError};
use super::bot::{Bot, Post};
use super::card::{MARK, Offer, card, good_until, offers};
use super::history::{self, Line};
use super::names::Names;
use super::people::People;
use super::seal::{Action, ButtonPlace, Seals};
use super::text::{moment, plain, short, short_id};
use crate::config;
use crate::domain::{
    Audience, AuditKey, ChannelId, Command, Event, EventKind, Millis, Minutes, MmUserId, Notice,
    PostId, Reminder, Request, State, Timestamp,
};
use crate::service::Service;
use crate::worker::notices::{DELIVERY_BOUND, NotReceived, Receiver};
use crate::worker::webhook;

/// Of one call.
const PATIENCE: Millis = Millis::seconds(5);
/// Of all that one notice takes: its calls, their repeats, and the rest that a server wants
/// after 429. With the webhook before it, that is within one delivery's bound.
const PATIENCE_IN_ALL: Millis = Millis::seconds(20);
const _: () = assert!(PATIENCE.0 < PATIENCE_IN_ALL.0);
const _: () = assert!(webhook::PATIENCE.0 + PATIENCE_IN_ALL.0 < DELIVERY_BOUND.0);
/// A notice that is older may have been tried before: the first pause is longer.
const FIRST_TRY: Millis = Millis(400);
/// Two clocks differ, and a post that is looked for was made after its request.
const CLOCKS_DIFFER: Millis = Millis(-5 * 60_000);
/// A server counts calls, and a long list of approvers is no reason to be told off.
const CALLED_AT_ONCE: usize = 8;
/// What is offered before access ends, in minutes.
const MORE: [i64; 2] = [30, 60];

pub struct Cards {
    service: Arc<Service>,
    bot: Bot,
    people: People,
    seals: Seals,
    names: Names,
    /// Where Mattermost sends a click.
    action_url: String,
    url: Url,
}

impl Cards {
    pub fn of(
        config: &config::MattermostConfig,
        names: Names,
        service: Arc<Service>,
    ) -> reqwest::Result<Self> {
        let api = Api::new(config.url.clone(), config.bot_token.clone(), PATIENCE.std())?;
        Ok(Self {
            service,
            bot: Bot::new(api.clone()),
            people: People::new(api),
            seals: Seals::of(&config.bot_token),
            names,
            action_url: super::at(&config.public_url, super::ACTION),
            url: config.url.clone(),
        })
    }

    async fn tell(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived> {
        let request = self.service.request(notice.request_id).await;
        let request = request.map_err(|error| NotReceived(error.to_string()))?;
        if notice.audience == Audience::Requester {
            return self.remind(&request, notice).await;
        }
        let post = self.card_of(&request, notice, now).await?;
        let changed = self.renew(&request, &post).await;
        // Without a card there is no history below it.
        if is_there(&request, "a card is gone", changed)?
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

    /// Where its card is; posted first, without buttons, if there is none: what a button is
    /// good for says where it stands.
    async fn card_of(
        &self,
        request: &Request,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<PostId, NotReceived> {
        if let Some(post) = &request.card {
            return Ok(post.clone());
        }
        let channel = &request.channel_id;
        let mut found = None;
        if now - notice.created_at > FIRST_TRY {
            let since = request.created_at + CLOCKS_DIFFER;
            let marked = (MARK, &*request.id.to_string());
            found = self
                .bot
                .find(channel, since, marked)
                .await
                .map_err(failed)?;
        }
        let post = match found {
            Some(post) => post,
            None => {
                let card = Post {
                    props: card(request, &self.names, &[]),
                    ..Post::saying("")
                };
                let once = self.seals.once(&["card", &request.id.to_string()]);
                self.bot.post(channel, &card, &once).await.map_err(failed)?
            }
        };
        let posted = Command::CardPosted { post: post.clone() };
        self.note(request, posted).await?;
        Ok(post)
    }

    /// The whole card, as the request is.
    pub(super) async fn renew(&self, request: &Request, post: &PostId) -> Result<(), ApiError> {
        let channel = &request.channel_id;
        let buttons = self.buttons(request, channel, post, &offers(request));
        let shown = card(request, &self.names, &buttons);
        self.bot.change_in(channel, post, &shown).await
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

    async fn event(&self, notice: &Notice) -> Result<Option<Event>, NotReceived> {
        let key = AuditKey::Request(notice.request_id);
        let events = self.service.history(&key).await;
        let events = events.map_err(|error| NotReceived(error.to_string()))?;
        Ok(events.into_iter().find(|event| event.seq == notice.seq))
    }

    async fn write_history(
        &self,
        request: &Request,
        card: &PostId,
        event: &Event,
    ) -> Result<(), NotReceived> {
        let message = match history::line(event) {
            Line::None => return Ok(()),
            Line::Told(line) => line,
            Line::Called(line) => format!("{} – {line}", self.call(request).await),
        };
        let line = Post {
            root: Some(card.clone()),
            ..Post::saying(message)
        };
        let (id, seq) = (request.id.to_string(), event.seq.to_string());
        let once = self.seals.once(&["thread", &id, &seq]);
        let written = self.bot.post(&request.channel_id, &line, &once).await;
        is_there(
            request,
            "a line of history is not written",
            written.map(drop),
        )
        .map(drop)
    }

    /// By the name that Mattermost calls them with, so that they hear it.
    async fn call(&self, request: &Request) -> String {
        match self.people.user(&request.requester.id).await {
            Ok(user) => format!("@{}", user.username),
            Err(_) => plain(request.requester_email().as_str()),
        }
    }

    /// Each of those who decide, but for who asked.
    async fn call_approvers(
        &self,
        request: &Request,
        card: &PostId,
        event: &Event,
    ) -> Result<(), NotReceived> {
        let binding = self.service.binding(&request.account_id).await;
        let binding = binding.map_err(|error| NotReceived(error.to_string()))?;
        let approvers = binding.map(|binding| binding.approvers).unwrap_or_default();
        let message = self.asks(request, card);
        let others = approvers
            .iter()
            .filter(|approver| **approver != request.requester.id);
        let others: Vec<&MmUserId> = others.collect();
        for some in others.chunks(CALLED_AT_ONCE) {
            let calls = some
                .iter()
                .map(|approver| self.send(request, event.seq, approver, &message));
            // One who cannot be told is not worth telling all the others twice.
            for told in join_all(calls).await {
                if let Err(why) = told {
                    tracing::warn!(request_id = %request.id, %why, "an approver was not told");
                }
            }
        }
        Ok(())
    }

    fn asks(&self, request: &Request, card: &PostId) -> String {
        let what = match &request.extension {
            Some(extension) => format!("{} more minutes of", extension.minutes.get()),
            None => format!("{} minutes of", request.duration.get()),
        };
        let why = request
            .reason
            .as_ref()
            .map_or_else(String::new, |why| format!(": {}", short(why.as_str(), 300)));
        format!(
            "{} asks for {what} {} in {}{why}\n[Decide on its card]({}) · `{}`",
            plain(request.requester_email().as_str()),
            plain(request.permission_set.as_str()),
            self.names.shown(&request.account_id),
            self.link(card),
            short_id(request.id),
        )
    }

    /// Where Mattermost shows it, whatever team somebody looks at.
    pub(super) fn link(&self, post: &PostId) -> String {
        super::at(&self.url, &format!("/_redirect/pl/{post}"))
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

    /// To who has access, while there is still time to ask for more.
    async fn remind(&self, request: &Request, notice: &Notice) -> Result<(), NotReceived> {
        let Some(period) = request.granted.filter(|_| request.state == State::Granted) else {
            return Ok(());
        };
        let message = format!(
            "Your {} in {} ends at {}.",
            plain(request.permission_set.as_str()),
            self.names.shown(&request.account_id),
            moment(&period.until.to_string()),
        );
        let to = &request.requester.id;
        let channel = self.bot.direct(to).await.map_err(failed)?;
        let known = request.reminder.as_ref();
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
        let more = MORE
            .iter()
            .filter_map(|minutes| Minutes::new(*minutes).ok());
        let offers: Vec<Offer> = more
            .map(|minutes| Offer {
                action: Action::Extend(minutes),
                name: format!("Ask for {} more minutes", minutes.get()),
                style: "primary",
            })
            .collect();
        let buttons = self.buttons(request, &channel, &post, &offers);
        let props = json!({"attachments": [{"fallback": message, "actions": buttons}]});
        let changed = self.bot.change(&post, &message, &props).await;
        is_there(request, "a reminder is gone", changed).map(drop)
    }

    /// A reminder offers nothing any more once something else has happened.
    async fn settle_reminder(&self, request: &Request) -> Result<(), NotReceived> {
        let Some(reminder) = &request.reminder else {
            return Ok(());
        };
        let message = match (&request.state, &request.extension, request.granted) {
            (State::Granted, Some(_), _) => {
                "You asked for more time; your approvers decide.".to_owned()
            }
            (State::Granted, None, Some(period)) => {
                format!("It ends at {}.", moment(&period.until.to_string()))
            }
            _ => format!("It is over: {}.", request.status()),
        };
        let message = format!("{message} `{}`", short_id(request.id));
        let changed = self.bot.change(&reminder.post, &message, &json!({})).await;
        is_there(request, "a reminder is gone", changed).map(drop)
    }

    async fn note(&self, request: &Request, command: Command) -> Result<(), NotReceived> {
        let noted = self.service.handle(request.id, command).await;
        noted
            .map(drop)
            .map_err(|error| NotReceived(error.to_string()))
    }
}

#[async_trait]
impl Receiver for Cards {
    async fn receive(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived> {
        match tokio::time::timeout(PATIENCE_IN_ALL.std(), self.tell(notice, now)).await {
            Ok(told) => told,
            Err(_) => Err(NotReceived("Mattermost answers too slowly".into())),
        }
    }
}

/// Somebody deleted it: that is theirs to do, and no reason to try for a day.
fn is_there(
    request: &Request,
    what: &str,
    changed: Result<(), ApiError>,
) -> Result<bool, NotReceived> {
    match changed {
        Ok(()) => Ok(true),
        Err(why @ (ApiError::Forbidden(_) | ApiError::NotThere(_) | ApiError::Refused(_))) => {
            tracing::warn!(request_id = %request.id, %why, "{what}");
            Ok(false)
        }
        Err(why) => Err(failed(why)),
    }
}

#[allow(clippy::needless_pass_by_value)] // as map_err hands it over
fn failed(error: ApiError) -> NotReceived {
    let next = match error {
        ApiError::Forbidden(_) => "; invite the bot to the channel",
        ApiError::NotAllowed(_) => "; jit mattermost setup makes a new token",
        _ => "",
    };
    NotReceived(format!("{error}{next}"))
}
