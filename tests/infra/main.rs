//! The deployment: the template, its roles and alarms, the package and the systemd unit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod alarms;
mod deployed;
mod lint;
mod package;
mod roles;
mod stream;
mod tables;
mod template;
mod unit;
