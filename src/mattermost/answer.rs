//! The answers to `/jit` commands; only the person who typed can see them.

use std::sync::Arc;

use super::api::ApiError;
use super::slash::Slash;
use super::text::{plain, short, short_id};
use super::who::Who;
use super::words::{ChatCommand, Known, VERBS, understand};
use super::{Answer, Mattermost};

use crate::domain::{
    Admin, Ask, Binding, Command, Draft, Millis, Minutes, MmUserId, PermissionSet, Request,
    RequestId, Status,
};
use crate::http::reply::Problem;
use crate::service::{Configure, Idempotency, Revoked, ServiceError, Ticket};
use crate::store::{Filter, StoreError};

/// How long the answer waits for a removal; then the removal continues without it.
const REVOKE_PATIENCE: Millis = Millis(2_000);
/// The duration of a request without a time.
const AN_HOUR: i64 = 60;
/// The number of approvers that a list names.
const SHOWN: usize = 5;

/// Why a command has no normal answer.
pub(super) enum No {
    /// A message for the person, ready to show.
    Told(String),
    /// jit has processed the same click already.
    Taken,
    Problem(Problem),
}

impl No {
    pub fn told(self) -> Answer {
        Answer::Told(match self {
            Self::Told(why) => format!(":warning: {why}"),
            Self::Taken => "jit has processed this already.".into(),
            // `Problem` decides which part of a failure a caller may see.
            Self::Problem(problem) => format!(":warning: {}", plain(&problem.message)),
        })
    }
}

impl From<ServiceError> for No {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Store(StoreError::Replayed) => Self::Taken,
            error => Self::Problem(error.into()),
        }
    }
}

impl From<StoreError> for No {
    fn from(error: StoreError) -> Self {
        ServiceError::from(error).into()
    }
}

impl Mattermost {
    pub(super) async fn answer(&self, slash: &Slash) -> Answer {
        self.try_answer(slash).await.unwrap_or_else(No::told)
    }

    async fn try_answer(&self, slash: &Slash) -> Result<Answer, No> {
        let sets: Vec<&str> = self
            .app
            .service
            .policy()
            .permission_sets
            .keys()
            .map(PermissionSet::as_str)
            .collect();
        let known = Known {
            sets: &sets,
            names: &self.names,
        };
        let said = understand(&slash.text, &known).map_err(No::Told)?;
        if said == ChatCommand::Help {
            return Ok(Answer::Told(help()));
        }
        let who = self.who(&slash.user_id).await?;
        match said {
            ChatCommand::Ask => self.open_dialog(slash).await,
            said => self.carry_out(slash, &who, said).await.map(Answer::Told),
        }
    }

    async fn carry_out(&self, slash: &Slash, who: &Who, said: ChatCommand) -> Result<String, No> {
        match said {
            ChatCommand::Help | ChatCommand::Ask => Ok(help()),
            ChatCommand::Request {
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
            ChatCommand::Approve { id } => {
                self.ask(slash, who, &id, Ask::Approve, "Approved").await
            }
            ChatCommand::Deny { id, why } => {
                let ask = Ask::Deny { reason: why };
                self.ask(slash, who, &id, ask, "Denied").await
            }
            ChatCommand::Cancel { id } => self.ask(slash, who, &id, Ask::Cancel, "Cancelled").await,
            ChatCommand::Extend { id, time } => {
                let ask = Ask::Extend { minutes: time };
                self.ask(slash, who, &id, ask, "Extension requested").await
            }
            ChatCommand::Revoke { id, why } => {
                let request = self.find(slash, who, &id).await?;
                let ask = Ask::Revoke { reason: why };
                self.take_away(who, &request, ask, None).await
            }
            ChatCommand::Status { id: Some(id) } => {
                let request = self.find(slash, who, &id).await?;
                let line = self.line(&request);
                Ok(match &request.card {
                    Some(post) => {
                        format!("{line}\n[Card and history]({})", self.cards.link(post))
                    }
                    None => line,
                })
            }
            ChatCommand::Status { id: None } => {
                let filter = Filter {
                    requester_email: Some(who.person.email.clone()),
                    ..Filter::default()
                };
                self.list_open(filter, "You have no open requests.").await
            }
            ChatCommand::List => {
                let filter = Filter {
                    channel_id: Some(slash.channel_id.clone()),
                    ..Filter::default()
                };
                self.list_open(filter, "This channel has no open requests.")
                    .await
            }
            ChatCommand::Info => self.info(slash).await,
            ChatCommand::Bind { account, terms } => {
                let bind = Configure::Bind {
                    account_id: account,
                    terms,
                };
                let mut told = self.configure(slash, who, bind).await?;
                // The admin who binds the account can invite the bot.
                if let Err(ApiError::Forbidden(why)) = self.bot.join(&slash.channel_id).await {
                    tracing::warn!(channel = %slash.channel_id, %why, "the bot is not in the channel");
                    told.push_str("\n:warning: The bot of jit cannot join this channel: type `/invite @jit`, or jit cannot post cards here");
                }
                Ok(told)
            }
            ChatCommand::Unbind { account } => {
                let unbind = Configure::Unbind {
                    account_id: account,
                };
                self.configure(slash, who, unbind).await
            }
            ChatCommand::Approvers { names } => {
                let approvers = self.approvers(slash, &names).await?;
                let set = Configure::SetApprovers { approvers };
                self.configure(slash, who, set).await
            }
        }
    }

    /// Looks the person up in Mattermost by the user id.
    pub(super) async fn who(&self, id: &MmUserId) -> Result<Who, No> {
        let user = self.people.user(id).await.map_err(|error| {
            tracing::error!(%error, "jit could not look up a user");
            No::Told(match error {
                ApiError::NotThere(_) | ApiError::Refused(_) => {
                    "Mattermost does not know you".into()
                }
                _ => {
                    "jit cannot ask Mattermost who you are just now; nothing was changed, try again"
                        .into()
                }
            })
        })?;
        self.rules.admit(&user).map_err(No::Told)
    }

    /// One request for each command that a user sent.
    async fn request(&self, slash: &Slash, draft: Draft) -> Result<String, No> {
        let once = Idempotency {
            key: format!("mattermost:{}", slash.trigger_id),
            fingerprint: slash.text.clone(),
        };
        let request = self.open(draft, once).await?;
        let approvers = self.app.service.binding(&request.account_id).await?;
        let needed = approvers.map_or(1, |binding| binding.approvals_required);
        let of = match needed {
            1 => "one approver".to_owned(),
            many => format!("{many} approvers"),
        };
        let id = short_id(request.id);
        Ok(format!(
            "{}\nThe request waits for {of}: `/jit approve {id}`",
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
        let handled = self.handle(request.id, who, ask, None).await?;
        Ok(format!("{done}.\n{}", self.line(&handled)))
    }

    pub(super) async fn open(&self, draft: Draft, once: Idempotency) -> Result<Request, No> {
        Ok(self.app.service.open(draft, Some(once), None).await?)
    }

    /// Allowed to the requester, the approvers, and admins.
    pub(super) async fn take_away(
        &self,
        who: &Who,
        request: &Request,
        ask: Ask,
        ticket: Option<Arc<Ticket>>,
    ) -> Result<String, No> {
        if !who.is_admin
            && !who.person.is(&request.requester)
            && !self.decides(who, request).await?
        {
            return Err(No::Told(
                "only the requester, the approvers and admins may revoke this access".into(),
            ));
        }
        let service = &self.app.service;
        let deadline = service.clock().uptime() + REVOKE_PATIENCE;
        self.handle(request.id, who, ask, ticket).await?;
        // P6: the answer says what AWS shows.
        Ok(
            match Revoked::of(service.follow(request.id, deadline).await?) {
                Revoked::Gone(request) => format!(
                    "Revoked: AWS shows that the access is gone.\n{}",
                    self.line(&request)
                ),
                Revoked::Going(request) => format!(
                    "AWS has not confirmed the removal yet; jit continues until AWS shows that the access is gone. See `/jit status {}`.\n{}",
                    short_id(request.id),
                    self.line(&request)
                ),
                Revoked::Not(request) => {
                    format!(
                        ":warning: The request did not end as REVOKED.\n{}",
                        self.line(&request)
                    )
                }
            },
        )
    }

    pub(super) async fn handle(
        &self,
        id: RequestId,
        who: &Who,
        ask: Ask,
        ticket: Option<Arc<Ticket>>,
    ) -> Result<Request, No> {
        let by = who.person.clone();
        let command = Command::Asked { by, ask };
        let service = &self.app.service;
        let handled = service.handle_once(id, command, ticket.as_deref()).await?;
        Ok(handled.request)
    }

    async fn info(&self, slash: &Slash) -> Result<String, No> {
        let bindings = self.app.service.bindings(&slash.channel_id).await?;
        if bindings.is_empty() {
            return Ok(nothing_bound(slash.is_direct));
        }
        let policy = self.app.service.policy();
        let mut lines = Vec::new();
        for binding in bindings.iter() {
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
            lines.push(format!(
                "- {}: {} for up to {} hours; {}",
                self.names.shown(&binding.account_id),
                plain(&sets.join(", ")),
                policy.longest(binding),
                self.deciders(binding).await,
            ));
        }
        Ok(lines.join("\n"))
    }

    async fn deciders(&self, binding: &Binding) -> String {
        if binding.approvers.is_empty() {
            return "no approvers yet: `/jit approvers @name …`".into();
        }
        let mut names = Vec::new();
        for id in binding.approvers.iter().take(SHOWN) {
            // An approver whom Mattermost does not show now is shown by id.
            let user = self.people.user(id).await;
            names.push(user.map_or_else(|_| plain(id.as_str()), |user| plain(&user.username)));
        }
        let more = match binding.approvers.len() > SHOWN {
            true => ", …",
            false => "",
        };
        let (needed, all) = (binding.approvals_required, binding.approvers.len());
        format!("approved by {needed} of {all} ({}{more})", names.join(", "))
    }

    async fn configure(
        &self,
        slash: &Slash,
        who: &Who,
        configure: Configure,
    ) -> Result<String, No> {
        if !who.is_admin {
            return Err(No::Told(
                "only admins may change bindings and approvers".into(),
            ));
        }
        if slash.is_direct {
            return Err(No::Told(
                "run this in a team channel, not in a direct message".into(),
            ));
        }
        let admin = Admin {
            person: Some(who.person.clone()),
            key_id: "mattermost".into(),
        };
        let (service, channel) = (&self.app.service, &slash.channel_id);
        service.configure(channel, &configure, &admin).await?;
        self.info(slash).await
    }

    /// Users can rename themselves: the id that Mattermost sends names the person.
    async fn approvers(&self, slash: &Slash, names: &[String]) -> Result<Vec<MmUserId>, No> {
        let mut approvers = Vec::new();
        for name in names {
            let mut found = slash.mentions.iter().filter(|(known, _)| known == name);
            let shown = plain(name);
            let nobody = || No::Told(format!("Mattermost knows no user {shown} in this team"));
            let (_, id) = found.next().ok_or_else(nobody)?;
            let user = self.people.user(id).await.map_err(|_| nobody())?;
            let admitted = self.rules.admit(&user);
            let no = |why: String| No::Told(format!("{shown} cannot be an approver: {why}"));
            approvers.push(admitted.map_err(no)?.person.id);
        }
        Ok(approvers)
    }

    /// One request, in one line.
    pub(super) fn line(&self, request: &Request) -> String {
        let now = self.app.service.clock().now();
        let mut parts = vec![
            format!("`{}`", short_id(request.id)),
            format!("**{}**", request.status()),
            format!(
                "{} in {}",
                plain(request.permission_set.as_str()),
                self.names.shown(&request.account_id)
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

pub(super) fn nothing_bound(is_direct: bool) -> String {
    match is_direct {
        true => "Run this in a team channel, not in a direct message.".into(),
        false => {
            "No account is bound to this channel; an admin can bind one: `/jit bind 123456789012`"
                .into()
        }
    }
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
