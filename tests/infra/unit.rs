//! The systemd unit for one machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{Jit, Setup};

/// The settings of the unit; a repeated setting has several values.
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

/// The command of the unit starts, and stops before the time-out of systemd.
#[test]
fn the_unit_starts_jit_and_stops_it_in_time() {
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
    let timeout: u64 = settings["TimeoutStopSec"][0].parse().unwrap();
    assert!(took.as_secs() < timeout, "{took:?}");
}

/// The restrictions of the unit on a compromised process.
#[test]
fn the_unit_restricts_the_process() {
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
