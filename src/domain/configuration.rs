//! Changes to the configuration of a channel: bind, set approvers, unbind.

use std::collections::{BTreeMap, BTreeSet};

use super::audit::EventDraft;
use super::{
    AccountId, AuditKey, BindTerms, Binding, Channel, Event, EventKind, MmUserId, Person, Policy,
    Refusal, Timestamp, limits,
};

/// The author of a change of the configuration; the plugin does not always name a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The person who makes the change; absent if the signed call names none.
    pub person: Option<Person>,
    /// The key that signed the call.
    pub key_id: String,
}

/// The writes of a commit that changes the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebinding {
    /// The channel after the change, with the new end of its audit chain.
    pub channel: Channel,
    /// The bindings that are written.
    pub bindings: Vec<Binding>,
    /// The binding that is removed.
    pub unbound: Option<Binding>,
    /// The audit events that record the change.
    pub events: Vec<Event>,
}

/// A change to a channel's configuration.
pub struct ConfigurationChange<'a> {
    /// The channel as stored, or [`Channel::unknown`] if the store has none.
    pub channel: Channel,
    /// The author of the change; the policy decides whether this person may make it.
    pub admin: &'a Admin,
    /// The configured rules that the change must follow.
    pub policy: &'a Policy,
    /// The time of the change, by the clock of the service.
    pub now: Timestamp,
}

impl ConfigurationChange<'_> {
    /// Binds an account to the channel, or changes the terms of its binding. `siblings` are the
    /// channel's other bindings: a new binding starts with their approvers.
    pub fn bind(
        self,
        current: Option<Binding>,
        siblings: &[Binding],
        account_id: AccountId,
        terms: BindTerms,
    ) -> Result<Rebinding, Refusal> {
        self.policy.check_admin(self.admin.person.as_ref())?;
        let terms = terms.each_set_once();
        limits::check_sets(&terms)?;
        if current.is_none() {
            limits::check_accounts(siblings.len(), &self.channel.id)?;
        }
        if let Some(elsewhere) = current.as_ref().filter(|b| b.channel_id != self.channel.id) {
            let channel_id = elsewhere.channel_id.clone();
            return Err(Refusal::BoundElsewhere {
                account_id,
                channel_id,
            });
        }
        for set in terms.permission_sets.iter().flatten() {
            self.policy.check_known(set)?;
        }
        let details = terms.details();
        let kind = match current {
            Some(_) => EventKind::BindingChanged,
            None => EventKind::Bound,
        };
        let before = current.unwrap_or_else(|| Binding {
            account_id,
            channel_id: self.channel.id.clone(),
            approvers: siblings
                .first()
                .map(|b| b.approvers.clone())
                .unwrap_or_default(),
            approvals_required: 1,
            allow_self_approval: false,
            max_request_hours: None,
            session_duration_minutes: 60,
            permission_sets: Vec::new(),
            updated_at: self.now,
            revision: 0,
            bound_seq: self.channel.chain.version + 1,
        });
        let binding = before.with(terms, self.now);
        binding.check_quorum()?;
        Ok(self.recorded(kind, vec![binding], None, details))
    }

    /// Sets the approvers of every account of the channel.
    pub fn set_approvers(
        self,
        bindings: Vec<Binding>,
        approvers: &[MmUserId],
    ) -> Result<Rebinding, Refusal> {
        self.policy.check_admin(self.admin.person.as_ref())?;
        if bindings.is_empty() {
            return Err(Refusal::NothingBound {
                channel_id: self.channel.id,
            });
        }
        let mut seen = BTreeSet::new();
        let each = approvers.iter().filter(|approver| seen.insert(*approver));
        let named: Vec<MmUserId> = each.cloned().collect();
        limits::check_approvers(named.len())?;
        let words: Vec<&str> = named.iter().map(MmUserId::as_str).collect();
        let mut details = BTreeMap::from([("approvers".to_owned(), words.join(","))]);
        // A change of many bindings is made in several commits, each with an event of its own.
        if bindings.len() > 1 {
            let accounts: Vec<&str> = bindings.iter().map(|b| b.account_id.as_str()).collect();
            details.insert("accounts".to_owned(), accounts.join(","));
        }
        let bindings: Vec<Binding> = bindings
            .into_iter()
            .map(|binding| Binding {
                approvers: named.clone(),
                updated_at: self.now,
                revision: binding.revision + 1,
                ..binding
            })
            .collect();
        bindings.iter().try_for_each(Binding::check_quorum)?;
        Ok(self.recorded(EventKind::ApproversSet, bindings, None, details))
    }

    /// Unbinds an account from the channel. The caller ends its requests that have not begun.
    pub fn unbind(
        self,
        current: Option<Binding>,
        account_id: &AccountId,
    ) -> Result<Rebinding, Refusal> {
        self.policy.check_admin(self.admin.person.as_ref())?;
        let Some(binding) = current.filter(|b| b.channel_id == self.channel.id) else {
            return Err(Refusal::NothingToUnbind {
                account_id: account_id.clone(),
                channel_id: self.channel.id,
            });
        };
        Ok(self.recorded(
            EventKind::Unbound,
            Vec::new(),
            Some(binding),
            BTreeMap::new(),
        ))
    }

    fn recorded(
        mut self,
        kind: EventKind,
        bindings: Vec<Binding>,
        unbound: Option<Binding>,
        mut details: BTreeMap<String, String>,
    ) -> Rebinding {
        details.insert("key_id".into(), self.admin.key_id.clone());
        let about = match (&unbound, bindings.as_slice()) {
            (Some(binding), _) => Some(&binding.account_id),
            (None, [binding]) => Some(&binding.account_id),
            (None, [] | [_, ..]) => None,
        };
        let entry = EventDraft {
            key: AuditKey::Config(self.channel.id.clone()),
            kind,
            account_id: about,
            channel_id: &self.channel.id,
            actor: self.admin.person.as_ref(),
            status: None,
            details,
        };
        let mut event = self.channel.chain.append(entry, self.now);
        // B4: the plugin names no person.
        if self.admin.person.is_none() {
            event.act_as_key(&self.admin.key_id);
            self.channel.chain.head = event.chained_to(event.prev_hash);
        }
        self.channel.revision += 1;
        Rebinding {
            channel: self.channel,
            bindings,
            unbound,
            events: vec![event],
        }
    }
}
