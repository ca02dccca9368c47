//! Forgeries: jit counts them, logs them, and records them in the history of the channel that
//! they name.
//!
//! Calls without a valid trigger can come from any caller that reaches jit. They have budgets of
//! their own, and so has each user of Mattermost: the calls of one sender do not hide those of
//! another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::domain::{ChannelId, Millis, MmUserId, Timestamp};
use crate::http::reply::Problem;
use crate::http::unsigned::Unsigned;
use crate::lock::locked;
use crate::mattermost::Mattermost;
use crate::telemetry::sampled;

/// Every caller can name channels that jit does not know: for each sender, jit looks for that many
/// of them in a minute. The bound channels need no look.
const MOST_LOOKED_UP: u32 = 60;
/// After this many records of one sender in one channel in an hour, jit writes that it only counts
/// and logs the others.
const MOST_WRITTEN: u32 = 60;
/// Budgets that jit keeps.
const MOST_BUDGETS: usize = 10_000;
const HOUR: Millis = Millis::minutes(60);
const MINUTE: Millis = Millis::minutes(1);
/// The longest recorded text: ids of Mattermost have 26 characters, ids of requests 36.
const LONGEST_ID: usize = 36;

/// The sender of a forgery, as far as Mattermost has signed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Sender {
    Unknown,
    /// The trigger proves that this user pressed a button.
    User(MmUserId),
}

/// The entry about a forgery in the history of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Whole,
    /// That jit records no more of this kind until this time.
    Summary(Timestamp),
    Nothing,
}

/// The number of forgeries in a time that began then.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    since: Timestamp,
    many: u32,
}

impl Count {
    fn is_over(&self, now: Timestamp, lasts: Millis) -> bool {
        let passed = now - self.since;
        passed >= lasts || passed < Millis(0)
    }

    fn next(&mut self, now: Timestamp, lasts: Millis) -> u32 {
        if self.is_over(now, lasts) {
            *self = Self {
                since: now,
                many: 0,
            };
        }
        self.many = self.many.saturating_add(1);
        self.many
    }
}

#[derive(Debug, Default)]
struct Budgets {
    /// The bound channels, as the store had them at the last read.
    bound: HashSet<ChannelId>,
    /// When the last read of them began; absent before the first.
    read_at: Option<Timestamp>,
    looked_up: HashMap<Sender, Count>,
    written: HashMap<(ChannelId, Sender), Count>,
}

/// The forgeries recorded in this hour, for each channel and sender.
#[derive(Debug, Default)]
pub struct Forgeries(Mutex<Budgets>);

impl Forgeries {
    /// Whether the caller has to read the bound channels now. jit reads them once in a minute, for
    /// any number of forgeries.
    fn has_to_read(&self, now: Timestamp) -> bool {
        let mut budgets = locked(&self.0);
        let is_fresh = |at: Timestamp| now - at < MINUTE && now >= at;
        let is_due = !budgets.read_at.is_some_and(is_fresh);
        if is_due {
            budgets.read_at = Some(now);
        }
        is_due
    }

    fn know(&self, bound: HashSet<ChannelId>) {
        locked(&self.0).bound = bound;
    }

    fn entry(&self, channel: &ChannelId, sender: &Sender, now: Timestamp) -> Entry {
        let mut budgets = locked(&self.0);
        if !budgets.bound.contains(channel) {
            // A channel that was bound after the last read, or none of jit.
            make_room(&mut budgets.looked_up, now, MINUTE);
            let looked_up = budgets.looked_up.entry(sender.clone()).or_default();
            if looked_up.next(now, MINUTE) > MOST_LOOKED_UP {
                return Entry::Nothing;
            }
        }
        make_room(&mut budgets.written, now, HOUR);
        let key = (channel.clone(), sender.clone());
        let count = budgets.written.entry(key).or_default();
        match count.next(now, HOUR) {
            ..=MOST_WRITTEN => Entry::Whole,
            many if many == MOST_WRITTEN + 1 => Entry::Summary(count.since + HOUR),
            _ => Entry::Nothing,
        }
    }
}

/// Any id can be sent, so the number of counts is bounded.
fn make_room<K: Eq + std::hash::Hash>(
    counts: &mut HashMap<K, Count>,
    now: Timestamp,
    lasts: Millis,
) {
    if counts.len() >= MOST_BUDGETS {
        counts.retain(|_, count| !count.is_over(now, lasts));
    }
    if counts.len() >= MOST_BUDGETS {
        counts.clear();
    }
}

/// Clips a text of an unknown caller to the length of an id.
fn clipped(said: &str) -> String {
    said.chars().take(LONGEST_ID).collect()
}

impl Mattermost {
    /// Refuses a call that Mattermost did not sign. `claim` is the content of the call.
    pub(in crate::mattermost) fn forged(
        self: &Arc<Self>,
        why: Unsigned,
        path: &'static str,
        claim: &Value,
    ) -> Problem {
        self.refused_as_forged(why, path, claim, &Sender::Unknown)
    }

    /// Refuses a call whose trigger of this user is valid.
    pub(in crate::mattermost) fn forged_by_user(
        self: &Arc<Self>,
        user: &MmUserId,
        why: Unsigned,
        path: &'static str,
        claim: &Value,
    ) -> Problem {
        self.refused_as_forged(why, path, claim, &Sender::User(user.clone()))
    }

    fn refused_as_forged(
        self: &Arc<Self>,
        why: Unsigned,
        path: &'static str,
        claim: &Value,
        sender: &Sender,
    ) -> Problem {
        let said = |name: &str| claim[name].as_str().map(clipped);
        let mut details = BTreeMap::from([
            ("reason".to_owned(), why.as_str().to_owned()),
            ("path".to_owned(), path.to_owned()),
        ]);
        let named = |name: &str| said(name).map(|said| (name.to_owned(), said));
        let about = claim["context"]["request_id"].as_str();
        let about = about.map(clipped);
        let user_id = said("user_id").unwrap_or_default();
        let post = said("post_id").unwrap_or_default();
        if let Some(unlogged) = sampled("click or dialog refused as forged") {
            tracing::warn!(
                reason = why.as_str(),
                path,
                request_id = about.as_deref().unwrap_or_default(),
                user_id,
                post,
                unlogged,
                "click or dialog refused as forged"
            );
        }
        let channel: Option<ChannelId> =
            claim["channel_id"].as_str().and_then(|id| id.parse().ok());
        if let Some(channel) = channel {
            details.extend(["user_id", "post_id"].into_iter().filter_map(named));
            details.extend(about.map(|id| ("request".to_owned(), id)));
            self.note_forgery(channel, sender, details);
        }
        Problem::unsigned(why, path)
    }

    /// Records the forgery, as far as the budget of its sender allows.
    fn note_forgery(
        self: &Arc<Self>,
        channel: ChannelId,
        sender: &Sender,
        details: BTreeMap<String, String>,
    ) {
        let now = self.clock().now();
        if self.forgeries.has_to_read(now) {
            let (mattermost, sender) = (self.clone(), sender.clone());
            self.app.tasks.spawn(async move {
                mattermost.read_bound_channels().await;
                let entry = mattermost.forgeries.entry(&channel, &sender, now);
                mattermost.record_forgery(channel, entry, details).await;
            });
            return;
        }
        let entry = self.forgeries.entry(&channel, sender, now);
        if entry != Entry::Nothing {
            let mattermost = self.clone();
            self.app
                .tasks
                .spawn(async move { mattermost.record_forgery(channel, entry, details).await });
        }
    }

    async fn read_bound_channels(&self) {
        match self.app.service.bound_channel_ids().await {
            Ok(bound) => self.forgeries.know(bound),
            Err(error) => tracing::warn!(
                %error,
                "bound channels not read; jit looks for the channel of each forgery until the next read"
            ),
        }
    }

    async fn record_forgery(
        &self,
        channel: ChannelId,
        entry: Entry,
        mut details: BTreeMap<String, String>,
    ) {
        match entry {
            Entry::Whole => {}
            Entry::Summary(until) => {
                details.retain(|name, _| ["reason", "path"].contains(&name.as_str()));
                details.insert("not_recorded_until".to_owned(), until.to_string());
            }
            Entry::Nothing => return,
        }
        if let Err(error) = self.app.service.note_forgery(&channel, &details).await {
            tracing::error!(%error, %channel, "forgery not recorded in the audit of the channel");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelId {
        name.parse().unwrap()
    }

    fn user(name: &str) -> Sender {
        Sender::User(name.parse().unwrap())
    }

    fn forgeries() -> (Forgeries, Timestamp) {
        let forgeries = Forgeries::default();
        forgeries.know([channel("town")].into());
        (forgeries, Timestamp::from_seconds(1_000_000))
    }

    // N3
    #[test]
    fn a_channel_records_sixty_forgeries_in_an_hour_and_one_summary() {
        let (forgeries, begun) = forgeries();
        let entry = |minute, sender: &Sender| {
            let at = begun + Millis::minutes(minute);
            forgeries.entry(&channel("town"), sender, at)
        };
        let unknown = Sender::Unknown;
        for minute in 0..6 {
            for _ in 0..10 {
                assert_eq!(entry(minute, &unknown), Entry::Whole);
            }
        }
        assert_eq!(entry(6, &unknown), Entry::Summary(begun + HOUR));
        for minute in 7..60 {
            assert_eq!(entry(minute, &unknown), Entry::Nothing);
        }
        // The calls of others do not hide the forgery of a user of Mattermost.
        assert_eq!(entry(7, &user("bob")), Entry::Whole);
        assert_eq!(entry(60, &unknown), Entry::Whole);
    }

    /// N3: one user pressed a forged button sixty times, and then the history of the channel had no
    /// forgery that was aimed at another user.
    #[test]
    fn the_forgeries_of_one_user_do_not_hide_those_of_another() {
        let (forgeries, at) = forgeries();
        let entry = |sender: &Sender| forgeries.entry(&channel("town"), sender, at);
        let entries: Vec<Entry> = (0..62).map(|_| entry(&user("mallory"))).collect();
        assert_eq!(entries[60], Entry::Summary(at + HOUR));
        assert_eq!(entries[61], Entry::Nothing);
        assert_eq!(entry(&user("bob")), Entry::Whole);
    }

    /// N3: calls with invented channel ids used the budget up, and then the history of a real
    /// channel got neither a forgery nor a summary.
    #[test]
    fn forgeries_of_unknown_channels_do_not_hide_those_of_a_bound_channel() {
        let (forgeries, at) = forgeries();
        let looked = |sender: &Sender, at| {
            let entry = |place: &i32| forgeries.entry(&channel(&format!("c{place}")), sender, at);
            (0..100)
                .filter(|place| entry(place) == Entry::Whole)
                .count()
        };
        let unknown = Sender::Unknown;
        assert_eq!(looked(&unknown, at), 60);
        assert_eq!(looked(&unknown, at + Millis::seconds(59)), 0);
        assert_eq!(looked(&user("mallory"), at), 60);
        let entries: Vec<Entry> = (0..62)
            .map(|_| forgeries.entry(&channel("town"), &unknown, at))
            .collect();
        assert_eq!(entries[..60], [Entry::Whole; 60]);
        assert_eq!(entries[60], Entry::Summary(at + HOUR));
        assert_eq!(looked(&unknown, at + MINUTE), 60);
    }

    // N3
    #[test]
    fn the_bound_channels_are_read_once_in_a_minute() {
        let (forgeries, at) = forgeries();
        assert!(forgeries.has_to_read(at));
        assert!(!forgeries.has_to_read(at + Millis::seconds(59)));
        assert!(forgeries.has_to_read(at + MINUTE));
    }

    // N3
    #[test]
    fn recorded_texts_are_as_short_as_ids() {
        assert_eq!(clipped(&"x".repeat(60_000)).len(), LONGEST_ID);
        let id = "01a1fd36-48a0-7000-8000-000000000001";
        assert_eq!(clipped(id), id);
    }
}
