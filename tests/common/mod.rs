//! The tests run the real binary: they configure it, start it, call it with signatures and receive
//! its notices. The modules simulate the systems that jit uses.
#![allow(dead_code)] // each target uses its part

pub mod aws;
mod caller;
pub mod chat;
mod config;
pub mod dynamo;
pub mod fixtures;
pub mod lambda;
pub mod mattermost;
pub mod moto;
mod process;
mod receiver;
mod records;
mod requests;
pub mod shell;
mod signing;
pub mod wall_clock;
pub mod wire;

use std::time::Duration;

#[allow(unused_imports)] // each target uses its part
pub use {
    caller::{Caller, Reply},
    config::Setup,
    process::{Jit, binary},
    receiver::{Answer, Channel, Heard},
    records::{let_grants_end, write_history},
    requests::wanted,
    signing::{Signing, nonce, now},
};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub const METRICS_TOKEN: &str = "metrics-0123456789abcdef";
pub const HOOK_SECRET: &str = "fedcba9876543210fedcba9876543210";
pub const ACCOUNT: &str = "111122223333";
pub const CHANNEL: &str = "town-square";
/// The limit of every wait; only a hang takes this long.
pub const TIMEOUT: Duration = Duration::from_secs(60);
