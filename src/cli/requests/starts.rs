//! The start of a request in `jit list` and `jit status`.

use serde_json::json;

use super::{describe, page};

// B1
#[test]
fn a_list_and_a_status_show_the_start_until_the_access_begins() {
    let start = "2026-03-01T09:00:00Z";
    for (status, is_ahead) in [("PENDING", true), ("APPROVED", true), ("REVOKED", false)] {
        let request = json!({"request_id": "1", "status": status, "start_at": start,
                             "created_at": "2026-02-01T09:00:00Z"});
        let listed = page(&json!({"items": [request.clone()]}));
        assert_eq!(
            listed.contains(&format!("starts {start}")),
            is_ahead,
            "{listed}"
        );
        let shown = describe(&request);
        let line = shown.lines().find(|line| line.starts_with("starts"));
        assert!(line.unwrap().ends_with(start), "{shown}");
    }
}
