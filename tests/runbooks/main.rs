//! The runbooks, read from the Markdown: every command in them runs as written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod alarms;
mod break_glass;
mod page;
mod pages;
mod stage;
