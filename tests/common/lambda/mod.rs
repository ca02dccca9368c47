//! A local Lambda: its Runtime API, its Invoke API and a gateway. Its events have the shapes of the
//! real ones.

mod cloud;
mod events;
mod gateway;
mod invoke_api;
mod process;
mod runtime_api;

#[allow(unused_imports)] // each target uses its part
pub use {
    cloud::{Cloud, Outcome},
    events::{change, minute, v2_event},
    process::Process,
};

use super::{Caller, SECRET, Setup};

/// A function, a gateway, and a caller that uses the gateway.
pub struct Function {
    pub cloud: Cloud,
    pub process: Process,
    pub caller: Caller,
}

impl Function {
    pub async fn deploy(setup: &Setup) -> Self {
        Self::deploy_at(setup, "$default").await
    }

    pub async fn deploy_at(setup: &Setup, stage: &'static str) -> Self {
        let cloud = Cloud::open().await;
        let process = Process::start(&cloud, setup);
        let gateway = cloud.gateway(stage).await;
        Self {
            caller: Caller::new(&gateway, "plugin", SECRET),
            process,
            cloud,
        }
    }
}
