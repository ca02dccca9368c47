//! Refusals in the words of a user of `/jit`, where the words of the API name a field, a header
//! or a command of a terminal.

use super::text::plain;
use crate::domain::{PermissionSet, Refusal};
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
    if let Refusal::QuorumTooLarge { required, named } = refusal {
        return Some(format!(
            "each request would need {required} approvals, but the number of approvers is {named}: name more with `/jit approvers @name …`, or lower the number with `/jit bind ACCOUNT approvals {named}`"
        ));
    }
    if let Refusal::NoReason = refusal {
        return Some("the reason is missing: type a reason or a ticket".into());
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

    /// W12: a chat user can neither set a header or a field nor type a command of a terminal.
    #[test]
    fn a_refusal_names_only_what_a_chat_user_can_use() {
        let (account_id, channel_id) = ("111122223333".parse(), "aws-prod".parse());
        let (account_id, channel_id) = (account_id.unwrap(), channel_id.unwrap());
        let refusals = [
            Refusal::NotBound {
                account_id,
                channel_id,
            },
            Refusal::NothingBound {
                channel_id: "aws-prod".parse().unwrap(),
            },
            Refusal::NoApprovers {
                channel_id: "aws-prod".parse().unwrap(),
            },
            Refusal::QuorumTooLarge {
                required: 2,
                named: 1,
            },
            Refusal::NoReason,
        ];
        let refused = refusals.map(ServiceError::Refused);
        for error in refused.into_iter().chain([ServiceError::KeyReused]) {
            let told = in_chat(&error).unwrap();
            let without = told.replace("/jit ", "");
            for word in [
                "jit bind",
                "jit approvers",
                "approvals_required",
                "Idempotency",
                "jira",
            ] {
                assert!(!without.contains(word), "{word:?} in {told:?}");
            }
        }
    }
}
