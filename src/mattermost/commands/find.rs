//! Finds the request that a person names, and checks that they may see it.

use super::slash::Slash;
use crate::domain::{ChatUser, Request, RequestId, ShortId, Status};
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

    pub(super) async fn list_open(&self, filter: Filter, nothing: &str) -> Result<String, No> {
        let mut lines = Vec::new();
        for status in OPEN {
            let filter = Filter {
                status: Some(status),
                ..filter.clone()
            };
            let found = self.app.service.list(&filter, None, LISTED).await?;
            lines.extend(
                found
                    .iter()
                    .map(|request| format!("- {}", self.line(request))),
            );
        }
        match lines.is_empty() {
            true => Ok(nothing.to_owned()),
            false => Ok(lines.join("\n")),
        }
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
