//! The definitions of the tables. `jit tables create` creates them, `jit tables check` compares
//! with them, and infra/ declares the same tables.
//!
//! Each index serves one query. The indexes of due work contain only due work. An index to which
//! many processes write at once has a shard in its key, so that no partition becomes hot.

use std::collections::BTreeMap;

/// The number of partitions of a sharded index. Every record stores its shard, so this number
/// cannot change for tables in use.
pub(super) const SHARDS: u8 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Requests,
    Audit,
    /// Holdings: the holders and unanswered calls of each assignment.
    Assignments,
    /// Bindings and channels.
    Bindings,
    /// The outbox, with one item for each request.
    Outbox,
    Nonces,
    /// The answers to calls with an `Idempotency-Key`.
    Answers,
    /// Named leases, for things outside the store that one process at a time may change.
    Leases,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    pub key: KeySchema,
    pub indexes: &'static [Index],
    /// The TTL attribute. jit does not depend on the deletion by TTL.
    pub forgets_by: Option<&'static str>,
    /// Whether the table needs point-in-time recovery and deletion protection.
    pub keeping: Keeping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    ForGood,
    ForNow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    pub name: &'static str,
    pub key: KeySchema,
    pub shows: Shows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySchema {
    pub hash: Attribute,
    pub range: Option<Attribute>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    pub name: &'static str,
    pub kind: AttributeKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeKind {
    Text,
    Number,
}

/// The attributes that an index contains besides the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    Keys,
    Also(&'static [&'static str]),
    Everything,
}

const fn text(name: &'static str) -> Attribute {
    let kind = AttributeKind::Text;
    Attribute { name, kind }
}

const fn number(name: &'static str) -> Attribute {
    let kind = AttributeKind::Number;
    Attribute { name, kind }
}

const fn key(hash: Attribute) -> KeySchema {
    KeySchema { hash, range: None }
}

const fn keys(hash: Attribute, range: Attribute) -> KeySchema {
    let range = Some(range);
    KeySchema { hash, range }
}

const fn index(name: &'static str, key: KeySchema, shows: Shows) -> Index {
    Index { name, key, shows }
}

pub(super) const BY_CHANNEL: &str = "by_channel";
pub(super) const BY_ACCOUNT: &str = "by_account";
pub(super) const BY_REQUESTER: &str = "by_requester";
pub(super) const BY_STATUS: &str = "by_status";
pub(super) const BY_TIME: &str = "by_time";
pub(super) const BY_DUE: &str = "by_due";
pub(super) const BY_WATCH: &str = "by_watch";
pub(super) const BY_KIND: &str = "by_kind";
pub(super) const BY_PARKED: &str = "by_parked";

const LISTED: Attribute = text("created_at_request_id");

/// The keys of the first indexes never change, so a change of the record costs no write there.
const REQUESTS: &[Index] = &[
    index(BY_CHANNEL, keys(text("channel_id"), LISTED), Shows::Keys),
    index(BY_ACCOUNT, keys(text("account_id"), LISTED), Shows::Keys),
    index(
        BY_REQUESTER,
        keys(text("requester_email"), LISTED),
        Shows::Keys,
    ),
    index(BY_TIME, keys(number("shard"), LISTED), Shows::Keys),
    // G19: the partition key is a status and a shard.
    index(
        BY_STATUS,
        keys(text("status_shard"), LISTED),
        Shows::Also(&["account_id", "channel_id", "requester_email"]),
    ),
    // Contains only requests with a due time; the partition key is a lane and a shard.
    index(
        BY_DUE,
        keys(text("due_lane"), number("claimable_at")),
        Shows::Also(&["end_at", "failing"]),
    ),
    // Contains only requests that are not settled, by the status that an operator may change.
    index(
        BY_WATCH,
        keys(number("watch_shard"), text("status")),
        Shows::Keys,
    ),
];

const AUDIT: &[Index] = &[index(
    BY_TIME,
    keys(number("shard"), text("event_time_event_id")),
    Shows::Everything,
)];

/// Bindings are few and seldom change, so this index needs no shard.
const BINDINGS: &[Index] = &[index(
    BY_KIND,
    keys(text("kind"), text("binding_key")),
    Shows::Keys,
)];

const OUTBOX: &[Index] = &[
    index(
        BY_DUE,
        keys(number("due_shard"), number("claimable_at")),
        Shows::Also(&["pending", "oldest_at"]),
    ),
    index(
        BY_PARKED,
        keys(number("parked_shard"), text("request_id")),
        Shows::Also(&["parked"]),
    ),
];

const EXPIRES_AT: Option<&str> = Some("expires_at");

impl Table {
    pub const ALL: [Self; 8] = [
        Self::Requests,
        Self::Audit,
        Self::Assignments,
        Self::Bindings,
        Self::Outbox,
        Self::Nonces,
        Self::Answers,
        Self::Leases,
    ];

    /// Its key under `[store.tables]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Audit => "audit",
            Self::Assignments => "assignments",
            Self::Bindings => "bindings",
            Self::Outbox => "outbox",
            Self::Nonces => "nonces",
            Self::Answers => "answers",
            Self::Leases => "leases",
        }
    }

    pub fn definition(self) -> Definition {
        let (key, indexes, forgets_by, keeping) = match self {
            Self::Requests => (key(text("request_id")), REQUESTS, None, Keeping::ForGood),
            Self::Audit => {
                let key = keys(text("request_id"), text("event_time_event_id"));
                (key, AUDIT, None, Keeping::ForGood)
            }
            Self::Assignments => (
                key(text("holding_key")),
                [].as_slice(),
                None,
                Keeping::ForGood,
            ),
            Self::Bindings => (key(text("binding_key")), BINDINGS, None, Keeping::ForGood),
            Self::Outbox => (key(text("request_id")), OUTBOX, None, Keeping::ForGood),
            // G20a: the nonce is the hash key, so random nonces spread over the partitions.
            Self::Nonces => (
                key(text("nonce")),
                [].as_slice(),
                EXPIRES_AT,
                Keeping::ForNow,
            ),
            Self::Answers => (
                key(text("answer_key")),
                [].as_slice(),
                EXPIRES_AT,
                Keeping::ForNow,
            ),
            Self::Leases => (
                key(text("lease_name")),
                [].as_slice(),
                EXPIRES_AT,
                Keeping::ForNow,
            ),
        };
        Definition {
            key,
            indexes,
            forgets_by,
            keeping,
        }
    }
}

impl KeySchema {
    pub fn attributes(self) -> impl Iterator<Item = Attribute> {
        std::iter::once(self.hash).chain(self.range)
    }
}

/// The configured name of each table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNames(BTreeMap<Table, String>);

impl Default for TableNames {
    fn default() -> Self {
        Self::named(&BTreeMap::new())
    }
}

impl TableNames {
    /// Returns the given names; the default is `jit_` and the key of the table.
    pub fn named(given: &BTreeMap<String, String>) -> Self {
        let name = |table: Table| {
            let usual = || format!("jit_{}", table.as_str());
            let name = given.get(table.as_str()).cloned().unwrap_or_else(usual);
            (table, name)
        };
        Self(Table::ALL.into_iter().map(name).collect())
    }

    pub fn of(&self, table: Table) -> &str {
        self.0.get(&table).map_or(table.as_str(), String::as_str)
    }
}

/// Returns the shard of a text, by FNV-1a. The result must never change.
pub(super) fn shard_of(text: &str) -> u8 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u8::try_from(hash % u64::from(SHARDS)).unwrap_or(0)
}
