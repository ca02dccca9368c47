//! Reads one history with its record, and compares the attributes of each item with its document.
//! The reads are not one snapshot, so the caller reads again before it reports a difference.

use aws_sdk_dynamodb::types::AttributeValue;

use super::DynamoStore;
use super::items::{self, Item, s, text};
use super::tables::Table;
use crate::domain::{
    AuditKey, Binding, Channel, ChannelId, Event, Holding, HoldingKey, Request, RequestId,
};
use crate::store::StoreError;
use crate::store::inspect::{AuditedRecord, Fit, Inspected, Misfit, record_name};

/// The attributes by which an index or the table's stream finds a request, and those that the
/// conditions of a write compare.
const FINDS_REQUEST: [&str; 14] = [
    "account_id",
    "channel_id",
    "requester_email",
    "created_at",
    "revision",
    "written_status",
    "shard",
    "created_at_request_id",
    "status_shard",
    "due_lane",
    "claimable_at",
    "end_at",
    "watch_shard",
    "at_hand",
];

impl DynamoStore {
    pub(super) async fn inspected(&self, key: &AuditKey) -> Result<Inspected, StoreError> {
        let mut found = Inspected::default();
        match key {
            AuditKey::Request(id) => self.inspect_request(*id, &mut found).await?,
            AuditKey::Config(channel) => self.inspect_channel(channel, &mut found).await?,
        }
        let call = self
            .query_of(Table::Audit)
            .key_condition_expression("request_id = :here")
            .expression_attribute_values(":here", s(key))
            .consistent_read(true);
        for item in self.query_all(call).await? {
            let of = format!("event {}", items::name(&item, "event_time_event_id"));
            let event: Event = items::read_event(item.clone())?;
            let expected = items::event(&event)?;
            let keys = ["request_id", "event_time_event_id", "shard"];
            compare(of, &keys, &item, &expected, &mut found.misfits);
            found.events.push(event);
        }
        Ok(found)
    }

    async fn inspect_request(
        &self,
        id: RequestId,
        found: &mut Inspected,
    ) -> Result<(), StoreError> {
        let item = self.get(Table::Requests, items::request_key(id)).await?;
        let Some(item) = item else {
            return Ok(());
        };
        let request = items::read_request(&item)?;
        let written: Request = items::from_doc(&item, "request_id")?;
        if written.id != id {
            let why = format!(
                "request {id}: its item contains the document of {}",
                written.id
            );
            return Err(StoreError::Corrupt(why));
        }
        let expected = items::request(&written)?;
        let of = record_name(&AuditKey::Request(id));
        compare(
            of.clone(),
            &FINDS_REQUEST,
            &item,
            &expected,
            &mut found.misfits,
        );
        // An operator may change these; the check of the chain reports it.
        if item.get("status") == item.get("written_status") {
            let by_operator = ["status", "revoked_at"];
            compare(of, &by_operator, &item, &expected, &mut found.misfits);
        }
        if let Some(key) = request.holding_key() {
            self.inspect_holding(&key, &mut found.misfits).await?;
        }
        found.record = Some(AuditedRecord::Request(Box::new(request)));
        Ok(())
    }

    async fn inspect_holding(
        &self,
        key: &HoldingKey,
        misfits: &mut Vec<Misfit>,
    ) -> Result<(), StoreError> {
        let item_key = Item::from([("holding_key".into(), s(key))]);
        if let Some(item) = self.get(Table::Assignments, item_key).await? {
            let holding: Holding = items::from_doc(&item, "holding_key")?;
            let expected = items::holding(&holding)?;
            let of = format!("the assignment {key}");
            compare(of, &["holding_key", "revision"], &item, &expected, misfits);
        }
        Ok(())
    }

    async fn inspect_channel(
        &self,
        channel: &ChannelId,
        found: &mut Inspected,
    ) -> Result<(), StoreError> {
        let item = self.find_channel(channel).await?.unwrap_or_default();
        let of = record_name(&AuditKey::Config(channel.clone()));
        if item.contains_key("doc") {
            let record: Channel = items::from_doc(&item, "binding_key")?;
            let mut expected = items::channel(&record)?;
            expected.insert("kind".into(), s("channel"));
            let keys = ["binding_key", "kind", "revision"];
            compare(of, &keys, &item, &expected, &mut found.misfits);
            found.record = Some(AuditedRecord::Channel(record));
        }
        let accounts = item.get("accounts").and_then(|set| set.as_ss().ok());
        let keys = accounts.into_iter().flatten();
        let keys = keys.map(|account| items::binding_key(&format!("account#{account}")));
        for item in self.get_all(Table::Bindings, keys.collect()).await? {
            let binding: Binding = items::from_doc(&item, "binding_key")?;
            check_binding(&item, &binding, &mut found.misfits)?;
            found.bindings.push(binding);
        }
        found
            .bindings
            .sort_by(|one, other| one.account_id.cmp(&other.account_id));
        Ok(())
    }
}

fn check_binding(
    item: &Item,
    binding: &Binding,
    misfits: &mut Vec<Misfit>,
) -> Result<(), StoreError> {
    let expected = items::binding(binding)?;
    let of = format!("the binding of {}", binding.account_id);
    let mut keys = vec!["binding_key", "kind", "channel_id", "revision"];
    // An item of an older jit has no `bound_seq`.
    if item.contains_key("bound_seq") || binding.bound_seq > 0 {
        keys.push("bound_seq");
    }
    compare(of, &keys, item, &expected, misfits);
    Ok(())
}

fn compare(of: String, names: &[&str], item: &Item, expected: &Item, misfits: &mut Vec<Misfit>) {
    let mut fit = Fit { of, misfits };
    for name in names {
        fit.check(name, shown(item, name), shown(expected, name));
    }
}

fn shown(item: &Item, name: &str) -> Option<String> {
    let value = item.get(name)?;
    Some(match (text(item, name), value) {
        (Ok(text), _) => text.to_owned(),
        (Err(_), other) => in_words(other),
    })
}

/// The value of an attribute in plain words.
fn in_words(value: &AttributeValue) -> String {
    match value {
        AttributeValue::S(text) | AttributeValue::N(text) => text.clone(),
        AttributeValue::Bool(is) => is.to_string(),
        AttributeValue::Null(_) => "null".to_owned(),
        AttributeValue::Ss(texts) | AttributeValue::Ns(texts) => texts.join(", "),
        AttributeValue::B(bytes) => format!("{} bytes", bytes.as_ref().len()),
        AttributeValue::Bs(all) => format!("{} binary values", all.len()),
        AttributeValue::L(all) => format!("a list of {} values", all.len()),
        AttributeValue::M(all) => format!("a map of {} values", all.len()),
        _ => "a value of an unknown type".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H6
    #[test]
    fn a_value_of_another_type_is_shown_in_plain_words() {
        let shown = |value: AttributeValue| {
            let item = Item::from([("revision".to_owned(), value)]);
            shown(&item, "revision").unwrap()
        };
        assert_eq!(shown(AttributeValue::Bool(true)), "true");
        assert_eq!(shown(AttributeValue::N("7".into())), "7");
        assert_eq!(shown(AttributeValue::Null(true)), "null");
        assert_eq!(
            shown(AttributeValue::Ss(vec!["a".into(), "b".into()])),
            "a, b"
        );
        let map = AttributeValue::M([("a".to_owned(), s("b"))].into());
        assert_eq!(shown(map), "a map of 1 values");
    }
}
