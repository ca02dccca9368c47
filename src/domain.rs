//! The domain: what a request is, and which commands change it.
//!
//! This module reads no clock and no store, and it knows nothing of AWS. Time and all other
//! facts come in as arguments; the writes and the work that follow come out as data. All rules
//! of the product are here.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod access;
pub mod assignment;
pub mod audit;
pub mod binding;
pub mod command;
pub mod configuration;
mod counted;
pub mod decide;
pub mod hash;
pub mod heads;
pub mod ids;
pub mod limits;
pub mod marks;
pub mod notice;
mod notice_text;
mod old_credentials;
pub mod policy;
pub mod refusal;
pub mod replay;
pub mod request;
pub mod role;
pub mod session;
pub mod short_id;
pub mod shown;
pub mod status;
pub mod timestamp;
mod typed_set;

pub use access::{
    AccessChange, AccessFacts, AccessForm, AccessRecord, Calls, Outcome, Proof, Work, WorkFailure,
};
pub use assignment::{
    AssignmentCall, AssignmentCalls, AssignmentChange, AssignmentFacts, AssignmentOutcome,
    AssignmentProof, AssignmentRecord, AssignmentWork, CoHolders, Holding, HoldingKey,
    OldCredentials, Preparation, Presence,
};
pub use audit::{AuditKey, Chain, Event, EventKind, EventPlace};
pub use binding::{BindTerms, Binding, Channel};
pub use command::{Ask, Command};
pub use configuration::{Admin, ConfigurationChange, Rebinding};
pub use counted::counted;
pub use decide::{Decision, Record, decide, open};
pub use hash::Hash;
pub use heads::{HeadEntry, HistoryEnd};
pub use ids::{
    AccountId, ChannelId, Email, Invalid, LeaseToken, Minutes, MmUserId, PermissionSet, Person,
    PostId, RequestId, Text, UserId,
};
pub use marks::is_odd;
pub use notice::{Audience, Notice, PersonMark, ReceiverName};
pub use policy::{Admins, ChatUser, ExtensionRule, OldCredentialsRule, Policy, SetRule};
pub use refusal::Refusal;
pub use request::{
    Approval, Approvals, Asked, Chat, Claim, Doubt, Draft, Ending, ErrorEnd, Extension, Failing,
    Grant, Lane, Lease, LeaseHolder, Period, Reminder, Request, Schedule, State, Subject, Version,
};
pub use role::{RoleArn, RoleTemplate};
pub use session::{
    AssumeRole, AssumeRoleOptions, Cap, Caps, Issued, SESSION_TAG, Session, SessionBasis,
    SessionId, SessionMode, SessionRefusal, SessionStart, SessionState, Terms,
};
pub use short_id::ShortId;
pub use shown::{RequestObject, status_in_words};
pub use status::Status;
pub use timestamp::{Millis, Timestamp};
pub use typed_set::TypedSet;
