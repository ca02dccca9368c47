//! The plan of a seed: which faults occur, how often, and the other properties of the world.

use jit::domain::{ExtensionRule, Millis, OldCredentialsRule, Policy, ReceiverName};
use jit::identity_center::Limits;
use jit::service::Announce;

use crate::fixtures::policy;
use crate::receivers::{Deafness, RECEIVERS};

/// One family of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Calls to AWS arrive late, arrive after their sender gave up, and lose their answers.
    Wire,
    /// Operations at AWS take hours, or do not end before the faults end.
    Stuck,
    /// A call to the store, to AWS or to the receiver panics.
    Panic,
    /// The disk fills: every write is refused for a while, and reads succeed.
    Disk,
    /// The store answers late; a write may be carried out after its caller gave up.
    LateStore,
    /// Wall clocks differ by up to two minutes, and jump by up to ten.
    Clocks,
    /// A process is not scheduled for minutes, and then continues.
    Freeze,
    /// Break-glass, cleanup, reconcile, changes in the AWS console, statuses written into the
    /// store.
    Operators,
    /// Bindings, approvers, quorum and self-approval change while requests wait.
    Bindings,
    /// A receiver refuses all notices or does not answer, until the faults end.
    Deaf,
    /// The index of due records is some seconds old.
    Lag,
    /// Processes are also stopped with SIGTERM, not only killed.
    Stop,
    /// People repeat the same command to one request many times, with the longest texts.
    Long,
}

use Fault::{
    Bindings, Clocks, Deaf, Disk, Freeze, Lag, LateStore, Long, Operators, Panic, Stop, Stuck, Wire,
};

const NAMES: [(&str, Fault); 13] = [
    ("wire", Wire),
    ("stuck", Stuck),
    ("panic", Panic),
    ("disk", Disk),
    ("late", LateStore),
    ("clocks", Clocks),
    ("freeze", Freeze),
    ("operators", Operators),
    ("bindings", Bindings),
    ("deaf", Deaf),
    ("lag", Lag),
    ("stop", Stop),
    ("long", Long),
];

/// By `seed % 24`: each family alone, then some together, then all.
const PLAYS: [&[Fault]; 24] = [
    &[],
    &[Wire],
    &[Stuck],
    &[Panic],
    &[Disk],
    &[LateStore],
    &[Clocks],
    &[Freeze],
    &[Operators],
    &[Bindings],
    &[Deaf],
    &[Lag],
    &[Stop],
    &[Wire, Stop],
    &[Wire, Operators],
    &[Wire, Freeze],
    &[Stuck, Operators, Stop],
    &[Panic, Disk, LateStore],
    &[Clocks, Lag, Deaf],
    &[Wire, Stuck, Panic],
    &[Operators, Bindings, Disk, Stop],
    &[Long, Deaf],
    &[
        Wire, Stuck, Panic, Disk, LateStore, Operators, Bindings, Deaf, Lag, Stop, Long,
    ],
    &[
        Wire, Stuck, Panic, Disk, LateStore, Clocks, Freeze, Operators, Bindings, Deaf, Lag, Stop,
        Long,
    ],
];

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    faults: Vec<Fault>,
    /// One call in this many is lost; 0: none.
    pub storm: u32,
    pub limits: Limits,
    pub policy: Policy,
    pub replicas: usize,
    /// How often an accepted operation ends FAILED.
    pub fails: f64,
    /// The page length of AWS.
    pub page: usize,
    pub announce: Announce,
    /// The receivers that get no notices until the faults end.
    pub deaf: Vec<(ReceiverName, Deafness)>,
}

impl Plan {
    /// `only` replaces the faults of the seed.
    pub fn of(seed: u64, only: Option<&[Fault]>) -> Self {
        // The quotients make these independent of the family and of each other.
        let storm = [0, 60, 25][pick(seed / 24, 3)];
        let rate = match storm {
            0 => 0.0,
            storm => 2.0 / f64::from(storm),
        };
        let faults = only.unwrap_or(PLAYS[pick(seed, 24)]).to_vec();
        Self {
            seed,
            deaf: match faults.contains(&Deaf) {
                true => deaf(seed / 24 % 5),
                false => Vec::new(),
            },
            faults,
            storm,
            limits: match seed / 72 % 4 {
                1 => Limits::Aws {
                    calls_per_second: 1,
                },
                3 => Limits::Aws {
                    calls_per_second: 10,
                },
                _ => Limits::None,
            },
            policy: Policy {
                extension: match seed % 17 {
                    0..5 => ExtensionRule::Granted,
                    _ => ExtensionRule::NeedsApproval,
                },
                remind_before: (seed % 11 < 4).then_some(Millis::minutes(20)),
                end_sessions: match seed % 7 {
                    2 => OldCredentialsRule::PermissionSet,
                    _ => OldCredentialsRule::Off,
                },
                ..policy()
            },
            replicas: if seed % 13 < 4 { 1 } else { 2 },
            fails: if seed / 288 % 6 == 5 { 0.7 } else { rate },
            page: if seed.is_multiple_of(5) { 1 } else { 100 },
            announce: match seed % 19 {
                0..6 => Announce::Both,
                _ => Announce::Webhook,
            },
        }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub fn rate(&self) -> f64 {
        match self.storm {
            0 => 0.0,
            storm => 2.0 / f64::from(storm),
        }
    }
}

/// One receiver that refuses or hangs, or both receivers.
fn deaf(which: u64) -> Vec<(ReceiverName, Deafness)> {
    match which {
        0 => vec![(ReceiverName::Webhook, Deafness::Refuses)],
        1 => vec![(ReceiverName::Webhook, Deafness::Hangs)],
        2 => vec![(ReceiverName::Mattermost, Deafness::Refuses)],
        3 => vec![(ReceiverName::Mattermost, Deafness::Hangs)],
        _ => RECEIVERS.map(|name| (name, Deafness::Refuses)).to_vec(),
    }
}

fn pick(seed: u64, of: u64) -> usize {
    usize::try_from(seed % of).unwrap()
}

/// Parses `wire,stop`; `none` names no fault.
pub fn faults_named(names: &str) -> Vec<Fault> {
    let known = |name: &str| {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("{name} names no fault")).1
    };
    match names {
        "none" => Vec::new(),
        "all" => NAMES.iter().map(|(_, fault)| *fault).collect(),
        names => names.split(',').map(known).collect(),
    }
}
