//! `jit audit verify`: checks one history, or all histories and that none is missing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::audit::key;
use super::output::one_line;
use super::serve::failed;
use super::{CliContext, Failure};
use crate::app::{self, Purpose};
use crate::domain::{AuditKey, counted};
use crate::service::{AuditFinding, Service, VerifiedHistory, VerifiedLog};

const PAGE: usize = 500;
/// The name of the head log in the findings.
const HEAD_LOG: &str = "head log";
/// Nothing shows the difference.
const EMPTY: &str = "the store has no history: it is new, or everything in it was deleted";

pub(super) async fn verify(context: &CliContext, id: Option<&str>) -> Result<(), Failure> {
    let config = context.config_with_seal_key().await?;
    let service = app::service(&config, Purpose::Read).await.map_err(failed)?;
    // The log is read first, so the store is never behind it.
    let log = service.verify_log().await.map_err(failed)?;
    let mut verification = Verification::of(log, service.has_seal_key());
    let defects = std::mem::take(&mut verification.log.findings);
    match id {
        Some(id) => {
            let key = key(&config, id).await?;
            let verified = service.verify_history(&key, &verification.log).await;
            let verified = verified.map_err(failed)?;
            if verified.is_unknown && verified.findings.is_empty() {
                let why = format!("there is no history of {id}; jit list shows the requests");
                return Err(Failure::Failed(why));
            }
            // C: what the log says of this history counts only if the log is whole.
            verification.add_findings(HEAD_LOG, defects);
            verification.add(&key.to_string(), verified);
        }
        None => {
            verification.add_findings(HEAD_LOG, defects);
            verification.add_all(&service).await?;
            verification.check_not_empty();
        }
    }
    let (text, value) = (|| verification.text(), verification.json());
    context.output.print(text, &value)?;
    if verification.broken.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{} failed verification; copy the store before you change anything in it, then compare \
         it with a backup (runbooks/restore.md)",
        verification.failed()
    )))
}

/// The histories that were checked so far.
struct Verification {
    log: VerifiedLog,
    has_seal_key: bool,
    /// The text of every audit key that was checked. More than one walk can find the same key.
    seen: BTreeSet<String>,
    events: u64,
    broken: Vec<BrokenHistory>,
}

struct BrokenHistory {
    id: String,
    finding: AuditFinding,
}

impl Verification {
    fn of(log: VerifiedLog, has_seal_key: bool) -> Self {
        Self {
            log,
            has_seal_key,
            seen: BTreeSet::new(),
            events: 0,
            broken: Vec::new(),
        }
    }

    /// C: after everything was deleted, a restart begins a head log that is whole and sealed.
    fn check_not_empty(&mut self) {
        if self.seen.is_empty() && self.has_seal_key {
            let why = format!("{EMPTY}; audit.seal_key is set, so look for a backup or an export");
            self.add_findings(HEAD_LOG, vec![AuditFinding::whole(why)]);
        }
    }

    /// The parts that failed, for the message at the end.
    fn failed(&self) -> String {
        let names: BTreeSet<&str> = self.broken.iter().map(|one| one.id.as_str()).collect();
        let (is_log, all) = (names.contains(HEAD_LOG), self.seen.len());
        match names.len() - usize::from(is_log) {
            0 => format!("the {HEAD_LOG}"),
            chains if is_log => format!("the {HEAD_LOG} and {chains} of {all} audit chains"),
            chains => format!("{chains} of {all} audit chains"),
        }
    }

    /// The result of the check of the seals, in one sentence.
    fn seals(&self) -> String {
        let entries = self.log.entries;
        match (self.log.sealed_since, self.has_seal_key) {
            (None, _) => format!(
                "{entries} entries of the head log are not sealed: a person who can write the \
                 store can rewrite it all; set audit.seal_key_file"
            ),
            (Some(since), true) => {
                format!("{entries} entries of the head log verified, sealed since entry {since}")
            }
            (Some(since), false) => format!(
                "{entries} entries of the head log are sealed since entry {since}, but no \
                 audit.seal_key is set here, so the seals were not checked"
            ),
        }
    }

    /// Walks the records, then the audit keys, the bindings and the head log: what one walk misses
    /// because something was deleted, another one finds.
    async fn add_all(&mut self, service: &Service) -> Result<(), Failure> {
        self.add_records(service).await?;
        for name in service.audit_keys().await.map_err(failed)? {
            match name.parse::<AuditKey>() {
                Ok(key) => self.add_key(service, key).await?,
                Err(why) => self.add_unreadable(&name, &format!("the audit key {why}")),
            }
        }
        let channels = service.bound_channels().await.map_err(failed)?;
        for (channel, findings) in channels {
            let key = AuditKey::Config(channel);
            let id = key.to_string();
            self.add_key(service, key).await?;
            self.add_findings(&id, findings);
        }
        let logged: Vec<String> = self.log.ends.keys().cloned().collect();
        for name in logged {
            match name.parse::<AuditKey>() {
                Ok(key) => self.add_key(service, key).await?,
                Err(why) => self.add_unreadable(&name, &format!("the audit key {why}")),
            }
        }
        Ok(())
    }

    async fn add_records(&mut self, service: &Service) -> Result<(), Failure> {
        let mut after: Option<AuditKey> = None;
        loop {
            let heads = service.heads(after.as_ref(), PAGE).await.map_err(failed)?;
            for one in &heads.unreadable {
                let why = format!("the record cannot be read: {}", one.why);
                self.add_unreadable(&one.name, &why);
            }
            let Some(last) = heads.last() else {
                return Ok(());
            };
            after = Some(last.key.clone());
            for head in heads {
                self.add_key(service, head.key).await?;
            }
        }
    }

    async fn add_key(&mut self, service: &Service, key: AuditKey) -> Result<(), Failure> {
        let id = key.to_string();
        if self.seen.contains(&id) {
            return Ok(());
        }
        let verified = service.verify_history(&key, &self.log).await;
        let verified = verified.map_err(failed)?;
        self.add(&id, verified);
        Ok(())
    }

    fn add(&mut self, id: &str, verified: VerifiedHistory) {
        self.seen.insert(id.to_owned());
        self.events += verified.chain.version;
        self.add_findings(id, verified.findings);
    }

    fn add_unreadable(&mut self, name: &str, why: &str) {
        if self.seen.insert(name.to_owned()) {
            self.add_findings(name, vec![AuditFinding::whole(why)]);
        }
    }

    fn add_findings(&mut self, id: &str, findings: Vec<AuditFinding>) {
        let broken = findings.into_iter().map(|finding| BrokenHistory {
            id: id.to_owned(),
            finding,
        });
        self.broken.extend(broken);
    }

    fn text(&self) -> String {
        if self.broken.is_empty() {
            let (histories, events) = (self.seen.len(), self.events);
            let seals = self.seals();
            let chains = counted(histories as u64, "audit chain");
            let events = counted(events, "event");
            let verified = format!("{chains} verified, {events}\n{seals}");
            return match histories {
                0 => format!("{EMPTY}\n{verified}"),
                _ => verified,
            };
        }
        let line =
            |one: &BrokenHistory| format!("{}: {}", one_line(&one.id), one_line(&one.finding.why));
        self.broken.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn json(&self) -> Value {
        let entry = |one: &BrokenHistory| {
            let mut entry = json!({"request_id": one.id, "why": one.finding.why});
            if let Some(field) = &one.finding.field {
                entry["field"] = json!(field);
            }
            entry
        };
        let broken: Vec<Value> = self.broken.iter().map(entry).collect();
        json!({
            "histories": self.seen.len(), "events": self.events, "broken": broken,
            "head_log": {
                "entries": self.log.entries, "sealed_since": self.log.sealed_since,
                "seals_checked": self.has_seal_key && self.log.sealed_since.is_some(),
            },
        })
    }
}
