//! Forgeries: jit counts them, logs them, and records them in the history of the channel that
//! they name.
//!
//! Calls without a valid trigger can come from any caller that reaches jit. They have a budget of
//! their own, so that they do not hide what a known user of Mattermost did.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::domain::{ChannelId, Millis, Timestamp};
use crate::http::reply::Problem;
use crate::http::unsigned::Unsigned;
use crate::lock::locked;
use crate::mattermost::Mattermost;
use crate::telemetry::sampled;

/// Every caller that reaches jit can send forgeries, also of channels that jit does not know: jit
/// looks for the channels of this many in a minute.
const MOST_LOOKED_UP: u32 = 60;
/// After this many records of one channel in an hour, jit writes that it only counts and logs the
/// others.
const MOST_WRITTEN: u32 = 60;
/// Channels with a budget; any id can be sent, so the number is bounded.
const MOST_CHANNELS: usize = 10_000;
const HOUR: Millis = Millis::minutes(60);
/// The longest recorded text: ids of Mattermost have 26 characters, ids of requests 36.
const LONGEST_ID: usize = 36;

/// Whether Mattermost signed the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Proof {
    Nothing,
    /// The trigger proves that the user pressed a button at this time.
    Trigger,
}

/// What the history of the channel gets of a forgery.
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
    fn next(&mut self, now: Timestamp, lasts: Millis) -> u32 {
        let passed = now - self.since;
        if passed >= lasts || passed < Millis(0) {
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
    looked_up: Count,
    written: HashMap<(ChannelId, Proof), Count>,
}

/// The forgeries recorded in this hour, for each channel.
#[derive(Debug, Default)]
pub struct Forgeries(Mutex<Budgets>);

impl Forgeries {
    fn entry(&self, channel: &ChannelId, proof: Proof, now: Timestamp) -> Entry {
        let mut budgets = locked(&self.0);
        let minute = Millis::minutes(1);
        if proof == Proof::Nothing && budgets.looked_up.next(now, minute) > MOST_LOOKED_UP {
            return Entry::Nothing;
        }
        if budgets.written.len() >= MOST_CHANNELS {
            budgets.written.clear();
        }
        let count = budgets.written.entry((channel.clone(), proof)).or_default();
        match count.next(now, HOUR) {
            ..=MOST_WRITTEN => Entry::Whole,
            many if many == MOST_WRITTEN + 1 => Entry::Summary(count.since + HOUR),
            _ => Entry::Nothing,
        }
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
        self.refused_as_forged(why, path, claim, Proof::Nothing)
    }

    /// Refuses a call whose trigger is valid.
    pub(in crate::mattermost) fn forged_by_user(
        self: &Arc<Self>,
        why: Unsigned,
        path: &'static str,
        claim: &Value,
    ) -> Problem {
        self.refused_as_forged(why, path, claim, Proof::Trigger)
    }

    fn refused_as_forged(
        self: &Arc<Self>,
        why: Unsigned,
        path: &'static str,
        claim: &Value,
        proof: Proof,
    ) -> Problem {
        let said = |name: &str| claim[name].as_str().map(clipped);
        let mut details = BTreeMap::from([
            ("reason".to_owned(), why.as_str().to_owned()),
            ("path".to_owned(), path.to_owned()),
        ]);
        let named = |name: &str| said(name).map(|said| (name.to_owned(), said));
        let about = claim["context"]["request_id"].as_str();
        let about = about.map(|id| ("request".to_owned(), clipped(id)));
        let user = said("user_id").unwrap_or_default();
        let post = said("post_id").unwrap_or_default();
        if let Some(unlogged) = sampled("click or dialog refused as forged") {
            tracing::warn!(
                reason = why.as_str(),
                path,
                user,
                post,
                unlogged,
                "click or dialog refused as forged"
            );
        }
        let channel: Option<ChannelId> =
            claim["channel_id"].as_str().and_then(|id| id.parse().ok());
        if let Some(channel) = channel {
            match self.forgeries.entry(&channel, proof, self.clock().now()) {
                Entry::Whole => {
                    details.extend(["user_id", "post_id"].into_iter().filter_map(named));
                    details.extend(about);
                    self.record_forgery(channel, details);
                }
                Entry::Summary(until) => {
                    details.insert("not_recorded_until".to_owned(), until.to_string());
                    self.record_forgery(channel, details);
                }
                Entry::Nothing => {}
            }
        }
        Problem::unsigned(why, path)
    }

    fn record_forgery(self: &Arc<Self>, channel: ChannelId, details: BTreeMap<String, String>) {
        let service = self.app.service.clone();
        self.app.tasks.spawn(async move {
            if let Err(error) = service.note_forgery(&channel, &details).await {
                tracing::error!(%error, %channel, "forgery not recorded in the audit of the channel");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(name: &str) -> ChannelId {
        name.parse().unwrap()
    }

    // N3
    #[test]
    fn a_channel_records_sixty_forgeries_in_an_hour_and_one_summary() {
        let forgeries = Forgeries::default();
        let begun = Timestamp::from_seconds(1_000_000);
        let entry = |minute, proof| {
            let at = begun + Millis::minutes(minute);
            forgeries.entry(&channel("town"), proof, at)
        };
        for minute in 0..6 {
            for _ in 0..10 {
                assert_eq!(entry(minute, Proof::Nothing), Entry::Whole);
            }
        }
        assert_eq!(entry(6, Proof::Nothing), Entry::Summary(begun + HOUR));
        for minute in 7..60 {
            assert_eq!(entry(minute, Proof::Nothing), Entry::Nothing);
        }
        // What a user of Mattermost did is not hidden by the calls of others.
        assert_eq!(entry(7, Proof::Trigger), Entry::Whole);
        assert_eq!(entry(60, Proof::Nothing), Entry::Whole);
    }

    // N3
    #[test]
    fn jit_looks_for_the_channels_of_sixty_forgeries_in_a_minute() {
        let (forgeries, at) = (Forgeries::default(), Timestamp::from_seconds(1_000_000));
        let looked = |at| {
            let entry =
                |place: &i32| forgeries.entry(&channel(&format!("c{place}")), Proof::Nothing, at);
            (0..100)
                .filter(|place| entry(place) == Entry::Whole)
                .count()
        };
        assert_eq!(looked(at), 60);
        assert_eq!(looked(at + Millis::seconds(59)), 0);
        assert_eq!(looked(at + Millis::minutes(1)), 60);
    }

    // N3
    #[test]
    fn recorded_texts_are_as_short_as_ids() {
        assert_eq!(clipped(&"x".repeat(60_000)).len(), LONGEST_ID);
        let id = "01a1fd36-48a0-7000-8000-000000000001";
        assert_eq!(clipped(id), id);
    }
}
