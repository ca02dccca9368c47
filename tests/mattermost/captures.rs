//! Calls that a real server sent, replayed with the same bytes.

use std::path::Path;

use crate::common::Reply;
use crate::server::{ACCOUNT, ADA, ALICE, Mattermost, TEAM, TOKEN, Team, command_answer};

pub struct Wire {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The calls of Mattermost in a capture, with the same bytes.
pub fn wires(name: &str) -> Vec<Wire> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mattermost/captures");
    let text = std::fs::read_to_string(folder.join(format!("{name}.http")))
        .unwrap()
        .replace("\r\n", "\n");
    let parts = text
        .split("Mattermost -> integration (verbatim bytes)\n")
        .skip(1);
    let wire = |part: &str| {
        let (head, rest) = part.split_once("\n\n").unwrap();
        let headers: Vec<(String, String)> = head
            .lines()
            .skip(1)
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "Content-Length");
        let length: usize = length.map_or(0, |(_, length)| length.parse().unwrap());
        let body = rest.as_bytes()[..length].to_vec();
        Wire { headers, body }
    };
    parts.map(wire).collect()
}

pub fn body_of(wire: &Wire) -> serde_json::Value {
    serde_json::from_slice(&wire.body).unwrap()
}

async fn replay(team: &Team, wire: Wire) -> Reply {
    replay_to(team, "/mattermost/command", wire).await
}

pub async fn replay_to(team: &Team, path: &str, wire: Wire) -> Reply {
    let own = ["Host", "Content-Length", "Accept-Encoding"];
    let headers = wire
        .headers
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()));
    let headers = headers
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    team.caller.send("POST", path, headers, wire.body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_commands_of_a_real_server_are_understood() {
    let team = Team::bound().await;
    for (capture, wanted) in [
        ("01a-slash-request", "**PENDING**"),
        ("01b-slash-revoke", "no request of this channel"),
        ("01c-slash-status", "**PENDING**"),
        ("01d-slash-bare", "/jit approve ID"),
        ("01e-slash-weird", "is not a request id"),
        ("01f-slash-in-thread", "**PENDING**"),
        ("01g-slash-in-direct-message", ""),
    ] {
        for wire in wires(capture) {
            let said = command_answer(&replay(&team, wire).await);
            assert!(said.contains(wanted), "{capture}: {said}");
        }
    }
    let mine = team
        .caller
        .get("/requests?requester_email=alice@example.com")
        .await
        .is(200);
    let request = &mine["items"][0];
    assert_eq!(request["account_id"], ACCOUNT);
    assert_eq!(request["permission_set"], "readonly");
    assert_eq!(request["requested_duration_minutes"], 60);
    assert_eq!(request["reason"], "\"deploy fix\" JIRA-42");
    assert_eq!(request["jira"], "JIRA-42");
    assert_eq!(request["requester_mm_user_id"], ALICE);
    assert_eq!(mine["items"].as_array().unwrap().len(), 1);
    // A repeated call returns the same request.
    let again = command_answer(&replay(&team, wires("01a-slash-request").remove(0)).await);
    assert!(
        again.contains(&request["request_id"].as_str().unwrap()[..13]),
        "{again}"
    );
}

/// Trap: Mattermost sends mentions as pairs of a name and an id, in no order. A name that
/// Mattermost does not know has no id, and a bot cannot be an approver.
#[tokio::test(flavor = "multi_thread")]
async fn mentions_are_resolved_by_user_id() {
    let mattermost = Mattermost::open().await;
    let config = mattermost
        .config()
        .replace(TEAM, "b47wxn83opn1jdsx35pwh8ftgw")
        .replace(TOKEN, "czp5smwt3pyxfg9ig3q5tr3rfy");
    let team = Team::on(mattermost, &config);
    let wire = wires("01i-slash-mentions").remove(0);
    let said = command_answer(&replay(&team, wire).await);
    assert!(
        said.contains("name all approvers"),
        "a mentioned channel is no approver: {said}"
    );
    for wire in wires("01k-slash-tab") {
        command_answer(&replay(&team, wire).await);
    }
    let team = Team::bound().await;
    let unknown = team.type_command(ADA, "approvers @bob @nobody").await;
    assert!(unknown.contains("knows no user"), "{unknown}");
    team.mattermost
        .change(crate::server::MALLORY, "is_bot", true.into());
    let bot = team.type_command(ADA, "approvers @bob @mallory").await;
    assert!(bot.contains("bots"), "{bot}");
}
