//! Under AWS Lambda: a local Runtime API drives the binary as Lambda would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod odd;
mod secrets;
mod via;
mod work;
