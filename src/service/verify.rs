//! Verifies one history: its hash chain, its record, and what the store finds both by.

use std::collections::{BTreeMap, BTreeSet};

use super::{PAGE, Service};
use crate::domain::audit::verify_against;
use crate::domain::replay::{compare_bindings, compare_request};
use crate::domain::{AccountId, AuditKey, Chain, ChannelId};
use crate::store::{AuditedRecord, Head, Inspected, StoreError};

/// Other processes may write to a history during the check, and DynamoDB has no snapshot: jit
/// reads a history this often before it reports a finding.
const LOOKS: u32 = 3;

/// The result of the verification of one history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifiedHistory {
    /// The end of the history according to its events, and 0 events if it has none.
    pub chain: Chain,
    /// The disagreements that were found; none if all is well.
    pub findings: Vec<AuditFinding>,
    /// The store has neither a record nor an event of this history.
    pub is_unknown: bool,
}

/// A disagreement inside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFinding {
    /// The field, column or attribute; absent if the finding is about the whole history.
    pub field: Option<String>,
    /// The finding in one sentence.
    pub why: String,
}

impl AuditFinding {
    pub fn whole(why: impl Into<String>) -> Self {
        let (field, why) = (None, why.into());
        Self { field, why }
    }
}

impl Service {
    /// Verifies one history with everything that must agree with it.
    pub async fn verify_history(&self, key: &AuditKey) -> Result<VerifiedHistory, StoreError> {
        let mut looks = 1;
        loop {
            let verified = match self.store.inspect(key).await {
                Err(StoreError::Corrupt(why)) => {
                    let finding = AuditFinding::whole(format!("the record cannot be read: {why}"));
                    VerifiedHistory {
                        findings: vec![finding],
                        ..VerifiedHistory::default()
                    }
                }
                found => verified(&found?),
            };
            if verified.findings.is_empty() || looks == LOOKS {
                return Ok(verified);
            }
            looks += 1;
        }
    }

    /// Returns the text of every audit key that has an event.
    pub async fn audit_keys(&self) -> Result<BTreeSet<String>, StoreError> {
        self.store.audit_keys().await
    }

    /// Returns the channels of all bindings, each with the accounts that it does not list.
    pub async fn bound_channels(
        &self,
    ) -> Result<BTreeMap<ChannelId, Vec<AuditFinding>>, StoreError> {
        let mut accounts: BTreeMap<ChannelId, Vec<AccountId>> = BTreeMap::new();
        let mut after: Option<AccountId> = None;
        loop {
            let page = self.store.bound(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.account_id.clone());
            for binding in page {
                let bound = accounts.entry(binding.channel_id).or_default();
                bound.push(binding.account_id);
            }
        }
        let mut channels = BTreeMap::new();
        for (channel, accounts) in accounts {
            let mut findings = Vec::new();
            for account in accounts {
                if let Some(why) = self.unlisted(&channel, &account).await? {
                    findings.push(AuditFinding::whole(why));
                }
            }
            channels.insert(channel, findings);
        }
        Ok(channels)
    }

    /// A list of all bindings may be older than the binding itself, so both are read again.
    async fn unlisted(
        &self,
        channel: &ChannelId,
        account: &AccountId,
    ) -> Result<Option<String>, StoreError> {
        let listed = self.store.bindings(channel).await?;
        if listed.iter().any(|one| one.account_id == *account) {
            return Ok(None);
        }
        let binding = self.store.binding(account).await?;
        let is_bound = binding.is_some_and(|binding| binding.channel_id == *channel);
        Ok(is_bound.then(|| {
            format!("account {account} is bound to the channel, but the channel does not list it")
        }))
    }
}

fn verified(found: &Inspected) -> VerifiedHistory {
    let last = found.events.last();
    VerifiedHistory {
        chain: last.map_or_else(Chain::default, |event| Chain {
            version: event.seq,
            head: event.hash,
            last_at: event.event_time,
        }),
        findings: findings(found),
        is_unknown: found.is_empty(),
    }
}

fn findings(found: &Inspected) -> Vec<AuditFinding> {
    let events = &found.events;
    let head = match &found.record {
        Some(AuditedRecord::Request(request)) => Head::from(request.as_ref().clone()),
        Some(AuditedRecord::Channel(channel)) => Head::from(channel.clone()),
        None => return without_record(found),
    };
    // The facts of a history that was changed prove nothing.
    if let Err(tampered) = verify_against(events, &head.chain, head.status) {
        return vec![AuditFinding::whole(tampered.to_string())];
    }
    let mismatches = match &found.record {
        Some(AuditedRecord::Request(request)) => compare_request(request, events),
        Some(AuditedRecord::Channel(_)) | None => compare_bindings(&found.bindings, events),
    };
    let mismatches = mismatches.into_iter().map(|one| AuditFinding {
        field: Some(one.field.to_owned()),
        why: one.to_string(),
    });
    let misfits = found.misfits.iter().map(|one| AuditFinding {
        field: Some(one.field.clone()),
        why: one.to_string(),
    });
    mismatches.chain(misfits).collect()
}

fn without_record(found: &Inspected) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    if !found.events.is_empty() {
        let count = found.events.len();
        let why = format!(
            "the history has {count} events, but there is no record: the record was deleted, or \
             the history was added"
        );
        findings.push(AuditFinding::whole(why));
    }
    findings.extend(found.bindings.iter().map(|binding| {
        let account = &binding.account_id;
        let why = format!(
            "account {account} is bound to the channel, but the channel has no record and its \
             history was deleted"
        );
        AuditFinding::whole(why)
    }));
    findings
}
