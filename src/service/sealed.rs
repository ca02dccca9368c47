//! From which entry on the head log must be sealed, and that this process finds the log as it
//! left it. A log without seals, correctly chained, can be written without the key.

use super::Service;
use super::heads::changed;
use super::verify::VerifiedLog;
use crate::domain::HeadEntry;
use crate::store::StoreError;

impl Service {
    /// The entries of the head log have seals from this one on (`audit.sealed_since`).
    #[must_use]
    pub fn sealed_since(self, sealed_since: Option<u64>) -> Self {
        Self {
            sealed_since,
            ..self
        }
    }

    /// Whether the configuration says that the entry is from before the first seal.
    pub(super) fn is_before_seals(&self, number: u64) -> bool {
        self.sealed_since.is_some_and(|since| number < since)
    }

    /// C: jit adds nothing to a log that lost its seals, or that another one replaced.
    pub(super) async fn check_kept(&self, last: Option<&HeadEntry>) -> Result<(), StoreError> {
        let number = last.map_or(0, |last| last.number);
        if let Some(since) = self.sealed_since
            && number + 1 < since
        {
            return Err(changed(&format!(
                "audit.sealed_since says that it has more than {number} entries"
            )));
        }
        let is_sealed = last.is_some_and(|last| last.seal.is_some());
        let must_be_sealed =
            self.heads.saw_seal() || self.sealed_since.is_some_and(|since| number >= since);
        if self.seal_keys.is_set() && must_be_sealed && last.is_some() && !is_sealed {
            return Err(changed(&format!(
                "entry {number} has no seal, although the log was sealed before"
            )));
        }
        if let Some((own, hash)) = self.heads.written()
            && own < number
        {
            let kept = self.store.head_entries(own - 1, 1).await?;
            let is_kept = |entry: &HeadEntry| (entry.number, entry.hash) == (own, hash);
            if !kept.first().is_some_and(is_kept) {
                return Err(changed(&format!(
                    "entry {own} is not the one that this process wrote"
                )));
            }
        }
        if is_sealed {
            self.heads.note_seal();
        }
        Ok(())
    }

    /// Why the first seal is not where it must be; none if it is, or if this process has no key.
    pub(super) fn beginning_defect(&self, log: &VerifiedLog) -> Option<String> {
        if !self.seal_keys.is_set() {
            return None;
        }
        let (entries, stated) = (log.entries, self.sealed_since);
        let Some(since) = log.sealed_since else {
            return Some(
                "audit.seal_key is set, but no entry has a seal: the seals were removed, or \
                 jit serve was not restarted with the key"
                    .into(),
            );
        };
        match stated {
            Some(stated) if since > stated => Some(format!(
                "the first seal is on entry {since} of {entries}, but audit.sealed_since says \
                 {stated}: the log was replaced by one without its seals"
            )),
            None if since > 1 => Some(format!(
                "the first seal is on entry {since}, and entries without a seal can be written \
                 without the key. If jit serve got audit.seal_key when the log had {} entries \
                 (its log says so), set audit.sealed_since = {since}; otherwise the log was \
                 replaced",
                since - 1
            )),
            Some(_) | None => None,
        }
    }
}
