//! One action in AWS, carried through until its outcome is known.
//!
//! A refusal that passes by itself (a conflict, throttling) is waited out for a few
//! seconds by `Paced`; everything longer goes back to the record, where it survives a
//! restart.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Tenure;
use crate::access::{
    AccessError, AccessErrorKind, CALL_PATIENCE, Call, Deletion, Ended, Paced, Progress,
};
use crate::domain::{
    Holding, HoldingKey, Lane, Outcome, Presence, Request, RequestId, State, Text, Trouble, Work,
};
use crate::service::{Service, ServiceError};

pub(super) async fn perform(
    service: &Service,
    access: &Paced,
    work: &Work,
    request: &Request,
    held: Option<&Holding>,
    tenure: &Tenure,
) -> Outcome {
    let hand = Hand {
        service,
        access,
        held,
        tenure,
        id: request.id,
        lane: request.lane(),
    };
    let done = hand.carry_out(work, request).await;
    done.unwrap_or_else(|trouble| trouble)
}

pub(super) struct Hand<'a> {
    pub service: &'a Service,
    pub access: &'a Paced,
    /// Who held the assignment when the work was handed out.
    held: Option<&'a Holding>,
    tenure: &'a Tenure,
    pub id: RequestId,
    pub lane: Lane,
}

/// The right side of every `?` is what went wrong, as an outcome already.
pub(super) type Done<T = Outcome> = Result<T, Outcome>;

impl Hand<'_> {
    async fn carry_out(&self, work: &Work, request: &Request) -> Done {
        match work {
            Work::Prepare => {}
            Work::Create(key)
            | Work::Remove(key)
            | Work::Look(key)
            | Work::EndSessions(key, _)
            | Work::LiftDeny(key) => self.check_meaning(key)?,
        }
        match work {
            Work::Prepare => self.prepare(request).await,
            Work::Create(key) => self.create(key).await,
            Work::Remove(key) => self.remove(key).await,
            Work::Look(key) => self.look(key).await,
            Work::EndSessions(key, before) => self.end_sessions(key, *before).await,
            Work::LiftDeny(key) => self.lift_deny(key).await,
        }
    }

    /// P6: what AWS shows of another set of the same name proves nothing about this one.
    fn check_meaning(&self, key: &HoldingKey) -> Done<()> {
        let (now, set) = (self.access.means(&key.permission_set)?, &key.permission_set);
        match self.held.and_then(|held| held.means.as_ref()) {
            Some(then) if *then != now => {
                let why = Text::clip(&format!(
                    "{set} stood for {then} when this access was given, and stands for {now} now: \
                     put permission_sets.{set} back in jit.toml until it has ended"
                ));
                Err(Outcome::Failed(Trouble::Denied { why }))
            }
            _ => Ok(()),
        }
    }

    async fn prepare(&self, request: &Request) -> Done {
        let email = request.requester_email();
        let user = self.access.find_user(self.lane, email).await?;
        let key = request.holding_key_of(user.clone());
        // Read before the look: if anybody joins or leaves meanwhile, the look is stale.
        let held = self.service.holding(key.clone()).await;
        let revision = held.map_err(|error| unreadable(&error.into()))?.revision;
        let presence = self.access.look(self.lane, &key).await?;
        let means = self.access.means(&key.permission_set)?;
        Ok(Outcome::Prepared {
            user,
            presence,
            revision,
            means,
        })
    }

    /// The turn of a create may be long in coming. Whoever revokes it meanwhile does not
    /// wait for it: what was not sent yet is not sent any more.
    async fn create(&self, key: &HoldingKey) -> Done {
        let sent = AtomicBool::new(false);
        let created = self.carried_through(key, &sent);
        let done = tokio::select! {
            biased;
            done = created => done,
            () = self.hurried(&sent) => Ok(Outcome::Interrupted),
        };
        match done {
            Err(_) if !sent.load(Ordering::SeqCst) => Ok(Outcome::Interrupted),
            done => done,
        }
    }

    async fn carried_through(&self, key: &HoldingKey, sent: &AtomicBool) -> Done {
        let room = self.access.room_to_create(self.lane, &key.account_id).await;
        let may = || -> Call<'_, ()> {
            Box::pin(async {
                self.still_held()?;
                self.still_wanted().await?;
                sent.store(true, Ordering::SeqCst);
                Ok(())
            })
        };
        let operation = self.access.create(self.lane, key, &may).await?;
        let ended = self.access.wait_for(self.lane, &operation).await?;
        drop(room);
        match ended {
            Ended::Badly { why } => Ok(refused(&why)),
            Ended::Well | Ended::Somehow => Ok(Outcome::Created),
        }
    }

    /// Gone is what AWS shows afterwards, not what it was asked to do. What waits for its
    /// turn when somebody asks for it is taken up anew, ahead of the others.
    async fn remove(&self, key: &HoldingKey) -> Done {
        let sent = AtomicBool::new(false);
        tokio::select! {
            biased;
            done = self.removed(key, &sent) => done,
            () = self.hurried(&sent) => Ok(Outcome::Interrupted),
        }
    }

    /// Returns if somebody revokes it before AWS was asked for anything.
    async fn hurried(&self, sent: &AtomicBool) {
        if self.lane != Lane::Revoke {
            self.service.until_revoked(self.id).await;
        }
        if self.lane == Lane::Revoke || sent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    async fn removed(&self, key: &HoldingKey, sent: &AtomicBool) -> Done {
        let room = self.access.room_to_remove(self.lane, &key.account_id).await;
        let may = || -> Call<'_, ()> {
            Box::pin(async {
                self.still_held()?;
                sent.store(true, Ordering::SeqCst);
                Ok(())
            })
        };
        let deletion = self.access.delete(self.lane, key, &may).await?;
        let Deletion::Started(operation) = deletion else {
            drop(room);
            return Ok(match self.look(key).await? {
                Outcome::StillThere => haunted(),
                outcome => outcome,
            });
        };
        let mut ended = self.access.wait_for(self.lane, &operation).await?;
        drop(room);
        loop {
            if let Ended::Badly { why } = ended {
                return Ok(refused(&why));
            }
            if self.look(key).await? == Outcome::Gone {
                return Ok(Outcome::Gone);
            }
            ended = match self.access.poll(self.lane, &operation).await? {
                Progress::Failed { why } => Ended::Badly { why },
                Progress::Succeeded => return Ok(haunted()),
                // It was not listed any more, or not yet, and is not over.
                Progress::InProgress => self.access.wait_for(self.lane, &operation).await?,
            };
        }
    }

    /// Ahead of the others from the moment that somebody revokes it.
    async fn look(&self, key: &HoldingKey) -> Done {
        let nothing_sent = AtomicBool::new(false);
        let seen = tokio::select! {
            biased;
            seen = self.access.look(self.lane, key) => seen,
            () = self.hurried(&nothing_sent) => self.access.look(Lane::Revoke, key).await,
        };
        Ok(match seen? {
            Presence::Absent => Outcome::Gone,
            Presence::Present => Outcome::StillThere,
        })
    }

    /// A call that changes something is made only while the lease is sure to outlast it:
    /// whoever takes over must find everything said that is ever going to be said.
    fn still_held(&self) -> Result<(), AccessError> {
        let now = self.service.clock().now();
        if self.tenure.lasts_until(now + CALL_PATIENCE) {
            return Ok(());
        }
        let why = "not asked: the lease could not be kept";
        Err(AccessError::new(AccessErrorKind::NoAnswer, why))
    }

    /// Another process may have been told to revoke it.
    async fn still_wanted(&self) -> Result<(), AccessError> {
        let why = match self.service.request(self.id).await {
            Ok(request) if request.state == State::Assigning => return Ok(()),
            Ok(_) => "not asked: it is not wanted any more".into(),
            Err(error) => format!("not asked: {error}"),
        };
        Err(AccessError::new(AccessErrorKind::NoAnswer, why))
    }
}

impl From<AccessError> for Outcome {
    fn from(error: AccessError) -> Self {
        let why = Text::clip(&error.to_string());
        match error.kind {
            AccessErrorKind::NoUser => Self::NoUser { why },
            AccessErrorKind::Denied => Self::Failed(Trouble::Denied { why }),
            AccessErrorKind::Invalid => Self::Failed(Trouble::Refused { why }),
            AccessErrorKind::Conflict | AccessErrorKind::Throttled | AccessErrorKind::NoAnswer => {
                Self::Failed(Trouble::Passing { why })
            }
        }
    }
}

pub(super) fn refused(why: &str) -> Outcome {
    let why = Text::clip(why);
    Outcome::Failed(Trouble::Refused { why })
}

pub(super) fn passing(why: &str) -> Outcome {
    let why = Text::clip(why);
    Outcome::Failed(Trouble::Passing { why })
}

fn haunted() -> Outcome {
    passing("AWS still shows the assignment after removing it")
}

/// jit's own store failed while AWS was about to be asked: nothing has happened.
fn unreadable(error: &ServiceError) -> Outcome {
    passing(&error.to_string())
}
