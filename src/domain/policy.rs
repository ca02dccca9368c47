//! The policy: who may ask, approve and revoke, and for how long.
//!
//! The stricter of two rules applies. Without a rule, the answer is no. The end of access is
//! the exception: no rule about approvers, sets or durations refuses a revoke.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    AccessForm, AccountId, Approval, Asked, Binding, ChannelId, Draft, Email, Millis, Minutes,
    PermissionSet, Person, Refusal, Request, Timestamp,
};

/// The clock of a caller may be behind, and a call takes time: jit treats a start that is at most so
/// long past as now.
const START_MAY_BE_PAST: Millis = Millis::minutes(-5);

/// The rules of the configuration about requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The configured permission sets with their own rules; jit refuses all others.
    pub permission_sets: BTreeMap<PermissionSet, SetRule>,
    /// The set of a draft that names none, unless the binding allows exactly one.
    pub default_permission_set: PermissionSet,
    /// How long a request may wait for its approvals.
    pub pending_lifetime: Millis,
    /// The longest duration in hours, for all bindings and permission sets.
    pub max_request_hours: u32,
    /// How far ahead the start of a request may be.
    pub max_start_ahead: Millis,
    /// Whether an extension needs approvals, or follows at once.
    pub extension: ExtensionRule,
    /// How long jit retries a grant before it gives the grant up and rolls it back.
    pub grant_patience: Millis,
    /// How many PENDING requests of one person jit accepts by each key, and from Mattermost.
    pub max_pending_requests: u32,
    /// The persons who may change bindings and revoke every grant.
    pub admins: Admins,
    /// Whether jit ends old credentials after it removed the assignment.
    pub end_sessions: OldCredentialsRule,
    /// How long before the end of a grant jit reminds the requester; none if jit sends no
    /// reminders.
    pub remind_before: Option<Millis>,
}

/// The admins: they may change bindings and revoke every grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admins {
    /// User ids and e-mail addresses.
    names: BTreeSet<String>,
    /// Whether `policy.admins` names any. If it names none, the scope of a key is enough for a
    /// signed call.
    are_required: bool,
}

impl Admins {
    /// The admins of `policy.admins`.
    pub fn of_policy(names: impl IntoIterator<Item = String>) -> Self {
        let names: BTreeSet<String> = names.into_iter().map(normal_name).collect();
        Self {
            are_required: !names.is_empty(),
            names,
        }
    }

    /// Adds the admins of `mattermost.admins`. A signed call that needed no admin before still
    /// needs none, because this key is only about Mattermost.
    pub fn and_of_mattermost(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names.extend(names.into_iter().map(normal_name));
        self
    }

    fn include(&self, person: &Person) -> bool {
        self.names.contains(person.id.as_str()) || self.names.contains(person.email.as_str())
    }
}

/// People write an address and an id in any case.
#[allow(clippy::needless_pass_by_value)] // `map` passes it by value
fn normal_name(name: String) -> String {
    match name.parse::<Email>() {
        Ok(email) => email.to_string(),
        Err(_) => name.to_lowercase(),
    }
}

/// A person who types or clicks in Mattermost. No key with a scope signs this, so some commands
/// need an admin there that need none in a signed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatUser {
    /// The user, with the address that Mattermost has for them.
    pub person: Person,
    /// Whether the user has the Mattermost role `system_admin`.
    pub is_system_admin: bool,
}

/// The rules for one permission set, in addition to the rules for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetRule {
    /// How AWS gives the access of this set.
    pub form: AccessForm,
    /// The longest duration in hours; absent if the set has no limit of its own.
    pub max_request_hours: Option<u32>,
}

/// The rule for old credentials, which stay valid for up to the permission set's
/// session duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OldCredentialsRule {
    #[default]
    Off,
    /// A deny statement in the permission set's inline policy denies them everything.
    PermissionSet,
}

/// The rule that decides about an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExtensionRule {
    NeedsApproval,
    Granted,
}

impl Policy {
    /// The permission set of a draft and its form, if the binding allows the set.
    pub(super) fn permission_set(
        &self,
        draft: &Draft,
        binding: &Binding,
    ) -> Result<(PermissionSet, AccessForm), Refusal> {
        let wanted = draft.permission_set.as_ref();
        let set = match (wanted, binding.permission_sets.as_slice()) {
            (Some(set), _) => set,
            // The binding allows one set, which is not the default: the draft means that set.
            (None, [only]) => only,
            (None, _) => &self.default_permission_set,
        };
        let rule = self.check_set(set, binding)?;
        Ok((set.clone(), rule.form))
    }

    pub(super) fn check_set(
        &self,
        set: &PermissionSet,
        binding: &Binding,
    ) -> Result<SetRule, Refusal> {
        let rule = self.check_known(set)?;
        if !binding.allows(set) {
            return Err(Refusal::SetNotAllowed {
                set: set.clone(),
                allowed: binding.permission_sets.clone(),
            });
        }
        Ok(rule)
    }

    /// The permission sets that a request under this binding may name.
    pub fn allowed_sets(&self, binding: &Binding) -> impl Iterator<Item = &PermissionSet> {
        let sets = self.permission_sets.keys();
        sets.filter(|set| binding.allows(set))
    }

    pub(super) fn check_known(&self, set: &PermissionSet) -> Result<SetRule, Refusal> {
        let rule = self.permission_sets.get(set).copied();
        rule.ok_or_else(|| Refusal::UnknownPermissionSet {
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

    /// The sets of `allowed_sets` that have a lower limit than `longest`, each with its limit in
    /// hours.
    pub fn lower_limits<'p>(
        &'p self,
        binding: &'p Binding,
    ) -> impl Iterator<Item = (&'p PermissionSet, u32)> {
        let longest = self.longest(binding);
        self.allowed_sets(binding).filter_map(move |set| {
            let own = self.permission_sets.get(set)?.max_request_hours?;
            (own < longest).then_some((set, own))
        })
    }

    /// The longest duration of this set in minutes.
    pub fn longest_of(&self, set: &PermissionSet, binding: &Binding) -> u32 {
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

    /// The binding of the account, which binds it to this channel; all but the end of access
    /// needs it.
    pub(super) fn bound<'a>(
        binding: Option<&'a Binding>,
        account_id: &AccountId,
        channel_id: &ChannelId,
    ) -> Result<&'a Binding, Refusal> {
        binding
            .filter(|binding| binding.channel_id == *channel_id)
            .ok_or_else(|| Refusal::NotBound {
                account_id: account_id.clone(),
                channel_id: channel_id.clone(),
            })
    }

    /// Checks that this person may approve or deny. Without a binding or approvers, jit refuses
    /// every person.
    /// The user id alone makes an approver: users can change their addresses.
    pub(super) fn check_approver<'a>(
        &self,
        person: &Person,
        request: &Request,
        binding: Option<&'a Binding>,
    ) -> Result<&'a Binding, Refusal> {
        let Asked {
            account_id,
            channel_id,
            ..
        } = &request.asked;
        let binding = Self::bound(binding, account_id, channel_id)?;
        if binding.approvers.is_empty() {
            return Err(Refusal::NoApprovers {
                channel_id: request.asked.channel_id.clone(),
            });
        }
        if !binding.approvers.contains(&person.id) {
            return Err(Refusal::NotAnApprover {
                person: person.id.clone(),
            });
        }
        Ok(binding)
    }

    /// Checks that this person may approve the request by the rules as they are now.
    pub(super) fn check_approval<'a>(
        &self,
        person: &Person,
        request: &Request,
        binding: Option<&'a Binding>,
    ) -> Result<&'a Binding, Refusal> {
        let binding = self.check_approver(person, request, binding)?;
        let asked = &request.asked;
        if person.is(&asked.requester) && !binding.allow_self_approval {
            return Err(Refusal::SelfApproval);
        }
        self.check_terms(asked, binding)?;
        Ok(binding)
    }

    /// Checks that the access may begin by the rules as they are now (B1): the account is bound
    /// to the channel, and the approvals and the terms still allow the access.
    pub(super) fn check_begin(
        &self,
        request: &Request,
        binding: Option<&Binding>,
    ) -> Result<(), Refusal> {
        let asked = &request.asked;
        let binding = Self::bound(binding, &asked.account_id, &asked.channel_id)?;
        let counted = Self::counted_approvals(&request.approvals.given, &asked.requester, binding);
        let required = binding.approvals_required.max(1);
        if counted < required {
            return Err(Refusal::ApprovalsWithdrawn { counted, required });
        }
        self.check_terms(asked, binding)
    }

    fn check_terms(&self, asked: &Asked, binding: &Binding) -> Result<(), Refusal> {
        let most = self.longest_of(&asked.permission_set, binding);
        if asked.duration.get() > most {
            let wanted = asked.duration.get();
            return Err(Refusal::NoLongerAllowed { wanted, most });
        }
        self.check_set(&asked.permission_set, binding)?;
        Ok(())
    }

    /// Checks when a draft wants its access to begin.
    pub(super) fn check_start(
        &self,
        start_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let (latest, most) = (now + self.max_start_ahead, self.max_start_ahead);
        match start_at {
            Some(start_at) if start_at > latest => Err(Refusal::StartTooFar {
                start_at,
                most,
                latest,
            }),
            Some(start_at) if start_at < now + START_MAY_BE_PAST => {
                Err(Refusal::StartInPast { start_at, now })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the approvals are enough. Only those count that would be accepted now: those of
    /// current approvers, and the requester's own only if self-approval is allowed.
    pub(super) fn is_quorum(approvals: &[Approval], requester: &Person, binding: &Binding) -> bool {
        Self::counted_approvals(approvals, requester, binding) >= binding.approvals_required.max(1)
    }

    /// The number of approvals that count. B3: a person counts once, also in a record of an older
    /// version that told two spellings apart.
    pub fn counted_approvals(approvals: &[Approval], requester: &Person, binding: &Binding) -> u32 {
        let mut counted: Vec<&Person> = Vec::new();
        for by in approvals.iter().map(|approval| &approval.by) {
            let may = binding.approvers.contains(&by.id)
                && (binding.allow_self_approval || !by.is(requester));
            if may && !counted.iter().any(|one| one.is(by)) {
                counted.push(by);
            }
        }
        u32::try_from(counted.len()).unwrap_or(u32::MAX)
    }

    /// Checks that this person asked for the access; `verb` names the command.
    pub(super) fn check_requester(
        person: &Person,
        request: &Request,
        verb: &'static str,
    ) -> Result<(), Refusal> {
        let own = person.is(&request.asked.requester);
        own.then_some(()).ok_or(Refusal::NotTheRequester { verb })
    }

    pub(super) fn check_revoker(
        &self,
        person: &Person,
        request: &Request,
        binding: Option<&Binding>,
    ) -> Result<(), Refusal> {
        let may = !self.admins.are_required
            || self.admins.include(person)
            || takes_part(person, request, binding);
        may.then_some(()).ok_or_else(|| Refusal::NotARevoker {
            person: person.id.clone(),
        })
    }

    pub(super) fn check_admin(&self, person: Option<&Person>) -> Result<(), Refusal> {
        let may = !self.admins.are_required || person.is_some_and(|one| self.admins.include(one));
        may.then_some(()).ok_or(Refusal::NotAnAdmin)
    }

    /// Whether this user may ask for a change of bindings; `check_admin` then decides as for
    /// every other caller.
    pub fn is_admin_in_chat(&self, user: &ChatUser) -> bool {
        user.is_system_admin || self.admins.include(&user.person)
    }

    /// Whether this user may ask for a revoke; `check_revoker` then decides as for every other
    /// caller.
    pub fn may_revoke_in_chat(
        &self,
        user: &ChatUser,
        request: &Request,
        binding: Option<&Binding>,
    ) -> bool {
        self.is_admin_in_chat(user) || takes_part(&user.person, request, binding)
    }

    /// Whether a command in this channel may show the request to this user.
    pub fn may_see_in_chat(
        &self,
        user: &ChatUser,
        channel_id: &ChannelId,
        request: &Request,
        binding: Option<&Binding>,
    ) -> bool {
        request.asked.channel_id == *channel_id || self.may_revoke_in_chat(user, request, binding)
    }
}

/// Whether the person is the requester or an approver.
fn takes_part(person: &Person, request: &Request, binding: Option<&Binding>) -> bool {
    person.is(&request.asked.requester)
        || binding.is_some_and(|binding| binding.approvers.contains(&person.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::{person, policy, record};

    fn named(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn with(in_policy: &[&str], in_mattermost: &[&str]) -> Policy {
        Policy {
            admins: Admins::of_policy(named(in_policy)).and_of_mattermost(named(in_mattermost)),
            ..policy()
        }
    }

    fn user(name: &str) -> ChatUser {
        ChatUser {
            person: person(name),
            is_system_admin: false,
        }
    }

    fn system_admin(name: &str) -> ChatUser {
        ChatUser {
            is_system_admin: true,
            ..user(name)
        }
    }

    /// H7: users choose their addresses, so an approver's address under another user id gives no
    /// right. `http/address_book.rs` finds user ids by addresses that are verified.
    #[test]
    fn the_address_of_an_approver_makes_no_approver() {
        let record = record("Pending");
        let binding = record.binding.as_ref();
        let check = |person: &Person| {
            policy()
                .check_approver(person, &record.request, binding)
                .is_ok()
        };
        let (bob, mallory) = (person("bob"), person("mallory"));
        assert!(check(&bob) && !check(&mallory));
        let disguised = Person {
            id: mallory.id,
            email: bob.email,
        };
        assert!(!check(&disguised));
    }

    /// G11: the scope of a key is enough where `policy.admins` names no admins, whatever
    /// `mattermost.admins` names.
    #[test]
    fn admins_of_mattermost_refuse_no_signed_call() {
        let granted = record("Granted");
        let binding = granted.binding.as_ref();
        for policy in [with(&[], &[]), with(&[], &["carol@example.com"])] {
            assert_eq!(policy.check_admin(None), Ok(()));
            assert_eq!(policy.check_admin(Some(&person("mallory"))), Ok(()));
            let revoke = policy.check_revoker(&person("mallory"), &granted.request, binding);
            assert_eq!(revoke, Ok(()));
        }
    }

    /// G11: `policy.admins` limits every call, and both keys name the same admins.
    #[test]
    fn both_keys_name_admins_and_policy_admins_requires_them() {
        let granted = record("Granted");
        let binding = granted.binding.as_ref();
        let policy = with(&["root"], &["Carol@Example.com"]);
        for (name, may) in [("root", true), ("carol", true), ("mallory", false)] {
            let one = person(name);
            assert_eq!(policy.check_admin(Some(&one)).is_ok(), may, "{name}");
            let revoke = policy.check_revoker(&one, &granted.request, binding);
            assert_eq!(revoke.is_ok(), may, "{name}");
            assert_eq!(policy.is_admin_in_chat(&user(name)), may, "{name}");
        }
        assert_eq!(policy.check_admin(None), Err(Refusal::NotAnAdmin));
        // The role in Mattermost is no substitute for a name in `policy.admins`.
        let ada = system_admin("ada");
        assert!(policy.is_admin_in_chat(&ada));
        assert_eq!(
            policy.check_admin(Some(&ada.person)),
            Err(Refusal::NotAnAdmin)
        );
    }

    #[test]
    fn in_chat_an_admin_is_a_system_admin_or_named_in_one_of_the_keys() {
        for policy in [with(&["carol"], &[]), with(&[], &["carol"])] {
            assert!(policy.is_admin_in_chat(&user("carol")));
            assert!(policy.is_admin_in_chat(&system_admin("ada")));
            assert!(!policy.is_admin_in_chat(&user("mallory")));
        }
        assert!(!with(&[], &[]).is_admin_in_chat(&user("carol")));
    }

    #[test]
    fn in_chat_the_requester_the_approvers_and_admins_may_revoke() {
        let granted = record("Granted");
        let policy = with(&[], &["carol"]);
        for (user, may) in [
            (user("alice"), true),
            (user("bob"), true),
            (user("carol"), true),
            (system_admin("ada"), true),
            (user("mallory"), false),
        ] {
            let binding = granted.binding.as_ref();
            let told = policy.may_revoke_in_chat(&user, &granted.request, binding);
            assert_eq!(told, may, "{user:?}");
        }
        // Without a binding there are no approvers.
        assert!(!policy.may_revoke_in_chat(&user("bob"), &granted.request, None));
    }

    #[test]
    fn in_chat_a_request_is_shown_in_its_channel_and_to_those_who_may_revoke_it() {
        let granted = record("Granted");
        let binding = granted.binding.as_ref();
        let (here, request) = (granted.request.asked.channel_id.clone(), &granted.request);
        let elsewhere = "lunch".parse().unwrap();
        let policy = with(&[], &[]);
        let sees = |name: &str, channel: &ChannelId| {
            policy.may_see_in_chat(&user(name), channel, request, binding)
        };
        assert!(sees("mallory", &here));
        assert!(sees("alice", &elsewhere) && sees("bob", &elsewhere));
        assert!(!sees("mallory", &elsewhere));
        assert!(policy.may_see_in_chat(&system_admin("ada"), &elsewhere, request, binding));
    }
}
