//! The bindings of a channel according to its history.

use std::collections::BTreeMap;

use super::{Comparison, FactMismatch, Moment, detail, moments};
use crate::domain::{AccountId, Binding, Event, EventKind, MmUserId, PermissionSet};

/// An older jit did not name the accounts of an APPROVERS_SET, and changed at most this many
/// bindings with one event.
const CHANGED_AT_ONCE: usize = 48;

/// Returns every fact that the bindings of a channel and its history tell differently.
pub fn compare_bindings(bindings: &[Binding], events: &[Event]) -> Vec<FactMismatch> {
    let mut told = replay(events);
    let mut found = Vec::new();
    for binding in bindings {
        let mut comparison = Comparison::of(format!("the binding of {}", binding.account_id));
        match told.remove(binding.account_id.as_str()) {
            Some(facts) => compare_one(&mut comparison, binding, &facts),
            None => comparison.same("channel_id", Some(&binding.channel_id), None::<&str>),
        }
        found.append(&mut comparison.found);
    }
    for (account, facts) in told {
        let mut comparison = Comparison::of(format!("the binding of {account}"));
        comparison.same("channel_id", None::<&str>, Some(facts.channel_id));
        found.append(&mut comparison.found);
    }
    found
}

#[derive(Clone)]
struct BindingFacts<'e> {
    channel_id: &'e str,
    approvers: &'e str,
    approvals_required: &'e str,
    allow_self_approval: &'e str,
    max_request_hours: Option<&'e str>,
    session_duration_minutes: &'e str,
    permission_sets: &'e str,
    updated_at: Moment,
    /// The number of changes since it was bound; absent if an older jit did not record it.
    revision: Option<u64>,
    bound_seq: u64,
}

fn replay(events: &[Event]) -> BTreeMap<&str, BindingFacts<'_>> {
    let mut all: BTreeMap<&str, BindingFacts<'_>> = BTreeMap::new();
    for (at, event) in moments(events) {
        let account = event.account_id.as_ref().map(AccountId::as_str);
        match event.event_type {
            EventKind::Bound => {
                let Some(account) = account else { continue };
                let mut facts = BindingFacts::bound(&all, at, event);
                facts.change(at, event);
                all.insert(account, facts);
            }
            EventKind::BindingChanged => {
                if let Some(facts) = account.and_then(|account| all.get_mut(account)) {
                    facts.change(at, event);
                }
            }
            EventKind::ApproversSet => set_approvers(&mut all, at, event),
            EventKind::Unbound => {
                if let Some(account) = account {
                    all.remove(account);
                }
            }
            EventKind::Requested
            | EventKind::ApprovalRecorded
            | EventKind::Approved
            | EventKind::Denied
            | EventKind::Cancelled
            | EventKind::Assigning
            | EventKind::Granted
            | EventKind::ExtensionRequested
            | EventKind::Extended
            | EventKind::ExtensionDenied
            | EventKind::EndAnnounced
            | EventKind::RevokeRequested
            | EventKind::ExpiryStarted
            | EventKind::RollbackStarted
            | EventKind::RemovalFailing
            | EventKind::StrayAccessFound
            | EventKind::StrayAccessRemoved
            | EventKind::SessionsDenied
            | EventKind::SessionsEnded
            | EventKind::SessionsNotEnded
            | EventKind::SessionDenyLifted
            | EventKind::CleanedUp
            | EventKind::Revoked
            | EventKind::Expired
            | EventKind::Error
            | EventKind::NoticeParked
            | EventKind::ForgeryRefused => {}
        }
    }
    all
}

impl<'e> BindingFacts<'e> {
    /// A new binding starts with the approvers of the channel.
    fn bound(siblings: &BTreeMap<&'e str, Self>, at: Moment, event: &'e Event) -> Self {
        let sibling = siblings.values().next();
        Self {
            channel_id: event.channel_id.as_str(),
            approvers: sibling.map_or("", |sibling| sibling.approvers),
            approvals_required: "1",
            allow_self_approval: "false",
            max_request_hours: None,
            session_duration_minutes: "60",
            permission_sets: "",
            updated_at: at,
            revision: Some(0),
            bound_seq: event.seq,
        }
    }

    /// A change keeps the terms that it does not mention.
    fn change(&mut self, at: Moment, event: &'e Event) {
        let term = |name, before| detail(event, name).unwrap_or(before);
        self.approvals_required = term("approvals_required", self.approvals_required);
        self.allow_self_approval = term("allow_self_approval", self.allow_self_approval);
        self.max_request_hours = detail(event, "max_request_hours").or(self.max_request_hours);
        let minutes = self.session_duration_minutes;
        self.session_duration_minutes = term("session_duration_minutes", minutes);
        self.permission_sets = term("permission_sets", self.permission_sets);
        self.changed(at);
    }

    fn changed(&mut self, at: Moment) {
        self.updated_at = at;
        self.revision = self.revision.map(|before| before + 1);
    }
}

fn set_approvers<'e>(all: &mut BTreeMap<&'e str, BindingFacts<'e>>, at: Moment, event: &'e Event) {
    let account = event.account_id.as_ref().map(AccountId::as_str);
    let named = detail(event, "accounts").or(account);
    let named: Option<Vec<&str>> = named.map(|accounts| accounts.split(',').collect());
    let approvers = detail(event, "approvers").unwrap_or_default();
    let is_known = named.is_some() || all.len() <= CHANGED_AT_ONCE;
    for (account, facts) in all {
        if named.as_ref().is_none_or(|named| named.contains(account)) {
            facts.approvers = approvers;
            facts.changed(at);
            facts.revision = facts.revision.filter(|_| is_known);
        }
    }
}

fn compare_one(comparison: &mut Comparison, binding: &Binding, facts: &BindingFacts<'_>) {
    let approvers: Vec<&str> = binding.approvers.iter().map(MmUserId::as_str).collect();
    let sets: Vec<&str> = binding
        .permission_sets
        .iter()
        .map(PermissionSet::as_str)
        .collect();
    let channel = Some(&binding.channel_id);
    comparison.same("channel_id", channel, Some(facts.channel_id));
    comparison.same(
        "approvers",
        Some(approvers.join(",")),
        Some(facts.approvers),
    );
    let required = Some(binding.approvals_required);
    comparison.same(
        "approvals_required",
        required,
        Some(facts.approvals_required),
    );
    let own = Some(binding.allow_self_approval);
    comparison.same("allow_self_approval", own, Some(facts.allow_self_approval));
    let hours = binding.max_request_hours;
    comparison.same("max_request_hours", hours, facts.max_request_hours);
    let minutes = Some(binding.session_duration_minutes);
    let told = Some(facts.session_duration_minutes);
    comparison.same("session_duration_minutes", minutes, told);
    comparison.same(
        "permission_sets",
        Some(sets.join(",")),
        Some(facts.permission_sets),
    );
    if let Some(revision) = facts.revision {
        comparison.same("revision", Some(binding.revision), Some(revision));
        comparison.same_time(
            "updated_at",
            Some(binding.updated_at),
            Some(facts.updated_at),
        );
    }
    // An older jit stored no number of the BOUND event.
    if binding.bound_seq > 0 {
        let told = Some(facts.bound_seq);
        comparison.same("bound_seq", Some(binding.bound_seq), told);
    }
}
