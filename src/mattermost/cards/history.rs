//! The line for one audit event in the thread of the card.

use super::handles::Handles;
use super::text::{counted_minutes, moment, short};
use crate::domain::{Event, EventKind, Request};

/// A line of the thread, and whether it mentions the requester.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// No line: the card shows the event, or the event is internal.
    None,
    /// A line that mentions no one.
    Plain(String),
    /// A line that mentions the requester.
    Called(String),
}

/// Where the line of a revoke stands, which decides what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeLine {
    /// The access never began, so no earlier line has the reason, and AWS was not asked.
    NotBegun,
    /// An earlier line of the thread has the reason.
    InThread,
    InMessage,
}

impl RevokeLine {
    pub fn in_thread(request: &Request) -> Self {
        match request.access.was_begun() {
            true => Self::InThread,
            false => Self::NotBegun,
        }
    }

    pub fn in_message(request: &Request) -> Self {
        match request.access.was_begun() {
            true => Self::InMessage,
            false => Self::NotBegun,
        }
    }

    fn text(self, by: &str, why: &str) -> String {
        match self {
            Self::NotBegun => format!("revoked by {by}{why}"),
            Self::InThread => format!("revoked by {by}. AWS shows that the access is gone."),
            Self::InMessage => format!("revoked by {by}{why}. AWS shows that the access is gone."),
        }
    }
}

/// The knowledge of jit about the access of an EXPIRED request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiredAccess {
    /// AWS shows that it is gone.
    Gone,
    /// Another request of the same person has the same assignment. AWS was not asked.
    Shared,
    /// No event says it, or an operator wrote the status into the store.
    Unknown,
}

impl ExpiredAccess {
    pub fn of(expired: &Event) -> Self {
        let says = |name: &str| expired.details.contains_key(name);
        match (says("shared_with"), says("source")) {
            (true, _) => Self::Shared,
            (false, true) => Self::Unknown,
            (false, false) => Self::Gone,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Gone => "Expired. AWS shows that the access is gone.",
            Self::Shared => "Expired. Another request of the same person still has this access.",
            Self::Unknown => "Expired. This request gives no access any more.",
        }
    }
}

/// The actor, the reason, the end, the additional minutes and the cause; empty if the event has
/// none.
fn words(event: &Event, handles: &Handles) -> [String; 5] {
    let said = |name: &str| event.details.get(name).map(|said| short(said, 500));
    let until = event.details.get("end_time").map(|end| moment(end));
    [
        event.actor_email.as_deref().map_or_else(
            || "jit".to_owned(),
            |email| handles.shown(event.actor_mm_user_id.as_deref().unwrap_or_default(), email),
        ),
        said("reason").map_or_else(String::new, |why| format!(": {why}")),
        until.unwrap_or_default(),
        said("additional_minutes").map_or_else(String::new, |minutes| match minutes.parse() {
            Ok(minutes) => counted_minutes(minutes),
            Err(_) => minutes,
        }),
        said("error").or_else(|| said("why")).unwrap_or_default(),
    ]
}

pub fn line(event: &Event, revoke: RevokeLine, handles: &Handles) -> Line {
    let [by, why, until, minutes, because] = words(event, handles);
    match event.event_type {
        EventKind::Requested
        | EventKind::Assigning
        | EventKind::EndAnnounced
        | EventKind::SessionsDenied
        | EventKind::SessionsEnded
        | EventKind::SessionsNotEnded
        | EventKind::SessionDenyLifted
        | EventKind::NoticeParked
        | EventKind::ForgeryRefused
        | EventKind::Bound
        | EventKind::BindingChanged
        | EventKind::ApproversSet
        | EventKind::Unbound => Line::None,
        EventKind::ApprovalRecorded => {
            Line::Plain(format!("{by} approves; the request needs more approvals."))
        }
        EventKind::Approved => Line::Plain(format!("Approved by {by}.")),
        EventKind::Denied => Line::Called(format!("denied by {by}{why}")),
        EventKind::Cancelled if event.details.contains_key("source") => Line::Plain(
            "CANCELLED was written into the store. This request gives no access any more.".into(),
        ),
        EventKind::Cancelled if why.is_empty() => Line::Plain(format!("Cancelled by {by}.")),
        EventKind::Cancelled => Line::Called(format!("the request was cancelled by {by}{why}")),
        EventKind::Granted => Line::Called(format!("access granted until {until}.")),
        EventKind::ExtensionRequested => {
            Line::Plain(format!("Extension requested by {by}: {minutes}."))
        }
        EventKind::Extended => Line::Called(format!(
            "access extended by {minutes} until {until}, approved by {by}."
        )),
        EventKind::ExtensionDenied => Line::Called(format!("extension denied by {by}{why}")),
        EventKind::RevokeRequested => Line::Called(format!("{by} revokes the access{why}")),
        EventKind::ExpiryStarted => {
            Line::Plain("The time is over: jit asks AWS to remove the access.".into())
        }
        EventKind::RollbackStarted => Line::Plain(format!(
            "jit could not grant the access ({because}); jit removes the assignment if AWS has made it."
        )),
        EventKind::RemovalFailing => Line::Plain(format!(
            ":warning: AWS does not remove the access ({because}). jit tries again until the access is gone."
        )),
        EventKind::StrayAccessFound => Line::Plain(
            ":warning: AWS shows an access that should be gone; jit removes it again.".into(),
        ),
        EventKind::StrayAccessRemoved => Line::Plain("AWS shows that the access is gone.".into()),
        EventKind::CleanedUp => Line::Plain(format!(
            "{by} recorded that the access was removed by hand{why}"
        )),
        EventKind::Revoked => Line::Called(revoke.text(&by, &why)),
        EventKind::Expired if event.details.contains_key("reason") => {
            Line::Called(format!("the request expired{why}"))
        }
        EventKind::Expired => Line::Plain(ExpiredAccess::of(event).text().into()),
        EventKind::Error => Line::Called(format!("the request ended in an error: {because}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::{alice, record};
    use crate::domain::{AuditKey, Chain};

    fn line(event: &Event) -> Line {
        super::line(event, RevokeLine::InThread, &Handles::default())
    }

    fn event(kind: EventKind, details: &[(&str, &str)]) -> Event {
        let request = record("Granted").request;
        let entry = crate::domain::audit::EventDraft {
            key: AuditKey::Request(request.id),
            kind,
            account_id: None,
            channel_id: &request.asked.channel_id,
            actor: Some(&alice()),
            status: None,
            details: details
                .iter()
                .map(|(name, said)| ((*name).to_owned(), (*said).to_owned()))
                .collect(),
        };
        Chain::default().append(entry, crate::domain::Timestamp::default())
    }

    #[test]
    fn the_line_of_an_expiry_tells_an_end_from_a_missing_approval() {
        let over = line(&event(EventKind::Expired, &[]));
        assert!(
            matches!(&over, Line::Plain(line) if line.contains("AWS shows that the access is gone"))
        );
        let waited = line(&event(
            EventKind::Expired,
            &[("reason", "nobody approved it")],
        ));
        let Line::Called(waited) = waited else {
            panic!("the line should mention the requester: {waited:?}");
        };
        assert!(
            waited.contains("nobody approved it") && !waited.contains("gone"),
            "{waited}"
        );
    }

    /// W14
    #[test]
    fn the_line_of_an_expiry_says_gone_only_if_aws_has_shown_it() {
        for (details, wanted) in [
            (&[][..], "AWS shows that the access is gone."),
            (
                &[("shared_with", "01a1fd36")],
                "Another request of the same person still has this access.",
            ),
            (
                &[("source", "changed outside jit")],
                "This request gives no access any more.",
            ),
        ] {
            let told = line(&event(EventKind::Expired, details));
            assert_eq!(told, Line::Plain(format!("Expired. {wanted}")));
        }
    }

    /// W14: the line said "Cancelled by jit."
    #[test]
    fn w14_the_line_of_a_written_cancelled_says_where_it_comes_from() {
        let source = [("source", "changed outside jit")];
        let told = line(&event(EventKind::Cancelled, &source));
        let wanted = "CANCELLED was written into the store. This request gives no access any more.";
        assert_eq!(told, Line::Plain(wanted.into()));
    }

    // B1
    #[test]
    fn the_line_of_a_revoke_says_why_if_no_earlier_line_does() {
        let ended = event(EventKind::Revoked, &[("reason", "incident 7")]);
        let alice = "alice@\u{200b}example.com";
        for (place, expected) in [
            (
                RevokeLine::NotBegun,
                format!("revoked by {alice}: incident 7"),
            ),
            (
                RevokeLine::InThread,
                format!("revoked by {alice}. AWS shows that the access is gone."),
            ),
            (
                RevokeLine::InMessage,
                format!("revoked by {alice}: incident 7. AWS shows that the access is gone."),
            ),
        ] {
            let line = super::line(&ended, place, &Handles::default());
            assert_eq!(line, Line::Called(expected));
        }
    }

    /// Texts of people and of AWS have no effect in Mattermost.
    #[test]
    fn a_history_line_contains_no_mention_and_no_link() {
        let said = "@all ![x](https://evil)";
        for kind in EventKind::ALL {
            let said = ["reason", "error", "additional_minutes"].map(|name| (name, said));
            match line(&event(kind, &said)) {
                Line::None => {}
                Line::Plain(line) | Line::Called(line) => {
                    assert!(
                        !line.contains("@all") && !line.contains("]("),
                        "{kind:?}: {line}"
                    );
                }
            }
        }
    }
}
