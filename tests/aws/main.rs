//! The real binary against a simulated AWS over HTTP: its calls, the faults of AWS, and the final
//! state of each request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod death;
mod faults;
mod life;
mod moto;
mod operator;
mod sessions;
