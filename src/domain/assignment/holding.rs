//! The holding: which requests share one assignment in Identity Center.
//!
//! AWS has at most one assignment per account, permission set and user, but two requests may
//! ask for the same one. The store has the holders before AWS gets the create. So if a holding
//! has holders, jit made the assignment or may have made it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AssignmentCall, AssignmentCalls};
use crate::domain::{AccountId, LeaseToken, PermissionSet, RequestId, UserId};

/// At most this many requests share one assignment: a revoke ends all of them in one commit,
/// and a store limits the number of records in one commit.
pub(in crate::domain) const MOST_HOLDERS: usize = 32;
/// The detail of ASSIGNING with the ARN under which the request joined the assignment.
pub(in crate::domain) const ARN_DETAIL: &str = "permission_set_arn";

/// The detail of ASSIGNING, and of an ERROR after a user was found, with the user of the
/// assignment.
pub(in crate::domain) const USER_DETAIL: &str = "identity_store_user_id";

/// An assignment in Identity Center: who has which permission set in which account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HoldingKey {
    /// The AWS account in which the user has the permission set.
    pub account_id: AccountId,
    /// The configured name of the permission set; its ARN can change.
    pub permission_set: PermissionSet,
    /// The user in Identity Center who has the permission set.
    pub user: UserId,
}

/// jit's record of one assignment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The assignment that this record is about.
    pub key: HoldingKey,
    /// The requests that have the assignment, or whose create may make it.
    pub holders: BTreeSet<RequestId>,
    /// The holders whose create may still take effect: until it is answered, a look that shows no
    /// assignment does not prove that none will appear.
    pub creating: BTreeSet<RequestId>,
    /// The lease under which the last unanswered create was sent. AWS may still carry it out,
    /// even if its worker is dead: until it is waited out, no look proves that the assignment is
    /// gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_create: Option<LeaseToken>,
    /// The lease under which the last unanswered delete was sent. Until it is waited out, no
    /// worker makes the assignment again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_delete: Option<LeaseToken>,
    /// A removal runs: no request may join until AWS shows that the assignment is gone.
    pub removing: bool,
    /// The ARN that the permission set's name had at the create. If the configuration gives the
    /// name to another ARN, a look under the new ARN proves nothing about this assignment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "means")]
    pub permission_set_arn: Option<String>,
    /// Grows with every change and is never reset, so that the result of a look can be tied to
    /// the holding as it was at the time of the look.
    pub revision: u64,
}

impl Holding {
    /// The holding of an assignment that no request ever held.
    pub fn unheld(key: HoldingKey) -> Self {
        Self {
            key,
            holders: BTreeSet::new(),
            creating: BTreeSet::new(),
            unanswered_create: None,
            unanswered_delete: None,
            removing: false,
            permission_set_arn: None,
            revision: 0,
        }
    }

    pub fn holds(&self, id: RequestId) -> bool {
        self.holders.contains(&id)
    }

    pub fn others(&self, id: RequestId) -> impl Iterator<Item = RequestId> + '_ {
        self.holders
            .iter()
            .copied()
            .filter(move |holder| *holder != id)
    }

    /// The other requests that hold the assignment or may still make it.
    pub fn named_beside(&self, id: RequestId) -> BTreeSet<RequestId> {
        let mut named: BTreeSet<RequestId> = &self.holders | &self.creating;
        named.remove(&id);
        named
    }

    pub fn is_shared(&self, id: RequestId) -> bool {
        self.others(id).next().is_some()
    }

    /// Whether the create of another holder may still take effect.
    pub fn awaits_another(&self, id: RequestId) -> bool {
        self.creating.iter().any(|other| *other != id)
    }

    /// The unanswered calls, by their names (see `LeaseToken::call_at`).
    pub fn unanswered(&self) -> impl Iterator<Item = LeaseToken> + '_ {
        let both = [self.unanswered_create, self.unanswered_delete];
        both.into_iter().flatten()
    }

    /// The process with this lease is dead: calls that it sent may still take effect.
    pub fn orphaned(&self, lease: LeaseToken) -> Self {
        let revision = self.revision + 1;
        let orphaned = self.changed(|next| {
            next.unanswered_create = Some(lease);
            next.unanswered_delete = Some(lease);
        });
        Self {
            revision,
            ..orphaned
        }
    }

    /// Stores what a worker reported about unanswered calls. The newest call of a kind stands for
    /// the earlier ones: when it is waited out, they are as well.
    pub(in crate::domain) fn with_calls(&self, call: LeaseToken, calls: &AssignmentCalls) -> Self {
        self.changed(|next| {
            let lasts = |known: &LeaseToken| !calls.waited_out.contains(known);
            next.unanswered_create = next.unanswered_create.filter(lasts);
            next.unanswered_delete = next.unanswered_delete.filter(lasts);
            match calls.unanswered {
                Some(AssignmentCall::Create) => next.unanswered_create = Some(call),
                Some(AssignmentCall::Delete) => next.unanswered_delete = Some(call),
                None => {}
            }
        })
    }

    pub(in crate::domain) fn with_arn(&self, arn: String) -> Self {
        self.changed(|next| next.permission_set_arn = Some(arn))
    }

    pub(in crate::domain) fn joined(&self, id: RequestId) -> Self {
        self.changed(|next| {
            next.holders.insert(id);
            next.creating.insert(id);
        })
    }

    pub(in crate::domain) fn answered(&self, id: RequestId) -> Self {
        self.changed(|next| {
            next.creating.remove(&id);
        })
    }

    /// The holder leaves the assignment to the others. If its create may still take effect, it
    /// becomes an unanswered create of the assignment.
    pub(in crate::domain) fn left_to_others(&self, id: RequestId, call: LeaseToken) -> Self {
        let left = self.left(id);
        match self.creating.contains(&id) {
            true => left.changed(|next| next.unanswered_create = Some(call)),
            false => left,
        }
    }

    pub(in crate::domain) fn left(&self, id: RequestId) -> Self {
        self.changed(|next| {
            next.holders.remove(&id);
            next.creating.remove(&id);
            next.removing &= !next.holders.is_empty();
        })
    }

    pub(in crate::domain) fn being_removed(&self) -> Self {
        self.changed(|next| next.removing = true)
    }

    fn changed(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        change(&mut next);
        next
    }
}

impl fmt::Display for HoldingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            self.account_id, self.permission_set, self.user
        )
    }
}
