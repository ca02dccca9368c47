//! The unit for one machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{Jit, Setup};

/// Its settings; one that stands twice adds to itself.
fn settings() -> BTreeMap<String, Vec<String>> {
    let text = include_str!("../../infra/jit.service");
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', '[']) {
            continue;
        }
        let (name, value) = line.split_once('=').expect(line);
        all.entry(name.into()).or_default().push(value.into());
    }
    all
}

/// What it starts is what there is, and ends before systemd loses its patience.
#[test]
fn what_it_starts_starts_and_stops_in_time() {
    let settings = settings();
    let start: Vec<&str> = settings["ExecStart"][0].split(' ').collect();
    assert_eq!(
        start,
        [
            "/usr/local/bin/jit",
            "serve",
            "--config",
            "/etc/jit/jit.toml"
        ]
    );
    assert_eq!(settings["ExecReload"][0], "/bin/kill -HUP $MAINPID");
    let folder = Arc::new(tempfile::tempdir().unwrap());
    Setup::default().write(folder.path());
    let (status, took, _) = Jit::start_in(folder).terminate();
    assert!(status.success());
    let patience: u64 = settings["TimeoutStopSec"][0].parse().unwrap();
    assert!(took.as_secs() < patience, "{took:?}");
}

/// What a compromised jit could not do, as long as these stand.
#[test]
fn it_can_do_nothing_that_it_need_not() {
    let settings = settings();
    let yes = [
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateUsers",
        "PrivateMounts",
        "ProtectClock",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectControlGroups",
        "RemoveIPC",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
        "MemoryDenyWriteExecute",
    ];
    for name in yes {
        assert_eq!(settings[name], ["yes"], "{name}");
    }
    assert_eq!(settings["ProtectSystem"], ["strict"]);
    assert_eq!(settings["CapabilityBoundingSet"], [""]);
    assert_eq!(settings["User"], ["jit"]);
    assert_eq!(settings["UMask"], ["0077"]);
    assert_eq!(settings["StateDirectory"], ["jit"]);
}
