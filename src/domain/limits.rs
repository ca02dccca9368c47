//! Limits for the data that callers create. A store limits the size of an item and of a commit
//! (`store/dynamodb/sizes.rs` shows that the largest records fit). jit refuses a command that
//! would exceed a limit while the record is still small; it never refuses a command that ends
//! access.

use super::{BindTerms, ChannelId, Refusal, Status};

/// The most approvers of one channel.
pub const MOST_APPROVERS: usize = 200;
/// The most permission sets of one binding.
pub const MOST_SETS: usize = 200;
/// The most accounts of one channel.
pub const MOST_ACCOUNTS: usize = 2_000;
/// The most approvals of one pending request, more than any quorum needs. Approvals of former
/// approvers count here.
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

/// Refuses a further account if the channel has the most accounts already.
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

    // K9: the limits allow every quorum that a binding can ask for.
    #[test]
    fn each_limit_accepts_its_value_and_refuses_one_more() {
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
