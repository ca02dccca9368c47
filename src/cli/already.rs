//! A refused command whose aim is reached already counts as an answer. The record of a request does
//! not keep an extension that was decided, and nothing keeps a binding that was removed: for
//! these, the command reads the history.

use serde_json::Value;

use super::client::Caller;
use super::output::one_line;
use super::{Failure, pages};
use crate::domain::AuditKey;
pub(super) use crate::http::already::Aim;
use crate::http::already::{Wording, names, sentence};

/// The request of the refusal, and a sentence about it, if the aim of the command is reached.
pub(super) fn reached(refused: &Failure, aim: &Aim<'_>) -> Option<(Value, String)> {
    let Failure::Refused {
        request: Some(request),
        ..
    } = refused
    else {
        return None;
    };
    let wording = Wording {
        time: &one_line,
        person: &one_line,
    };
    let said = sentence(request, aim, &wording)?;
    Some((*request.clone(), said))
}

/// The same for a granted request, of which no extension waits any more: whether the extension that
/// the person means was denied or approved before. A key that may not read gets the refusal.
pub(super) async fn decided_extension(
    caller: &Caller,
    refused: &Failure,
    aim: &Aim<'_>,
) -> Option<(Value, String)> {
    let Failure::Refused {
        request: Some(request),
        ..
    } = refused
    else {
        return None;
    };
    let is_held = request["status"] == "GRANTED" && request["assignment_status"] != "DELETING";
    if !is_held || !request["extension_minutes"].is_null() {
        return None;
    }
    let history = pages::history(caller, request["request_id"].as_str()?).await;
    let decided = decision_about_extension(&history.ok()?, aim)?;
    let end = one_line(request["end_time"].as_str()?);
    let said = format!("{decided}; the access goes on until {end}");
    Some((*request.clone(), said))
}

fn decision_about_extension(history: &[Value], aim: &Aim<'_>) -> Option<String> {
    let is = |event: &Value, kinds: &[&str]| {
        let kind = event["event_type"].as_str();
        kind.is_some_and(|kind| kinds.contains(&kind))
    };
    let requested = history
        .iter()
        .rposition(|event| is(event, &["EXTENSION_REQUESTED"]))?;
    let since = &history[requested..];
    match aim {
        Aim::Denied => {
            let denial = since.iter().find(|one| is(one, &["EXTENSION_DENIED"]))?;
            Some(format!(
                "the extension was already denied{}",
                moment(denial)
            ))
        }
        Aim::ApprovedBy(person) => {
            let is_given = since.iter().any(|one| is(one, &["EXTENDED"]));
            let is_approval = |one: &&Value| is(one, &["APPROVAL_RECORDED", "EXTENDED"]);
            let mut approvals = since.iter().filter(is_approval);
            let has_own =
                approvals.any(|one| names(one, ["actor_mm_user_id", "actor_email"], person));
            (is_given && has_own).then(|| "you have approved the extension already".to_owned())
        }
        Aim::NoAccess | Aim::Cancelled | Aim::ExtensionOf { .. } => None,
    }
}

/// When an event happened, and by whom.
fn moment(event: &Value) -> String {
    let word = |name: &str| event[name].as_str().map(one_line);
    let at = word("event_time").map_or_else(String::new, |at| format!(" at {at}"));
    let by = word("actor_email").map_or_else(String::new, |by| format!(" by {by}"));
    format!("{at}{by}")
}

/// A sentence about a binding that was removed before. H1: an account that the channel never had
/// is none, because its name or that of the channel may be misspelt.
pub(super) async fn unbound(
    caller: &Caller,
    refused: &Failure,
    channel: &str,
    account: &str,
) -> Option<String> {
    let Failure::Refused { code, .. } = refused else {
        return None;
    };
    let channel_id = channel.parse().ok().filter(|_| code == "unknown")?;
    let key = AuditKey::Config(channel_id).to_string();
    let history = pages::history(caller, &key).await.ok()?;
    let unbind = last_unbind(&history, account)?;
    Some(format!(
        "account {account} was already unbound from channel {channel}{}",
        moment(unbind)
    ))
}

/// The event that removed the binding of the account, if nothing bound it again.
fn last_unbind<'h>(history: &'h [Value], account: &str) -> Option<&'h Value> {
    let mut of_account = history.iter().rev().filter(|event| {
        let is_about = matches!(event["event_type"].as_str(), Some("BOUND" | "UNBOUND"));
        is_about && event["account_id"] == account
    });
    of_account
        .next()
        .filter(|event| event["event_type"] == "UNBOUND")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::decide::fixtures::person;

    fn event(kind: &str, name: &str) -> Value {
        json!({"event_type": kind, "event_time": "T", "actor_mm_user_id": name,
               "actor_email": format!("{name}@example.com"), "account_id": "1"})
    }

    // H3
    #[test]
    fn h3_a_denial_counts_only_for_the_last_extension() {
        let (bob, carol) = (person("bob"), person("carol"));
        let mut history = vec![event("APPROVED", "bob"), event("GRANTED", "jit")];
        let said = |history: &[Value], aim: Aim<'_>| decision_about_extension(history, &aim);
        // A denial of a request that has access and never had an extension is refused.
        assert_eq!(said(&history, Aim::Denied), None);
        history.push(event("EXTENSION_REQUESTED", "alice"));
        history.push(event("EXTENSION_DENIED", "bob"));
        assert_eq!(
            said(&history, Aim::Denied).as_deref(),
            Some("the extension was already denied at T by bob@example.com")
        );
        assert_eq!(said(&history, Aim::ApprovedBy(&bob)), None);
        history.push(event("EXTENSION_REQUESTED", "alice"));
        history.push(event("APPROVAL_RECORDED", "bob"));
        assert_eq!(said(&history, Aim::ApprovedBy(&bob)), None);
        history.push(event("EXTENDED", "eve"));
        assert_eq!(said(&history, Aim::Denied), None);
        assert!(said(&history, Aim::ApprovedBy(&bob)).is_some());
        assert_eq!(said(&history, Aim::ApprovedBy(&carol)), None);
    }

    // H3
    #[test]
    fn h3_an_account_is_unbound_already_only_after_its_last_binding() {
        let mut history = vec![event("BOUND", "ada")];
        assert_eq!(last_unbind(&history, "1"), None);
        history.push(event("UNBOUND", "ada"));
        assert!(last_unbind(&history, "1").is_some());
        assert_eq!(last_unbind(&history, "2"), None);
        history.push(event("BOUND", "ada"));
        assert_eq!(last_unbind(&history, "1"), None);
    }
}
