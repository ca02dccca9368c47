//! The commands about a channel: its accounts, their terms and their approvers.

use std::collections::BTreeMap;

use super::slash::Slash;
use crate::domain::{AccountId, Admin, BindTerms, Binding, ChatUser, MmUserId, PermissionSet};
use crate::mattermost::cards::text::{counted, plain};
use crate::mattermost::client::api::ApiError;
use crate::mattermost::{Mattermost, No};
use crate::service::Configure;

/// The number of approvers that a list names.
const SHOWN: usize = 5;
/// The number of accounts that a list reads at the same time.
const PAGE: usize = 200;

impl Mattermost {
    pub(super) async fn info(&self, slash: &Slash) -> Result<String, No> {
        let (mut lines, mut after) = (Vec::new(), None);
        loop {
            let (service, channel) = (&self.app.service, &slash.channel_id);
            let page = service.bindings(channel, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.account_id.clone());
            for binding in page.iter() {
                lines.push(self.terms(binding).await);
            }
        }
        match lines.is_empty() {
            true => Ok(nothing_bound(slash.is_direct)),
            false => Ok(lines.join("\n")),
        }
    }

    async fn terms(&self, binding: &Binding) -> String {
        let policy = self.app.service.policy();
        let lower: BTreeMap<&PermissionSet, u32> = policy.lower_limits(binding).collect();
        let sets = policy
            .allowed_sets(binding)
            .map(|set| match lower.get(set) {
                Some(most) => format!(
                    "{} (at most {})",
                    plain(set.as_str()),
                    counted(*most, "hour")
                ),
                None => plain(set.as_str()),
            });
        format!(
            "- {}: {} for up to {}; {}",
            self.names.shown(&binding.account_id),
            sets.collect::<Vec<_>>().join(", "),
            counted(policy.longest(binding), "hour"),
            self.deciders(binding).await,
        )
    }

    async fn deciders(&self, binding: &Binding) -> String {
        if binding.approvers.is_empty() {
            return "no approvers yet: `/jit approvers @name …`".into();
        }
        let mut names = Vec::new();
        for id in binding.approvers.iter().take(SHOWN) {
            let user = self.people.user(id).await;
            names.push(user.map_or_else(
                |_| "a user whom Mattermost does not show now".to_owned(),
                |user| plain(&user.username),
            ));
        }
        let more = match binding.approvers.len() > SHOWN {
            true => ", …",
            false => "",
        };
        let (needed, all) = (binding.approvals_required, binding.approvers.len());
        format!("approved by {needed} of {all} ({}{more})", names.join(", "))
    }

    pub(super) async fn bind(
        &self,
        slash: &Slash,
        who: &ChatUser,
        account_id: AccountId,
        terms: BindTerms,
    ) -> Result<String, No> {
        let (account, wanted) = (account_id.clone(), terms.max_request_hours);
        let bind = Configure::Bind { account_id, terms };
        let bound = self.configure(slash, who, bind).await?;
        let mut told = self.info(slash).await?;
        let binding = bound.iter().find(|binding| binding.account_id == account);
        if let (Some(wanted), Some(binding)) = (wanted, binding) {
            told.push_str(&self.lowered_limits(binding, wanted));
        }
        // The admin who binds the account can invite the bot.
        if let Err(ApiError::Forbidden(why)) = self.bot.join(&slash.channel_id).await {
            tracing::warn!(channel = %slash.channel_id, error = %why, "bot not added to the channel; a member must invite it");
            told.push_str("\n:warning: The bot of jit cannot join this channel: type `/invite @jit`, or jit cannot post cards here");
        }
        Ok(told)
    }

    /// H7: the lines about what the configuration of jit lowers.
    fn lowered_limits(&self, binding: &Binding, wanted: u32) -> String {
        let policy = self.app.service.policy();
        let (mut told, longest) = (String::new(), policy.longest(binding));
        let account = self.names.shown(&binding.account_id);
        if longest < wanted {
            told.push_str(&format!(
                "\n:warning: The longest time for {account} is {}, not {wanted}: the configuration of jit allows no more",
                counted(longest, "hour"),
            ));
        }
        let lower: Vec<(&PermissionSet, u32)> = policy.lower_limits(binding).collect();
        // One set that allows less is no surprise, unless the binding names it or has no other.
        let is_named = !binding.permission_sets.is_empty();
        if is_named || lower.len() == policy.allowed_sets(binding).count() {
            for (set, most) in lower {
                told.push_str(&format!(
                    "\n:warning: The longest time for {account} with {} is {}, not {wanted}: the configuration of this permission set allows no more",
                    plain(set.as_str()),
                    counted(most, "hour"),
                ));
            }
        }
        told
    }

    pub(super) async fn unbind(
        &self,
        slash: &Slash,
        who: &ChatUser,
        account_id: AccountId,
    ) -> Result<String, No> {
        let gone = format!(
            "{} is not bound to this channel any more.",
            self.names.shown(&account_id)
        );
        let unbind = Configure::Unbind { account_id };
        self.configure(slash, who, unbind).await?;
        Ok(format!("{gone}\n{}", self.info(slash).await?))
    }

    pub(super) async fn set_approvers(
        &self,
        slash: &Slash,
        who: &ChatUser,
        names: &[String],
    ) -> Result<String, No> {
        let approvers = self.approvers(slash, names).await?;
        let set = Configure::SetApprovers { approvers };
        self.configure(slash, who, set).await?;
        self.info(slash).await
    }

    /// Returns the bindings that were written, or the one that was removed.
    async fn configure(
        &self,
        slash: &Slash,
        who: &ChatUser,
        configure: Configure,
    ) -> Result<Vec<Binding>, No> {
        if !self.app.service.policy().is_admin_in_chat(who) {
            return Err(No::Message(
                "only admins may change bindings and approvers".into(),
            ));
        }
        if slash.is_direct {
            return Err(No::Message(
                "run this in a team channel, not in a direct message".into(),
            ));
        }
        let admin = Admin {
            person: Some(who.person.clone()),
            key_id: "mattermost".into(),
        };
        let (service, channel) = (&self.app.service, &slash.channel_id);
        Ok(service.configure(channel, &configure, &admin).await?)
    }

    /// Users can rename themselves: the id that Mattermost sends names the person.
    async fn approvers(&self, slash: &Slash, names: &[String]) -> Result<Vec<MmUserId>, No> {
        let mut approvers = Vec::new();
        for name in names {
            let mut found = slash.mentions.iter().filter(|(known, _)| known == name);
            let shown = plain(name);
            let nobody = || No::Message(format!("Mattermost knows no user {shown} in this team"));
            let (_, id) = found.next().ok_or_else(nobody)?;
            let user = self.people.user(id).await.map_err(|error| match error {
                ApiError::NotThere(_) | ApiError::Refused(_) => nobody(),
                ApiError::NotAllowed(_) | ApiError::Forbidden(_) | ApiError::NoAnswer(_) => {
                    tracing::error!(user_id = %id, %error, "approver not looked up at Mattermost; the command is refused");
                    No::Message(format!(
                        "jit cannot ask Mattermost about {shown} just now; nothing was changed, try again"
                    ))
                }
            })?;
            let admitted = self.rules.admit(&user);
            let no = |why: String| No::Message(format!("{shown} cannot be an approver: {why}"));
            approvers.push(admitted.map_err(no)?.person.id);
        }
        Ok(approvers)
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
