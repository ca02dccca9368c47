//! The runbooks, played from the Markdown: every command in them is run, as it stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod alarms;
mod break_glass;
mod page;
mod pages;
mod stage;
