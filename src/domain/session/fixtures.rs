//! Test data for sessions.

use super::{Issued, Session, SessionId, SessionMode, SessionState};
use crate::domain::decide::fixtures::{alice, id};
use crate::domain::{Millis, RoleTemplate, Timestamp};

pub(super) fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

/// An active session of alice, which ends in an hour.
pub(super) fn session() -> Session {
    let account_id = "111122223333".parse().unwrap();
    let template: RoleTemplate = "arn:aws:iam::{account_id}:role/jit/deploy".parse().unwrap();
    Session {
        id: SessionId(0xab),
        request_id: id(1),
        person: alice(),
        role: template.in_account(&account_id),
        account_id,
        permission_set: "deploy".parse().unwrap(),
        state: SessionState::Active,
        mode: SessionMode::Server,
        label: None,
        started_at: now(),
        expires_at: now() + Millis::hours(1),
        issued: Issued::default(),
        version: 1,
    }
}
