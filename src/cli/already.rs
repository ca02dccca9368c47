//! A refused command whose aim is reached already: a second revoke is no failure.

use serde_json::Value;

use super::Failure;
use super::output::one_line;
use crate::domain::Person;

/// What the person wants to be true.
pub(super) enum Aim<'p> {
    NoAccess,
    Denied,
    Cancelled,
    /// This person has approved.
    ApprovedBy(&'p Person),
}

/// The request of the refusal, and a sentence about it, if the aim of the command is reached.
pub(super) fn reached(refused: &Failure, aim: &Aim<'_>) -> Option<(Value, String)> {
    let Failure::Refused {
        request: Some(request),
        ..
    } = refused
    else {
        return None;
    };
    let said = sentence(request, aim)?;
    Some((*request.clone(), said))
}

fn sentence(request: &Value, aim: &Aim<'_>) -> Option<String> {
    let word = |name: &str| request[name].as_str().map(one_line);
    let at = |name: &str| word(name).map_or_else(String::new, |at| format!(" at {at}"));
    let status = request["status"].as_str()?;
    // While jit asks AWS again, the status alone does not say that the access is gone.
    let is_settled = !matches!(
        request["assignment_status"].as_str(),
        Some("DELETING" | "CHECKING")
    );
    match (aim, status) {
        (Aim::NoAccess, "REVOKED") if is_settled => {
            let by = word("revoked_by").map_or_else(String::new, |by| format!(" by {by}"));
            Some(format!("already revoked{}{by}", at("revoked_at")))
        }
        (Aim::NoAccess, "EXPIRED") if is_settled => Some(match word("grant_time") {
            Some(_) => format!("nothing to revoke: the access expired{}", at("expired_at")),
            None => format!(
                "nothing to revoke: the request expired{} without access",
                at("expired_at")
            ),
        }),
        (Aim::NoAccess, "DENIED") if is_settled => Some(format!(
            "nothing to revoke: the request was denied{} and gave no access",
            at("denied_at")
        )),
        (Aim::NoAccess, "CANCELLED") if is_settled => Some(format!(
            "nothing to revoke: the request was cancelled{} and gave no access",
            at("cancelled_at")
        )),
        (Aim::Denied, "DENIED") => Some(format!("already denied{}", at("denied_at"))),
        (Aim::Cancelled, "CANCELLED") => Some(format!("already cancelled{}", at("cancelled_at"))),
        (Aim::ApprovedBy(person), "PENDING" | "APPROVED" | "GRANTED")
            if request["approver_mm_user_id"] == person.id.as_str()
                || request["approver_email"] == person.email.as_str() =>
        {
            Some(format!("you have approved it already; it is {status}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::decide::fixtures::person;

    // H3
    #[test]
    fn only_a_settled_request_counts_as_ended() {
        let revoked = json!({"status": "REVOKED", "revoked_at": "T", "revoked_by": "bob"});
        let told = sentence(&revoked, &Aim::NoAccess);
        assert_eq!(told.as_deref(), Some("already revoked at T by bob"));
        for doubt in ["CHECKING", "DELETING"] {
            let doubted = json!({"status": "REVOKED", "assignment_status": doubt});
            assert_eq!(sentence(&doubted, &Aim::NoAccess), None);
        }
        for status in ["PENDING", "GRANTED", "ERROR", "APPROVED"] {
            let request = json!({"status": status, "approver_mm_user_id": "bob"});
            assert_eq!(sentence(&request, &Aim::NoAccess), None, "{status}");
            assert_eq!(sentence(&request, &Aim::ApprovedBy(&person("carol"))), None);
        }
        let denied = json!({"status": "DENIED", "denied_at": "T"});
        let told = sentence(&denied, &Aim::NoAccess).unwrap();
        assert!(told.starts_with("nothing to revoke"), "{told}");
    }
}
