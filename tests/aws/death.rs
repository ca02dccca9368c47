//! kill -9 at every call to AWS: before it is carried out, and before its answer comes.

use std::time::Duration;

use crate::common::aws::{ADMIN, Aws, Moment};
use crate::common::{ACCOUNT, Caller, Jit, Setup};

/// More than a life has.
const MOST_CALLS: usize = 30;
const LIFE: [&str; 6] = [
    "REQUESTED",
    "APPROVED",
    "ASSIGNING",
    "GRANTED",
    "REVOKE_REQUESTED",
    "REVOKED",
];

/// A life that is to end like this.
#[derive(Clone, Copy)]
struct Life {
    config: &'static str,
    /// With which event its history ends.
    end: &'static str,
    /// Somebody else has the same set there, so the role stays.
    role_stays: bool,
}

const PLAIN: Life = Life {
    config: "",
    end: "REVOKED",
    role_stays: false,
};
const WITH_SESSIONS: Life = Life {
    config: "[revocation]\nend_sessions = \"permission-set\"",
    end: "SESSIONS_DENIED",
    role_stays: true,
};

impl Life {
    async fn lived(self, caller: &Caller, id: &str) {
        let approved = caller.approve(id).await;
        assert!([200, 409].contains(&approved.status), "{approved:?}");
        let now = caller.show(id).await;
        if now["status"] == "APPROVED" {
            caller.until(id, "GRANTED").await;
        }
        let revoked = caller.revoke(id).await;
        assert!([200, 202, 409].contains(&revoked.status), "{revoked:?}");
        caller.until(id, "REVOKED").await;
        caller.until_told(id, self.end).await;
    }

    /// Whether there was such a call to die at.
    async fn dies_at(self, number: usize, moment: Moment) -> bool {
        let aws = Aws::open().await.with_latency(Duration::from_millis(300));
        if self.role_stays {
            aws.assign(ACCOUNT, ADMIN, "bob@example.com");
        }
        let standing = aws.assignments();
        aws.stop_at(number, moment);
        let (jit, caller) = Setup::with_aws(&aws, self.config).bound().await;
        let id = caller.request().await;
        tokio::select! {
            () = aws.reached() => {}
            () = self.lived(&caller, &id) => return false,
        }
        let folder = jit.kill();
        aws.go_on();
        let jit = Jit::start_with(folder, &aws.environment());
        let caller = jit.caller();
        self.lived(&caller, &id).await;
        assert_eq!(aws.assignments(), standing, "call {number}, {moment:?}");
        let kinds = caller.kinds(&id).await;
        assert_eq!(kinds[..6], LIFE, "call {number}, {moment:?}");
        let after = usize::from(self.end != "REVOKED");
        assert_eq!(
            kinds.len(),
            6 + after,
            "call {number}, {moment:?}: {kinds:?}"
        );
        let denies = aws.policy(ADMIN).unwrap_or_default();
        assert_eq!(denies.matches("Deny").count(), after, "{denies}");
        true
    }

    async fn every_second_call(self, first: usize, moment: Moment) -> usize {
        let mut number = first;
        while number < MOST_CALLS && self.dies_at(number, moment).await {
            number += 2;
        }
        number
    }

    /// At how many calls it died, at least.
    async fn dies_everywhere_from(self, first: usize) -> usize {
        let (before, after) = (Moment::Before, Moment::After);
        let reached = tokio::join!(
            self.every_second_call(first, before),
            self.every_second_call(first + 1, before),
            self.every_second_call(first, after),
            self.every_second_call(first + 1, after),
        );
        let all = [reached.0, reached.1, reached.2, reached.3];
        assert!(all.iter().all(|last| *last < MOST_CALLS), "{all:?}");
        all.into_iter().min().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_call_ends_right() {
    // A life has eight calls at least.
    assert!(PLAIN.dies_everywhere_from(1).await >= 9);
}

/// From the removal on, to the deny that is in force.
#[tokio::test(flavor = "multi_thread")]
async fn death_at_any_call_while_sessions_end_ends_right() {
    assert!(WITH_SESSIONS.dies_everywhere_from(8).await >= 14);
}
