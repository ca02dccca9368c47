//! The real binary on DynamoDB Local: lives of requests, replicas, faults and commands of an
//! operator.
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
