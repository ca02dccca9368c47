//! What a request is and what may happen to it.
//!
//! Nothing here reads a clock, touches a disk or knows AWS: time and every
//! other fact come in as arguments, and what must happen comes out as data.
//! Whoever reads this room alone knows the product.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod audit;
pub mod binding;
pub mod command;
pub mod decide;
pub mod holding;
pub mod ids;
pub mod limits;
pub mod notice;
pub mod policy;
pub mod request;
pub mod shown;
pub mod timestamp;

pub use audit::{AuditKey, Chain, Event, EventKind, Hash};
pub use binding::{Admin, BindTerms, Binding, Channel, ConfigurationChange, Rebinding};
pub use command::{
    Ask, AssignmentCall, Calls, Claim, Command, Outcome, Presence, Proof, Trouble, Work,
};
pub use decide::{CoHolders, Decision, Record, Refusal, decide, open};
pub use holding::{Holding, HoldingKey};
pub use ids::{
    AccountId, ChannelId, Email, Invalid, LeaseToken, Minutes, MmUserId, PermissionSet, Person,
    PostId, RequestId, Text, UserId,
};
pub use notice::{Audience, Notice};
pub use policy::{EndSessions, ExtensionRule, Policy, SetRule};
pub use request::{
    Approval, Doubt, Draft, Ending, ErrorEnd, Extension, Failing, Lane, Lease, LeaseHolder,
    OldCredentials, Period, Reminder, Request, State, Status,
};
pub use shown::RequestObject;
pub use timestamp::{Millis, Timestamp};
