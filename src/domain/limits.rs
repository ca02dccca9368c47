//! How large what callers make may grow. A store takes an item and a write of so many
//! bytes at most (`store/dynamodb/sizes.rs` shows that the largest fit), so what would
//! outgrow that is refused while it is still small, and never when access is to end.

use super::{BindTerms, ChannelId, Refusal, Status};

/// Who may say yes in one channel.
pub const MOST_APPROVERS: usize = 200;
/// Permission sets that one binding names.
pub const MOST_SETS: usize = 200;
/// Accounts that one channel has.
pub const MOST_ACCOUNTS: usize = 2_000;
/// Approvals that one request waits with, more than any quorum needs. Those of people who
/// are approvers no longer are among them.
pub const MOST_APPROVALS: usize = 24;

pub(super) fn check_approvers(named: usize) -> Result<(), Refusal> {
    match named > MOST_APPROVERS {
        true => Err(Refusal::TooManyApprovers {
            named,
            most: MOST_APPROVERS,
        }),
        false => Ok(()),
    }
}

pub(super) fn check_sets(terms: &BindTerms) -> Result<(), Refusal> {
    let named = terms.permission_sets.as_ref().map_or(0, Vec::len);
    match named > MOST_SETS {
        true => Err(Refusal::TooManySets {
            named,
            most: MOST_SETS,
        }),
        false => Ok(()),
    }
}

/// Whether a channel may have one account more than those that are bound to it.
pub(super) fn check_accounts(bound: usize, channel_id: &ChannelId) -> Result<(), Refusal> {
    match bound >= MOST_ACCOUNTS {
        true => Err(Refusal::TooManyAccounts {
            channel_id: channel_id.clone(),
            most: MOST_ACCOUNTS,
        }),
        false => Ok(()),
    }
}

pub(super) fn check_approvals(given: usize, status: Status) -> Result<(), Refusal> {
    match given >= MOST_APPROVALS {
        true => Err(Refusal::TooManyApprovals {
            status,
            most: MOST_APPROVALS,
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // K9: the quorum that a binding can ask for is always within reach.
    #[test]
    fn each_limit_lets_the_last_pass_and_refuses_the_next() {
        assert_eq!(check_approvers(MOST_APPROVERS), Ok(()));
        assert!(check_approvers(MOST_APPROVERS + 1).is_err());
        let channel: ChannelId = "town".parse().unwrap();
        assert_eq!(check_accounts(MOST_ACCOUNTS - 1, &channel), Ok(()));
        let full = check_accounts(MOST_ACCOUNTS, &channel).unwrap_err();
        assert!(full.to_string().contains("another channel"), "{full}");
        assert_eq!(check_approvals(MOST_APPROVALS - 1, Status::Pending), Ok(()));
        assert!(check_approvals(MOST_APPROVALS, Status::Pending).is_err());
        let sets = |many: usize| BindTerms {
            permission_sets: Some(vec!["admin".parse().unwrap(); many]),
            ..BindTerms::default()
        };
        assert_eq!(check_sets(&sets(MOST_SETS)), Ok(()));
        assert!(check_sets(&sets(MOST_SETS + 1)).is_err());
    }
}
