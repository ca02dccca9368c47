//! Direct messages: to the approvers, who decide; to the requester about the decision and the
//! end, and before the end.
//!
//! A receiver of notices of its own: a card that cannot be changed delays no message. jit sends
//! no message about a decision that is made already. Each message carries its notice, so that jit
//! finds it before it repeats an attempt: Mattermost recognises a repeated post for half a minute
//! only, and one of its servers does not know the posts of another.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::json;

use super::card::Offer;
use super::history::{self, Line, RevokeLine};
use super::tell::{CLOCKS_DIFFER, Cards, DELIVERY_TIMEOUT, FIRST_TRY, failed, is_there};
use super::text::{counted_minutes, moment, more_minutes, short, short_id};
use crate::config::MattermostConfig;
use crate::domain::{
    Audience, Command, Event, EventKind, Millis, Minutes, MmUserId, Notice, PersonMark, PostId,
    ReceiverName, Reminder, Request, State, Timestamp,
};
use crate::lock::locked;
use crate::mattermost::client::api::ApiError;
use crate::mattermost::client::bot::Post;
use crate::mattermost::trust::seal::Action;
use crate::worker::notices::{NotReceived, Receiver};

/// The property with the notice that a message tells.
const TOLD: &str = "jit_told";
/// Mattermost limits the rate of calls, also for a long list of approvers.
const SENT_AT_ONCE: usize = 8;
/// After this time jit asks for the decision without a link to the card.
const CARD_TIMEOUT: Millis = Millis::seconds(30);
/// The extensions that a reminder offers, in minutes.
const MORE: [i64; 2] = [30, 60];

/// The people who have the message of a notice.
type ToldPeople = Mutex<BTreeSet<PersonMark>>;

pub struct DirectMessages {
    cards: Arc<Cards>,
    /// `mattermost.tell_requester`.
    tells_requester: bool,
}

/// One notice, and when jit delivers it.
#[derive(Clone, Copy)]
struct Telling<'a> {
    notice: &'a Notice,
    now: Timestamp,
    told: &'a ToldPeople,
}

impl DirectMessages {
    pub fn of(config: &MattermostConfig, cards: Arc<Cards>) -> Self {
        Self {
            cards,
            tells_requester: config.tell_requester,
        }
    }

    async fn tell(&self, telling: Telling<'_>) -> Result<(), NotReceived> {
        let request = self.cards.current(telling.notice.request_id).await?;
        match telling.notice.audience {
            Audience::Requester => return self.remind(&request, telling).await,
            Audience::Mattermost | Audience::Everybody => {
                if let Some(event) = self.cards.event(telling.notice).await? {
                    match waits_for_approvers(event.event_type) {
                        true => self.ask(telling).await?,
                        false => self.tell_requester(&request, &event, telling).await?,
                    }
                }
            }
            Audience::Card => {}
        }
        self.remove_buttons_of_reminder(&request).await
    }

    /// Asks each approver who has not decided yet.
    async fn ask(&self, telling: Telling<'_>) -> Result<(), NotReceived> {
        let Some(request) = self.undecided(telling.notice).await? else {
            return Ok(());
        };
        let mut failure = None;
        let card = match self
            .cards
            .card_of(&request, telling.notice, telling.now)
            .await
        {
            Err(_) if telling.now - telling.notice.created_at > CARD_TIMEOUT => None,
            Err(why) => return Err(why),
            Ok(None) => {
                failure = self.ask_for_an_invitation(&request, telling).await.err();
                None
            }
            Ok(card) => card,
        };
        let message = self.asks(&request, card.as_ref()).await;
        for some in self
            .approvers(&request, telling.told)
            .await?
            .chunks(SENT_AT_ONCE)
        {
            // A person may decide while jit sends the messages.
            if self.undecided(telling.notice).await?.is_none() {
                return Ok(());
            }
            let sends = some
                .iter()
                .map(|approver| self.send(&request, telling, approver, &message));
            failure = join_all(sends)
                .await
                .into_iter()
                .fold(failure, |before, sent| before.or(sent.err()));
        }
        failure.map_or(Ok(()), Err)
    }

    /// The request, while it waits for the decision that the notice asks for.
    async fn undecided(&self, notice: &Notice) -> Result<Option<Request>, NotReceived> {
        let request = self.cards.current(notice.request_id).await?;
        let events = self.cards.events_from(notice).await?;
        Ok(is_undecided(&request, &events, notice.seq).then_some(request))
    }

    /// The approvers who get the message: without the requester, those who approved, and those who
    /// have it already.
    async fn approvers(
        &self,
        request: &Request,
        told: &ToldPeople,
    ) -> Result<Vec<MmUserId>, NotReceived> {
        let mut approvers = self.cards.approvers(request).await?;
        let given = match &request.grant.extension {
            Some(extension) => &extension.approvals,
            None => &request.approvals.given,
        };
        let told = locked(told);
        approvers.retain(|one| {
            *one != request.asked.requester.id
                && !given.iter().any(|approval| approval.by.id == *one)
                && !told.contains(&PersonMark::of(one))
        });
        Ok(approvers)
    }

    async fn ask_for_an_invitation(
        &self,
        request: &Request,
        telling: Telling<'_>,
    ) -> Result<(), NotReceived> {
        let requester = &request.asked.requester.id;
        let is_told = locked(telling.told).contains(&PersonMark::of(requester));
        if request.state != State::Pending || is_told {
            return Ok(());
        }
        let id = short_id(request.id);
        let message = format!(
            "jit cannot post the card of your request `{id}`, because its bot is not in that channel. Type `/invite @jit` in the channel. The approvers get direct messages from jit, and can decide with `/jit approve {id}`."
        );
        self.send(request, telling, requester, &message).await
    }

    async fn asks(&self, request: &Request, card: Option<&PostId>) -> String {
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
            Some(card) => {
                let link = self.cards.link(card).await;
                format!("[Decide on the card]({link}) · `{id}`")
            }
            None => format!("Decide here: `/jit approve {id}` or `/jit deny {id} REASON`"),
        };
        let handles = self.cards.handles(request, None).await;
        format!(
            "{} asks for {what} of {}{start}{why}\n{next}",
            handles.named(&request.asked.requester),
            self.cards.access(request),
        )
    }

    /// Tells the requester the decision or the end. Without a card in the channel jit tells it
    /// always: the requester sees it nowhere else.
    async fn tell_requester(
        &self,
        request: &Request,
        event: &Event,
        telling: Telling<'_>,
    ) -> Result<(), NotReceived> {
        if !is_news(request, event) {
            return Ok(());
        }
        let card = match (self.tells_requester, &request.chat.card) {
            (true, card) => card.clone(),
            (false, Some(_)) => return Ok(()),
            (false, None) => {
                let card = self.cards.card_of(request, telling.notice, telling.now);
                match card.await? {
                    Some(_) => return Ok(()),
                    None => None,
                }
            }
        };
        let handles = self.cards.handles(request, Some(event)).await;
        let revoke = RevokeLine::in_message(request);
        let line = match history::line(event, revoke, &handles) {
            Line::Plain(line) | Line::Called(line) => line,
            Line::None => return Ok(()),
        };
        let shown = match &card {
            Some(card) => format!("[Card]({}) · ", self.cards.link(card).await),
            None => String::new(),
        };
        let access = self.cards.access(request);
        let message = format!("{access}: {line}\n{shown}`{}`", short_id(request.id));
        let to = &request.asked.requester.id;
        self.send(request, telling, to, &message).await
    }

    /// Sends a message to a person who does not have it. jit does not try again if Mattermost
    /// does not accept messages to this person.
    async fn send(
        &self,
        request: &Request,
        telling: Telling<'_>,
        to: &MmUserId,
        message: &str,
    ) -> Result<(), NotReceived> {
        match self.post_once(telling, to, message).await {
            Ok(_) => {}
            Err(why @ (ApiError::Forbidden(_) | ApiError::NotThere(_) | ApiError::Refused(_))) => {
                tracing::warn!(
                    request_id = %request.id, user_id = %to, error = %why,
                    "direct message not sent; jit does not try again"
                );
            }
            Err(why) => return Err(failed(why)),
        }
        locked(telling.told).insert(PersonMark::of(to));
        Ok(())
    }

    /// Posts the message of a notice to a person, unless the person has it already.
    async fn post_once(
        &self,
        telling: Telling<'_>,
        to: &MmUserId,
        message: &str,
    ) -> Result<PostId, ApiError> {
        let (bot, notice) = (&self.cards.bot, telling.notice);
        let channel = bot.direct(to).await?;
        let mark = notice.message_id();
        if telling.now - notice.created_at > FIRST_TRY {
            let since = notice.created_at + CLOCKS_DIFFER;
            if let Some(post) = bot.find(&channel, since, (TOLD, &mark)).await? {
                return Ok(post);
            }
        }
        let post = Post {
            props: json!({TOLD: mark}),
            ..Post::saying(message)
        };
        let once = self.cards.seals.once(&["direct", &mark, to.as_str()]);
        bot.post(&channel, &post, &once).await
    }

    /// Reminds the requester before the access ends.
    async fn remind(&self, request: &Request, telling: Telling<'_>) -> Result<(), NotReceived> {
        let Some(period) = request
            .grant
            .period
            .filter(|_| request.state == State::Granted)
        else {
            return Ok(());
        };
        let mut message = format!(
            "Your access ends at {}: {}.",
            moment(&period.until.to_string()),
            self.cards.access(request),
        );
        if request.grant.extension.is_some() {
            message.push_str(" You asked for an extension; the approvers decide.");
        }
        let (to, of) = (&request.asked.requester.id, telling.notice.seq);
        let known = request.chat.reminder.as_ref();
        let post = match known.filter(|reminder| reminder.of == of) {
            Some(reminder) => reminder.post.clone(),
            None => {
                let post = self.post_once(telling, to, &message).await;
                let post = post.map_err(failed)?;
                let reminder = Reminder {
                    post: post.clone(),
                    of,
                };
                let posted = Command::ReminderPosted { reminder };
                self.cards.note(request, posted).await?;
                post
            }
        };
        let channel = self.cards.bot.direct(to).await.map_err(failed)?;
        let offers = more_time(request, self.cards.most_minutes(request).await?);
        let buttons = self.cards.buttons(request, &channel, &post, &offers);
        let props = json!({"attachments": [{"fallback": message, "actions": buttons}]});
        let changed = self.cards.bot.change(&post, &message, &props).await;
        if is_there(request, "reminder", changed)? && !buttons.is_empty() {
            self.cards.note_key(request).await;
        }
        Ok(())
    }

    /// Removes the buttons of a reminder after a later event.
    async fn remove_buttons_of_reminder(&self, request: &Request) -> Result<(), NotReceived> {
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
        let bot = &self.cards.bot;
        let changed = bot.change(&reminder.post, &message, &json!({})).await;
        is_there(request, "reminder", changed).map(drop)
    }
}

#[async_trait]
impl Receiver for DirectMessages {
    fn name(&self) -> ReceiverName {
        ReceiverName::Messages
    }

    fn timeout(&self) -> Millis {
        DELIVERY_TIMEOUT
    }

    async fn receive(&self, notice: &Notice, now: Timestamp) -> Result<(), NotReceived> {
        let told = Mutex::new(notice.told.clone());
        let telling = Telling {
            notice,
            now,
            told: &told,
        };
        let sent = self.cards.within_timeout(self.tell(telling)).await;
        sent.map_err(|not_received| NotReceived {
            told: std::mem::take(&mut *locked(&told)),
            ..not_received
        })
    }
}

fn waits_for_approvers(kind: EventKind) -> bool {
    kind == EventKind::Requested || kind == EventKind::ExtensionRequested
}

/// Whether the request still waits for the decision that this event asks for. An extension that
/// waits is the one of the last such event.
fn is_undecided(request: &Request, events: &[Event], seq: u64) -> bool {
    let asked = events
        .iter()
        .rfind(|one| waits_for_approvers(one.event_type));
    let Some(asked) = asked.filter(|one| one.seq == seq) else {
        return false;
    };
    match asked.event_type == EventKind::ExtensionRequested {
        true => request.grant.extension.is_some(),
        false => request.state == State::Pending,
    }
}

/// Whether the requester gets a message about this event: not about an own command that needs no
/// work at AWS, and not about access that has ended since.
fn is_news(request: &Request, event: &Event) -> bool {
    let kind = event.event_type;
    let is_own = event.actor_mm_user_id.as_deref() == Some(request.asked.requester.id.as_str());
    if [
        EventKind::Granted,
        EventKind::Extended,
        EventKind::ExtensionDenied,
    ]
    .contains(&kind)
    {
        return request.state == State::Granted && !is_own;
    }
    let is_end = [
        EventKind::Denied,
        EventKind::Cancelled,
        EventKind::Revoked,
        EventKind::Expired,
        EventKind::Error,
    ];
    is_end.contains(&kind) && (!is_own || kind == EventKind::Revoked)
}

/// The extensions that a reminder offers: those with which the access is no longer than allowed.
/// While one waits for approvals, there can be no other.
fn more_time(request: &Request, most: u32) -> Vec<Offer> {
    let most = Millis::minutes(i64::from(most));
    let fits = |minutes: &Minutes| {
        let period = request.grant.period;
        period.is_some_and(|period| period.until + minutes.span() - period.from <= most)
    };
    let more = MORE
        .iter()
        .filter_map(|minutes| Minutes::new(*minutes).ok())
        .filter(fits);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::EventDraft;
    use crate::domain::decide::fixtures::{alice, record};
    use crate::domain::{AuditKey, Chain, Person};

    /// W7: jit refuses a second extension while one waits.
    #[test]
    fn a_reminder_offers_no_extension_while_one_waits() {
        for (state, many) in [("Granted", 2), ("Extending", 0)] {
            let request = record(state).request;
            assert_eq!(more_time(&request, u32::MAX).len(), many, "{state}");
        }
    }

    /// W7: the reminder of an access of the longest time offered extensions that jit refuses.
    #[test]
    fn a_reminder_offers_only_extensions_that_the_longest_time_allows() {
        let request = record("Granted").request;
        let period = request.grant.period.unwrap();
        let length = u32::try_from((period.until - period.from).0 / 60_000).unwrap();
        for (most, many) in [(0, 0), (29, 0), (30, 1), (59, 1), (60, 2)] {
            assert_eq!(more_time(&request, length + most).len(), many, "{most}");
        }
    }

    fn events(request: &Request, by: &Person, kinds: &[EventKind]) -> Vec<Event> {
        let mut chain = Chain::default();
        let event = |kind: &EventKind| {
            let entry = EventDraft {
                key: AuditKey::Request(request.id),
                kind: *kind,
                account_id: None,
                channel_id: &request.asked.channel_id,
                actor: Some(by),
                status: None,
                details: std::collections::BTreeMap::new(),
            };
            chain.append(entry, Timestamp::default())
        };
        kinds.iter().map(event).collect()
    }

    // N2: an approver was asked to decide what was decided already.
    #[test]
    fn only_the_decision_that_a_request_waits_for_is_asked() {
        use EventKind::{Approved, ExtensionDenied, ExtensionRequested, Granted, Requested};
        let extended = [
            Requested,
            Approved,
            Granted,
            ExtensionRequested,
            ExtensionDenied,
            ExtensionRequested,
        ];
        for (state, kinds, open) in [
            ("Pending", &extended[..1], Some(0)),
            ("Granted", &extended[..3], None),
            ("Extending", &extended[..4], Some(3)),
            ("Granted", &extended[..5], None),
            ("Extending", &extended[..6], Some(5)),
            ("Revoking", &extended[..4], None),
            ("Denied", &extended[..1], None),
        ] {
            let request = record(state).request;
            let events = events(&request, &alice(), kinds);
            for (place, event) in events.iter().enumerate() {
                assert_eq!(
                    is_undecided(&request, &events, event.seq),
                    Some(place) == open,
                    "{state}: {kinds:?}[{place}]"
                );
            }
        }
    }

    // N2
    #[test]
    fn a_requester_gets_no_message_about_an_own_act_or_an_access_that_has_ended() {
        use EventKind::{Cancelled, Denied, Expired, ExpiryStarted, Extended, Granted, Revoked};
        let bob = record("Revoking").request.approvals.given[0].by.clone();
        for (state, by, kind, is_told) in [
            ("Granted", bob.clone(), Granted, true),
            ("Revoking", bob.clone(), Granted, false),
            ("Granted", bob.clone(), Extended, true),
            ("Granted", alice(), Extended, false),
            ("Denied", bob.clone(), Denied, true),
            ("Cancelled", alice(), Cancelled, false),
            ("Cancelled", bob.clone(), Cancelled, true),
            ("Revoked", alice(), Revoked, true),
            ("Expired", bob.clone(), Expired, true),
            ("Granted", bob, ExpiryStarted, false),
        ] {
            let request = record(state).request;
            let event = &events(&request, &by, &[kind])[0];
            assert_eq!(is_news(&request, event), is_told, "{state} {kind:?}");
        }
    }
}
