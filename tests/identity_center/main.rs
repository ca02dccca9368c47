//! Every Identity Center is tested for the same properties; the simulated one also for its faults
//! on request and for its state after a crash.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // these tests use a part of it
#[path = "../common/aws/mod.rs"]
mod aws;
mod conformance;
mod paced;
mod sandbox;
mod sdk;
mod test_clock;
#[path = "../common/wire.rs"]
mod wire;
