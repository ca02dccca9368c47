//! The policy: who may ask, approve and revoke, and for how long.
//!
//! The stricter of two rules applies. Without a rule, the answer is no. The end of access is
//! the exception: no rule about approvers, sets or durations refuses a revoke.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Binding, Draft, Millis, Minutes, PermissionSet, Person, Refusal, Request, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub permission_sets: BTreeMap<PermissionSet, SetRule>,
    pub default_permission_set: PermissionSet,
    /// How long a request may wait for its approvals.
    pub pending_lifetime: Millis,
    pub max_request_hours: u32,
    pub extension: ExtensionRule,
    /// How long jit retries a grant before it gives the grant up and rolls it back.
    pub grant_patience: Millis,
    /// The admins, by user id or e-mail: they may change bindings and revoke every grant. Empty:
    /// the scope of the key is enough for both.
    pub admins: BTreeSet<String>,
    pub end_sessions: EndSessions,
    /// How long before the end of a grant jit reminds the requester; none if jit sends no
    /// reminders.
    pub remind_before: Option<Millis>,
}

/// The rules for one permission set, in addition to the rules for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetRule {
    pub max_request_hours: Option<u32>,
}

/// What jit does about old credentials, which stay valid for up to the permission set's
/// session duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndSessions {
    #[default]
    Off,
    /// A deny statement in the permission set's inline policy denies them everything.
    PermissionSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtensionRule {
    NeedsApproval,
    Granted,
}

impl Policy {
    /// The permission set of a draft, if the binding allows it.
    pub(super) fn permission_set(
        &self,
        draft: &Draft,
        binding: &Binding,
    ) -> Result<PermissionSet, Refusal> {
        let wanted = draft.permission_set.as_ref();
        let set = match (wanted, binding.permission_sets.as_slice()) {
            (Some(set), _) => set,
            // The binding allows one set, which is not the default: the draft means that set.
            (None, [only]) => only,
            (None, _) => &self.default_permission_set,
        };
        self.check_set(set, binding)?;
        Ok(set.clone())
    }

    pub(super) fn check_set(&self, set: &PermissionSet, binding: &Binding) -> Result<(), Refusal> {
        self.check_known(set)?;
        if !binding.allows(set) {
            return Err(Refusal::SetNotAllowed {
                set: set.clone(),
                allowed: binding.permission_sets.clone(),
            });
        }
        Ok(())
    }

    pub(super) fn check_known(&self, set: &PermissionSet) -> Result<(), Refusal> {
        if self.permission_sets.contains_key(set) {
            return Ok(());
        }
        Err(Refusal::UnknownPermissionSet {
            set: set.clone(),
            known: self.permission_sets.keys().cloned().collect(),
        })
    }

    /// When a grant needs work next: at its announcement, or else at its end.
    pub(super) fn wakes_at(&self, end: Timestamp, now: Timestamp) -> Timestamp {
        let announced = self.remind_before.map(|before| end + Millis(-before.0));
        announced.filter(|at| *at > now).unwrap_or(end)
    }

    /// The longest duration in hours, by the policy and the binding.
    pub fn longest(&self, binding: &Binding) -> u32 {
        self.max_request_hours
            .min(binding.max_request_hours.unwrap_or(u32::MAX))
    }

    /// The longest duration of this set in minutes.
    pub(super) fn longest_of(&self, set: &PermissionSet, binding: &Binding) -> u32 {
        let own = self.permission_sets.get(set);
        let own = own.and_then(|rule| rule.max_request_hours);
        self.longest(binding)
            .min(own.unwrap_or(u32::MAX))
            .saturating_mul(60)
    }

    pub(super) fn check_duration(
        &self,
        wanted: Minutes,
        set: &PermissionSet,
        binding: &Binding,
    ) -> Result<(), Refusal> {
        let most = self.longest_of(set, binding);
        if wanted.get() > most {
            return Err(Refusal::TooLong {
                wanted: wanted.get(),
                set: set.clone(),
                most,
            });
        }
        Ok(())
    }

    /// Checks that this person may approve or deny; without a binding or approvers, nobody may.
    pub(super) fn check_approver<'a>(
        &self,
        person: &Person,
        request: &Request,
        binding: Option<&'a Binding>,
    ) -> Result<&'a Binding, Refusal> {
        let binding = binding
            .filter(|binding| binding.channel_id == request.channel_id)
            .ok_or_else(|| Refusal::NotBound {
                account_id: request.account_id.clone(),
                channel_id: request.channel_id.clone(),
            })?;
        if binding.approvers.is_empty() {
            return Err(Refusal::NoApprovers {
                channel_id: request.channel_id.clone(),
            });
        }
        if !binding.approvers.contains(&person.id) {
            return Err(Refusal::NotAnApprover {
                person: person.id.clone(),
            });
        }
        Ok(binding)
    }

    /// If the policy names no admins, the scope of the key is enough.
    pub(super) fn check_revoker(
        &self,
        person: &Person,
        request: &Request,
        binding: Option<&Binding>,
    ) -> Result<(), Refusal> {
        let may = self.admins.is_empty()
            || self.is_admin(person)
            || person.is(&request.requester)
            || binding.is_some_and(|binding| binding.approvers.contains(&person.id));
        may.then_some(()).ok_or_else(|| Refusal::NotARevoker {
            person: person.id.clone(),
        })
    }

    pub(super) fn check_admin(&self, person: Option<&Person>) -> Result<(), Refusal> {
        let may = self.admins.is_empty() || person.is_some_and(|person| self.is_admin(person));
        may.then_some(()).ok_or(Refusal::NotAnAdmin)
    }

    fn is_admin(&self, person: &Person) -> bool {
        self.admins.contains(person.id.as_str()) || self.admins.contains(person.email.as_str())
    }
}
