//! `/jit` typed into a stock Mattermost: what a real server sent, byte for byte, and a
//! server made from that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod captures;
mod card;
mod clicks;
mod dialog;
mod life;
mod server;
mod setup;
mod told;
mod traps;
