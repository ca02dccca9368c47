//! One action in AWS, carried through until its outcome is known.
//!
//! A refusal that passes by itself (a conflict, throttling) is waited out for a few
//! seconds here; everything longer goes back to the record, where it survives a restart.

use std::pin::Pin;

use super::Tenure;
use crate::access::{
    Access, AccessError, AccessErrorKind, CALL_PATIENCE, Deletion, Operation, Progress,
};
use crate::clock::Clock;
use crate::domain::{
    HoldingKey, Millis, Outcome, Presence, RequestId, Text, Timestamp, Trouble, Work,
};
use crate::service::{Service, ServiceError};

/// How long a conflict or throttling is waited out under the lease.
const SHORT_PATIENCE: Millis = Millis::seconds(8);
const FIRST_PAUSE: Millis = Millis(200);
const LONGEST_PAUSE: Millis = Millis::seconds(2);

pub(super) async fn perform(
    service: &Service,
    access: &dyn Access,
    work: &Work,
    id: RequestId,
    tenure: &Tenure,
) -> Outcome {
    let hand = Hand {
        service,
        access,
        tenure,
        clock: service.clock(),
    };
    let done = match work {
        Work::Prepare => hand.prepare(id).await,
        Work::Create(key) => hand.create(key).await,
        Work::Remove(key) => hand.remove(key).await,
        Work::Look(key) => hand.look(key).await,
    };
    done.unwrap_or_else(|trouble| trouble)
}

struct Hand<'a> {
    service: &'a Service,
    access: &'a dyn Access,
    tenure: &'a Tenure,
    clock: &'a dyn Clock,
}

/// The right side of every `?` is what went wrong, as an outcome already.
type Done<T = Outcome> = Result<T, Outcome>;

/// A call on its way.
type Answer<'c, T> = Pin<Box<dyn Future<Output = Result<T, AccessError>> + Send + 'c>>;

impl Hand<'_> {
    async fn prepare(&self, id: RequestId) -> Done {
        let request = self
            .service
            .request(id)
            .await
            .map_err(|error| unreadable(&error))?;
        let email = request.requester_email();
        let user = self.patiently(|| self.access.find_user(email)).await?;
        let key = HoldingKey {
            account_id: request.account_id.clone(),
            permission_set: request.permission_set.clone(),
            user: user.clone(),
        };
        // Read before the look: if anybody joins or leaves meanwhile, the look is stale.
        let held = self.service.holding(key.clone()).await;
        let revision = held.map_err(|error| unreadable(&error.into()))?.revision;
        let presence = self.patiently(|| self.access.look(&key)).await?;
        Ok(Outcome::Prepared {
            user,
            presence,
            revision,
        })
    }

    async fn create(&self, key: &HoldingKey) -> Done {
        let operation = self
            .patiently(|| self.while_held(self.access.create(key)))
            .await?;
        match self.wait_for(&operation).await? {
            Ended::Well => Ok(Outcome::Created),
            Ended::Badly { why } => Ok(Outcome::Failed(Trouble::Refused { why })),
        }
    }

    /// Gone is what AWS shows afterwards, not what it was asked to do.
    async fn remove(&self, key: &HoldingKey) -> Done {
        let deletion = self
            .patiently(|| self.while_held(self.access.delete(key)))
            .await?;
        if let Deletion::Started(operation) = deletion
            && let Ended::Badly { why } = self.wait_for(&operation).await?
        {
            return Ok(Outcome::Failed(Trouble::Refused { why }));
        }
        match self.look(key).await? {
            Outcome::StillThere => {
                let why = Text::clip("AWS still shows the assignment after removing it");
                Ok(Outcome::Failed(Trouble::Passing { why }))
            }
            outcome => Ok(outcome),
        }
    }

    async fn look(&self, key: &HoldingKey) -> Done {
        Ok(match self.patiently(|| self.access.look(key)).await? {
            Presence::Absent => Outcome::Gone,
            Presence::Present => Outcome::StillThere,
        })
    }

    async fn wait_for(&self, operation: &Operation) -> Done<Ended> {
        let started = self.clock.now();
        loop {
            let waited = self.clock.now() - started;
            self.clock
                .wait_until(self.clock.now() + between_polls(waited))
                .await;
            match self.patiently(|| self.access.poll(operation)).await? {
                Progress::InProgress => {}
                Progress::Succeeded => return Ok(Ended::Well),
                Progress::Failed { why } => {
                    return Ok(Ended::Badly {
                        why: Text::clip(&why),
                    });
                }
            }
        }
    }

    /// A call that changes something is made only while the lease is sure to outlast it:
    /// whoever takes over must find everything said that is ever going to be said.
    fn while_held<'c, T: 'c>(&'c self, call: Answer<'c, T>) -> Answer<'c, T> {
        Box::pin(async move {
            if self.tenure.lasts_until(self.clock.now() + CALL_PATIENCE) {
                return call.await;
            }
            Err(AccessError {
                kind: AccessErrorKind::NoAnswer,
                why: "not asked: the lease could not be kept".into(),
            })
        })
    }

    /// Tries again, for a little while, what AWS only asked to be tried again.
    async fn patiently<'c, T>(&self, call: impl Fn() -> Answer<'c, T> + Send) -> Done<T> {
        let started = self.clock.now();
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let passing = matches!(
                error.kind,
                AccessErrorKind::Conflict | AccessErrorKind::Throttled
            );
            let now = self.clock.now();
            if !passing || now - started >= SHORT_PATIENCE {
                return Err(went_wrong(&error));
            }
            self.clock.wait_until(now + self.pause(started)).await;
        }
    }

    /// The longer something has taken, the less a little more matters.
    fn pause(&self, started: Timestamp) -> Millis {
        let waited = self.clock.now() - started;
        Millis(waited.0 / 8).clamp(FIRST_PAUSE, LONGEST_PAUSE)
    }
}

/// For as long as a caller waits for the answer, it comes within a moment of the truth;
/// after that, the longer it has taken, the less a little more matters.
fn between_polls(waited: Millis) -> Millis {
    Millis(waited.0 / 32).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

enum Ended {
    Well,
    Badly { why: Text },
}

fn went_wrong(error: &AccessError) -> Outcome {
    let why = Text::clip(&error.to_string());
    match error.kind {
        AccessErrorKind::NoUser => Outcome::NoUser { why },
        AccessErrorKind::Denied => Outcome::Failed(Trouble::Denied { why }),
        AccessErrorKind::Invalid => Outcome::Failed(Trouble::Refused { why }),
        AccessErrorKind::Conflict | AccessErrorKind::Throttled | AccessErrorKind::NoAnswer => {
            Outcome::Failed(Trouble::Passing { why })
        }
    }
}

/// jit's own store failed while AWS was about to be asked: nothing has happened.
fn unreadable(error: &ServiceError) -> Outcome {
    Outcome::Failed(Trouble::Passing {
        why: Text::clip(&error.to_string()),
    })
}
