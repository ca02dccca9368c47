//! People and rules for tests that call the engine directly.
#![allow(dead_code)] // each target uses its part

use jit::domain::{
    AccessForm, Admins, Binding, ExtensionRule, Millis, OldCredentialsRule, Person, Policy,
    SetRule, Timestamp,
};

pub fn person(name: &str) -> Person {
    let email = format!("{name}@example.com").parse().unwrap();
    Person {
        id: name.parse().unwrap(),
        email,
    }
}

fn set_rule() -> SetRule {
    SetRule {
        form: AccessForm::Assignment,
        max_request_hours: None,
    }
}

pub fn policy() -> Policy {
    Policy {
        permission_sets: ["admin", "readonly"]
            .map(|name| (name.parse().unwrap(), set_rule()))
            .into(),
        default_permission_set: "admin".parse().unwrap(),
        pending_lifetime: Millis::hours(8),
        max_request_hours: 4,
        max_start_ahead: Millis::hours(24 * 30),
        extension: ExtensionRule::NeedsApproval,
        grant_patience: Millis::minutes(15),
        max_pending_requests: 500,
        admins: Admins::of_policy([]),
        end_sessions: OldCredentialsRule::Off,
        remind_before: None,
    }
}

/// Bob approves in town-square.
pub fn binding() -> Binding {
    Binding {
        account_id: "111122223333".parse().unwrap(),
        channel_id: "town-square".parse().unwrap(),
        approvers: vec!["bob".parse().unwrap()],
        approvals_required: 1,
        allow_self_approval: false,
        max_request_hours: None,
        session_duration_minutes: 60,
        permission_sets: Vec::new(),
        updated_at: Timestamp::default(),
        revision: 1,
        bound_seq: 1,
    }
}
