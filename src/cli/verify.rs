//! `jit audit verify`: checks one history, or all histories and that none is missing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::audit::{key, service};
use super::output::one_line;
use super::serve::failed;
use super::{CliContext, Failure};
use crate::domain::AuditKey;
use crate::service::{AuditFinding, Service, VerifiedHistory};

const PAGE: usize = 500;

pub(super) async fn verify(context: &CliContext, id: Option<&str>) -> Result<(), Failure> {
    let service = service(context).await?;
    let mut verification = Verification::default();
    match id {
        Some(id) => {
            let verified = service.verify_history(&key(id)?).await.map_err(failed)?;
            if verified.is_unknown {
                let why = format!("there is no history of {id}; jit list shows the requests");
                return Err(Failure::Failed(why));
            }
            verification.add(id, verified);
        }
        None => verification.add_all(&service).await?,
    }
    let (text, value) = (|| verification.text(), verification.json());
    context.output.say(text, &value)?;
    if verification.broken.is_empty() {
        return Ok(());
    }
    let broken: BTreeSet<&str> = verification
        .broken
        .iter()
        .map(|one| one.id.as_str())
        .collect();
    let (count, all) = (broken.len(), verification.seen.len());
    Err(Failure::Failed(format!(
        "{count} of {all} audit chains failed verification; copy the store before you change \
         anything in it, then compare it with a backup (runbooks/restore.md)"
    )))
}

/// The histories that were checked so far.
#[derive(Default)]
struct Verification {
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
    /// Walks the records, then the audit keys, then the bindings: what one walk misses because
    /// something was deleted, another one finds.
    async fn add_all(&mut self, service: &Service) -> Result<(), Failure> {
        self.add_records(service).await?;
        for name in service.audit_keys().await.map_err(failed)? {
            match name.parse::<AuditKey>() {
                Ok(key) => self.add_key(service, key).await?,
                Err(why) => self.add_unreadable(name, &format!("the audit key {why}")),
            }
        }
        let channels = service.bound_channels().await.map_err(failed)?;
        for (channel, findings) in channels {
            let key = AuditKey::Config(channel);
            let id = key.to_string();
            self.add_key(service, key).await?;
            self.add_findings(&id, findings);
        }
        Ok(())
    }

    async fn add_records(&mut self, service: &Service) -> Result<(), Failure> {
        let mut after: Option<AuditKey> = None;
        loop {
            let heads = service.heads(after.as_ref(), PAGE).await.map_err(failed)?;
            for one in &heads.unreadable {
                let why = format!("the record cannot be read: {}", one.why);
                self.add_unreadable(one.name.clone(), &why);
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
        let verified = service.verify_history(&key).await.map_err(failed)?;
        self.add(&id, verified);
        Ok(())
    }

    fn add(&mut self, id: &str, verified: VerifiedHistory) {
        self.seen.insert(id.to_owned());
        self.events += verified.chain.version;
        self.add_findings(id, verified.findings);
    }

    fn add_unreadable(&mut self, name: String, why: &str) {
        if self.seen.insert(name.clone()) {
            self.add_findings(&name, vec![AuditFinding::whole(why)]);
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
            return format!("{histories} audit chains verified, {events} events");
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
        json!({"histories": self.seen.len(), "events": self.events, "broken": broken})
    }
}
