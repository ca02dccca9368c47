//! Just-in-time AWS access from Mattermost.
//!
//! The rooms, in reading order. Each uses only those above it.

pub mod domain;

pub mod access;
pub mod clock;
pub mod store;
