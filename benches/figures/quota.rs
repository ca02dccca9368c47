//! Measures the effect of AWS's limits, with a thousand grants that end in the same second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jit::clock::{Clock, SystemClock};
use jit::domain::{Millis, RequestId, Timestamp};
use serde_json::json;
use tempfile::TempDir;

use crate::aws::{Aws, Heard};
use crate::process::Process;
use crate::{Report, stock};

const GRANTS: usize = 1000;
const ACCOUNTS: usize = 60;
const CALLS_PER_SECOND: u32 = 20;

const STUCK: usize = 10;

/// A process whose grants end in the same second. The simulated AWS takes one second for each
/// operation, runs one at a time in an account, and throttles a caller above the limit.
struct Ending {
    folder: TempDir,
    aws: Aws,
    ids: Vec<RequestId>,
    until: Timestamp,
}

impl Ending {
    async fn prepare(grants: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let aws = Aws::open().await.with_latency(Duration::from_secs(1));
        aws.one_at_a_time_in_an_account();
        aws.in_long_pages();
        let until = SystemClock.now() + Millis::seconds(8);
        let ids = stock::ending_together(folder.path(), &aws, grants, ACCOUNTS, until).await;
        aws.limit(f64::from(CALLS_PER_SECOND));
        Self {
            folder,
            aws,
            ids,
            until,
        }
    }

    async fn start(&self) -> Process {
        let jit = Process::jit_at(self.folder.path(), &self.aws, CALLS_PER_SECOND);
        jit.first_answer().await;
        let is_in_time = SystemClock.now() < self.until;
        assert!(is_in_time, "the grants took too long to make");
        jit
    }

    /// Reports the time until the last grant ended, also as a multiple of the minimum: each
    /// removal needs at least one call.
    fn report(&self, report: &mut Report, name: &str, ended: Vec<Timestamp>, most: f64) {
        let end = ended.into_iter().max().unwrap_or_default();
        let took = (end - self.until).0 as f64 / 1000.0;
        let ratio = took * f64::from(CALLS_PER_SECOND) / GRANTS as f64;
        report.hold(
            name,
            &format!("{took:.1} s, {ratio:.2} x the limit"),
            ratio <= most,
            &format!("{most} x one call for each"),
        );
    }
}

/// Ten operations that AWS never completes, each in its own account, must not delay a thousand
/// other removals.
pub async fn many_ends_beside_stuck_operations(report: &mut Report) {
    let ending = Ending::prepare(GRANTS + STUCK).await;
    for number in 1..=STUCK {
        ending.aws.next_never_ends(&format!("{number:012}"));
    }
    let _jit = ending.start().await;
    let (_staying, ids) = ending.ids.split_last().unwrap();
    let ended = stock::first_ended(ending.folder.path(), ids, GRANTS).await;
    let name = "1,000 ends at once beside ten that AWS never ends";
    ending.report(report, name, ended, 1.15);
}

pub async fn many_ends(report: &mut Report) {
    let all = Ending::prepare(GRANTS).await;
    let jit = all.start().await;
    let (last, ending) = all.ids.split_last().unwrap();
    let aws = &all.aws;

    // The revokes come in the middle and in busy accounts: one for a grant that would stay, and
    // one for a grant that waits for its removal.
    SystemClock
        .wait_until(all.until + Millis::seconds(20))
        .await;
    let staying = revoke(&jit, aws, last).await;
    let waiting = revoke(&jit, aws, ending.last().unwrap()).await;

    let ended = stock::ended(all.folder.path(), ending).await;
    assert!(aws.assignments().is_empty());
    let heard = aws.received();
    let calls = heard.len() as f64 / (GRANTS + 1) as f64;
    let mut by_action = BTreeMap::new();
    for one in &heard {
        *by_action.entry(one.action.as_str()).or_insert(0) += 1;
    }
    report.tell("calls by action", &format!("{by_action:?}"));
    let refused = heard.iter().filter(|one| one.refused).count();
    let name = "1,000 ends at once, 20 calls/s, until all are gone";
    all.report(report, name, ended, 1.25);
    report.hold(
        "calls to AWS for each removal",
        &format!("{calls:.2}, {refused} refused"),
        calls <= 2.2,
        "at most 2.2",
    );
    for (name, (begun, gone)) in [
        ("a revoke in the middle of it", staying),
        ("a revoke of one that waits for its end", waiting),
    ] {
        report.hold(
            name,
            &format!("begun {begun:.0?}, gone {gone:.1?}"),
            begun < Duration::from_secs(1),
            "begun within 1 s",
        );
    }
}

/// Returns the time until AWS received the delete of a revoke, and until its answer.
async fn revoke(jit: &Process, aws: &Aws, id: &RequestId) -> (Duration, Duration) {
    let actor = json!({"actor_mm_user_id": "bob", "actor_email": "bob@example.com"});
    let asked = Instant::now();
    let path = format!("/requests/{id}/revoke");
    let revoked = jit.caller().post(&path, &actor).await;
    let answered = asked.elapsed();
    assert_eq!(revoked["status"], "REVOKED", "{revoked}");
    let user = revoked["identity_store_user_id"].as_str().unwrap();
    let heard = aws.received();
    let ours = |one: &&Heard| one.action == "DeleteAccountAssignment" && one.user == user;
    let begun = heard.iter().find(ours).unwrap().at;
    (begun - asked, answered)
}
