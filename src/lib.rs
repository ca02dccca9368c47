//! Just-in-time AWS access from Mattermost.
//!
//! Each module may use the modules above it. `tests/tidy.rs` checks this, and that the order is the
//! order of the table in ARCHITECTURE.md.

pub mod domain;

pub mod signature;

pub mod clock;

pub mod files;

mod lock;

pub mod identity_center;

pub mod store;

pub mod code;

pub mod config;

pub mod telemetry;

pub mod service;

pub mod worker;

pub mod http;

pub mod mattermost;

pub mod app;

pub mod serve;

pub mod lambda;

pub mod cli;
