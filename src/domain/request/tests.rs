//! Tests of the stored form of a request.

use super::*;

/// A record that is written with every field. Records in the store keep these names.
const STORED: &str = r#"{
    "id": "00000000-0000-0000-0000-000000000001", "account_id": "123456789012",
    "channel_id": "town", "requester": {"id": "alice", "email": "alice@example.com"},
    "permission_set": "admin", "reason": "INC-42: db down", "jira": "OPS-7", "duration": 60,
    "start_at": "1970-01-01T00:00:01.000Z", "created_at": "1970-01-01T00:00:00.000Z",
    "approvals": [{"by": {"id": "bob", "email": "bob@example.com"}, "at": "1970-01-01T00:01:00.000Z"}],
    "approved_at": "1970-01-01T00:01:00.000Z", "user": "u-1",
    "granted": {"from": "1970-01-01T00:01:00.000Z", "until": "1970-01-01T00:11:00.000Z"},
    "extension": {"by": {"id": "alice", "email": "alice@example.com"}, "minutes": 30, "approvals": []},
    "state": {"is": "granted"}, "sessions": {"are": "ending", "before": "1970-01-01T00:00:00.000Z"},
    "trouble": {"since": "1970-01-01T00:00:00.000Z", "attempts": 2, "refusals": 1, "why": "no"},
    "parked_notices": 5, "card": "p1", "reminder": {"post": "p2", "of": 3},
    "due_at": "1970-01-01T00:02:00.000Z",
    "lease": {"token": "00000000-0000-0000-0000-00000000004d", "until": "1970-01-01T00:02:30.000Z",
        "by": "operator"},
    "chain": {"version": 3, "head": "0000000000000000000000000000000000000000000000000000000000000000",
        "last_at": "1970-01-01T00:00:00.000Z"},
    "revision": 7}"#;

#[test]
fn a_stored_request_is_one_flat_object_whose_fields_keep_their_names() {
    let request: Request = serde_json::from_str(STORED).unwrap();
    let stored: serde_json::Value = serde_json::from_str(STORED).unwrap();
    assert_eq!(serde_json::to_value(&request).unwrap(), stored);
}

/// Older records have no value for these fields.
#[test]
fn a_stored_request_without_later_fields_is_read() {
    let mut stored: serde_json::Value = serde_json::from_str(STORED).unwrap();
    for field in ["sessions", "card", "reminder"] {
        stored.as_object_mut().unwrap().remove(field);
    }
    let request: Request = serde_json::from_value(stored).unwrap();
    assert_eq!(request.access.old_credentials(), None);
    assert_eq!((request.chat.card, request.chat.reminder), (None, None));
    assert_eq!(request.chat.button_key, None);
}
