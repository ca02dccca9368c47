//! What is said back, to the one who asked and to nobody else.

use super::slash::Slash;
use super::text::{plain, short};
use super::who::Who;
use super::words::{Said, VERBS, understand};
use super::{Mattermost, api::ApiError};

use crate::domain::{
    Admin, Ask, BindTerms, Command, Draft, Millis, Minutes, MmUserId, PermissionSet, Request,
    RequestId, Status,
};
use crate::http::reply::Problem;
use crate::service::{Configure, Idempotency, Revoked, ServiceError};
use crate::store::{Cursor, Filter, StoreError};

/// Mattermost gives a command three seconds before it gets impatient.
const REVOKE_PATIENCE: Millis = Millis(2_000);
/// What is granted if nobody says how long.
const AN_HOUR: i64 = 60;
const LISTED: usize = 20;
/// How far back a beginning of an id is looked for.
const SEARCHED: usize = 600;
const PAGE: usize = 200;
/// So much of an id tells two requests apart that were not made in one millisecond.
const SHORT_ID: usize = 13;
const OPEN: [Status; 3] = [Status::Pending, Status::Approved, Status::Granted];

/// What is said instead of an answer.
enum No {
    /// In words for a person, ready to be shown.
    Told(String),
    Problem(Problem),
}

impl From<Problem> for No {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<ServiceError> for No {
    fn from(error: ServiceError) -> Self {
        Self::Problem(error.into())
    }
}

impl From<StoreError> for No {
    fn from(error: StoreError) -> Self {
        Self::Problem(error.into())
    }
}

impl Mattermost {
    pub(super) async fn answer(&self, slash: &Slash) -> String {
        match self.try_answer(slash).await {
            Ok(said) => said,
            Err(No::Told(why)) => format!(":warning: {why}"),
            // One place knows what of a failure is for whom.
            Err(No::Problem(problem)) => format!(":warning: {}", plain(&problem.message)),
        }
    }

    async fn try_answer(&self, slash: &Slash) -> Result<String, No> {
        let sets: Vec<&str> = self
            .app
            .service
            .policy()
            .permission_sets
            .keys()
            .map(PermissionSet::as_str)
            .collect();
        let said = understand(&slash.text, &sets).map_err(No::Told)?;
        if said == Said::Help {
            return Ok(help());
        }
        let who = self.who(slash).await?;
        match said {
            Said::Help => Ok(help()),
            Said::Request {
                account,
                set,
                time,
                why,
                ticket,
            } => {
                let duration = match time {
                    Some(time) => time,
                    None => Minutes::new(AN_HOUR).map_err(|why| No::Told(why.to_string()))?,
                };
                let draft = Draft {
                    id: RequestId::from_uuid(self.app.service.clock().draw_in_order()),
                    account_id: account,
                    channel_id: slash.channel_id.clone(),
                    requester: who.person.clone(),
                    reason: why,
                    jira: ticket,
                    duration,
                    permission_set: set.and_then(|set| set.parse().ok()),
                    start_at: None,
                };
                self.request(slash, draft).await
            }
            Said::Approve { id } => self.ask(slash, &who, &id, Ask::Approve, "Approved").await,
            Said::Deny { id, why } => {
                let ask = Ask::Deny { reason: why };
                self.ask(slash, &who, &id, ask, "Denied").await
            }
            Said::Cancel { id } => self.ask(slash, &who, &id, Ask::Cancel, "Taken back").await,
            Said::Extend { id, time } => {
                let ask = Ask::Extend { minutes: time };
                self.ask(slash, &who, &id, ask, "More time asked for").await
            }
            Said::Revoke { id, why } => {
                self.revoke(slash, &who, &id, Ask::Revoke { reason: why })
                    .await
            }
            Said::Status { id: Some(id) } => {
                let request = self.find(slash, &who, &id).await?;
                Ok(self.line(&request))
            }
            Said::Status { id: None } => {
                let filter = Filter {
                    requester_email: Some(who.person.email.clone()),
                    ..Filter::default()
                };
                self.open(filter, "You have nothing open.").await
            }
            Said::List => {
                let filter = Filter {
                    channel_id: Some(slash.channel_id.clone()),
                    ..Filter::default()
                };
                self.open(filter, "Nothing is open in this channel.").await
            }
            Said::Info => self.info(slash).await,
            Said::Bind { account } => {
                let terms = BindTerms::default();
                let bind = Configure::Bind {
                    account_id: account,
                    terms,
                };
                self.configure(slash, &who, bind).await
            }
            Said::Approvers { names } => {
                let approvers = self.approvers(slash, &names).await?;
                let set = Configure::SetApprovers { approvers };
                self.configure(slash, &who, set).await
            }
        }
    }

    /// By the id alone, and as Mattermost has it now.
    async fn who(&self, slash: &Slash) -> Result<Who, No> {
        let user = self.client.user(&slash.user_id).await.map_err(|error| {
            tracing::error!(%error, "a user could not be looked up");
            No::Told(match error {
                ApiError::NotThere(_) | ApiError::Refused(_) => {
                    "Mattermost does not know you".into()
                }
                _ => "jit cannot ask Mattermost who you are just now; nothing was done, try again"
                    .into(),
            })
        })?;
        self.rules.admit(&user).map_err(No::Told)
    }

    /// Once for each time that somebody pressed Enter.
    async fn request(&self, slash: &Slash, draft: Draft) -> Result<String, No> {
        let once = Idempotency {
            key: format!("mattermost:{}", slash.trigger_id),
            fingerprint: slash.text.clone(),
        };
        let service = self.app.service.clone();
        let opened = async move { service.open(draft, Some(once), None).await };
        let request = self.app.uncut(opened).await?;
        let approvers = self
            .app
            .service
            .store()
            .binding(&request.account_id)
            .await?;
        let needed = approvers.map_or(1, |binding| binding.approvals_required);
        let of = match needed {
            1 => "one approver".to_owned(),
            many => format!("{many} approvers"),
        };
        let id = short_id(request.id);
        Ok(format!(
            "{}\nIt waits for {of}: `/jit approve {id}`",
            self.line(&request)
        ))
    }

    async fn ask(
        &self,
        slash: &Slash,
        who: &Who,
        id: &str,
        ask: Ask,
        done: &str,
    ) -> Result<String, No> {
        let request = self.find(slash, who, id).await?;
        let handled = self.handle(request.id, who, ask).await?;
        Ok(format!("{done}.\n{}", self.line(&handled)))
    }

    /// Whoever asked for it, decides about it, or answers for all of it.
    async fn revoke(&self, slash: &Slash, who: &Who, id: &str, ask: Ask) -> Result<String, No> {
        let request = self.find(slash, who, id).await?;
        if !who.is_admin
            && !who.person.is(&request.requester)
            && !self.decides(who, &request).await?
        {
            return Err(No::Told(
                "only who asked for it, its approvers and admins may revoke it".into(),
            ));
        }
        let service = &self.app.service;
        let deadline = service.clock().now() + REVOKE_PATIENCE;
        self.handle(request.id, who, ask).await?;
        // P6: what is said is what AWS shows.
        Ok(
            match Revoked::of(service.follow(request.id, deadline).await?) {
                Revoked::Gone(request) => format!(
                    "Gone: AWS shows that the access is no longer there.\n{}",
                    self.line(&request)
                ),
                Revoked::Going(request) => format!(
                    "AWS has not confirmed the removal yet; it goes on until AWS has. `/jit status {}` shows how far it is.\n{}",
                    short_id(request.id),
                    self.line(&request)
                ),
                Revoked::Not(request) => {
                    format!(":warning: It ended otherwise.\n{}", self.line(&request))
                }
            },
        )
    }

    async fn handle(&self, id: RequestId, who: &Who, ask: Ask) -> Result<Request, No> {
        let (service, by) = (self.app.service.clone(), who.person.clone());
        let command = Command::Asked { by, ask };
        let handled = async move { service.handle(id, command).await };
        Ok(self.app.uncut(handled).await?.request)
    }

    async fn decides(&self, who: &Who, request: &Request) -> Result<bool, No> {
        let binding = self
            .app
            .service
            .store()
            .binding(&request.account_id)
            .await?;
        let decides = |one: &MmUserId| *one == who.person.id;
        Ok(binding.is_some_and(|binding| binding.approvers.iter().any(decides)))
    }

    /// By its id, or by a beginning that no other of this channel's has. What somebody may
    /// not see is not there for them.
    async fn find(&self, slash: &Slash, who: &Who, id: &str) -> Result<Request, No> {
        let none = || {
            No::Told(format!(
                "no request of this channel begins with `{}`; `/jit list` shows those that are open",
                plain(id)
            ))
        };
        if let Ok(id) = id.parse::<RequestId>() {
            let found = self.app.service.store().request(id).await?;
            let request = found.ok_or_else(none)?;
            let theirs = who.is_admin
                || request.channel_id == slash.channel_id
                || who.person.is(&request.requester)
                || self.decides(who, &request).await?;
            return if theirs { Ok(request) } else { Err(none()) };
        }
        let filter = match slash.is_direct {
            true => Filter {
                requester_email: Some(who.person.email.clone()),
                ..Filter::default()
            },
            false => Filter {
                channel_id: Some(slash.channel_id.clone()),
                ..Filter::default()
            },
        };
        let mut found: Option<Request> = None;
        for request in self.newest(&filter, SEARCHED).await? {
            if !request.id.to_string().starts_with(id) {
                continue;
            }
            if let Some(other) = &found {
                let (one, other) = (other.id, request.id);
                return Err(No::Told(format!(
                    "several begin with that: `{one}` and `{other}`; say more of it"
                )));
            }
            found = Some(request);
        }
        found.ok_or_else(none)
    }

    async fn newest(&self, filter: &Filter, most: usize) -> Result<Vec<Request>, No> {
        let (mut all, mut after) = (Vec::new(), None::<Cursor>);
        while all.len() < most {
            let store = self.app.service.store();
            let page = store.list(filter, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(Cursor {
                created_at: last.created_at,
                id: last.id,
            });
            all.extend(page);
        }
        Ok(all)
    }

    async fn open(&self, filter: Filter, nothing: &str) -> Result<String, No> {
        let mut lines = Vec::new();
        for status in OPEN {
            let filter = Filter {
                status: Some(status),
                ..filter.clone()
            };
            let found = self.app.service.store().list(&filter, None, LISTED).await?;
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

    async fn info(&self, slash: &Slash) -> Result<String, No> {
        let bindings = self.app.service.store().bindings(&slash.channel_id).await?;
        if bindings.is_empty() {
            return Ok(
                "No account is bound to this channel; an admin can: `/jit bind 123456789012`"
                    .into(),
            );
        }
        let policy = self.app.service.policy();
        let lines = bindings.iter().map(|binding| {
            let sets: Vec<&str> = match binding.permission_sets.is_empty() {
                true => policy
                    .permission_sets
                    .keys()
                    .map(PermissionSet::as_str)
                    .collect(),
                false => binding
                    .permission_sets
                    .iter()
                    .map(PermissionSet::as_str)
                    .collect(),
            };
            format!(
                "- `{}`: {} for up to {} hours; {} of {} approvers decide",
                binding.account_id,
                plain(&sets.join(", ")),
                policy.longest(binding),
                binding.approvals_required,
                binding.approvers.len(),
            )
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    async fn configure(
        &self,
        slash: &Slash,
        who: &Who,
        configure: Configure,
    ) -> Result<String, No> {
        if !who.is_admin {
            return Err(No::Told("only admins may change who may have what".into()));
        }
        if slash.is_direct {
            return Err(No::Told(
                "this is nobody's channel: type it where the team is".into(),
            ));
        }
        let admin = Admin {
            person: Some(who.person.clone()),
            key_id: "mattermost".into(),
        };
        let (service, channel) = (self.app.service.clone(), slash.channel_id.clone());
        self.app
            .uncut(async move { service.configure(&channel, &configure, &admin).await })
            .await?;
        self.info(slash).await
    }

    /// People rename themselves: who is meant, the id says that Mattermost sends along.
    async fn approvers(&self, slash: &Slash, names: &[String]) -> Result<Vec<MmUserId>, No> {
        let mut approvers = Vec::new();
        for name in names {
            let mut found = slash.mentions.iter().filter(|(known, _)| known == name);
            let shown = plain(name);
            let nobody = || No::Told(format!("{shown} is nobody in this team"));
            let (_, id) = found.next().ok_or_else(nobody)?;
            let user = self.client.user(id).await.map_err(|_| nobody())?;
            let admitted = self.rules.admit(&user);
            let no = |why: String| No::Told(format!("{shown} cannot decide: {why}"));
            approvers.push(admitted.map_err(no)?.person.id);
        }
        Ok(approvers)
    }

    /// One request, in one line.
    fn line(&self, request: &Request) -> String {
        let now = self.app.service.clock().now();
        let mut parts = vec![
            format!("`{}`", short_id(request.id)),
            format!("**{}**", request.status()),
            format!(
                "{} in `{}`",
                plain(request.permission_set.as_str()),
                request.account_id
            ),
            plain(request.requester_email().as_str()),
        ];
        match request
            .granted
            .filter(|_| request.status() == Status::Granted)
        {
            Some(period) if period.until > now => {
                parts.push(format!("{} left", period.until - now));
            }
            _ => parts.push(format!("{} minutes", request.duration.get())),
        }
        if let Some(why) = &request.reason {
            parts.push(short(why.as_str(), 100));
        }
        if let Some(trouble) = &request.trouble {
            parts.push(format!("({})", short(trouble.why.as_str(), 200)));
        }
        parts.join(" · ")
    }
}

pub(super) fn short_id(id: RequestId) -> String {
    id.to_string().chars().take(SHORT_ID).collect()
}

fn help() -> String {
    let lines = VERBS
        .iter()
        .map(|(verb, arguments, does)| match arguments.is_empty() {
            true => format!("- `/jit {verb}` – {does}"),
            false => format!("- `/jit {verb} {arguments}` – {does}"),
        });
    lines.collect::<Vec<_>>().join("\n")
}
