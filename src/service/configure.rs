//! Changes to the configuration of channels: bindings and approvers.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::{MOST_TRIES, Origin, PAGE, Service, ServiceError, too_many_conflicts};
use crate::domain::{
    self, AccountId, Admin, BindTerms, Binding, Channel, ChannelId, Command, ConfigurationChange,
    MmUserId, Rebinding, RequestId, Status,
};
use crate::store::{Commit, Cursor, Filter, StoreError, Write};

/// One commit changes at most this many bindings: a store limits the number of records in a
/// commit.
const AT_ONCE: usize = 48;

/// A6: a change ends this many requests at the same time. A store writes many of them at once,
/// and other calls still get their turn between two of these steps.
const CHANGED_AT_ONCE: usize = 32;

/// A command that changes the configuration of a channel.
#[derive(Clone, Debug)]
pub enum Configure {
    /// Binds the account to the channel, or changes the terms of its binding.
    Bind {
        account_id: AccountId,
        /// Only the terms that the command mentions.
        terms: BindTerms,
    },
    /// Sets the approvers of all accounts of the channel.
    SetApprovers { approvers: Vec<MmUserId> },
    /// Removes the binding of the account.
    Unbind { account_id: AccountId },
}

impl Service {
    /// Changes a channel's configuration; returns the bindings that were written, or the one that
    /// was removed. A change of more than `AT_ONCE` bindings is made in several commits, each
    /// with its own audit event.
    pub async fn configure(
        &self,
        channel_id: &ChannelId,
        configure: &Configure,
        admin: &Admin,
    ) -> Result<Vec<Binding>, ServiceError> {
        let mut done: Vec<Binding> = Vec::new();
        loop {
            // The position is an account, not a count: other accounts may be unbound between two
            // steps.
            let after = done.last().map(|binding| binding.account_id.clone());
            let step = self.configure_some(channel_id, configure, admin, after.as_ref());
            let written = step.await?;
            let is_last = written.len() < AT_ONCE;
            done.extend(written);
            if is_last {
                break;
            }
        }
        match configure {
            Configure::Bind { .. } | Configure::SetApprovers { .. } => {
                self.end_withdrawn(channel_id, admin).await?;
            }
            // It ended them before it wrote.
            Configure::Unbind { .. } => {}
        }
        Ok(done)
    }

    /// B1: ends the approved requests that may not begin by the rules that were just written.
    async fn end_withdrawn(
        &self,
        channel_id: &ChannelId,
        admin: &Admin,
    ) -> Result<(), ServiceError> {
        let approved = Filter {
            channel_id: Some(channel_id.clone()),
            status: Some(Status::Approved),
            ..Filter::default()
        };
        let by = admin.person.clone();
        self.each(&approved, admin, &Command::RulesChanged { by })
            .await
    }

    /// Records a forgery in the history of its channel. A channel without bindings has no
    /// history, and nothing is recorded.
    pub async fn note_forgery(
        &self,
        channel_id: &ChannelId,
        said: &BTreeMap<String, String>,
    ) -> Result<(), ServiceError> {
        for _ in 0..MOST_TRIES {
            let Some(channel) = self.store.channel(channel_id).await? else {
                return Ok(());
            };
            let (channel, event) = channel.refused(said.clone(), self.clock.now());
            let commit = Commit::of([Write::Channel(channel), Write::Event(event)]);
            match self.commit(commit).await {
                Err(StoreError::Conflict(_)) => {}
                done => return Ok(done?),
            }
        }
        Err(too_many_conflicts())
    }

    async fn configure_some(
        &self,
        channel_id: &ChannelId,
        configure: &Configure,
        admin: &Admin,
        after: Option<&AccountId>,
    ) -> Result<Vec<Binding>, ServiceError> {
        for _ in 0..MOST_TRIES {
            let rebinding = self.rebinding(channel_id, configure, admin, after).await?;
            let Some(rebinding) = rebinding else {
                return Ok(Vec::new());
            };
            let (unbound, bindings) = (rebinding.unbound.clone(), rebinding.bindings.clone());
            let commit = Commit::of(Write::of_rebinding(rebinding));
            match self.commit(commit).await {
                Ok(()) => {}
                Err(StoreError::Conflict(_)) => continue,
                Err(error) => return Err(error.into()),
            }
            return match unbound {
                Some(binding) => {
                    // Ends the requests that were opened meanwhile; without the binding no
                    // more can be opened.
                    self.end_unbegun(channel_id, &binding.account_id, admin)
                        .await?;
                    Ok(vec![binding])
                }
                None => Ok(bindings),
            };
        }
        Err(too_many_conflicts())
    }

    /// The next commit; none if no account comes after the last one.
    async fn rebinding(
        &self,
        channel_id: &ChannelId,
        configure: &Configure,
        admin: &Admin,
        after: Option<&AccountId>,
    ) -> Result<Option<Rebinding>, ServiceError> {
        let stored = self.store.channel(channel_id).await?;
        let channel = stored.unwrap_or_else(|| Channel::unknown(channel_id.clone()));
        let change = ConfigurationChange {
            channel,
            admin,
            policy: &self.policy,
            now: self.clock.now(),
        };
        Ok(Some(match configure {
            Configure::Bind { account_id, terms } => {
                let current = self.store.binding(account_id).await?;
                let siblings = self.store.bindings(channel_id).await?;
                change.bind(current, &siblings, account_id.clone(), terms.clone())?
            }
            Configure::SetApprovers { approvers } => {
                let mut left = self.store.bindings(channel_id).await?.items;
                left.retain(|binding| after.is_none_or(|after| binding.account_id > *after));
                if left.is_empty() && after.is_some() {
                    return Ok(None);
                }
                left.truncate(AT_ONCE);
                change.set_approvers(left, approvers)?
            }
            Configure::Unbind { account_id } => {
                let current = self.store.binding(account_id).await?;
                let rebinding = change.unbind(current, account_id)?;
                // Before the unbind, so that after a crash in between the unbind can be repeated.
                self.end_unbegun(channel_id, account_id, admin).await?;
                rebinding
            }
        }))
    }

    async fn end_unbegun(
        &self,
        channel_id: &ChannelId,
        account_id: &AccountId,
        admin: &Admin,
    ) -> Result<(), ServiceError> {
        // B1: neither of them has begun.
        for status in [Status::Pending, Status::Approved] {
            let filter = Filter {
                channel_id: Some(channel_id.clone()),
                account_id: Some(account_id.clone()),
                status: Some(status),
                ..Filter::default()
            };
            let by = admin.person.clone();
            self.each(&filter, admin, &Command::Unbound { by }).await?;
        }
        Ok(())
    }

    /// A request that the command is not about refuses it.
    async fn change(
        &self,
        id: RequestId,
        admin: &Admin,
        command: Command,
    ) -> Result<(), ServiceError> {
        // The configuration change spent the nonce of the call.
        let origin = Origin {
            right: None,
            key_id: Some(&admin.key_id),
            acting_key: admin.person.is_none().then_some(admin.key_id.as_str()),
        };
        match self.handle_signed(id, command, origin).await {
            Ok(_) | Err(ServiceError::Refused(domain::Refusal::WrongState { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the command to each request that matches, in steps.
    async fn each(
        &self,
        filter: &Filter,
        admin: &Admin,
        command: &Command,
    ) -> Result<(), ServiceError> {
        let mut after = None;
        loop {
            let page = self.store.list(filter, after.as_ref(), PAGE).await?;
            let Some(last) = page.items.last() else {
                return Ok(());
            };
            after = Some(Cursor::from(last));
            for some in page.items.chunks(CHANGED_AT_ONCE) {
                let changes = some
                    .iter()
                    .map(|one| self.change(one.id, admin, command.clone()));
                try_join_all(changes).await?;
            }
        }
    }
}
