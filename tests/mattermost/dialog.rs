//! Requests from a dialog, and submissions that belong to no dialog of jit.

use serde_json::{Value, json};

use crate::captures::{replay_to, wires};
use crate::common::{Reply, Setup};
use crate::server::{ACCOUNT, ADA, ALICE, BOB, CHANNEL, MALLORY, TEAM, TOKEN, Team, form, sealed};

const DIALOG: &str = "/mattermost/dialog";

/// Types `/jit request` and returns the dialog that opens.
pub async fn opened(team: &Team) -> Value {
    let body = form(TOKEN, TEAM, CHANNEL, "aws-prod", ALICE, "request");
    let reply = team.send(body).await;
    // The answer has no text, because jit opens a dialog.
    assert_eq!((reply.status, reply.text.as_str()), (200, "{}"));
    team.mattermost.dialogs().pop().expect("a dialog")
}

pub fn filled(dialog: &Value, fields: &Value) -> Value {
    json!({
        "type": "dialog_submission", "callback_id": dialog["dialog"]["callback_id"],
        "state": dialog["dialog"]["state"], "user_id": ALICE, "channel_id": CHANNEL,
        "team_id": TEAM, "submission": fields, "cancelled": false,
    })
}

pub fn fields() -> Value {
    json!({
        "account": ACCOUNT, "permission_set": "readonly", "minutes": "30",
        "reason": "deploy ü <b> @all", "ticket": "INC-42",
    })
}

fn element<'d>(dialog: &'d Value, name: &str) -> &'d Value {
    let elements = dialog["dialog"]["elements"].as_array().unwrap();
    elements.iter().find(|one| one["name"] == name).unwrap()
}

fn values(dialog: &Value, name: &str) -> Vec<String> {
    let options = element(dialog, name)["options"].as_array().unwrap();
    let value = |option: &Value| option["value"].as_str().unwrap().to_owned();
    options.iter().map(value).collect()
}

async fn requests(team: &Team) -> Vec<Value> {
    let path = format!("/requests?channel_id={CHANNEL}");
    let all = team.caller.get(&path).await.is(200);
    all["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_submission_makes_one_request() {
    let team = Team::bound().await;
    let dialog = opened(&team).await;
    assert_eq!(dialog["url"], "http://jit.example.com/mattermost/dialog");
    assert_eq!(dialog["user_id"], ALICE);
    assert_eq!(values(&dialog, "account"), [ACCOUNT]);
    assert_eq!(values(&dialog, "permission_set"), ["admin", "readonly"]);
    assert_eq!(values(&dialog, "minutes"), ["15", "30", "60", "120", "240"]);
    let sent = filled(&dialog, &fields());
    for _ in 0..2 {
        let reply = team.sends(DIALOG, &sent).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, "{}"));
    }
    let all = requests(&team).await;
    assert_eq!(
        all.len(),
        1,
        "the second submission made a request: {all:?}"
    );
    let request = &all[0];
    for (name, wanted) in [
        ("status", json!("PENDING")),
        ("account_id", json!(ACCOUNT)),
        ("permission_set", json!("readonly")),
        ("requested_duration_minutes", json!(30)),
        ("reason", json!("deploy ü <b> @all")),
        ("jira", json!("INC-42")),
        ("requester_mm_user_id", json!(ALICE)),
        ("requester_email", json!("alice@example.com")),
    ] {
        assert_eq!(request[name], wanted, "{name}");
    }
    let card = team.mattermost.card("PENDING", &["approve", "deny"]).await;
    assert!(!card.fields()["Reason"].contains("@all"), "{card:?}");
    // jit makes only one request from a dialog.
    let mut other = fields();
    other["permission_set"] = "admin".into();
    let reply = team.sends(DIALOG, &filled(&dialog, &other)).await;
    assert!(reply.json()["error"].is_string(), "{reply:?}");
    assert_eq!(requests(&team).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_field_of_a_dialog_gets_its_error() {
    let team = Team::bound().await;
    let dialog = opened(&team).await;
    for (field, value) in [
        ("account", json!("12345")),
        ("account", Value::Null),
        ("minutes", json!("soon")),
        ("minutes", json!(-5)),
        ("minutes", json!("")),
        ("permission_set", json!("no such set!")),
        ("reason", json!("x".repeat(2_000))),
    ] {
        let mut wrong = fields();
        wrong[field] = value.clone();
        let reply = team.sends(DIALOG, &filled(&dialog, &wrong)).await;
        assert_eq!(reply.status, 200);
        assert!(
            reply.json()["errors"][field].is_string(),
            "{field} {value} {reply:?}"
        );
    }
    // The service refuses these: the duration is too long, the account has no binding in the
    // channel, the permission set does not exist.
    for (field, value) in [
        ("minutes", json!("6000")),
        ("account", json!("999988887777")),
        ("permission_set", json!("root")),
    ] {
        let mut wrong = fields();
        wrong[field] = value.clone();
        let reply = team.sends(DIALOG, &filled(&dialog, &wrong)).await;
        assert!(
            reply.json()["error"].is_string(),
            "{field} {value} {reply:?}"
        );
    }
    let mut neither = fields();
    neither["reason"] = "  ".into();
    neither["ticket"] = "".into();
    let reply = team.sends(DIALOG, &filled(&dialog, &neither)).await;
    assert!(reply.json()["error"].is_string(), "{reply:?}");
    assert!(requests(&team).await.is_empty());
    let mut number = fields();
    number["minutes"] = 30.into();
    assert_eq!(
        team.sends(DIALOG, &filled(&dialog, &number)).await.text,
        "{}"
    );
    assert_eq!(requests(&team).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_or_old_dialog_makes_no_request() {
    let team = Team::bound().await;
    let dialog = opened(&team).await;
    // With or without its fields.
    for filled_in in [Value::Null, fields()] {
        let mut given_up = filled(&dialog, &filled_in);
        given_up["cancelled"] = true.into();
        assert_eq!(team.sends(DIALOG, &given_up).await.text, "{}");
    }
    // The time of this dialog is over.
    let mut late = filled(&dialog, &fields());
    let until = crate::server::now() - 1_000;
    let text = format!("dialog\nonce\n{ALICE}\n{CHANNEL}\n{until}");
    let state = json!({"once": "once", "until": until.to_string(), "seal": sealed(&text)});
    late["state"] = state.to_string().into();
    let reply = team.sends(DIALOG, &late).await;
    assert!(reply.text.contains("older than 30 minutes"), "{reply:?}");
    assert!(requests(&team).await.is_empty());
    // The dialog itself still makes one.
    let sent = filled(&dialog, &fields());
    assert_eq!(team.sends(DIALOG, &sent).await.text, "{}");
    assert_eq!(requests(&team).await.len(), 1);
}

fn refused(reply: &Reply, what: &Value) {
    assert_eq!(reply.status, 401, "{what} {reply:?}");
}

/// 6, M2: only the seal of jit connects a submission with a dialog that jit opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_submission_without_a_seal_is_refused() {
    let team = Team::bound().await;
    let dialog = opened(&team).await;
    let genuine = filled(&dialog, &fields());
    let altered = |change: &dyn Fn(&mut Value)| {
        let mut sent = genuine.clone();
        change(&mut sent);
        sent
    };
    let state: Value = serde_json::from_str(genuine["state"].as_str().unwrap()).unwrap();
    let with_state = |name: &str, value: &str| {
        let mut state = state.clone();
        state[name] = value.into();
        altered(&|sent| sent["state"] = state.to_string().into())
    };
    let forgeries = [
        // The dialog belongs to another user, another channel or another team.
        altered(&|sent| sent["user_id"] = MALLORY.into()),
        altered(&|sent| sent["user_id"] = BOB.into()),
        altered(&|sent| sent["channel_id"] = "f3h9orfn33ge7nxnhyaj1kdqqo".into()),
        altered(&|sent| sent["team_id"] = "w1gu5cusqjgfppy84xsohzij6p".into()),
        with_state("once", "another"),
        with_state("until", "9999999999999"),
        with_state("seal", ""),
        altered(&|sent| sent["state"] = "".into()),
        altered(&|sent| sent["state"] = "opaque-state-123".into()),
        altered(&|sent| {
            sent["state"] = json!({"request_id": "R-BOB", "action": "approve"})
                .to_string()
                .into();
        }),
        altered(&|sent| sent["state"] = Value::Null),
        json!({}),
        json!([]),
    ];
    for forged in &forgeries {
        refused(&team.sends(DIALOG, forged).await, forged);
    }
    assert!(requests(&team).await.is_empty());
    let written = team.forgeries(10).await;
    assert_eq!(
        written.len(),
        10,
        "all but the one of another channel and the two without a channel"
    );
    assert!(
        written
            .iter()
            .all(|event| event["details"]["path"] == DIALOG),
        "{written:?}"
    );
    // 6: the submission is sent to the addresses for clicks and for commands.
    for path in ["/mattermost/action", "/mattermost/command"] {
        refused(&team.sends(path, &genuine).await, &genuine);
    }
    assert!(requests(&team).await.is_empty());
    assert_eq!(team.sends(DIALOG, &genuine).await.text, "{}");
}

/// The test sends the bytes that a real server sent.
#[tokio::test(flavor = "multi_thread")]
async fn captured_submissions_of_other_dialogs_are_refused() {
    let team = Team::bound().await;
    for capture in [
        "07c-dialog-submit",
        "07d-dialog-cancel",
        "07f-dialog-forgery",
    ] {
        let mut sent = 0;
        for wire in wires(capture) {
            let reply = replay_to(&team, DIALOG, wire).await;
            assert_eq!(reply.status, 401, "{capture}: {reply:?}");
            sent += 1;
        }
        assert!(sent > 0, "{capture}");
    }
    assert!(requests(&team).await.is_empty());
}

/// The dialog offers only the accounts and permission sets of its channel, and selects the
/// default.
#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_offers_the_accounts_and_sets_of_its_channel() {
    let default = |dialog: &Value| element(dialog, "permission_set")["default"].clone();
    let team = Team::bound_with(Setup {
        more: "[policy]\ndefault_permission_set = \"readonly\"\n".into(),
        ..Setup::default()
    })
    .await;
    let dialog = opened(&team).await;
    assert_eq!(values(&dialog, "permission_set"), ["admin", "readonly"]);
    assert_eq!(default(&dialog), "readonly");
    assert_eq!(element(&dialog, "account")["default"], ACCOUNT);
    team.type_command(ADA, &format!("bind {ACCOUNT} sets admin max 1h"))
        .await;
    let dialog = opened(&team).await;
    assert_eq!(values(&dialog, "permission_set"), ["admin"]);
    assert_eq!(default(&dialog), "admin");
    assert_eq!(values(&dialog, "minutes"), ["15", "30", "60"]);
}

/// E13: the dialog offers every account of the channel, with more than a hundred accounts too.
#[tokio::test(flavor = "multi_thread")]
async fn a_picker_has_every_account() {
    let team = Team::bound().await;
    for number in 0..120 {
        let terms = json!({"channel_id": CHANNEL, "account_id": format!("5{number:011}")});
        team.caller.post("/config/bind", &terms).await.is(200);
    }
    assert_eq!(values(&opened(&team).await, "account").len(), 121);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_dialog_the_answer_shows_the_command() {
    let team = Team::bound().await;
    let elsewhere = team
        .type_command_in("f3h9orfn33ge7nxnhyaj1kdqqo", "lunch", ALICE, "request")
        .await;
    assert!(elsewhere.contains("/jit bind"), "{elsewhere}");
    let direct = format!("{ALICE}__{ADA}");
    let alone = team
        .type_command_in("ixxre3hujjbcuenn8nib1ym7io", &direct, ALICE, "request")
        .await;
    assert!(alone.contains("in a team channel"), "{alone}");
    // 7a, 7b: Mattermost opens no dialog for a trigger that is older than three seconds.
    let body = form(TOKEN, TEAM, CHANNEL, "aws-prod", ALICE, "request");
    let old = crate::server::trigger(ALICE, crate::server::now() - 4_000);
    let body: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes())
        .map(|(name, value)| match &*name {
            "trigger_id" => (name.into_owned(), old.clone()),
            _ => (name.into_owned(), value.into_owned()),
        })
        .collect();
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(body)
        .finish();
    let said = crate::server::command_answer(&team.send(body).await);
    assert!(said.contains("in one line"), "{said}");
}

// W12: Mattermost shows the error of a dialog without Markdown.
#[tokio::test(flavor = "multi_thread")]
async fn the_error_of_a_dialog_is_plain_text() {
    let team = Team::bound().await;
    let (first, second) = (opened(&team).await, opened(&team).await);
    let sent = team.sends(DIALOG, &filled(&first, &fields())).await;
    assert_eq!(sent.text, "{}");
    let pending = team.sends(DIALOG, &filled(&second, &fields())).await;
    let mut elsewhere = fields();
    elsewhere["account"] = "999988887777".into();
    let third = opened(&team).await;
    let unbound = team.sends(DIALOG, &filled(&third, &elsewhere)).await;
    for (reply, wanted) in [
        (
            pending,
            "PENDING · readonly in 111122223333 · alice@example.com (@alice)",
        ),
        (unbound, "account 999988887777 is not bound"),
    ] {
        let said = reply.json()["error"].as_str().unwrap().to_owned();
        assert!(said.contains(wanted), "{said}");
        for mark in ["**", "`", ":warning:", "\\", "\u{200b}"] {
            assert!(!said.contains(mark), "{mark:?} in {said}");
        }
    }
}
