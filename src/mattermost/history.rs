//! What happened, in a line for the card's thread.

use super::text::{moment, plain, short};
use crate::domain::{Event, EventKind};

/// Whom a line is for besides whoever follows the thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The card says it already, or it is nobody's news.
    None,
    Told(String),
    /// For whoever asked for it.
    Called(String),
}

pub fn line(event: &Event) -> Line {
    let by = plain(event.actor_email.as_deref().unwrap_or("jit"));
    let said = |name: &str| event.details.get(name).map(|said| short(said, 500));
    let why = said("reason").map_or_else(String::new, |why| format!(": {why}"));
    let until = event.details.get("end_time").map(|end| moment(end));
    let until = until.unwrap_or_default();
    let minutes = said("additional_minutes").unwrap_or_default();
    let because = said("error").or_else(|| said("why")).unwrap_or_default();
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
            Line::Told(format!("{by} approves; more approvals are needed."))
        }
        EventKind::Approved => Line::Told(format!("Approved by {by}.")),
        EventKind::Denied => Line::Called(format!("denied by {by}{why}")),
        EventKind::Cancelled => Line::Told(format!("Taken back by {by}.")),
        EventKind::Granted => Line::Called(format!("it is there, until {until}.")),
        EventKind::ExtensionRequested => {
            Line::Told(format!("{by} asks for {minutes} more minutes."))
        }
        EventKind::Extended => {
            Line::Called(format!("{minutes} minutes more by {by}, until {until}."))
        }
        EventKind::ExtensionDenied => Line::Called(format!("no more time: denied by {by}{why}")),
        EventKind::RevokeRequested => Line::Called(format!("{by} revokes it{why}")),
        EventKind::ExpiryStarted => {
            Line::Told("Its time is over: AWS is asked to remove it.".into())
        }
        EventKind::RollbackStarted => Line::Told(format!(
            "It could not be given ({because}); what may exist of it is removed."
        )),
        EventKind::RemovalFailing => Line::Told(format!(
            ":warning: AWS does not remove it ({because}). It is tried until it is gone."
        )),
        EventKind::StrayAccessFound => Line::Told(
            ":warning: AWS shows access that should be gone; it is removed again.".into(),
        ),
        EventKind::StrayAccessRemoved => Line::Told("What was left of it is gone.".into()),
        EventKind::CleanedUp => Line::Told(format!("Removed by hand by {by}{why}")),
        EventKind::Revoked => Line::Called(format!("revoked by {by}. AWS shows that it is gone.")),
        EventKind::Expired if event.details.contains_key("reason") => {
            Line::Called(format!("it is over{why}"))
        }
        EventKind::Expired => Line::Told("Over. AWS shows that it is gone.".into()),
        EventKind::Error => Line::Called(format!("it ended in an error: {because}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decide::fixtures::{alice, record};
    use crate::domain::{AuditKey, Chain};

    fn event(kind: EventKind, details: &[(&str, &str)]) -> Event {
        let request = record("Granted").request;
        let entry = crate::domain::audit::EventDraft {
            key: AuditKey::Request(request.id),
            kind,
            account_id: None,
            channel_id: &request.channel_id,
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
    fn an_end_says_which_end_it_is() {
        let over = line(&event(EventKind::Expired, &[]));
        assert!(matches!(&over, Line::Told(line) if line.contains("AWS shows that it is gone")));
        let waited = line(&event(
            EventKind::Expired,
            &[("reason", "nobody approved it")],
        ));
        let Line::Called(waited) = waited else {
            panic!("who asked should hear {waited:?}");
        };
        assert!(
            waited.contains("nobody approved it") && !waited.contains("gone"),
            "{waited}"
        );
    }

    /// Whatever people and AWS say, nothing is made of it.
    #[test]
    fn words_are_only_shown() {
        let said = "@all ![x](https://evil)";
        for kind in EventKind::ALL {
            let said = ["reason", "error", "additional_minutes"].map(|name| (name, said));
            match line(&event(kind, &said)) {
                Line::None => {}
                Line::Told(line) | Line::Called(line) => {
                    assert!(
                        !line.contains("@all") && !line.contains("]("),
                        "{kind:?}: {line}"
                    );
                }
            }
        }
    }
}
