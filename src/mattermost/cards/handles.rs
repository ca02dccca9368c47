//! The names of people in Mattermost. A card shows them beside the e-mail addresses of the
//! record: users of a server that verifies no addresses choose their own.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::text::plain;
use crate::domain::{MmUserId, Person};
use crate::mattermost::client::people::People;

#[derive(Clone, Debug, Default)]
pub struct Handles(BTreeMap<MmUserId, String>);

impl Handles {
    pub fn new(names: BTreeMap<MmUserId, String>) -> Self {
        Self(names)
    }

    /// Asks Mattermost for the names. Without an answer, a name is absent.
    pub async fn of(people: &People, ids: BTreeSet<MmUserId>) -> Self {
        let answers = join_all(ids.iter().map(|id| people.user(id))).await;
        let named = ids.iter().zip(answers);
        let named = named.filter_map(|(id, answer)| Some((id.clone(), answer.ok()?.username)));
        Self::new(named.collect())
    }

    /// The address, and the name if Mattermost told it.
    pub fn named(&self, person: &Person) -> String {
        self.shown(person.id.as_str(), person.email.as_str())
    }

    pub fn shown(&self, id: &str, email: &str) -> String {
        let id = id.parse::<MmUserId>().ok();
        match id.and_then(|id| self.0.get(&id)) {
            Some(name) => format!("{} ({})", plain(email), plain(&format!("@{name}"))),
            None => plain(email),
        }
    }
}
