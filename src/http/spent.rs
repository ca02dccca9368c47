//! Spends the nonce of a verified call whose handler committed no change.

use super::rates::{KeyRates, RateOf};
use crate::service::{CallRight, Service, ServiceError};

/// Makes sure that the call cannot be repeated. A14: a revoke that changed nothing counts like the
/// other calls of its key, and beyond their rate it leaves no nonce: the call is refused, and
/// changes as little when it comes again. A revoke that changed something has spent its nonce.
pub(super) async fn spend(
    service: &Service,
    rates: &KeyRates,
    rate: RateOf,
    right: &CallRight,
) -> Result<(), ServiceError> {
    if rate == RateOf::UnlimitedChanges
        && let (Some(key_id), Some(nonce)) = (right.key_id(), right.nonce())
    {
        let now = service.clock().uptime();
        let counted = rates.count(key_id, &nonce.text, RateOf::OtherCalls, now);
        if counted.is_err() {
            right.refuse();
        }
    }
    service.use_up(right).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::extract::Request;
    use tower::Service as _;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::config::Scope;
    use crate::domain::decide::fixtures::{asked, bob, draft, id};
    use crate::domain::{Admin, Ask, BindTerms, Draft, Millis, RequestId};
    use crate::http::test_state::{self, secret};
    use crate::http::{HttpState, router};
    use crate::service::Configure;
    use crate::signature::{self, Message, Scheme};
    use crate::store::{Freshness, Nonce};

    const MOST: u32 = 3;
    const BODY: &str = r#"{"actor_mm_user_id":"bob","actor_email":"bob@example.com"}"#;

    /// A server whose key may only revoke, and may make `MOST` calls that change nothing.
    fn state(folder: &std::path::Path) -> Arc<HttpState> {
        let mut state = test_state::state(folder, Scope::Revoke);
        state.rates = Arc::new(KeyRates::of_other_calls(MOST));
        Arc::new(state)
    }

    fn revoke(id: RequestId, nonce: &str) -> Request {
        let path = format!("/requests/{id}/revoke");
        let timestamp = SystemClock.now().seconds().to_string();
        let message = Message {
            key_id: "plugin",
            timestamp: &timestamp,
            nonce,
            method: "POST",
            path: &path,
            query: "",
            body: BODY.as_bytes(),
        };
        let mac = signature::sign(Scheme::V2, &secret(), &message);
        let request = axum::http::Request::post(&path)
            .header("x-jit-keyid", "plugin")
            .header("x-jit-nonce", nonce)
            .header("x-jit-timestamp", &timestamp)
            .header("x-jit-signature", mac);
        request.body(Body::from(BODY)).unwrap()
    }

    /// Requests of this number that are approved, and whose access has not begun.
    async fn approve(service: &Service, numbers: &[u128]) {
        let admin = Admin {
            person: None,
            key_id: "plugin".into(),
        };
        let draft = draft();
        let bind = Configure::Bind {
            account_id: draft.account_id.clone(),
            terms: BindTerms::default(),
        };
        let approvers = vec![bob().id];
        for configure in [bind, Configure::SetApprovers { approvers }] {
            let configured = service.configure(&draft.channel_id, &configure, &admin);
            configured.await.unwrap();
        }
        for number in numbers {
            let id = id(*number);
            let draft = Draft {
                id,
                ..draft.clone()
            };
            service.open(draft, None, None).await.unwrap();
            let approve = asked(bob(), Ask::Approve);
            service.handle(id, approve, None).await.unwrap();
        }
    }

    async fn status(router: &mut Router, number: u128, nonce: &str) -> u16 {
        let answer = router.call(revoke(id(number), nonce)).await.unwrap();
        answer.status().as_u16()
    }

    async fn is_spent(app: &HttpState, text: &str) -> bool {
        let at = app.service.clock().now();
        let nonce = Nonce {
            text: text.into(),
            at,
            keep_until: at + Millis::minutes(16),
        };
        app.service.store().spend_nonce(&nonce).await.unwrap() == Freshness::Spent
    }

    /// A14: any number of revokes that change nothing left any number of nonces.
    #[tokio::test]
    async fn a14_a_revoke_that_changes_nothing_has_the_rate_of_other_calls() {
        let folder = tempfile::tempdir().unwrap();
        let app = state(folder.path());
        approve(&app.service, &[1, 2]).await;
        let mut router = router(app.clone(), Router::new());
        // A revoke that ends a request takes nothing from the rate.
        assert_eq!(status(&mut router, 1, "ends").await, 200);
        assert_eq!(status(&mut router, 1, "again").await, 409);
        assert_eq!(status(&mut router, 9, "unknown").await, 404);
        assert_eq!(status(&mut router, 9, "unknown").await, 401, "a replay");
        assert_eq!(status(&mut router, 9, "other").await, 404);
        for number in [1, 9] {
            let nonce = format!("too many {number}");
            assert_eq!(status(&mut router, number, &nonce).await, 429);
            assert!(!is_spent(&app, &nonce).await);
        }
        assert_eq!(status(&mut router, 2, "incident").await, 200);
        for nonce in ["ends", "again", "unknown", "other", "incident"] {
            assert!(is_spent(&app, nonce).await, "{nonce}");
        }
    }
}
