//! Who shares one assignment in Identity Center.
//!
//! AWS knows one assignment per account, permission set and user; two requests
//! may want the same one. Its holders are written before AWS is asked to make
//! it, so "there is a holder" means "it is ours, or may be".

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AccountId, AssignmentCall, Calls, LeaseToken, PermissionSet, RequestId, UserId};

/// So many requests share one assignment at most: a revoke ends all of them in one write,
/// and a store takes only so many records at once.
pub(super) const MOST_HOLDERS: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HoldingKey {
    pub account_id: AccountId,
    pub permission_set: PermissionSet,
    pub user: UserId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub key: HoldingKey,
    pub holders: BTreeSet<RequestId>,
    /// Holders whose call to make the assignment may still be on its way: until it
    /// has answered, "AWS shows none" is no proof that none will appear.
    pub creating: BTreeSet<RequestId>,
    /// The lease under which the last create without an answer was sent. AWS may still
    /// carry it out, whatever became of its sender: until it is waited out, no look proves
    /// that the assignment is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_create: Option<LeaseToken>,
    /// The same of a delete: until it is waited out, the assignment is not made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered_delete: Option<LeaseToken>,
    /// A removal is under way: nobody may join until it is proven gone.
    pub removing: bool,
    /// What the permission set's name stood for when this was asked for. A name can be
    /// given to another set later, and "AWS shows none" would then be about that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "means")]
    pub permission_set_arn: Option<String>,
    /// Grows with every change and is never reset, so that a look at AWS can be
    /// tied to what was held when it was made.
    pub revision: u64,
}

impl Holding {
    /// What nobody has ever held.
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

    pub fn is_shared(&self, id: RequestId) -> bool {
        self.others(id).next().is_some()
    }

    /// Another holder's create may still land.
    pub fn awaits_another(&self, id: RequestId) -> bool {
        self.creating.iter().any(|other| *other != id)
    }

    /// The calls that may still take effect, by the leases under which they were sent.
    pub fn unanswered(&self) -> impl Iterator<Item = LeaseToken> + '_ {
        let both = [self.unanswered_create, self.unanswered_delete];
        both.into_iter().flatten()
    }

    /// The process that held this lease is dead: calls that it sent may be on their way.
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

    /// What the holder of a lease knows of calls on their way. The newest stands for all of
    /// its kind: when it is waited out, those before it are as well.
    pub(super) fn knowing(&self, lease: LeaseToken, calls: &Calls) -> Self {
        self.changed(|next| {
            let over = |call: &LeaseToken| calls.waited_out.contains(call);
            next.unanswered_create = next.unanswered_create.filter(|call| !over(call));
            next.unanswered_delete = next.unanswered_delete.filter(|call| !over(call));
            match calls.unanswered {
                Some(AssignmentCall::Create) => next.unanswered_create = Some(lease),
                Some(AssignmentCall::Delete) => next.unanswered_delete = Some(lease),
                None => {}
            }
        })
    }

    /// A create that was answered too late took effect some time ago: a look that is older
    /// proves nothing.
    pub(super) fn made_late(&self, lease: LeaseToken) -> Self {
        self.changed(|next| next.unanswered_create = Some(lease))
    }

    pub(super) fn under(&self, arn: String) -> Self {
        self.changed(|next| next.permission_set_arn = Some(arn))
    }

    pub(super) fn joined(&self, id: RequestId) -> Self {
        self.changed(|next| {
            next.holders.insert(id);
            next.creating.insert(id);
        })
    }

    pub(super) fn answered(&self, id: RequestId) -> Self {
        self.changed(|next| {
            next.creating.remove(&id);
        })
    }

    pub(super) fn left(&self, id: RequestId) -> Self {
        self.changed(|next| {
            next.holders.remove(&id);
            next.creating.remove(&id);
            next.removing &= !next.holders.is_empty();
        })
    }

    pub(super) fn being_removed(&self) -> Self {
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
