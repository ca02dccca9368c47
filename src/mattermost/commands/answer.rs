//! The answers to `/jit` commands; only the person who typed can see them.

use super::parts::Known;
use super::slash::Slash;
use super::words::{ChatCommand, VERBS, understand};
use crate::domain::{Ask, ChatUser, PermissionSet};
use crate::mattermost::{Answer, Mattermost, No};
use crate::store::Filter;

impl Mattermost {
    pub(in crate::mattermost) async fn answer(&self, slash: &Slash) -> Answer {
        self.try_answer(slash).await.unwrap_or_else(No::into_answer)
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
        let said = understand(&slash.text, &known).map_err(No::Message)?;
        if said == ChatCommand::Help {
            return Ok(Answer::Text(help()));
        }
        let who = self.who(&slash.user_id).await?;
        match said {
            ChatCommand::Ask => self.open_dialog(slash).await,
            said => self.carry_out(slash, &who, said).await.map(Answer::Text),
        }
    }

    async fn carry_out(
        &self,
        slash: &Slash,
        who: &ChatUser,
        said: ChatCommand,
    ) -> Result<String, No> {
        match said {
            ChatCommand::Help | ChatCommand::Ask => Ok(help()),
            ChatCommand::Request(typed) => self.request(slash, who, typed).await,
            ChatCommand::Approve { id } => {
                self.command_by_id(slash, who, &id, Ask::Approve, "Approved")
                    .await
            }
            ChatCommand::Deny { id, why } => {
                let ask = Ask::Deny { reason: why };
                self.command_by_id(slash, who, &id, ask, "Denied").await
            }
            ChatCommand::Cancel { id } => {
                self.command_by_id(slash, who, &id, Ask::Cancel, "Cancelled")
                    .await
            }
            ChatCommand::Extend { id, time } => {
                let ask = Ask::Extend { minutes: time };
                self.command_by_id(slash, who, &id, ask, "Extension requested")
                    .await
            }
            ChatCommand::Revoke { id, why } => {
                let request = self.find(slash, who, &id).await?;
                self.revoke_access(who, &request, why, None).await
            }
            ChatCommand::Status { id: Some(id) } => self.status(slash, who, &id).await,
            ChatCommand::Status { id: None } => {
                let filter = Filter {
                    requester_email: Some(who.person.email.clone()),
                    ..Filter::default()
                };
                let nothing = "You have no open requests.";
                self.list_open(slash, who, filter, nothing).await
            }
            ChatCommand::List => self.list(slash, who).await,
            ChatCommand::Info => self.info(slash).await,
            ChatCommand::Bind { account, terms } => self.bind(slash, who, account, terms).await,
            ChatCommand::Unbind { account } => self.unbind(slash, who, account).await,
            ChatCommand::Approvers { names } => self.set_approvers(slash, who, &names).await,
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
