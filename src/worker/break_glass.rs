//! Break-glass: an operator ends access beside the server, or without it. The store records the
//! revoke before the call to AWS. If the store stays unusable, the operator may still end the
//! access: AWS is then the only record.

use tokio_util::sync::CancellationToken;

use super::{ProveError, Worker};
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
const STORE_PATIENCE: Millis = Millis::seconds(5);
const AFTER_A_FAULT: Millis = Millis::seconds(2);

/// The operator, their reason and their AWS credentials.
#[derive(Clone, Debug)]
pub struct GlassBreaker {
    pub by: Person,
    pub reason: Text,
    pub credentials: Text,
}

#[derive(Debug, thiserror::Error)]
pub enum BreakGlassError {
    /// The store is unusable. The request had not ended when it was read, so its access may exist.
    #[error("{0}")]
    Unrecorded(StoreError),
    /// P4: the store is unusable, and the request had ended before. The same access may belong to
    /// another request, or to nobody that jit knows.
    #[error(
        "the request has ended, and the store does not say who holds the same access now: {0}; \
         to end the access of the person all the same, run: jit break-glass revoke --user EMAIL \
         --account ID --reason TEXT"
    )]
    HoldersUnknown(StoreError),
    #[error("{0}")]
    Service(ServiceError),
    #[error("{0}")]
    IdentityCenter(#[from] IdentityCenterError),
}

impl BreakGlassError {
    fn of(request: &Request, error: ServiceError) -> Self {
        match error {
            ServiceError::Store(why) if request.state.is_settled() => Self::HoldersUnknown(why),
            ServiceError::Store(why) => Self::Unrecorded(why),
            ServiceError::Refused(_) | ServiceError::Unknown(_) | ServiceError::KeyReused => {
                Self::Service(error)
            }
        }
    }
}

/// Whether the store has failed for longer than `STORE_PATIENCE`.
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
        if now - *self.since.get_or_insert(now) >= STORE_PATIENCE {
            return false;
        }
        tracing::warn!(%why, "the store failed, will be retried");
        clock.sleep(super::AFTER_A_FAULT).await;
        true
    }
}

impl Worker {
    /// Records the revoke of an operator. Does nothing if the request has ended and AWS shows no
    /// access that it left behind.
    pub async fn record_broken_glass(
        &self,
        request: &Request,
        who: &GlassBreaker,
    ) -> Result<(), BreakGlassError> {
        let command = match request.state.is_settled() && !is_in_doubt(request) {
            false => Command::BrokenGlass {
                by: who.by.clone(),
                reason: Some(who.reason.clone()),
                credentials: who.credentials.clone(),
            },
            true => match self.is_left_behind(request).await? {
                true => Command::FoundStanding {
                    by: Some(who.by.clone()),
                },
                false => return Ok(()),
            },
        };
        let mut faults = StoreFaults::default();
        loop {
            match self.record_once(request.id, command.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) if faults.wait(&error, self.service.clock()).await => {}
                Err(error) => return Err(BreakGlassError::of(request, error)),
            }
        }
    }

    /// Works on the request until AWS shows that its access is gone; `told` is called with the
    /// request meanwhile.
    pub async fn until_gone(
        &self,
        request: &Request,
        mut told: impl FnMut(&Request),
    ) -> Result<Request, BreakGlassError> {
        let (never, mut faults) = (CancellationToken::new(), StoreFaults::default());
        loop {
            let seen = self.see_through(request.id, &never, |request| {
                faults.since = None;
                told(request);
            });
            match seen.await {
                Ok(gone) => return Ok(gone),
                Err(error) if faults.wait(&error, self.service.clock()).await => {}
                Err(error) => return Err(BreakGlassError::of(request, error)),
            }
        }
    }

    async fn is_left_behind(&self, request: &Request) -> Result<bool, BreakGlassError> {
        match request.holding_key() {
            None => Ok(false),
            Some(key) => match self.stands_unheld(Lane::Revoke, &key).await {
                Ok(stands) => Ok(stands),
                Err(ProveError::Service(error)) => Err(BreakGlassError::of(request, error)),
                Err(ProveError::IdentityCenter(error)) => {
                    Err(BreakGlassError::IdentityCenter(error))
                }
            },
        }
    }

    async fn record_once(&self, id: RequestId, command: Command) -> Result<(), ServiceError> {
        match self.service.handle(id, command).await {
            // Another command was first, and the request is settled.
            Err(ServiceError::Refused(_)) if self.service.request(id).await?.state.is_settled() => {
                Ok(())
            }
            recorded => recorded.map(drop),
        }
    }
}

/// A request in ERROR may have left an assignment: jit asks AWS.
fn is_in_doubt(request: &Request) -> bool {
    matches!(request.state, State::Error(_)) && request.user.is_some()
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
            Err(error) if error.kind == IdentityCenterErrorKind::Denied => return Err(error),
            Err(error) => error.to_string(),
        };
        told(&format!("{why}; jit tries again, Ctrl-C stops it"));
        clock.sleep(AFTER_A_FAULT).await;
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
