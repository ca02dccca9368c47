//! B4: every event that a signed call causes names the key that signed the call.

use super::Decision;
use crate::domain::EventKind;

/// The name of the key id in the details of an event.
const KEY_ID: &str = "key_id";

impl Decision {
    /// Writes the key id into all events of the decision. The service knows the key, so no command
    /// can leave it out; the hashes are made again.
    #[must_use]
    pub fn signed_by(mut self, key_id: &str) -> Self {
        for event in &mut self.events {
            event.details.insert(KEY_ID.to_owned(), key_id.to_owned());
            if event.event_type == EventKind::Requested {
                self.request.asked.key_id = Some(key_id.to_owned());
            }
        }
        self.chained_again()
    }

    /// Names the key as the actor of the events that have none. B6: only for a command of a signed
    /// call that names no person, because the events of a worker have no actor either.
    #[must_use]
    pub fn acted_by_key(mut self, key_id: &str) -> Self {
        for event in &mut self.events {
            event.act_as_key(key_id);
        }
        self.chained_again()
    }

    fn chained_again(mut self) -> Self {
        let mut head = self.events.first().map(|event| event.prev_hash);
        for event in &mut self.events {
            head = Some(event.chained_to(head.unwrap_or_default()));
        }
        if let Some(head) = head {
            self.request.version.chain.head = head;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{asked, bob, draft, later, policy, record};
    use super::super::{Decision, decide, open};
    use super::KEY_ID;
    use crate::domain::audit::verify_against;
    use crate::domain::replay::compare_request;
    use crate::domain::{Ask, Command, State, Timestamp};

    // B4
    #[test]
    fn each_event_of_a_signed_decision_names_the_key_and_the_chain_holds() {
        let start = Timestamp::from_seconds(0);
        let binding = record("Pending").binding;
        let opened = open(draft(), binding.clone(), &policy(), start).unwrap();
        let opened = opened.signed_by("plugin");
        let mut pending = record("Pending");
        pending.request = opened.request.clone();
        let ask = Ask::Deny { reason: None };
        let denied = decide(pending, &policy(), asked(bob(), ask), later()).unwrap();
        let Decision {
            request, events, ..
        } = denied.signed_by("other");
        let all: Vec<_> = opened.events.into_iter().chain(events).collect();
        let keys: Vec<&str> = all.iter().map(|event| &*event.details[KEY_ID]).collect();
        assert_eq!(keys, ["plugin", "other"]);
        assert_eq!(request.asked.key_id.as_deref(), Some("plugin"));
        verify_against(&all, &request.version.chain, Some(request.status())).unwrap();
        assert!(matches!(request.state, State::Denied { .. }));
    }

    // B6: a person is never replaced, and the record agrees with its history.
    #[test]
    fn a_key_acts_only_where_no_person_does() {
        let start = Timestamp::from_seconds(0);
        let binding = record("Pending").binding;
        for (by, actor) in [(None, "key:plugin"), (Some(bob()), "bob")] {
            let opened = open(draft(), binding.clone(), &policy(), start).unwrap();
            let mut pending = record("Pending");
            pending.request = opened.request.clone();
            let unbound = decide(pending, &policy(), Command::Unbound { by }, later()).unwrap();
            let ended = unbound.acted_by_key("plugin");
            assert_eq!(ended.events[0].actor_mm_user_id.as_deref(), Some(actor));
            let all = [opened.events, ended.events].concat();
            verify_against(
                &all,
                &ended.request.version.chain,
                Some(ended.request.status()),
            )
            .unwrap();
            assert_eq!(compare_request(&ended.request, &all), []);
        }
    }

    // B4: a decision without an event keeps its chain.
    #[test]
    fn a_decision_without_events_keeps_its_chain() {
        let posted = Command::CardPosted {
            post: "p".parse().unwrap(),
            key: "k".into(),
        };
        let before = decide(record("Granted"), &policy(), posted, later()).unwrap();
        assert_eq!(before.clone().signed_by("plugin"), before);
    }
}
