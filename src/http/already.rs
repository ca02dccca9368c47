//! A refused command whose aim is reached already: a second revoke is no failure. The terminal and
//! the chat say it with the same sentence.

use serde_json::{Value, json};

use crate::domain::{Approval, Minutes, Person, Request, RequestObject, counted};

/// The condition that the person wants.
pub enum Aim<'p> {
    NoAccess,
    Denied,
    Cancelled,
    /// This person has approved the request, or the extension that waits.
    ApprovedBy(&'p Person),
    /// An extension of so much time that this person asked for waits for its approvals.
    ExtensionOf {
        minutes: Minutes,
        by: &'p Person,
    },
}

/// How a sentence shows a time and the address of a person.
pub struct Wording<'w> {
    pub time: &'w dyn Fn(&str) -> String,
    pub person: &'w dyn Fn(&str) -> String,
}

/// The request in the form of the API, and all persons whose approvals it has: the API names the
/// last one only. None if the request cannot be serialised.
pub fn shown(request: &Request) -> Option<Value> {
    let mut shown = serde_json::to_value(RequestObject::from(request)).ok()?;
    let extension = request.grant.extension.as_ref();
    let of_extension = extension.map_or(&[][..], |extension| &extension.approvals);
    for (field, approvals) in [
        (APPROVED_BY, request.approvals.given.as_slice()),
        (EXTENSION_APPROVED_BY, of_extension),
    ] {
        if !approvals.is_empty() {
            let person = |one: &Approval| json!({"mm_user_id": one.by.id, "email": one.by.email});
            shown[field] = approvals.iter().map(person).collect();
        }
    }
    Some(shown)
}

const APPROVED_BY: &str = "approved_by";
const EXTENSION_APPROVED_BY: &str = "extension_approved_by";

/// Whether the request has an approval of this person.
fn has_approval_of(request: &Value, field: &str, person: &Person) -> bool {
    let mut approvals = request[field].as_array().into_iter().flatten();
    approvals.any(|by| names(by, ["mm_user_id", "email"], person))
}

/// Whether one of these fields, the user id and the address, is that of the person.
pub fn names(object: &Value, [id, email]: [&str; 2], person: &Person) -> bool {
    object[id] == person.id.as_str() || object[email] == person.email.as_str()
}

/// The sentence about the request, which has the form of the API, if the aim is reached.
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
        (Aim::ApprovedBy(person), "PENDING" | "APPROVED" | "GRANTED")
            if request["extension_minutes"].is_null()
                && has_approval_of(request, APPROVED_BY, person) =>
        {
            Some(format!("you have approved it already; it is {status}"))
        }
        (Aim::ApprovedBy(person), "GRANTED")
            if has_approval_of(request, EXTENSION_APPROVED_BY, person) =>
        {
            Some("you have approved the extension already; it waits for another approver".into())
        }
        (Aim::ExtensionOf { minutes, by }, "GRANTED")
            if request["extension_minutes"] == minutes.get()
                && names(request, ["requester_mm_user_id", "requester_email"], by) =>
        {
            let minutes = counted(minutes.get(), "minute");
            Some(format!(
                "you have asked for it already; the extension of {minutes} waits for its approvals"
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Extension;
    use crate::domain::decide::fixtures::{later, minutes, person, record};

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
            let request = json!({"status": status, "approved_by": [{"mm_user_id": "bob"}]});
            assert_eq!(told(&request, &Aim::NoAccess), None, "{status}");
            assert_eq!(told(&request, &Aim::ApprovedBy(&person("carol"))), None);
        }
        // The refused approval of an extension was told as if it had been given.
        let bob = person("bob");
        let granted =
            json!({"status": "GRANTED", "approved_by": [{"mm_user_id": bob.id.as_str()}]});
        assert!(told(&granted, &Aim::ApprovedBy(&bob)).is_some());
        let mut extending = granted;
        extending["extension_minutes"] = 30.into();
        assert_eq!(told(&extending, &Aim::ApprovedBy(&bob)), None);
        let denied = json!({"status": "DENIED", "denied_at": "T"});
        let said = told(&denied, &Aim::NoAccess).unwrap();
        assert!(said.starts_with("nothing to revoke"), "{said}");
    }

    // H3: the request named the last approver only.
    #[test]
    fn h3_each_approver_has_approved_already_and_others_have_not() {
        let mut request = record("Granted").request;
        let (bob, carol) = (person("bob"), person("carol"));
        let approval = |by: &Person| Approval {
            by: by.clone(),
            at: later(),
        };
        request.approvals.given = vec![approval(&bob), approval(&carol)];
        for by in [&bob, &carol] {
            let said = told(&shown(&request).unwrap(), &Aim::ApprovedBy(by));
            assert!(said.unwrap().contains("approved it already"));
        }
        let eve = person("eve");
        assert_eq!(
            told(&shown(&request).unwrap(), &Aim::ApprovedBy(&eve)),
            None
        );
        request.grant.extension = Some(Extension {
            by: request.asked.requester.clone(),
            minutes: minutes(30),
            approvals: vec![approval(&carol)],
        });
        let extending = shown(&request).unwrap();
        assert_eq!(told(&extending, &Aim::ApprovedBy(&bob)), None);
        let said = told(&extending, &Aim::ApprovedBy(&carol)).unwrap();
        assert!(said.contains("waits for another approver"), "{said}");
    }

    // H3
    #[test]
    fn h3_only_the_same_extension_of_the_requester_waits_already() {
        let mut request = record("Granted").request;
        let alice = request.asked.requester.clone();
        let of = |minutes: Minutes, by: &Person, request: &Request| {
            told(&shown(request).unwrap(), &Aim::ExtensionOf { minutes, by })
        };
        assert_eq!(of(minutes(30), &alice, &request), None);
        request.grant.extension = Some(Extension {
            by: alice.clone(),
            minutes: minutes(30),
            approvals: Vec::new(),
        });
        let said = of(minutes(30), &alice, &request).unwrap();
        assert!(said.contains("extension of 30 minutes waits"), "{said}");
        assert_eq!(of(minutes(20), &alice, &request), None);
        assert_eq!(of(minutes(30), &person("bob"), &request), None);
    }
}
