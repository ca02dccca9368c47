//! Computes the size of items in the way of DynamoDB, and refuses a write that DynamoDB would
//! refuse as too large, with a message that names the limit.

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};

use super::items::Item;
use crate::store::StoreError;

/// DynamoDB's limit for the actions of a transaction.
const ACTIONS: usize = 100;
/// DynamoDB's size limits for an item and for a transaction, in bytes.
const ITEM: usize = 400 * 1024;
const TRANSACTION: usize = 4 * 1024 * 1024;

pub(super) fn of_item(item: &Item) -> usize {
    item.iter()
        .map(|(name, value)| name.len() + of_value(value))
        .sum()
}

/// Returns at least the size that DynamoDB counts for a value.
fn of_value(value: &AttributeValue) -> usize {
    /// The overhead of a list or a map, and of each of its elements.
    const CONTAINER: usize = 3;
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::L(list) => {
            CONTAINER + list.iter().map(|one| 1 + of_value(one)).sum::<usize>()
        }
        AttributeValue::M(map) => CONTAINER + map.len() + of_item(map),
        // jit writes no values of other types.
        _ => 1,
    }
}

/// Returns the size of one action.
fn of_action(action: &TransactWriteItem) -> usize {
    let put = action.put().map(|put| of_item(put.item()));
    let update = action.update();
    let set = update.and_then(|update| update.expression_attribute_values());
    put.or(set.map(of_item)).unwrap_or(0)
}

pub(super) fn check(actions: &[TransactWriteItem]) -> Result<(), StoreError> {
    let many = actions.len();
    if many > ACTIONS {
        return Err(StoreError::TooLarge(format!(
            "the commit changes {many} items, and a DynamoDB transaction has at most {ACTIONS}"
        )));
    }
    let sizes = || actions.iter().map(of_action);
    let (largest, whole) = (sizes().max().unwrap_or(0), sizes().sum::<usize>());
    let (what, bytes, most) = match largest > ITEM {
        true => ("a record", largest, ITEM),
        false => ("a write", whole, TRANSACTION),
    };
    match bytes > most {
        true => Err(StoreError::TooLarge(format!(
            "{what} of {bytes} bytes; DynamoDB's limit is {most}"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::super::{items, outbox};
    use super::*;
    use crate::domain::audit::EventDraft;
    use crate::domain::limits::{MOST_ACCOUNTS, MOST_APPROVALS, MOST_APPROVERS, MOST_SETS};
    use crate::domain::{
        AccessFacts, Approval, Approvals, Asked, AssignmentFacts, Audience, AuditKey, Binding,
        Chain, Channel, Chat, Ending, ErrorEnd, Event, EventKind, Extension, Failing, Grant,
        Holding, HoldingKey, Lease, LeaseToken, Minutes, Notice, OldCredentials, Period, Person,
        PersonMark, ReceiverName, Reminder, Request, RequestId, Schedule, State, Text, Timestamp,
        Version,
    };
    use crate::store::outbox::{MOST_PARKED, MOST_PENDING};
    use crate::store::portable::OutboxEntry;

    /// The largest number of holders of one assignment, which one commit ends.
    const HOLDERS: u128 = 32;

    fn text() -> Text {
        "\u{1F600}".repeat(1000).parse().unwrap()
    }

    fn word<T: std::str::FromStr<Err: std::fmt::Debug>>() -> T {
        "w".repeat(64).parse().unwrap()
    }

    /// The longest address, of characters that JSON escapes with two: older versions of jit
    /// accepted them.
    fn person() -> Person {
        let email = format!("{}@x", "\"".repeat(252));
        let id: String = word();
        serde_json::from_value(serde_json::json!({"id": id, "email": email})).unwrap()
    }

    fn approvals() -> Vec<Approval> {
        let one = Approval {
            by: person(),
            at: Timestamp::default(),
        };
        vec![one; MOST_APPROVALS]
    }

    fn id(number: u128) -> RequestId {
        RequestId::from_uuid(Uuid::from_u128(u128::MAX - number))
    }

    fn grant() -> Grant {
        Grant {
            period: Some(Period {
                from: Timestamp::default(),
                until: Timestamp::default(),
            }),
            extension: Some(Extension {
                by: person(),
                minutes: Minutes::new(527_040).unwrap(),
                approvals: approvals(),
            }),
        }
    }

    fn request(state: State) -> Request {
        Request {
            id: id(0),
            asked: Asked {
                account_id: "123456789012".parse().unwrap(),
                channel_id: word(),
                requester: person(),
                permission_set: word(),
                reason: Some(text()),
                jira: Some(text()),
                duration: Minutes::new(527_040).unwrap(),
                start_at: Some(Timestamp::default()),
                created_at: Timestamp::default(),
                key_id: Some("k".repeat(64)),
            },
            approvals: Approvals {
                given: approvals(),
                complete_at: Some(Timestamp::default()),
            },
            grant: grant(),
            state,
            access: AccessFacts::Assignment(AssignmentFacts {
                user: Some(word()),
                old_credentials: Some(OldCredentials::Ending {
                    before: Timestamp::default(),
                }),
            }),
            schedule: Schedule {
                due_at: Some(Timestamp::default()),
                lease: Some(Lease {
                    token: LeaseToken(Uuid::max()),
                    until: Timestamp::default(),
                    by: crate::domain::LeaseHolder::Operator,
                }),
                failures: Some(Failing {
                    since: Timestamp::default(),
                    attempts: u32::MAX,
                    refusals: u32::MAX,
                    why: text(),
                }),
            },
            chat: Chat {
                parked_notices: u32::MAX,
                card: Some(word()),
                button_key: Some("x".repeat(8)),
                reminder: Some(Reminder {
                    post: word(),
                    of: u64::MAX,
                }),
            },
            version: Version {
                chain: Chain::default(),
                revision: u64::MAX,
            },
        }
    }

    /// Every state with texts in it, each text at its longest.
    fn states() -> [State; 6] {
        let (by, reason, at) = (person(), Some(text()), Timestamp::default());
        let error = ErrorEnd { at, why: text() };
        [
            State::Denied {
                by: by.clone(),
                reason: reason.clone(),
                at,
            },
            State::Revoked {
                by: Some(by.clone()),
                reason: reason.clone(),
                at,
            },
            State::Removing {
                ending: Ending::Revoked {
                    by: Some(by.clone()),
                    reason: reason.clone(),
                    asked_at: at,
                },
            },
            State::Removing {
                ending: Ending::Failed { why: text() },
            },
            State::Checking {
                by,
                reason,
                error: error.clone(),
            },
            State::Error(error),
        ]
    }

    fn event(kind: EventKind, details: BTreeMap<String, String>) -> Event {
        let channel = word();
        let entry = EventDraft {
            key: AuditKey::Config(word()),
            kind,
            account_id: Some(&"123456789012".parse().unwrap()),
            channel_id: &channel,
            actor: Some(&person()),
            status: None,
            details,
        };
        Chain::default().append(entry, Timestamp::default())
    }

    fn details_of(words: &[(&str, String)]) -> BTreeMap<String, String> {
        let words = words.iter();
        words
            .map(|(name, word)| ((*name).to_owned(), word.clone()))
            .collect()
    }

    fn binding() -> Binding {
        Binding {
            account_id: "123456789012".parse().unwrap(),
            channel_id: word(),
            approvers: vec![word(); MOST_APPROVERS],
            approvals_required: 20,
            allow_self_approval: false,
            max_request_hours: Some(u32::MAX),
            session_duration_minutes: u32::MAX,
            permission_sets: vec![word(); MOST_SETS],
            updated_at: Timestamp::default(),
            revision: u64::MAX,
            bound_seq: u64::MAX,
        }
    }

    fn holding() -> Holding {
        let holders: std::collections::BTreeSet<RequestId> = (0..HOLDERS).map(id).collect();
        Holding {
            creating: holders.clone(),
            holders,
            removing: true,
            permission_set_arn: Some("m".repeat(2048)),
            revision: u64::MAX,
            ..Holding::unheld(HoldingKey {
                account_id: "123456789012".parse().unwrap(),
                permission_set: word(),
                user: word(),
            })
        }
    }

    /// A notice of an extension. Only this notice for everybody can occur any number of times; a
    /// notice of an end, with its reason, occurs a few times.
    fn mark(number: usize) -> PersonMark {
        PersonMark::of(&format!("approver{number}").parse().unwrap())
    }

    fn entry(seq: u64, parked: bool) -> OutboxEntry {
        let mut details = details_of(&[
            ("additional_minutes", u32::MAX.to_string()),
            ("end_time", Timestamp::default().to_string()),
            ("duration_minutes", u64::MAX.to_string()),
            ("requester_email", person().email.to_string()),
        ]);
        if !parked && seq < 4 {
            details.insert("reason".into(), text().to_string());
        }
        OutboxEntry {
            notice: Notice {
                request_id: id(0),
                seq,
                status: crate::domain::Status::Granted,
                account_id: "123456789012".parse().unwrap(),
                channel_id: word(),
                actor: person().email.to_string(),
                details,
                created_at: Timestamp::default(),
                audience: Audience::Everybody,
                received_by: [ReceiverName::Webhook, ReceiverName::Mattermost].into(),
                // The messages of a request go out in order, so one pending notice has them.
                told: match parked || seq == 0 {
                    true => (0..MOST_APPROVERS).map(mark).collect(),
                    false => [].into(),
                },
            },
            attempts: u32::MAX,
            next_at: Timestamp::default(),
            parked,
        }
    }

    fn whole_outbox() -> usize {
        let outbox_entries: Vec<OutboxEntry> = (0..MOST_PENDING + MOST_PARKED)
            .map(|place| entry(place as u64, place >= MOST_PENDING))
            .collect();
        of_item(&outbox::whole(id(0), &outbox_entries, u64::MAX).unwrap())
    }

    // K9
    #[test]
    fn the_largest_item_of_each_kind_fits() {
        let names = |many: usize| vec!["w".repeat(64); many].join(",");
        let dropped = vec![id(0).to_string(); 300].join(",");
        let events = [
            details_of(&[("approvers", names(MOST_APPROVERS))]),
            details_of(&[("permission_sets", names(MOST_SETS))]),
            details_of(&[("dropped", dropped), ("until", "u".repeat(32))]),
            details_of(&["user_id", "post_id", "request"].map(|name| (name, text().to_string()))),
            details_of(&["reason", "jira", "break_glass"].map(|name| (name, text().to_string()))),
        ];
        let events = events.map(|said| event(EventKind::ApproversSet, said));
        let mut items: Vec<(String, usize)> = Vec::new();
        for state in states() {
            let name = format!("a request that is {}", state.status());
            items.push((name, of_item(&items::request(&request(state)).unwrap())));
        }
        for event in &events {
            let what = event.details.keys().next().cloned().unwrap_or_default();
            items.push((
                format!("an event with {what}"),
                of_item(&items::event(event).unwrap()),
            ));
        }
        items.push((
            "a binding".into(),
            of_item(&items::binding(&binding()).unwrap()),
        ));
        items.push((
            "a holding".into(),
            of_item(&items::holding(&holding()).unwrap()),
        ));
        let channel = items::channel(&Channel::unknown(word())).unwrap();
        items.push(("a channel".into(), of_item(&channel) + MOST_ACCOUNTS * 12));
        items.push(("an outbox".into(), whole_outbox()));
        for (what, bytes) in items {
            assert!(bytes < ITEM / 3, "{what} has {bytes} bytes");
        }
    }

    // K9: a revoke ends all holders of an assignment in one commit, whatever the size of their
    // records and outboxes.
    #[test]
    fn the_largest_revoke_fits() {
        let mut ending = request(states()[2].clone());
        // A record that ends loses both of them.
        (ending.grant.extension, ending.schedule.failures) = (None, None);
        let request = of_item(&items::request(&ending).unwrap());
        let said = details_of(&[
            ("reason", text().to_string()),
            ("shared_with", id(0).to_string()),
        ]);
        let event = of_item(&items::event(&event(EventKind::RevokeRequested, said)).unwrap());
        let each = request + event + whole_outbox();
        let binding = of_item(&items::binding(&binding()).unwrap());
        let whole = 32 * each + of_item(&items::holding(&holding()).unwrap()) + binding;
        assert!(whole < TRANSACTION, "{whole} bytes, {each} for each holder");
    }

    // K9
    #[test]
    fn the_largest_change_of_approvers_fits() {
        let binding = of_item(&items::binding(&binding()).unwrap());
        assert!(48 * binding < TRANSACTION / 2, "{binding} bytes each");
    }

    #[test]
    fn a_write_that_is_too_large_is_not_sent() {
        let put = |bytes: usize| {
            let put = aws_sdk_dynamodb::types::Put::builder()
                .table_name("t")
                .item("a", items::s("x".repeat(bytes)))
                .build()
                .unwrap();
            TransactWriteItem::builder().put(put).build()
        };
        assert_eq!(check(&[put(ITEM - 1)]), Ok(()));
        let refused = check(&[put(ITEM)]).unwrap_err();
        assert!(matches!(refused, StoreError::TooLarge(_)), "{refused}");
        let many: Vec<TransactWriteItem> = (0..11).map(|_| put(ITEM - 1)).collect();
        let refused = check(&many).unwrap_err();
        assert!(refused.to_string().contains("a write of"), "{refused}");
    }
}
