//! Refusals in the words of a user of `/jit`, where the words of the API name a field, a header
//! or a command of a terminal.

use super::text::plain;
use crate::domain::{PermissionSet, Refusal, counted};
use crate::service::ServiceError;

/// `None` if the message of the error suits a user of the chat.
pub fn in_chat(error: &ServiceError) -> Option<String> {
    let refusal = match error {
        ServiceError::KeyReused => {
            return Some(
                "jit has used this dialog already for another request; type `/jit request` again"
                    .into(),
            );
        }
        ServiceError::Refused(refusal) => refusal,
        ServiceError::Unknown(_) | ServiceError::Store(_) => return None,
    };
    about_accounts(refusal).or_else(|| about_people(refusal))
}

fn about_accounts(refusal: &Refusal) -> Option<String> {
    if let Refusal::NotBound { account_id, .. } = refusal {
        return Some(format!(
            "account `{account_id}` is not bound to this channel; `/jit info` shows the accounts of this channel, and an admin can bind it with `/jit bind {account_id}`"
        ));
    }
    if let Refusal::NothingBound { .. } = refusal {
        return Some(
            "no account is bound to this channel; an admin can bind one: `/jit bind 123456789012`"
                .into(),
        );
    }
    if let Refusal::NothingToUnbind { account_id, .. } = refusal {
        return Some(format!(
            "account `{account_id}` is not bound to this channel; `/jit info` shows the accounts of this channel"
        ));
    }
    if let Refusal::BoundElsewhere { account_id, .. } = refusal {
        return Some(format!(
            "account `{account_id}` is bound to another channel; an admin must type `/jit unbind {account_id}` there first"
        ));
    }
    if let Refusal::TooManyAccounts { most, .. } = refusal {
        return Some(format!(
            "this channel has {most} accounts, and a channel can have no more; type `/jit bind` in another channel"
        ));
    }
    if let Refusal::TooManySets { named, most } = refusal {
        return Some(format!(
            "{named} permission sets are named, and at most {most} are allowed; name fewer"
        ));
    }
    if let Refusal::UnknownPermissionSet { set, known: sets }
    | Refusal::SetNotAllowed { set, allowed: sets } = refusal
    {
        let sets: Vec<&str> = sets.iter().map(PermissionSet::as_str).collect();
        return Some(format!(
            "the permission set {} is not allowed for this account; allowed: {}",
            plain(set.as_str()),
            plain(&sets.join(", "))
        ));
    }
    None
}

fn about_people(refusal: &Refusal) -> Option<String> {
    if let Refusal::NoApprovers { .. } = refusal {
        return Some(
            "this channel has no approvers; an admin can name them: `/jit approvers @name …`"
                .into(),
        );
    }
    if let Refusal::QuorumTooLarge {
        account_id,
        required,
        named,
    } = refusal
    {
        return Some(format!(
            "each request for account `{account_id}` would need {required} approvals, but the number of approvers is {named}: name more with `/jit approvers @name …`, or lower the number with `/jit bind {account_id} approvals {named}`"
        ));
    }
    if let Refusal::NoReason = refusal {
        return Some("the reason is missing: type a reason or a ticket".into());
    }
    // Requests from Mattermost have no key; they are counted together.
    if let Refusal::TooManyPending { most, .. } = refusal {
        return Some(format!(
            "you have {} PENDING from Mattermost, and no more are allowed; cancel one of them first",
            counted(*most, "request")
        ));
    }
    if let Refusal::NotARevoker { .. } = refusal {
        return Some("only the requester, the approvers and admins may revoke this access".into());
    }
    if let Refusal::StartTooFar { start_at, most, .. } = refusal {
        return Some(format!(
            "the access would begin at {start_at}, and at most {most} ahead is allowed"
        ));
    }
    if let Refusal::StartInPast { start_at, .. } = refusal {
        return Some(format!("the access would begin in the past, at {start_at}"));
    }
    if let Refusal::NotAnApprover { .. } = refusal {
        return Some(
            "you are not an approver of this account; `/jit info` shows its approvers".into(),
        );
    }
    if let Refusal::AlreadyApproved { status, .. } = refusal {
        return Some(format!(
            "this request is {status}, and you have approved it already; it waits for another approver"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AccountId, ChannelId, Lease, Millis, MmUserId, Status, Timestamp};

    const CHANNEL: &str = "rawchannel";
    const PERSON: &str = "rawperson";

    fn account_id() -> AccountId {
        "111122223333".parse().unwrap()
    }

    fn channel_id() -> ChannelId {
        CHANNEL.parse().unwrap()
    }

    fn person() -> MmUserId {
        PERSON.parse().unwrap()
    }

    fn set() -> PermissionSet {
        "admin".parse().unwrap()
    }

    fn all() -> Vec<Refusal> {
        [
            about_values(),
            about_permissions(),
            about_states(),
            about_bindings_and_leases(),
        ]
        .concat()
    }

    fn about_values() -> Vec<Refusal> {
        let start_at = Timestamp::default();
        vec![
            Refusal::NoReason,
            Refusal::TooLong {
                wanted: 61,
                set: set(),
                most: 60,
            },
            Refusal::StartTooFar {
                start_at,
                most: Millis(1),
                latest: start_at,
            },
            Refusal::StartInPast {
                start_at,
                now: start_at,
            },
            Refusal::UnknownPermissionSet {
                set: set(),
                known: vec![],
            },
            Refusal::QuorumTooLarge {
                account_id: account_id(),
                required: 2,
                named: 1,
            },
            Refusal::TooManyApprovers {
                named: 201,
                most: 200,
            },
            Refusal::TooManySets {
                named: 201,
                most: 200,
            },
        ]
    }

    fn about_permissions() -> Vec<Refusal> {
        vec![
            Refusal::NotBound {
                account_id: account_id(),
                channel_id: channel_id(),
            },
            Refusal::SetNotAllowed {
                set: set(),
                allowed: vec![],
            },
            Refusal::NoApprovers {
                channel_id: channel_id(),
            },
            Refusal::NotAnApprover { person: person() },
            Refusal::SelfApproval,
            Refusal::NoLongerAllowed {
                wanted: 61,
                most: 60,
            },
            Refusal::ApprovalsWithdrawn {
                counted: 1,
                required: 2,
            },
            Refusal::NotARevoker { person: person() },
            Refusal::NotTheRequester { verb: "cancel" },
            Refusal::NotAnAdmin,
        ]
    }

    fn about_states() -> Vec<Refusal> {
        let status = Status::Pending;
        vec![
            Refusal::WrongState {
                status,
                done: "revoked",
                hint: "",
            },
            Refusal::NotGone {
                why: "AWS did not answer",
            },
            Refusal::TooManyPending {
                person: "a@example.com".parse().unwrap(),
                most: 1,
            },
            Refusal::BeingRemoved {
                status,
                failures: String::new(),
            },
            Refusal::WaitedTooLong {
                status,
                until: Timestamp::default(),
            },
            Refusal::AlreadyApproved {
                status,
                person: person(),
            },
            Refusal::ExtensionWaiting { status },
            Refusal::ExtendedTooFar {
                status,
                minutes: 1,
                total: 61,
                most: 60,
                next: "make a new request".into(),
            },
        ]
    }

    fn about_bindings_and_leases() -> Vec<Refusal> {
        let status = Status::Pending;
        vec![
            Refusal::BoundElsewhere {
                account_id: account_id(),
                channel_id: channel_id(),
            },
            Refusal::TooManyAccounts {
                channel_id: channel_id(),
                most: 200,
            },
            Refusal::TooManyApprovals { status, most: 200 },
            Refusal::NothingBound {
                channel_id: channel_id(),
            },
            Refusal::NothingToUnbind {
                account_id: account_id(),
                channel_id: channel_id(),
            },
            Refusal::NotDue { until: None },
            Refusal::Leased {
                lease: None::<Lease>,
            },
            Refusal::NotWhatWasShown { status },
        ]
    }

    /// A new refusal needs a place here, and an example in `all`.
    fn place(refusal: &Refusal) -> usize {
        match refusal {
            Refusal::NoReason => 0,
            Refusal::TooLong { .. } => 1,
            Refusal::StartTooFar { .. } => 2,
            Refusal::StartInPast { .. } => 3,
            Refusal::UnknownPermissionSet { .. } => 4,
            Refusal::QuorumTooLarge { .. } => 5,
            Refusal::TooManyApprovers { .. } => 6,
            Refusal::TooManySets { .. } => 7,
            Refusal::NotBound { .. } => 8,
            Refusal::SetNotAllowed { .. } => 9,
            Refusal::NoApprovers { .. } => 10,
            Refusal::NotAnApprover { .. } => 11,
            Refusal::SelfApproval => 12,
            Refusal::NoLongerAllowed { .. } => 13,
            Refusal::ApprovalsWithdrawn { .. } => 14,
            Refusal::NotARevoker { .. } => 15,
            Refusal::NotTheRequester { .. } => 16,
            Refusal::NotAnAdmin => 17,
            Refusal::WrongState { .. } => 18,
            Refusal::NotGone { .. } => 19,
            Refusal::TooManyPending { .. } => 20,
            Refusal::BeingRemoved { .. } => 21,
            Refusal::WaitedTooLong { .. } => 22,
            Refusal::AlreadyApproved { .. } => 23,
            Refusal::ExtensionWaiting { .. } => 24,
            Refusal::ExtendedTooFar { .. } => 25,
            Refusal::BoundElsewhere { .. } => 26,
            Refusal::TooManyAccounts { .. } => 27,
            Refusal::TooManyApprovals { .. } => 28,
            Refusal::NothingBound { .. } => 29,
            Refusal::NothingToUnbind { .. } => 30,
            Refusal::NotDue { .. } => 31,
            Refusal::Leased { .. } => 32,
            Refusal::NotWhatWasShown { .. } => 33,
        }
    }

    /// W12: a chat user can neither set a header or a field nor type a command of a terminal, and
    /// knows no ids of channels and users.
    #[test]
    fn a_refusal_names_only_what_a_chat_user_can_use() {
        let places: Vec<usize> = all().iter().map(place).collect();
        assert_eq!(places, (0..34).collect::<Vec<_>>());
        let refused = all().into_iter().map(ServiceError::Refused);
        for error in refused.chain([ServiceError::KeyReused]) {
            let told = in_chat(&error).unwrap_or_else(|| error.to_string());
            let without = told.replace("/jit ", "");
            for word in [
                "jit bind",
                "jit approvers",
                "approvals_required",
                "permission_set",
                "start_at",
                "Idempotency",
                "jira",
                "(s)",
                " 1 minutes",
                " 1 requests",
                CHANNEL,
                PERSON,
                "by this key",
                // A command with this word does not work as it is.
                "ACCOUNT",
            ] {
                assert!(!without.contains(word), "{word:?} in {told:?}");
            }
        }
    }
}
