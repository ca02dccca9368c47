//! What a seed plays: which faults, how often, and what the world is like besides.

use jit::domain::{EndSessions, ExtensionRule, Millis, Policy};
use jit::identity_center::Limits;

use crate::fixtures::policy;

/// One family of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Calls to AWS arrive late, outlive their sender, and lose their answers.
    Wire,
    /// Operations at AWS take hours, or do not end while the storm lasts.
    Stuck,
    /// A call to the store, to AWS or to the receiver panics.
    Panic,
    /// The disk fills: every write is refused for a while, reads go on.
    Disk,
    /// The store answers late; a write may be carried out after its caller gave up.
    LateStore,
    /// Wall clocks differ by up to two minutes, and jump by up to ten.
    Clocks,
    /// A process is not scheduled for minutes, and then goes on.
    Freeze,
    /// Break-glass, cleanup, reconcile, hands in the AWS console, words in the store.
    Operators,
    /// Bindings, approvers, quorum and self-approval change while requests wait.
    Bindings,
    /// The receiver of notices takes none while the storm lasts.
    Deaf,
    /// The index of due records is some seconds old.
    Lag,
    /// Processes are stopped in order (SIGTERM), not only killed.
    Stop,
    /// People say the same to one request again and again, at the greatest length.
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
    /// One call in so many is lost; 0: none.
    pub storm: u32,
    pub limits: Limits,
    pub policy: Policy,
    pub replicas: usize,
    /// How often an accepted operation ends FAILED.
    pub fails: f64,
    /// AWS gives lists in pages of so many.
    pub page: usize,
}

impl Plan {
    /// `only` replaces the faults that the seed stands for.
    pub fn of(seed: u64, only: Option<&[Fault]>) -> Self {
        let storm = [0, 60, 25][pick(seed, 3)];
        let rate = match storm {
            0 => 0.0,
            storm => 2.0 / f64::from(storm),
        };
        Self {
            seed,
            faults: only.unwrap_or(PLAYS[pick(seed, 24)]).to_vec(),
            storm,
            limits: match seed % 4 {
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
                    2 => EndSessions::PermissionSet,
                    _ => EndSessions::Off,
                },
                ..policy()
            },
            replicas: if seed % 13 < 4 { 1 } else { 2 },
            fails: if seed % 6 == 5 { 0.7 } else { rate },
            page: if seed.is_multiple_of(5) { 1 } else { 100 },
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

fn pick(seed: u64, of: u64) -> usize {
    usize::try_from(seed % of).unwrap()
}

/// `wire,stop`; `none` names no fault at all.
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
