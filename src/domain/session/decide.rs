//! The decisions about a session: who may open it, whether it gets credentials now, and how it
//! ends.
//!
//! An issue is decided before AWS is asked, and the store checks the same conditions once more in
//! the write that counts the issue: what was decided after the end of the session or of its request
//! reaches nobody.

use super::{Caps, Issued, Session, SessionId, SessionMode, SessionState, Terms};
use crate::domain::{
    Binding, Email, Ending, Millis, Person, Policy, Request, RoleArn, State, Status, Text,
    Timestamp,
};

/// Why a session is not opened, gets no credentials or cannot be ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefusal {
    #[error("only {requester}, who made the request, may use its access")]
    NotTheRequester { requester: Email },
    #[error("the session was revoked{}", by_and_why(by.as_ref(), reason.as_ref()))]
    Revoked {
        by: Option<Person>,
        reason: Option<Text>,
    },
    #[error("the session expired at {at}; open a new one while the request is GRANTED")]
    Expired { at: Timestamp },
    #[error("the request is {status}: its access gives no credentials")]
    NotGranted { status: Status },
    #[error("account {account} is not bound to the channel of the request any more")]
    NotBound { account: String },
    #[error("the configuration gives {set} another role now; make a new request")]
    RoleChanged { set: String },
    #[error("the access ends in less than a second")]
    NoTimeLeft,
    #[error("say why you end the session of another person")]
    NoReason,
}

fn by_and_why(by: Option<&Person>, reason: Option<&Text>) -> String {
    let by = by.map_or_else(String::new, |by| format!(" by {}", by.email));
    let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    by + &why
}

/// The facts on which a session depends, read at one moment.
#[derive(Clone, Copy, Debug)]
pub struct SessionBasis<'a> {
    pub request: &'a Request,
    /// The binding of the request's account.
    pub binding: Option<&'a Binding>,
    /// The role that the configuration gives the permission set in this account now; absent if the
    /// set is given as an assignment, or is not configured.
    pub role: Option<&'a RoleArn>,
}

/// The wish of a person to open a session.
#[derive(Clone, Debug)]
pub struct SessionStart {
    pub id: SessionId,
    pub by: Person,
    pub mode: SessionMode,
    pub label: Option<Text>,
}

impl SessionStart {
    /// The new session, if the access of the request is live.
    pub fn decide(
        self,
        basis: SessionBasis<'_>,
        now: Timestamp,
    ) -> Result<Session, SessionRefusal> {
        let request = basis.request;
        let asked = &request.asked;
        if !asked.requester.is(&self.by) {
            let requester = asked.requester.email.clone();
            return Err(SessionRefusal::NotTheRequester { requester });
        }
        let (expires_at, role) = basis.live(now)?;
        Ok(Session {
            id: self.id,
            request_id: request.id,
            person: asked.requester.clone(),
            account_id: asked.account_id.clone(),
            permission_set: asked.permission_set.clone(),
            role: role.clone(),
            state: SessionState::Active,
            mode: self.mode,
            label: self.label,
            started_at: now,
            expires_at,
            issued: Issued::default(),
            version: 1,
        })
    }
}

impl<'a> SessionBasis<'a> {
    /// The end of the grant and its role, if the request gives access now.
    fn live(&self, now: Timestamp) -> Result<(Timestamp, &'a RoleArn), SessionRefusal> {
        let asked = &self.request.asked;
        let period = self.request.grant.period;
        let ends = period.map(|period| period.until);
        let status = match &self.request.state {
            State::Granted if ends.is_some_and(|ends| now < ends) => None,
            State::Granted => Some(Status::Expired),
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Removing { .. }
            | State::Checking { .. }
            | State::Unsettled { .. }
            | State::Denied { .. }
            | State::Cancelled { .. }
            | State::Expired { .. }
            | State::Revoked { .. }
            | State::Error(_) => Some(self.request.status()),
        };
        let (None, Some(ends)) = (status, ends) else {
            let status = status.unwrap_or(Status::Expired);
            return Err(SessionRefusal::NotGranted { status });
        };
        let bound = Policy::bound(self.binding, &asked.account_id, &asked.channel_id);
        bound.map_err(|_| SessionRefusal::NotBound {
            account: asked.account_id.to_string(),
        })?;
        let role = self.role.ok_or_else(|| SessionRefusal::RoleChanged {
            set: asked.permission_set.to_string(),
        })?;
        Ok((ends, role))
    }
}

impl Session {
    /// The terms of credentials that this person may get now.
    pub fn issue(
        &self,
        by: &Person,
        basis: SessionBasis<'_>,
        caps: &Caps,
        now: Timestamp,
    ) -> Result<Terms, SessionRefusal> {
        if !self.person.is(by) {
            let requester = self.person.email.clone();
            return Err(SessionRefusal::NotTheRequester { requester });
        }
        self.check_active(now)?;
        let (ends, role) = basis.live(now)?;
        if *role != self.role {
            let set = self.permission_set.to_string();
            return Err(SessionRefusal::RoleChanged { set });
        }
        let caps = Caps {
            grant: ends.min(self.expires_at).min(caps.grant),
            ..*caps
        };
        Terms::of(&caps, now).ok_or(SessionRefusal::NoTimeLeft)
    }

    /// Whether the session has not ended.
    pub fn check_active(&self, now: Timestamp) -> Result<(), SessionRefusal> {
        match &self.state {
            SessionState::Active if now < self.expires_at => Ok(()),
            SessionState::Active => Err(SessionRefusal::Expired {
                at: self.expires_at,
            }),
            SessionState::Revoked { by, reason, .. } => Err(SessionRefusal::Revoked {
                by: by.clone(),
                reason: reason.clone(),
            }),
            SessionState::Expired { at } => Err(SessionRefusal::Expired { at: *at }),
        }
    }

    /// The session after the owner got credentials of these terms.
    #[must_use]
    pub fn issued(&self, access_key_id: &str, terms: &Terms, now: Timestamp) -> Self {
        let last = self.issued.last_expires_at;
        let issued = Issued {
            count: self.issued.count + 1,
            last_access_at: Some(now),
            last_expires_at: last.max(Some(terms.deadline)),
            last_access_key_id: Some(access_key_id.to_owned()),
        };
        self.next(Self {
            issued,
            ..self.clone()
        })
    }

    /// The session after this person ended it. Only its owner need not say why.
    pub fn revoke(
        &self,
        by: &Person,
        reason: Option<Text>,
        now: Timestamp,
    ) -> Result<Self, SessionRefusal> {
        self.check_active(now)?;
        if reason.is_none() && !self.person.is(by) {
            return Err(SessionRefusal::NoReason);
        }
        let by = Some(by.clone());
        let state = SessionState::Revoked {
            by,
            reason,
            at: now,
        };
        Ok(self.ended(state))
    }

    /// The session after the end of its time or of its request; absent if it goes on, or has ended
    /// before.
    pub fn end_with(&self, request: &Request, now: Timestamp) -> Option<Self> {
        if self.state != SessionState::Active {
            return None;
        }
        let expired = || SessionState::Expired { at: now };
        let revoked = |by: Option<&Person>, reason: Option<&Text>| SessionState::Revoked {
            by: by.cloned(),
            reason: reason.cloned(),
            at: now,
        };
        let end = match &request.state {
            State::Granted if now < self.expires_at => return None,
            State::Granted | State::Expired { .. } => expired(),
            State::Revoked { by, reason, .. } => revoked(by.as_ref(), reason.as_ref()),
            State::Checking { by, reason, .. } => revoked(Some(by), reason.as_ref()),
            State::Removing { ending } => match ending {
                Ending::Expired => expired(),
                Ending::Revoked { by, reason, .. } => revoked(by.as_ref(), reason.as_ref()),
                Ending::Failed { why } => revoked(None, Some(why)),
            },
            State::Unsettled { .. } => revoked(None, None),
            State::Error(error) => revoked(None, Some(&error.why)),
            // A session begins only while its request is GRANTED, which none of these follows.
            State::Pending
            | State::Approved
            | State::Assigning
            | State::Denied { .. }
            | State::Cancelled { .. } => revoked(None, None),
        };
        Some(self.ended(end))
    }

    /// Credentials of an ended session that still work at this time, until the returned time.
    pub fn outlived_by(&self, now: Timestamp) -> Option<Timestamp> {
        let last = self.issued.last_expires_at?;
        (self.state != SessionState::Active && now < last).then_some(last)
    }

    /// How long the record is kept: a month after the end, and never less than its credentials live.
    pub fn keep_until(&self) -> Timestamp {
        let ended = match &self.state {
            SessionState::Active => self.expires_at,
            SessionState::Revoked { at, .. } | SessionState::Expired { at } => *at,
        };
        let last = self.issued.last_expires_at.unwrap_or(ended);
        ended.max(last) + Millis(Millis::DAY.0 * 30)
    }

    fn ended(&self, state: SessionState) -> Self {
        self.next(Self {
            state,
            ..self.clone()
        })
    }

    fn next(&self, changed: Self) -> Self {
        Self {
            version: self.version + 1,
            ..changed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{now, session};
    use super::*;
    use crate::domain::Period;
    use crate::domain::decide::fixtures::{alice, binding, bob, record};
    use crate::domain::session::Cap;

    /// A request in this state of the table of `decide`, whose grant ends in an hour.
    fn request(word: &str) -> Request {
        let mut request = record(word).request;
        request.grant.period = Some(Period {
            from: now(),
            until: now() + Millis::hours(1),
        });
        request
    }

    fn caps() -> Caps {
        Caps {
            grant: now() + Millis::hours(9),
            ..Caps::default()
        }
    }

    fn issue(session: &Session, request: &Request, at: Timestamp) -> Result<Terms, SessionRefusal> {
        let (binding, role) = (binding(), session.role.clone());
        let basis = SessionBasis {
            request,
            binding: Some(&binding),
            role: Some(&role),
        };
        session.issue(&alice(), basis, &caps(), at)
    }

    /// The states of a request in which a session gets credentials: one.
    #[test]
    fn only_a_granted_request_gives_credentials() {
        for word in [
            "Pending",
            "Approved",
            "Assigning",
            "Granted",
            "Extending",
            "Revoking",
            "Expiring",
            "Checking",
            "Unsettled",
            "Denied",
            "Cancelled",
            "Expired",
            "Revoked",
            "Error",
        ] {
            let request = request(word);
            let issued = issue(&session(), &request, now());
            let ended = session().end_with(&request, now());
            match word {
                "Granted" | "Extending" => {
                    assert_eq!(issued.map(|terms| terms.cap), Ok(Cap::Usual), "{word}");
                    assert_eq!(ended, None, "{word}");
                }
                _ => {
                    let status = request.status();
                    assert_eq!(issued, Err(SessionRefusal::NotGranted { status }), "{word}");
                    let ended = ended.unwrap();
                    assert_ne!(ended.state, SessionState::Active, "{word}");
                    assert!(issue(&ended, &request, now()).is_err(), "{word}");
                }
            }
        }
    }

    #[test]
    fn each_condition_alone_refuses_the_credentials() {
        let (session, request) = (session(), request("Granted"));
        let binding = binding();
        let role = session.role.clone();
        let whole = SessionBasis {
            request: &request,
            binding: Some(&binding),
            role: Some(&role),
        };
        let issue = |basis: SessionBasis<'_>, by: &Person, at: Timestamp| {
            session.issue(by, basis, &caps(), at).map(|terms| terms.cap)
        };
        assert_eq!(issue(whole, &alice(), now()), Ok(Cap::Usual));
        let requester = alice().email;
        let not_hers = Err(SessionRefusal::NotTheRequester { requester });
        assert_eq!(issue(whole, &bob(), now()), not_hers);
        let unbound = SessionBasis {
            binding: None,
            ..whole
        };
        assert!(matches!(
            issue(unbound, &alice(), now()),
            Err(SessionRefusal::NotBound { .. })
        ));
        let mut elsewhere = binding.clone();
        elsewhere.channel_id = "elsewhere".parse().unwrap();
        let elsewhere = SessionBasis {
            binding: Some(&elsewhere),
            ..whole
        };
        assert!(matches!(
            issue(elsewhere, &alice(), now()),
            Err(SessionRefusal::NotBound { .. })
        ));
        let other: crate::domain::RoleTemplate =
            "arn:aws:iam::{account_id}:role/other".parse().unwrap();
        let other = other.in_account(&session.account_id);
        for role in [None, Some(&other)] {
            let changed = SessionBasis { role, ..whole };
            assert!(matches!(
                issue(changed, &alice(), now()),
                Err(SessionRefusal::RoleChanged { .. })
            ));
        }
        let end = session.expires_at;
        assert_eq!(
            issue(whole, &alice(), end),
            Err(SessionRefusal::Expired { at: end })
        );
        let short = issue(whole, &alice(), end + Millis(-999));
        assert_eq!(short, Err(SessionRefusal::NoTimeLeft));
        let last = issue(whole, &alice(), end + Millis(-1000));
        assert_eq!(last, Ok(Cap::Grant));
    }

    /// The grant may have been extended since the session began: its end stays.
    #[test]
    fn credentials_end_with_the_session_and_with_the_grant() {
        let mut request = request("Granted");
        for (grant, session_ends, minutes) in [(5, 60, 5), (60, 7, 7), (600, 60, 15)] {
            let period = request.grant.period.as_mut().unwrap();
            period.until = now() + Millis::minutes(grant);
            let mut session = session();
            session.expires_at = now() + Millis::minutes(session_ends);
            let terms = issue(&session, &request, now()).unwrap();
            assert_eq!(terms.deadline, now() + Millis::minutes(minutes));
        }
    }

    #[test]
    fn only_the_requester_opens_a_session_and_only_while_the_grant_lasts() {
        let (request, binding) = (request("Granted"), binding());
        let role = session().role;
        let start = |by: Person, at: Timestamp| {
            let basis = SessionBasis {
                request: &request,
                binding: Some(&binding),
                role: Some(&role),
            };
            let wish = SessionStart {
                id: session().id,
                by,
                mode: SessionMode::Cli,
                label: None,
            };
            wish.decide(basis, at)
        };
        let opened = start(alice(), now()).unwrap();
        assert_eq!(opened.expires_at, now() + Millis::hours(1));
        assert_eq!(opened.request_id, request.id);
        assert_eq!(opened.role, role);
        assert!(matches!(
            start(bob(), now()),
            Err(SessionRefusal::NotTheRequester { .. })
        ));
        let status = Status::Expired;
        let over = start(alice(), now() + Millis::hours(1));
        assert_eq!(over, Err(SessionRefusal::NotGranted { status }));
    }

    #[test]
    fn an_end_is_final_and_says_who_and_why() {
        let why: Text = "laptop stolen".parse().unwrap();
        let session = session();
        assert_eq!(
            session.revoke(&bob(), None, now()),
            Err(SessionRefusal::NoReason)
        );
        assert!(session.revoke(&alice(), None, now()).is_ok());
        let ended = session.revoke(&bob(), Some(why), now()).unwrap();
        assert_eq!(ended.version, session.version + 1);
        let refused = issue(&ended, &request("Granted"), now()).unwrap_err();
        let told = "the session was revoked by bob@example.com: laptop stolen";
        assert_eq!(refused.to_string(), told);
        assert_eq!(ended.revoke(&alice(), None, now()), Err(refused));
        assert_eq!(ended.end_with(&request("Expired"), now()), None);
        let expired = session
            .end_with(&request("Granted"), session.expires_at)
            .unwrap();
        assert!(matches!(
            expired.revoke(&alice(), None, now()),
            Err(SessionRefusal::Expired { .. })
        ));
    }

    #[test]
    fn a_session_that_ends_with_its_request_says_who_ended_the_request() {
        let mut request = request("Revoking");
        request.state = State::Removing {
            ending: Ending::Revoked {
                by: Some(bob()),
                reason: Some("left".parse().unwrap()),
                asked_at: now(),
            },
        };
        let ended = session().end_with(&request, now()).unwrap();
        let (by, reason) = (Some(bob()), Some("left".parse().unwrap()));
        let at = now();
        assert_eq!(ended.state, SessionState::Revoked { by, reason, at });
    }

    #[test]
    fn each_issue_is_counted_and_the_record_outlives_the_last_credentials() {
        let terms = |minutes| Terms {
            deadline: now() + Millis::minutes(minutes),
            duration_seconds: 900,
            cap: Cap::Usual,
        };
        let first = session().issued("ASIAONE", &terms(15), now());
        let second = first.issued("ASIATWO", &terms(5), now());
        assert_eq!(second.issued.count, 2);
        assert_eq!(second.issued.last_access_key_id.as_deref(), Some("ASIATWO"));
        // The first credentials live longer than the second.
        let last = now() + Millis::minutes(15);
        assert_eq!(second.issued.last_expires_at, Some(last));
        assert_eq!(second.outlived_by(now()), None);
        let ended = second.revoke(&alice(), None, now()).unwrap();
        assert_eq!(ended.outlived_by(now()), Some(last));
        assert_eq!(ended.outlived_by(last), None);
        assert!(ended.keep_until() >= last + Millis(Millis::DAY.0 * 30));
    }
}
