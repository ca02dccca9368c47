//! The real binary on Amazon's own DynamoDB Local: lives, replicas, faults, and what an
//! operator does by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod copy;
mod cost;
mod emergency;
mod life;
mod outage;
mod replicas;
mod runbook;
mod tables;
