//! Finds the request that a person names, and checks that they may see it.

use std::collections::HashMap;

use super::slash::Slash;
use crate::domain::{AccountId, Binding, ChatUser, Request, RequestId, ShortId, Status};
use crate::mattermost::cards::text::plain;
use crate::mattermost::{Mattermost, No};
use crate::store::Filter;

const LISTED: usize = 20;
/// The number of newest requests that jit searches for the beginning of an id.
const SEARCHED: usize = 600;
const OPEN: [Status; 3] = [Status::Pending, Status::Approved, Status::Granted];

impl Mattermost {
    /// A request that a person may not see is unknown to them.
    async fn may_see(&self, slash: &Slash, who: &ChatUser, request: &Request) -> Result<bool, No> {
        let service = &self.app.service;
        let binding = service.binding(&request.asked.account_id).await?;
        let (rules, channel) = (service.policy(), &slash.channel_id);
        Ok(rules.may_see_in_chat(who, channel, request, binding.as_ref()))
    }

    /// By its id, or by a beginning of an id that is unique: in a channel, among the requests
    /// of the channel; in a direct message, among the person's own and all open requests.
    pub(super) async fn find(
        &self,
        slash: &Slash,
        who: &ChatUser,
        id: &str,
    ) -> Result<Request, No> {
        let none = || {
            No::Told(format!(
                "no request of this channel has an id that begins with `{}`; `/jit list` shows the open requests",
                plain(id)
            ))
        };
        if let Ok(id) = id.parse::<RequestId>() {
            let found = self.app.service.find(id).await?;
            let request = found.ok_or_else(none)?;
            return match self.may_see(slash, who, &request).await? {
                true => Ok(request),
                false => Err(none()),
            };
        }
        let begun: ShortId = id.parse().map_err(|_| none())?;
        let mut found: Option<Request> = None;
        for filter in meant(slash, who) {
            for request in self.app.service.newest(&filter, SEARCHED).await? {
                let is_it = begun.begins(request.id);
                if !is_it || !self.may_see(slash, who, &request).await? {
                    continue;
                }
                if let Some(other) = found.as_ref().filter(|found| found.id != request.id) {
                    let (one, other) = (other.id, request.id);
                    return Err(No::Told(format!(
                        "several requests begin with that: `{one}` and `{other}`; type more characters of the id"
                    )));
                }
                found = Some(request);
            }
        }
        found.ok_or_else(none)
    }

    /// The open requests of a channel; in a direct message, all that this person may see.
    pub(super) async fn list(&self, slash: &Slash, who: &ChatUser) -> Result<String, No> {
        let (filter, nothing) = match slash.is_direct {
            true => (
                Filter::default(),
                "There are no open requests of yours, and none whose approver you are.",
            ),
            false => (
                Filter {
                    channel_id: Some(slash.channel_id.clone()),
                    ..Filter::default()
                },
                "This channel has no open requests.",
            ),
        };
        self.list_open(slash, who, filter, nothing).await
    }

    pub(super) async fn list_open(
        &self,
        slash: &Slash,
        who: &ChatUser,
        filter: Filter,
        nothing: &str,
    ) -> Result<String, No> {
        let mut lines = Vec::new();
        let mut bindings = HashMap::new();
        for status in OPEN {
            let filter = Filter {
                status: Some(status),
                ..filter.clone()
            };
            let found = self.app.service.newest(&filter, SEARCHED).await?;
            let is_all = found.len() < SEARCHED;
            let mut seen = 0;
            for request in found.iter() {
                if !self
                    .may_see_with(slash, who, request, &mut bindings)
                    .await?
                {
                    continue;
                }
                seen += 1;
                if seen <= LISTED {
                    lines.push(format!("- {}", self.line(request)));
                }
            }
            if seen > LISTED {
                let more = seen - LISTED;
                let at_least = if is_all { "" } else { "at least " };
                lines.push(format!(
                    "- … and {at_least}{more} more {status}; `/jit status ID` shows each"
                ));
            }
        }
        match lines.is_empty() {
            true => Ok(nothing.to_owned()),
            false => Ok(lines.join("\n")),
        }
    }

    /// Like `may_see`, and reads each binding once.
    async fn may_see_with(
        &self,
        slash: &Slash,
        who: &ChatUser,
        request: &Request,
        bindings: &mut HashMap<AccountId, Option<Binding>>,
    ) -> Result<bool, No> {
        let service = &self.app.service;
        let account = &request.asked.account_id;
        if !bindings.contains_key(account) {
            bindings.insert(account.clone(), service.binding(account).await?);
        }
        let binding = bindings.get(account).and_then(Option::as_ref);
        let (rules, channel) = (service.policy(), &slash.channel_id);
        Ok(rules.may_see_in_chat(who, channel, request, binding))
    }
}

fn meant(slash: &Slash, who: &ChatUser) -> Vec<Filter> {
    if !slash.is_direct {
        return vec![Filter {
            channel_id: Some(slash.channel_id.clone()),
            ..Filter::default()
        }];
    }
    let own = Filter {
        requester_email: Some(who.person.email.clone()),
        ..Filter::default()
    };
    let open = OPEN.map(|status| Filter {
        status: Some(status),
        ..Filter::default()
    });
    [own].into_iter().chain(open).collect()
}
