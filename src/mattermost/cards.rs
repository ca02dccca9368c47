//! The messages that jit posts by itself: the card of each request, its history, and direct messages.

pub mod card;
pub mod direct;
pub mod handles;
mod history;
pub mod names;
pub mod quorum;
pub mod refusals;
pub mod subject;
pub mod tell;
pub mod text;
