//! If a decision makes a request due at once, the same commit can claim it: that saves one
//! write, and no worker has to find the request.

use super::{Decision, Record, decide};
use crate::domain::{AccessRecord, Binding, Claim, Command, Lease, Policy, Timestamp};

impl Decision {
    /// The decision with the claim included. None if the request is not due, or if the claim
    /// would record an event or change more than the request.
    pub fn claimed(
        &self,
        access: AccessRecord,
        binding: Option<Binding>,
        policy: &Policy,
        lease: Lease,
        now: Timestamp,
    ) -> Option<Self> {
        let record = Record {
            request: self.request.clone(),
            binding,
            access: access.after(&self.access),
        };
        let offer = Claim {
            lease,
            lapsed: None,
            as_of: now,
        };
        let claim = decide(record, policy, Command::Due { claim: offer }, now).ok()?;
        let is_no_more = claim.events.is_empty() && claim.access.is_none();
        (is_no_more && claim.work.is_some()).then(|| Self {
            request: claim.request.at_revision(self.request.version.revision),
            work: claim.work,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{
        alice, asked, bob, holding_of, id, key, later, lease, minutes, policy, record,
    };
    use super::*;
    use crate::domain::{Ask, AssignmentWork, LeaseToken, Work};

    fn claimed(record: Record, command: Command) -> (Decision, Option<Decision>) {
        let (policy, now, access) = (policy(), later(), record.access.clone());
        let binding = record.binding.clone();
        let decision = decide(record, &policy, command, now).unwrap();
        let claimed = decision.claimed(access, binding, &policy, lease(), now);
        (decision, claimed)
    }

    #[test]
    fn approve_and_revoke_claim_the_work_in_the_same_commit() {
        let revoke = || Ask::Revoke { reason: None };
        for (word, ask, work) in [
            ("Pending", Ask::Approve, "Prepare"),
            ("Granted", revoke(), "Remove"),
            ("Expiring", revoke(), "Remove"),
            ("Error", revoke(), "Look"),
        ] {
            let (plain, claimed) = claimed(record(word), asked(bob(), ask));
            let claimed = claimed.unwrap();
            let Some(Work::Assignment(next)) = claimed.work else {
                panic!("{word}: no work");
            };
            assert!(format!("{next:?}").starts_with(work), "{word}");
            assert_eq!(claimed.request.schedule.lease, Some(lease()), "{word}");
            // The claim adds only the lease.
            let mut request = claimed.request;
            request.schedule.lease = plain.request.schedule.lease;
            assert_eq!(request, plain.request, "{word}");
            assert_eq!(claimed.events, plain.events, "{word}");
            assert_eq!(claimed.notices, plain.notices, "{word}");
            assert_eq!(claimed.access, plain.access, "{word}");
        }
    }

    #[test]
    fn a_request_that_is_not_due_or_is_leased_is_not_claimed() {
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
        later_on.request.asked.start_at = Some(later() + crate::domain::Millis::hours(1));
        assert_eq!(claimed(later_on, asked(bob(), Ask::Approve)).1, None);

        let mut at_work = record("Assigning");
        at_work.request.schedule.lease = Some(Lease {
            token: LeaseToken(uuid::Uuid::from_u128(78)),
            ..lease()
        });
        let revoke = Ask::Revoke { reason: None };
        assert_eq!(claimed(at_work, asked(bob(), revoke)).1, None);
    }

    /// The commit ends the other holders as well; only the request of the command gets the work.
    #[test]
    fn a_revoke_of_a_shared_assignment_gives_work_to_one_holder() {
        let mut shared = record("Granted");
        holding_of(&mut shared).holders.insert(id(2));
        let revoke = Ask::Revoke { reason: None };
        let (plain, claimed) = claimed(shared, asked(bob(), revoke));
        let claimed = claimed.unwrap();
        assert_eq!(claimed.access, plain.access);
        let removal = Work::from(AssignmentWork::Remove(key()));
        assert_eq!(claimed.work, Some(removal));
    }
}
