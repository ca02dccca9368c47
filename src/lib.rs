//! Just-in-time AWS access from Mattermost.
//!
//! The modules, in reading order. `tests/tidy.rs` checks that their dependencies go one way.

pub mod domain;

pub mod service;

pub mod store;

pub mod identity_center;

pub mod worker;

pub mod signature;

pub mod code;

pub mod http;

pub mod lambda;

pub mod mattermost;

pub mod cli;

pub(crate) mod app;

pub mod serve;

pub mod config;

pub mod clock;
pub mod telemetry;
