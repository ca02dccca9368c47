//! Every Identity Center is put through the same facts; the simulated one also shows
//! that its faults come when asked for, and that a crash undoes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/aws.rs"]
mod aws;
mod conformance;
mod hands;
mod paced;
mod sandbox;
mod sdk;
#[path = "../common/wire.rs"]
mod wire;
