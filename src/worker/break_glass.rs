//! Break-glass: an operator ends access beside the server, or without it. The store records the
//! revoke before the call to AWS. If the store stays unusable, the operator may still end the
//! access: AWS is then the only record.

use tokio_util::sync::CancellationToken;

use super::{AFTER_A_FAULT, ProveError, Remains, Worker};
use crate::clock::{Clock, Uptime};
use crate::domain::{
    Command, HoldingKey, Lane, Millis, Person, Presence, Request, RequestId, State, Text,
};
use crate::identity_center::{
    CALL_PATIENCE, Deletion, IdentityCenterError, IdentityCenterErrorKind, OperationResult, Paced,
    PendingCall,
};
use crate::service::ServiceError;
use crate::store::StoreError;

/// How long the store may fail before it counts as unusable.
const STORE_TIMEOUT: Millis = Millis::seconds(5);
/// The pause between two deletes without the store.
const BETWEEN_DELETES: Millis = Millis::seconds(2);

/// The operator, their reason and their AWS credentials.
#[derive(Clone, Debug)]
pub struct BreakGlassOperator {
    pub by: Person,
    pub reason: Text,
    pub credentials: Text,
}

/// The result of an operator's revoke in the store.
#[derive(Debug)]
pub enum BreakGlassResult {
    /// It recorded the revoke, which `until_gone` follows to its end.
    Recorded,
    /// The request had ended, and AWS shows no access that it left behind.
    Gone(Box<Request>),
    /// The request had ended, and these requests hold the same access now.
    HeldBy(Vec<RequestId>),
}

#[derive(Debug, thiserror::Error)]
pub enum BreakGlassError {
    /// The store is unusable. The request had access when it was read.
    #[error("{0}")]
    Unrecorded(StoreError),
    /// P4: the store is unusable, and the request had no access when it was read. The same access
    /// may belong to another request, or to a request that jit does not know.
    #[error(
        "the request had no access when it was read, and the store does not say who has the same \
         access now: {0}; to end the access of the person all the same, run: jit break-glass \
         revoke --user EMAIL --account ID --reason TEXT"
    )]
    HoldersUnknown(StoreError),
    /// P4: the store recorded the revoke, so a server may have removed the access and granted it
    /// to another request since.
    #[error(
        "the revoke is recorded, and a server removes the access; the store fails now: {0}; watch \
         it with: jit status ID; without any server, run: jit break-glass revoke --user EMAIL \
         --account ID --reason TEXT"
    )]
    NotSeen(StoreError),
    #[error("{0}")]
    Service(ServiceError),
    #[error("{0}")]
    IdentityCenter(#[from] IdentityCenterError),
}

/// The error of a failed store is `store`.
fn error_of(
    error: ServiceError,
    store: impl FnOnce(StoreError) -> BreakGlassError,
) -> BreakGlassError {
    match error {
        ServiceError::Store(why) => store(why),
        ServiceError::Refused(_) | ServiceError::Unknown(_) | ServiceError::KeyReused => {
            BreakGlassError::Service(error)
        }
    }
}

fn unrecorded(request: &Request, error: ServiceError) -> BreakGlassError {
    error_of(
        error,
        match has_access(&request.state) {
            true => BreakGlassError::Unrecorded,
            false => BreakGlassError::HoldersUnknown,
        },
    )
}

/// Whether a request in this state holds an assignment.
fn has_access(state: &State) -> bool {
    match state {
        State::Assigning | State::Granted | State::Removing { .. } => true,
        State::Pending
        | State::Approved
        | State::Checking { .. }
        | State::Unsettled { .. }
        | State::Denied { .. }
        | State::Cancelled { .. }
        | State::Expired { .. }
        | State::Revoked { .. }
        | State::Error(_) => false,
    }
}

/// Whether the store has failed for longer than `STORE_TIMEOUT`.
#[derive(Default)]
struct StoreFaults {
    since: Option<Uptime>,
}

impl StoreFaults {
    /// Waits a second if the error may pass soon.
    async fn wait(&mut self, error: &ServiceError, clock: &dyn Clock) -> bool {
        let ServiceError::Store(why @ (StoreError::Unavailable(_) | StoreError::Unsure(_))) = error
        else {
            return false;
        };
        let now = clock.uptime();
        if now - *self.since.get_or_insert(now) >= STORE_TIMEOUT {
            return false;
        }
        tracing::warn!(error = %why, "the store failed, will be retried");
        clock.sleep(AFTER_A_FAULT).await;
        true
    }
}

impl Worker {
    /// Records the revoke of an operator, unless the request has ended and left nothing behind.
    pub async fn record_broken_glass(
        &self,
        request: &Request,
        who: &BreakGlassOperator,
    ) -> Result<BreakGlassResult, BreakGlassError> {
        let mut faults = StoreFaults::default();
        loop {
            match self.record_once(request.id, who).await {
                Ok(Some(recorded)) => return Ok(recorded),
                Ok(None) => {}
                Err(ProveError::IdentityCenter(error)) => return Err(error.into()),
                Err(ProveError::Service(error)) => {
                    if !faults.wait(&error, self.service.clock()).await {
                        return Err(unrecorded(request, error));
                    }
                }
            }
        }
    }

    /// Returns `None` if the request ended before this command was stored.
    async fn record_once(
        &self,
        id: RequestId,
        who: &BreakGlassOperator,
    ) -> Result<Option<BreakGlassResult>, ProveError> {
        let request = self.service.request(id).await?;
        let command = match request.state.is_settled() && !has_unsettled_end(&request) {
            false => Command::BreakGlassRevoked {
                by: who.by.clone(),
                reason: Some(who.reason.clone()),
                credentials: who.credentials.clone(),
            },
            true => match self.remains(&request).await? {
                Remains::Nothing => return Ok(Some(BreakGlassResult::Gone(Box::new(request)))),
                Remains::HeldBy(ids) => return Ok(Some(BreakGlassResult::HeldBy(ids))),
                Remains::Unheld { revision } => Command::FoundPresent {
                    by: Some(who.by.clone()),
                    credentials: who.credentials.clone(),
                    revision,
                },
            },
        };
        match self.service.handle(id, command, None).await {
            Ok(_) => Ok(Some(BreakGlassResult::Recorded)),
            Err(ServiceError::Refused(_)) if self.service.request(id).await?.state.is_settled() => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn remains(&self, request: &Request) -> Result<Remains, ProveError> {
        match request.holding_key() {
            Some(key) => self.remains_of(Lane::Revoke, &key).await,
            None => Ok(Remains::Nothing),
        }
    }

    /// Works on the request until AWS shows that its access is gone; `told` is called with the
    /// request meanwhile.
    pub async fn until_gone(
        &self,
        id: RequestId,
        mut told: impl FnMut(&Request),
    ) -> Result<Request, BreakGlassError> {
        let (clock, never) = (self.service.clock(), CancellationToken::new());
        let mut faults = StoreFaults::default();
        loop {
            let begun = clock.uptime();
            let gone = self.follow_to_end(id, &never, &mut told).await;
            if clock.uptime() - begun >= STORE_TIMEOUT {
                // The store answered in the meantime.
                faults = StoreFaults::default();
            }
            match gone {
                Ok(gone) => return Ok(gone),
                Err(error) if faults.wait(&error, clock).await => {}
                Err(error) => return Err(error_of(error, BreakGlassError::NotSeen)),
            }
        }
    }
}

/// Whether jit must ask AWS about this end: a request in ERROR may have left an assignment.
fn has_unsettled_end(request: &Request) -> bool {
    request.state.is_error() && request.access.was_begun()
}

/// Removes an assignment without the store, and repeats that until AWS shows that the assignment
/// is gone. A create that was sent before may take effect for `CALL_PATIENCE`, so the last delete
/// is sent after that time.
pub async fn remove_unrecorded(
    identity_center: &Paced,
    clock: &dyn Clock,
    key: &HoldingKey,
    mut told: impl FnMut(&str),
) -> Result<(), IdentityCenterError> {
    let last_create = clock.uptime() + CALL_PATIENCE;
    loop {
        let begun = clock.uptime();
        let why = match deleted(identity_center, key).await {
            Ok(None) if begun >= last_create => return Ok(()),
            Ok(None) => {
                told(
                    "AWS shows no access now; a create that was sent before may still take \
                     effect, so jit removes the access once more in 10 seconds",
                );
                clock.sleep_until(last_create).await;
                continue;
            }
            Ok(Some(why)) => why,
            Err(error)
                if matches!(
                    error.kind,
                    IdentityCenterErrorKind::Denied | IdentityCenterErrorKind::Unsent
                ) =>
            {
                return Err(error);
            }
            Err(error) => error.to_string(),
        };
        told(&format!("{why}; jit tries again, Ctrl-C stops it"));
        clock.sleep(BETWEEN_DELETES).await;
    }
}

/// Deletes the assignment, and looks at AWS after that. Returns why the assignment may exist.
async fn deleted(
    identity_center: &Paced,
    key: &HoldingKey,
) -> Result<Option<String>, IdentityCenterError> {
    let lane = Lane::Revoke;
    let room = identity_center.room_to_remove(lane, &key.account_id).await;
    let at_once = || -> PendingCall<'_, ()> { Box::pin(async { Ok(()) }) };
    let ended = match identity_center.delete(lane, key, &at_once).await? {
        Deletion::NothingThere => OperationResult::Well,
        Deletion::Started(operation) => identity_center.wait_for(lane, &operation, room).await?,
    };
    match ended {
        OperationResult::Badly { why } => Ok(Some(why)),
        OperationResult::NotYet => Ok(Some(
            "AWS has not finished the removal after two minutes".into(),
        )),
        OperationResult::Well | OperationResult::Somehow => {
            let seen = identity_center.look(lane, key).await?;
            Ok((seen == Presence::Present).then(|| "AWS still shows the access".into()))
        }
    }
}
