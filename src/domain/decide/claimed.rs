//! What is due as soon as it is decided can be claimed in the same write: one write less,
//! and nobody has to find it first.

use super::{Decision, Record, decide};
use crate::domain::{Claim, Command, Holding, Lease, Policy, Request, Timestamp};

impl Decision {
    /// The same, with what it makes due claimed in the same write; if nothing else comes
    /// of the claim.
    pub fn claimed(
        &self,
        held: Option<Holding>,
        policy: &Policy,
        lease: Lease,
        now: Timestamp,
    ) -> Option<Self> {
        let record = Record {
            request: self.request.clone(),
            binding: None,
            holding: self.holding.clone().or(held),
        };
        let offer = Claim {
            lease,
            lapsed: None,
            as_of: now,
        };
        let claim = decide(record, policy, Command::Due { claim: offer }, now).ok()?;
        let is_no_more = claim.events.is_empty() && claim.holding.is_none();
        (is_no_more && claim.work.is_some()).then(|| Self {
            request: Request {
                revision: self.request.revision,
                ..claim.request
            },
            work: claim.work,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{alice, asked, bob, id, later, lease, minutes, policy, record};
    use super::*;
    use crate::domain::{Ask, LeaseToken, Work};

    fn claimed(record: Record, command: Command) -> (Decision, Option<Decision>) {
        let (policy, now, held) = (policy(), later(), record.holding.clone());
        let decision = decide(record, &policy, command, now).unwrap();
        let claimed = decision.claimed(held, &policy, lease(), now);
        (decision, claimed)
    }

    #[test]
    fn approving_and_revoking_begin_at_once() {
        let revoke = || Ask::Revoke { reason: None };
        for (word, ask, work) in [
            ("Pending", Ask::Approve, "Prepare"),
            ("Granted", revoke(), "Remove"),
            ("Expiring", revoke(), "Remove"),
            ("Error", revoke(), "Look"),
        ] {
            let (plain, claimed) = claimed(record(word), asked(bob(), ask));
            let claimed = claimed.unwrap();
            assert!(
                format!("{:?}", claimed.work.unwrap()).starts_with(work),
                "{word}"
            );
            assert_eq!(claimed.request.lease, Some(lease()), "{word}");
            // Nothing else is different: one write in place of two.
            let request = Request {
                lease: plain.request.lease,
                ..claimed.request
            };
            assert_eq!(request, plain.request, "{word}");
            assert_eq!(claimed.events, plain.events, "{word}");
            assert_eq!(claimed.notices, plain.notices, "{word}");
            assert_eq!(claimed.holding, plain.holding, "{word}");
        }
    }

    #[test]
    fn what_is_not_due_or_at_work_already_is_left_alone() {
        let extend = Ask::Extend {
            minutes: minutes(30),
        };
        let deny = Ask::Deny { reason: None };
        for (word, by, ask) in [
            ("Pending", bob(), deny),
            ("Pending", alice(), Ask::Cancel),
            ("Granted", alice(), extend),
        ] {
            assert_eq!(claimed(record(word), asked(by, ask)).1, None, "{word}");
        }
        let mut later_on = record("Pending");
        later_on.request.start_at = Some(later() + crate::domain::Millis::hours(1));
        assert_eq!(claimed(later_on, asked(bob(), Ask::Approve)).1, None);

        let mut at_work = record("Assigning");
        at_work.request.lease = Some(Lease {
            token: LeaseToken(uuid::Uuid::from_u128(78)),
            ..lease()
        });
        let revoke = Ask::Revoke { reason: None };
        assert_eq!(claimed(at_work, asked(bob(), revoke)).1, None);
    }

    /// The other holders end in the same commit; the work is the one's who was asked for.
    #[test]
    fn a_shared_assignment_is_begun_once() {
        let mut shared = record("Granted");
        let holding = shared.holding.as_mut().unwrap();
        holding.holders.insert(id(2));
        let revoke = Ask::Revoke { reason: None };
        let (plain, claimed) = claimed(shared, asked(bob(), revoke));
        let claimed = claimed.unwrap();
        assert_eq!(claimed.co_holders, plain.co_holders);
        assert!(matches!(claimed.work, Some(Work::Remove(_))));
    }
}
