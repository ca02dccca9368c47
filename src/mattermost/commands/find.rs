//! Finds the request that a person names, and checks that they may see it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::slash::Slash;
use crate::domain::{AccountId, Binding, ChatUser, Request, RequestId, ShortId, State, Status};
use crate::mattermost::cards::text::{code, counted};
use crate::mattermost::{Mattermost, No};
use crate::store::{Filter, Found, StoreError, Unreadable};

const LISTED: usize = 20;
/// The number of newest requests of a status that a list reads. Of the requests from the time that the
/// beginning of an id tells, jit compares as many.
const SEARCHED: usize = 600;
/// The length of a shown id, or of the name of an unreadable record; an id has 36 characters.
const MOST_OF_NAME: usize = 40;
const OPEN: [Status; 4] = [
    Status::Pending,
    Status::Approved,
    Status::Granted,
    Status::Error,
];

/// The parts of a list of what is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenPart {
    Status(Status),
    /// W5: the access of these may exist, whatever their status says.
    CheckedEnds,
}

const PARTS: [OpenPart; 4] = [
    OpenPart::Status(Status::Pending),
    OpenPart::Status(Status::Approved),
    OpenPart::Status(Status::Granted),
    OpenPart::CheckedEnds,
];

impl Mattermost {
    /// A request that a person may not see is unknown to them.
    async fn may_see(&self, slash: &Slash, who: &ChatUser, request: &Request) -> Result<bool, No> {
        let service = &self.app.service;
        let binding = service.binding(&request.asked.account_id).await?;
        let (rules, channel) = (service.policy(), &slash.channel_id);
        Ok(rules.may_see_in_chat(who, channel, request, binding.as_ref()))
    }

    /// By its id, or by a beginning of an id that is unique: in a channel, among the requests
    /// of the channel; in a direct message, among the person's own and all open requests. H4: the
    /// digits tell the time of the request, so jit also finds an old one among many newer ones.
    pub(super) async fn find(
        &self,
        slash: &Slash,
        who: &ChatUser,
        id: &str,
    ) -> Result<Request, No> {
        let none = || {
            No::Message(format!(
                "no request of this channel has an id that begins with `{}`; `/jit list` shows the open requests",
                code(id, MOST_OF_NAME)
            ))
        };
        if let Ok(whole) = id.parse() {
            let found = self.find_whole(slash, who, whole).await?;
            return found.ok_or_else(none);
        }
        let begun: ShortId = id.parse().map_err(|_| none())?;
        let (from, before) = begun.created_between();
        let (mut found, mut is_all): (BTreeMap<RequestId, Option<Request>>, bool) =
            (BTreeMap::new(), true);
        for filter in meant(slash, who) {
            let filter = Filter {
                from: Some(from),
                before: Some(before),
                ..filter
            };
            let requests = self.app.service.newest(&filter, SEARCHED).await?;
            is_all &= requests.len() < SEARCHED;
            // K12: jit cannot know whether the person may see one of these.
            let unreadable = requests.unreadable.iter();
            let unreadable = unreadable.filter_map(|one| one.name.parse().ok());
            found.extend(
                unreadable
                    .filter(|id| begun.begins(*id))
                    .map(|id| (id, None)),
            );
            for request in requests.items {
                if begun.begins(request.id) && self.may_see(slash, who, &request).await? {
                    found.insert(request.id, Some(request));
                }
            }
        }
        // Another request may begin in the same way.
        if !is_all {
            return Err(No::Message(format!(
                "many requests were made at the time of `{}`; type more characters of the id",
                code(id, MOST_OF_NAME)
            )));
        }
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some((one, _)), Some((other, _))) => Err(No::Message(format!(
                "several requests begin with that: `{one}` and `{other}`; type more characters of the id"
            ))),
            (Some((_, Some(request))), None) => Ok(request),
            // That jit cannot read this record.
            (Some((id, None)), None) => self.find_whole(slash, who, id).await?.ok_or_else(none),
            (None, _) => Err(none()),
        }
    }

    async fn find_whole(
        &self,
        slash: &Slash,
        who: &ChatUser,
        id: RequestId,
    ) -> Result<Option<Request>, No> {
        let found = match self.app.service.find(id).await {
            Err(StoreError::Corrupt(_)) => {
                return Err(No::Message(format!(
                    "jit cannot read the record of the request `{id}`; nothing was changed. Its access may exist: tell an operator"
                )));
            }
            found => found?,
        };
        Ok(match found {
            Some(request) if self.may_see(slash, who, &request).await? => Some(request),
            Some(_) | None => None,
        })
    }

    /// The requests of a channel that are not settled; in a direct message, all that this person may
    /// see.
    pub(super) async fn list(&self, slash: &Slash, who: &ChatUser) -> Result<String, No> {
        let (filter, nothing) = match slash.is_direct {
            true => (
                Filter::default(),
                "You have no open requests, and you are an approver of no open request.",
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
        let mut listed = Listed::default();
        let mut bindings = HashMap::new();
        for part in PARTS {
            let (found, is_all) = self.read_part(part, &filter).await?;
            listed.add_unreadable(found.unreadable);
            let (mut shown, mut seen) = (ShownRequests::default(), 0);
            for request in found.items {
                if request.state.is_settled()
                    || !self
                        .may_see_with(slash, who, &request, &mut bindings)
                        .await?
                {
                    continue;
                }
                seen += 1;
                shown.add(request);
            }
            let shown = shown.in_order();
            let handles = self.handles(shown.iter()).await;
            for request in &shown {
                let binding = bindings.get(&request.asked.account_id);
                let binding = binding.and_then(Option::as_ref);
                let line = format!("- {}", self.line_with(request, &handles, binding));
                match waits_for_approvers(request) {
                    true => listed.waiting.push(line),
                    false => listed.lines.push(line),
                }
            }
            listed.left_out(part, seen, is_all);
        }
        Ok(listed.told(slash, nothing))
    }

    /// The requests of a part, and whether these are all.
    async fn read_part(
        &self,
        part: OpenPart,
        filter: &Filter,
    ) -> Result<(Found<Request>, bool), No> {
        let service = &self.app.service;
        Ok(match part {
            OpenPart::Status(status) => {
                let filter = Filter {
                    status: Some(status),
                    ..filter.clone()
                };
                let found = service.newest(&filter, SEARCHED).await?;
                let is_all = found.len() < SEARCHED;
                (found, is_all)
            }
            OpenPart::CheckedEnds => {
                let mut found = service.checked_ends(filter).await?;
                // K12: jit cannot know whether an unreadable record is one of this channel.
                if filter.channel_id.is_some() {
                    found.unreadable.clear();
                }
                (found, true)
            }
        })
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

/// The requests of one part that a list shows.
#[derive(Default)]
struct ShownRequests {
    waiting: Vec<Request>,
    others: Vec<Request>,
}

impl ShownRequests {
    fn add(&mut self, request: Request) {
        let same = match waits_for_approvers(&request) {
            true => &mut self.waiting,
            false => &mut self.others,
        };
        if same.len() < LISTED {
            same.push(request);
        }
    }

    /// A request that waits for a decision is shown before newer ones that wait for none.
    fn in_order(self) -> Vec<Request> {
        let all = self.waiting.into_iter().chain(self.others);
        all.take(LISTED).collect()
    }
}

/// Whether approvers must decide about the request or its extension.
fn waits_for_approvers(request: &Request) -> bool {
    request.state == State::Pending || request.waiting_extension().is_some()
}

/// The parts of a list.
#[derive(Default)]
struct Listed {
    /// The lines of what waits for a decision; they come first.
    waiting: Vec<String>,
    lines: Vec<String>,
    unreadable: Vec<Unreadable>,
}

impl Listed {
    /// The same record can be in two parts.
    fn add_unreadable(&mut self, more: Vec<Unreadable>) {
        let known: HashSet<String> = self.unreadable.iter().map(|one| one.name.clone()).collect();
        let more = more.into_iter().filter(|one| !known.contains(&one.name));
        self.unreadable.extend(more);
    }

    /// Says what the list does not show of a part.
    fn left_out(&mut self, part: OpenPart, seen: usize, is_all: bool) {
        let at_least = if is_all { "" } else { "at least " };
        let more = seen.saturating_sub(LISTED);
        let lines = match part {
            OpenPart::Status(Status::Pending) => &mut self.waiting,
            OpenPart::Status(_) | OpenPart::CheckedEnds => &mut self.lines,
        };
        match part {
            // The message of a card contains the status, so that the search finds it.
            OpenPart::Status(status) if more > 0 => lines.push(format!(
                "- … and {at_least}{more} more {status}: search Mattermost for {status}, because the card of each shows its id; an operator lists all at a terminal with `jit list --status {status}`"
            )),
            OpenPart::CheckedEnds if more > 0 => lines.push(format!(
                "- … and {more} more whose end jit checks at AWS: an operator lists all at a terminal with `jit list`"
            )),
            OpenPart::Status(_) | OpenPart::CheckedEnds => {}
        }
        if let (OpenPart::Status(status), false) = (part, is_all) {
            lines.push(format!(
                ":warning: jit read only the newest {SEARCHED} {status} requests, so there may be others: `/jit list` in a team channel reads those of the channel"
            ));
        }
    }

    fn told(mut self, slash: &Slash, nothing: &str) -> String {
        if !self.unreadable.is_empty() {
            self.lines.push(self.unread(slash.is_direct));
        }
        self.waiting.append(&mut self.lines);
        match self.waiting.is_empty() {
            true => nothing.to_owned(),
            false => self.waiting.join("\n"),
        }
    }

    /// A direct message does not name them: jit cannot know whether the person may see them.
    fn unread(&self, is_direct: bool) -> String {
        let many = self.unreadable.len();
        let names = self.unreadable.iter().take(LISTED);
        let names: Vec<String> = names
            .map(|one| format!("`{}`", code(&one.name, MOST_OF_NAME)))
            .collect();
        let which = match (is_direct, many > LISTED) {
            (true, _) => String::new(),
            (false, true) => format!(": {}, …", names.join(", ")),
            (false, false) => format!(": {}", names.join(", ")),
        };
        format!(
            ":warning: jit cannot read the records of {}{which}. Their access may exist: tell an operator",
            counted(many, "request")
        )
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
