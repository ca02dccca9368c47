//! The HTTP API of the real binary, over real sockets with real signatures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod abundance;
mod configuration;
mod files;
mod flood;
mod input;
mod keys;
mod life;
mod lists;
mod notices;
mod operation;
mod signing;
mod who;
