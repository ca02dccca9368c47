//! kill -9 at every call to AWS: before AWS carries it out, and before its answer arrives.

use std::time::Duration;

use crate::common::aws::{ADMIN, Aws, Moment};
use crate::common::{ACCOUNT, Caller, Jit, Setup};

/// More calls than one request makes.
const MOST_CALLS: usize = 30;
const LIFE: [&str; 6] = [
    "REQUESTED",
    "APPROVED",
    "ASSIGNING",
    "GRANTED",
    "REVOKE_REQUESTED",
    "REVOKED",
];

/// The life of one request that ends in this way.
#[derive(Clone, Copy)]
struct Life {
    config: &'static str,
    /// The last event of the history.
    end: &'static str,
    /// Another user has the same permission set in the account, so AWS keeps the role.
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
    async fn run_to_end(self, caller: &Caller, id: &str) {
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

    /// Returns whether the life made this call, so that the process was killed at it.
    async fn is_killed_at(self, number: usize, moment: Moment) -> bool {
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
            () = self.run_to_end(&caller, &id) => return false,
        }
        let folder = jit.kill();
        aws.go_on();
        let jit = Jit::start_with(folder, &aws.environment());
        let caller = jit.caller();
        self.run_to_end(&caller, &id).await;
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
        while number < MOST_CALLS && self.is_killed_at(number, moment).await {
            number += 2;
        }
        number
    }

    /// Returns at how many calls the process was killed, at least.
    async fn is_killed_at_every_call_from(self, first: usize) -> usize {
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
async fn a_kill_at_any_aws_call_leaves_no_access_and_the_right_history() {
    // A life makes at least eight calls.
    assert!(PLAIN.is_killed_at_every_call_from(1).await >= 9);
}

/// From the removal until the deny statement is in force.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_aws_call_while_sessions_end_leaves_one_deny_statement() {
    assert!(WITH_SESSIONS.is_killed_at_every_call_from(8).await >= 14);
}
