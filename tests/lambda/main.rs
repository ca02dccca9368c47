//! The binary under AWS Lambda: a local Runtime API drives it as Lambda does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod odd;
mod secrets;
mod via;
mod work;
