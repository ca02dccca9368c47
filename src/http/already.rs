//! A refused command whose aim is reached already: a second revoke is no failure. The terminal and
//! the chat say it with the same sentence.

use serde_json::Value;

use crate::domain::Person;

/// What the person wants to be true.
pub enum Aim<'p> {
    NoAccess,
    Denied,
    Cancelled,
    /// This person has approved.
    ApprovedBy(&'p Person),
}

/// How a sentence shows a time and the address of a person.
pub struct Wording<'w> {
    pub time: &'w dyn Fn(&str) -> String,
    pub person: &'w dyn Fn(&str) -> String,
}

/// What to say of the request, which has the form of the API, if the aim is reached.
pub fn sentence(request: &Value, aim: &Aim<'_>, wording: &Wording<'_>) -> Option<String> {
    let time = |name: &str| request[name].as_str().map(wording.time);
    let at = |name: &str| time(name).map_or_else(String::new, |at| format!(" at {at}"));
    let status = request["status"].as_str()?;
    // While jit asks AWS again, the status alone does not say that the access is gone.
    let is_settled = !matches!(
        request["assignment_status"].as_str(),
        Some("DELETING" | "CHECKING")
    );
    match (aim, status) {
        (Aim::NoAccess, "REVOKED") if is_settled => {
            let by = request["revoked_by"].as_str().map(wording.person);
            let by = by.map_or_else(String::new, |by| format!(" by {by}"));
            Some(format!("already revoked{}{by}", at("revoked_at")))
        }
        (Aim::NoAccess, "EXPIRED") if is_settled => Some(match time("grant_time") {
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
        // The request does not tell who has approved an extension that waits.
        (Aim::ApprovedBy(person), "PENDING" | "APPROVED" | "GRANTED")
            if request["extension_minutes"].is_null()
                && (request["approver_mm_user_id"] == person.id.as_str()
                    || request["approver_email"] == person.email.as_str()) =>
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

    fn told(request: &Value, aim: &Aim<'_>) -> Option<String> {
        let wording = Wording {
            time: &str::to_owned,
            person: &str::to_owned,
        };
        sentence(request, aim, &wording)
    }

    // H3
    #[test]
    fn only_a_settled_request_counts_as_ended() {
        let revoked = json!({"status": "REVOKED", "revoked_at": "T", "revoked_by": "bob"});
        let said = told(&revoked, &Aim::NoAccess);
        assert_eq!(said.as_deref(), Some("already revoked at T by bob"));
        for doubt in ["CHECKING", "DELETING"] {
            let doubted = json!({"status": "REVOKED", "assignment_status": doubt});
            assert_eq!(told(&doubted, &Aim::NoAccess), None);
        }
        for status in ["PENDING", "GRANTED", "ERROR", "APPROVED"] {
            let request = json!({"status": status, "approver_mm_user_id": "bob"});
            assert_eq!(told(&request, &Aim::NoAccess), None, "{status}");
            assert_eq!(told(&request, &Aim::ApprovedBy(&person("carol"))), None);
        }
        // The refused approval of an extension was told as if it had been given.
        let bob = person("bob");
        let granted = json!({"status": "GRANTED", "approver_mm_user_id": bob.id.as_str()});
        assert!(told(&granted, &Aim::ApprovedBy(&bob)).is_some());
        let mut extending = granted;
        extending["extension_minutes"] = 30.into();
        assert_eq!(told(&extending, &Aim::ApprovedBy(&bob)), None);
        let denied = json!({"status": "DENIED", "denied_at": "T"});
        let said = told(&denied, &Aim::NoAccess).unwrap();
        assert!(said.starts_with("nothing to revoke"), "{said}");
    }
}
