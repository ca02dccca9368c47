//! The real binary against AWS's end of the wire: what is asked there, what goes wrong
//! there, and that it ends right all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod death;
mod faults;
mod life;
mod moto;
mod operator;
mod sessions;
