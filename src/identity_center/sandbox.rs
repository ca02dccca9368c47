//! A simulated Identity Center, for a machine without AWS and for tests.
//!
//! It behaves like AWS: operations are asynchronous, one assignment has one operation at a
//! time, at most ten creates run, a create of an existing assignment succeeds, and a delete of
//! a missing one is answered in two ways. Faults are injected by seed. The state is in a file,
//! so that a crash of jit does not undo what the simulated AWS did meanwhile.

mod state;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Assignee, AssignmentPlace, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Operation, OperationKind, Page, Progress, Provisioning, UserAttribute,
    progress_of_failure,
};
use crate::clock::Clock;
use crate::domain::{
    AccountId, Email, HoldingKey, Millis, PermissionSet, Presence, Timestamp, UserId,
};
use crate::files;
use crate::lock::locked;
use state::{PlannedResult, SandboxFile, Started};

/// The limit of AWS.
const MOST_OUTSTANDING_CREATES: u64 = 10;
const NOTHING_TO_DELETE: &str = "Received a 404 status error: Assignment not found";

#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// None: in memory only.
    pub path: Option<PathBuf>,
    /// How long an operation takes.
    pub latency: Millis,
    /// The users that exist; empty: every address does. An address that is listed twice belongs
    /// to two users.
    pub users: Vec<Email>,
    pub seed: u64,
    pub rates: Rates,
    /// Assignments from outside jit.
    pub standing: Vec<Standing>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub account_id: AccountId,
    pub permission_set: PermissionSet,
    pub email: Email,
}

/// The rate of each fault, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// ConflictException.
    pub conflict: f64,
    /// ThrottlingException.
    pub throttle: f64,
    /// An accepted operation ends FAILED.
    pub fail: f64,
    /// The call or its answer is lost on the way.
    pub lost: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error(transparent)]
    SandboxFile(#[from] rusqlite::Error),
    #[error("sandbox.path: {0}")]
    Unusable(String),
    #[error("the file has {0:?}, which the sandbox did not write")]
    Foreign(String),
}

pub struct Sandbox {
    options: SandboxOptions,
    clock: Arc<dyn Clock>,
    inner: Mutex<SandboxState>,
}

struct SandboxState {
    state: SandboxFile,
    rates: Rates,
    /// The number of random decisions so far.
    throws: u64,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            path: None,
            latency: Millis(300),
            users: Vec::new(),
            seed: 0,
            rates: Rates::default(),
            standing: Vec::new(),
        }
    }
}

impl Sandbox {
    pub fn open(options: SandboxOptions, clock: Arc<dyn Clock>) -> Result<Self, SandboxError> {
        let path = options.path.as_deref();
        // H6: the error of SQLite does not say what is wrong with the path.
        let state = SandboxFile::open(path).map_err(|why| {
            let unusable = path.and_then(files::why_unusable);
            unusable.map_or_else(|| why.into(), SandboxError::Unusable)
        })?;
        for one in &options.standing {
            state.assign(&HoldingKey {
                account_id: one.account_id.clone(),
                permission_set: one.permission_set.clone(),
                user: user_id(&one.email),
            })?;
        }
        let inner = SandboxState {
            throws: state.operations()?,
            rates: options.rates,
            state,
        };
        Ok(Self {
            options,
            clock,
            inner: Mutex::new(inner),
        })
    }

    /// Injects no more faults from now on.
    pub fn calm(&self) {
        self.inner().rates = Rates::default();
    }

    /// All present assignments, also those from outside jit.
    pub fn assignments(&self) -> Result<Vec<HoldingKey>, SandboxError> {
        let inner = self.inner();
        inner.state.carry_out_due(self.clock.now())?;
        inner.state.assignments()
    }

    /// A permission set's inline policy, as the AWS console shows it.
    pub fn policy(&self, set: &PermissionSet) -> Result<Option<String>, SandboxError> {
        Ok(self.inner().state.policy(set)?)
    }

    /// Makes an assignment without jit, like a user of the AWS console.
    pub fn assign(&self, key: &HoldingKey) -> Result<(), SandboxError> {
        Ok(self.inner().state.assign(key)?)
    }

    pub fn user_id(&self, email: &Email) -> UserId {
        user_id(email)
    }

    fn inner(&self) -> MutexGuard<'_, SandboxState> {
        locked(&self.inner)
    }

    /// The first checks of every call: faults of the network, and the quota.
    fn arrive(&self, inner: &mut SandboxState) -> Result<Timestamp, IdentityCenterError> {
        let now = self.clock.now();
        inner.state.carry_out_due(now).map_err(out_of_order)?;
        let seed = self.options.seed;
        if inner.strikes(seed, inner.rates.lost / 2.0) {
            return Err(lost("the call was lost"));
        }
        if inner.strikes(seed, inner.rates.throttle) {
            return Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Throttled,
                "Rate exceeded",
            ));
        }
        Ok(now)
    }

    /// The further checks of a call that changes something: one operation at a time. Returns the
    /// time of arrival, and whether the assignment exists.
    fn arrive_to_change(
        &self,
        inner: &mut SandboxState,
        key: &HoldingKey,
    ) -> Result<(Timestamp, Presence), IdentityCenterError> {
        let now = self.arrive(inner)?;
        let busy = inner.state.in_progress(key).map_err(out_of_order)?;
        if busy || inner.strikes(self.options.seed, inner.rates.conflict) {
            return Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Conflict,
                format!("another operation on {key} is in progress"),
            ));
        }
        Ok((now, inner.presence(key)?))
    }

    /// Accepts an operation, which ends as planned, or with an injected failure.
    fn begin(
        &self,
        inner: &mut SandboxState,
        kind: OperationKind,
        key: &HoldingKey,
        now: Timestamp,
        must: PlannedResult,
    ) -> Result<Operation, IdentityCenterError> {
        let seed = self.options.seed;
        let fate = match must {
            PlannedResult::Succeeds if inner.strikes(seed, inner.rates.fail) => {
                PlannedResult::Fails("Internal failure")
            }
            must => must,
        };
        let started = Started {
            // F1: not by the seed. Two processes on one file would draw the same ids.
            id: self.clock.draw().to_string(),
            kind,
            key,
            ready_at: now + self.options.latency,
            fate,
        };
        inner.state.start(&started).map_err(out_of_order)?;
        if inner.strikes(seed, inner.rates.lost / 2.0) {
            return Err(lost("the answer was lost"));
        }
        let id = started.id;
        Ok(Operation { kind, id })
    }
}

#[async_trait]
impl IdentityCenter for Sandbox {
    async fn caller(&self) -> Result<String, IdentityCenterError> {
        Ok("the simulated Identity Center".into())
    }

    fn permission_set_arn(&self, set: &PermissionSet) -> Result<String, IdentityCenterError> {
        Ok(set.to_string())
    }

    /// An address that is listed twice is one user's name and another user's e-mail.
    async fn find_user(
        &self,
        email: &Email,
        by: UserAttribute,
    ) -> Result<Option<UserId>, IdentityCenterError> {
        self.arrive(&mut self.inner())?;
        let users = &self.options.users;
        let matches = users.iter().filter(|user| *user == email).count();
        Ok(match (matches, by) {
            (0, _) if users.is_empty() => Some(user_id(email)),
            (0, _) => None,
            (1, _) | (_, UserAttribute::UserName) => Some(user_id(email)),
            (_, UserAttribute::Email) => Some(numbered_user_id(email, matches)),
        })
    }

    async fn assigned(
        &self,
        place: &AssignmentPlace,
        _after: Option<&str>,
    ) -> Result<Page<Assignee>, IdentityCenterError> {
        let inner = &mut *self.inner();
        self.arrive(inner)?;
        let users = inner.state.assigned(place).map_err(out_of_order)?;
        Ok(Page {
            items: users.into_iter().map(Assignee::User).collect(),
            next: None,
        })
    }

    async fn create(&self, key: &HoldingKey) -> Result<Operation, IdentityCenterError> {
        let inner = &mut *self.inner();
        let (now, _) = self.arrive_to_change(inner, key)?;
        let outstanding = inner.state.outstanding_creates().map_err(out_of_order)?;
        if outstanding >= MOST_OUTSTANDING_CREATES {
            return Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Throttled,
                "too many creates are outstanding",
            ));
        }
        self.begin(
            inner,
            OperationKind::Create,
            key,
            now,
            PlannedResult::Succeeds,
        )
    }

    async fn delete(&self, key: &HoldingKey) -> Result<Deletion, IdentityCenterError> {
        let inner = &mut *self.inner();
        let (now, presence) = self.arrive_to_change(inner, key)?;
        let must = match presence {
            Presence::Present => PlannedResult::Succeeds,
            // AWS has two answers for a missing assignment.
            Presence::Absent if inner.strikes(self.options.seed, 0.5) => {
                return Ok(Deletion::NothingThere);
            }
            Presence::Absent => PlannedResult::Fails(NOTHING_TO_DELETE),
        };
        let begun = self.begin(inner, OperationKind::Delete, key, now, must);
        begun.map(Deletion::Started)
    }

    async fn poll(&self, operation: &Operation) -> Result<Progress, IdentityCenterError> {
        let inner = &mut *self.inner();
        self.arrive(inner)?;
        match inner.state.outcome(operation).map_err(out_of_order)? {
            None => Err(IdentityCenterError::new(
                IdentityCenterErrorKind::Invalid,
                format!("there is no operation {}", operation.id),
            )),
            Some(state::OperationState::InProgress) => Ok(Progress::InProgress),
            Some(state::OperationState::Succeeded) => Ok(Progress::Succeeded),
            Some(state::OperationState::Failed(why)) => {
                Ok(progress_of_failure(operation.kind, why))
            }
        }
    }

    async fn session_duration(&self, _: &PermissionSet) -> Result<Millis, IdentityCenterError> {
        self.arrive(&mut self.inner())?;
        Ok(Millis::hours(1))
    }

    async fn inline_policy(
        &self,
        set: &PermissionSet,
    ) -> Result<Option<String>, IdentityCenterError> {
        let inner = &mut *self.inner();
        self.arrive(inner)?;
        inner.state.policy(set).map_err(out_of_order)
    }

    async fn set_inline_policy(
        &self,
        set: &PermissionSet,
        policy: Option<&str>,
    ) -> Result<(), IdentityCenterError> {
        let inner = &mut *self.inner();
        self.arrive(inner)?;
        inner.state.set_policy(set, policy).map_err(out_of_order)
    }

    /// Here a changed set is provisioned at once.
    async fn provision(
        &self,
        place: &AssignmentPlace,
    ) -> Result<Provisioning, IdentityCenterError> {
        self.arrive(&mut self.inner())?;
        Ok(Provisioning(place.account_id.to_string()))
    }

    async fn provisioned(&self, _: &Provisioning) -> Result<Progress, IdentityCenterError> {
        self.arrive(&mut self.inner())?;
        Ok(Progress::Succeeded)
    }

    async fn under_way(
        &self,
        kind: OperationKind,
        _after: Option<&str>,
    ) -> Result<Page<String>, IdentityCenterError> {
        let inner = &mut *self.inner();
        self.arrive(inner)?;
        let items = inner.state.under_way(kind).map_err(out_of_order)?;
        Ok(Page { items, next: None })
    }
}

impl SandboxState {
    fn presence(&self, key: &HoldingKey) -> Result<Presence, IdentityCenterError> {
        let there = self.state.is_assigned(key).map_err(out_of_order)?;
        Ok(if there {
            Presence::Present
        } else {
            Presence::Absent
        })
    }

    /// Whether a fault with this rate happens now.
    #[allow(clippy::cast_precision_loss)] // a rate needs only 53 bits
    fn strikes(&mut self, seed: u64, rate: f64) -> bool {
        rate > 0.0 && (self.throw(seed) >> 11) as f64 / (1_u64 << 53) as f64 <= rate
    }

    fn throw(&mut self, seed: u64) -> u64 {
        self.throws += 1;
        mix(seed ^ mix(self.throws))
    }
}

/// Spreads a number over all its bits (the finaliser of MurmurHash3).
fn mix(number: u64) -> u64 {
    let mut n = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    n = (n ^ (n >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    n = (n ^ (n >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    n ^ (n >> 33)
}

/// The id of a user is derived from the address, so it is the same after a restart.
fn user_id(email: &Email) -> UserId {
    numbered_user_id(email, 1)
}

fn numbered_user_id(email: &Email, number: usize) -> UserId {
    let digest = match number {
        1 => Sha256::digest(email.as_str()),
        number => Sha256::digest(format!("{email} {number}")),
    };
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    // A UUID has only letters, digits and hyphens, so the fallback is never reached.
    Uuid::from_bytes(id)
        .to_string()
        .parse()
        .unwrap_or_else(|_| unreachable!("a UUID is a plain word"))
}

fn lost(why: &str) -> IdentityCenterError {
    IdentityCenterError::new(IdentityCenterErrorKind::NoAnswer, why)
}

fn out_of_order(why: impl std::fmt::Display) -> IdentityCenterError {
    IdentityCenterError::new(
        IdentityCenterErrorKind::NoAnswer,
        format!("the simulated Identity Center has failed: {why}"),
    )
}
