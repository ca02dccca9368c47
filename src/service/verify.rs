//! Verifies one history: its hash chain, its record, and what the store finds both by.

use std::collections::{BTreeMap, BTreeSet};

use super::heads::{HEADS_LATE, add_end};
use super::{PAGE, Service};
use crate::domain::audit::verify_against;
use crate::domain::replay::{
    FactMismatch, compare_bindings, compare_request, compare_with_clock, in_one_spelling,
};
use crate::domain::{
    AccountId, AuditKey, Chain, ChannelId, HeadEntry, HistoryEnd, Millis, Timestamp,
};
use crate::store::{AuditedRecord, Head, Inspected, StoreError};

/// Other processes may write to a history during the check, and DynamoDB has no snapshot: jit
/// reads a history this often before it reports a finding.
const READS: u32 = 3;

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

/// A summary of the seals of the entries so far.
#[derive(Default)]
struct SealSummary {
    /// The first entry with a seal.
    since: Option<u64>,
    /// The age of the newest key that made one.
    age: Option<usize>,
}

/// The head log, verified: the lowest number that the last event of each history must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifiedLog {
    /// The last end of each history, by the text of its audit key.
    pub ends: BTreeMap<String, HistoryEnd>,
    /// The number of entries.
    pub entries: u64,
    /// See [`HeadEntry::is_whole`].
    pub is_whole: bool,
    /// The first entry with a seal.
    pub sealed_since: Option<u64>,
    /// The defects of the log itself.
    pub findings: Vec<AuditFinding>,
}

impl AuditFinding {
    pub fn whole(why: impl Into<String>) -> Self {
        let (field, why) = (None, why.into());
        Self { field, why }
    }
}

impl From<FactMismatch> for AuditFinding {
    fn from(one: FactMismatch) -> Self {
        Self {
            field: Some(one.field.to_owned()),
            why: one.to_string(),
        }
    }
}

impl Service {
    /// Verifies one history with everything that must agree with it. The log must have been read
    /// before.
    pub async fn verify_history(
        &self,
        key: &AuditKey,
        log: &VerifiedLog,
    ) -> Result<VerifiedHistory, StoreError> {
        let logged = log.ends.get(&key.to_string());
        let mut reads = 1;
        loop {
            let verified = match self.store.inspect(key).await {
                Err(StoreError::Corrupt(why)) => {
                    let finding = AuditFinding::whole(format!("the record cannot be read: {why}"));
                    VerifiedHistory {
                        findings: vec![finding],
                        ..VerifiedHistory::default()
                    }
                }
                found => {
                    let found = found?;
                    let mut verified = verified(&found);
                    let now = self.clock.now();
                    let beside = self.findings_beside(&found, now).await?;
                    verified.findings.extend(beside);
                    verified
                        .findings
                        .extend(log_finding(&found, logged, log.is_whole, now));
                    verified
                }
            };
            if verified.findings.is_empty() || reads == READS {
                return Ok(verified);
            }
            reads += 1;
        }
    }

    /// Checks the parts of a record that no event carries: leases and next tries, and the access.
    async fn findings_beside(
        &self,
        found: &Inspected,
        now: Timestamp,
    ) -> Result<Vec<AuditFinding>, StoreError> {
        let Some(AuditedRecord::Request(request)) = &found.record else {
            return Ok(Vec::new());
        };
        let access = match self.compare_access(request, &found.events).await {
            Err(StoreError::Corrupt(why)) => {
                let why = format!("what the store keeps about the access cannot be read: {why}");
                return Ok(vec![AuditFinding::whole(why)]);
            }
            access => access?,
        };
        let times = compare_with_clock(request, now);
        Ok(times.into_iter().chain(access).map(Into::into).collect())
    }

    /// Reads and verifies the head log, and its seals if this process has the key.
    pub async fn verify_log(&self) -> Result<VerifiedLog, StoreError> {
        let mut log = VerifiedLog::default();
        let mut last: Option<HeadEntry> = None;
        let mut seals = SealSummary::default();
        loop {
            let entries = match self.store.head_entries(log.entries, PAGE).await {
                Err(StoreError::Corrupt(why)) => {
                    log.findings.push(AuditFinding::whole(why));
                    break;
                }
                entries => entries?,
            };
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                let defect = entry.defect_after(last.as_ref());
                log.findings.extend(defect.map(AuditFinding::whole));
                let defect = self.seal_defect(&entry, &mut seals);
                log.findings.extend(defect.map(AuditFinding::whole));
                for (key, end) in &entry.ends {
                    add_end(&mut log.ends, key.clone(), *end);
                }
                log.entries = entry.number;
                log.is_whole = entry.is_whole;
                last = Some(entry);
            }
        }
        if last.is_none() && log.findings.is_empty() {
            let why = "it has no entry: it was deleted, or this store was never served by a jit \
                       that writes it; start jit serve once after an upgrade";
            log.findings.push(AuditFinding::whole(why));
        }
        log.sealed_since = seals.since;
        if last.is_some() {
            let defect = self.beginning_defect(&log);
            log.findings.extend(defect.map(AuditFinding::whole));
            if self.seal_keys.is_set() && matches!(seals.age, Some(1..)) {
                let why = "the last entry is sealed with one of audit.old_seal_keys: the newer \
                           entries were removed, or jit serve was not restarted with \
                           audit.seal_key";
                log.findings.push(AuditFinding::whole(why));
            }
        }
        Ok(log)
    }

    /// From the first sealed entry on, every entry must have the right seal.
    /// A person with an older key must not continue the log, so no entry has the seal of an older
    /// key than the entry before.
    fn seal_defect(&self, entry: &HeadEntry, seals: &mut SealSummary) -> Option<String> {
        let number = entry.number;
        let Some(seal) = &entry.seal else {
            let missing = "has no seal, although an entry before it has one";
            let must_have = seals.since.is_some() && !self.is_before_seals(number);
            return must_have.then(|| format!("entry {number} {missing}"));
        };
        seals.since.get_or_insert(number);
        if !self.seal_keys.is_set() {
            return None;
        }
        let Some(age) = self.seal_keys.age_of(&entry.sealed_text(), seal) else {
            return Some(format!(
                "the seal of entry {number} is wrong: neither audit.seal_key nor one of \
                 audit.old_seal_keys made it"
            ));
        };
        let youngest = seals.age.unwrap_or(age);
        seals.age = Some(age.min(youngest));
        (age > youngest)
            .then(|| format!("entry {number} is sealed with an older key than the entry before it"))
    }

    /// Whether this process can check the seals of the head log.
    pub fn has_seal_key(&self) -> bool {
        self.seal_keys.is_set()
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
    let events = &in_one_spelling(events);
    let mismatches = match &found.record {
        Some(AuditedRecord::Request(request)) => compare_request(request, events),
        Some(AuditedRecord::Channel(_)) | None => compare_bindings(&found.bindings, events),
    };
    let mismatches = mismatches.into_iter().map(AuditFinding::from);
    let misfits = found.misfits.iter().map(|one| AuditFinding {
        field: Some(one.field.clone()),
        why: one.to_string(),
    });
    mismatches.chain(misfits).collect()
}

/// Compares the end of a history with the head log.
fn log_finding(
    found: &Inspected,
    logged: Option<&HistoryEnd>,
    is_whole: bool,
    now: Timestamp,
) -> Option<AuditFinding> {
    let count = found.events.len() as u64;
    let version = logged.map_or(0, |end| end.version);
    if let Some(end) = logged {
        let event = found.events.iter().find(|event| event.seq == version);
        let why = match event {
            None if found.is_empty() => format!(
                "the head log has {version} events of it, but the store has nothing: the record \
                 and its history were deleted"
            ),
            None => format!("the head log has {version} events of it, but the store has {count}"),
            Some(event) if event.hash != end.head => {
                format!("event {version} is not the one in the head log: the history was replaced")
            }
            Some(_) => String::new(),
        };
        if !why.is_empty() {
            return Some(AuditFinding::whole(why));
        }
    }
    // A log that is not whole may lack histories of the time before it.
    let unlogged = found.events.iter().find(|event| event.seq > version)?;
    let is_late = unlogged.event_time < now + Millis(-HEADS_LATE.0);
    (is_late && is_whole).then(|| {
        let seq = unlogged.seq;
        AuditFinding::whole(format!(
            "event {seq} is not in the head log, although it is older than five minutes: it was \
             added from outside, or no jit serve has run since"
        ))
    })
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
