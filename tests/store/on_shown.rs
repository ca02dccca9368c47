//! A decision on what a card showed, in each store.

use std::sync::Arc;

use jit::clock::SystemClock;
use jit::domain::{Ask, Command, Minutes, Refusal, RequestId, Subject};
use jit::service::{Announce, Service, ServiceError};

use crate::build::id;
use crate::fixtures::{person, policy};
use crate::verify::{each_store, granted};

async fn ask(service: &Service, name: &str, ask: Ask) {
    let by = person(name);
    let asked = Command::Asked { by, ask };
    service.handle(id(1), asked, None).await.unwrap();
}

async fn extend(service: &Service, minutes: i64) {
    let minutes = Minutes::new(minutes).unwrap();
    ask(service, "alice", Ask::Extend { minutes }).await;
}

async fn approve_shown(
    service: &Service,
    id: RequestId,
    shown: Subject,
) -> Result<(), ServiceError> {
    let (by, ask) = (person("bob"), Ask::Approve);
    let command = Command::DecidedOnShown { by, ask, shown };
    service.handle(id, command, None).await.map(drop)
}

/// W15: the extension was replaced after the look at what the card showed. The refused command
/// changed nothing.
#[tokio::test]
async fn w15_an_approval_of_an_extension_that_was_replaced_changes_nothing_in_each_store() {
    let (_folder, stores) = each_store().await;
    for store in stores {
        let clock = Arc::new(SystemClock);
        let service = Service::new(store, clock, policy(), Announce::None);
        granted(&service).await;
        extend(&service, 30).await;
        let shown = Subject::waiting(&service.request(id(1)).await.unwrap()).unwrap();
        ask(&service, "bob", Ask::Deny { reason: None }).await;
        extend(&service, 60).await;
        let before = service.request(id(1)).await.unwrap();
        let refused = approve_shown(&service, id(1), shown).await.unwrap_err();
        let is_it = matches!(
            refused,
            ServiceError::Refused(Refusal::NotWhatWasShown { .. })
        );
        assert!(is_it, "{refused}");
        assert_eq!(service.request(id(1)).await.unwrap(), before);
        let now = Subject::waiting(&before).unwrap();
        approve_shown(&service, id(1), now).await.unwrap();
        let after = service.request(id(1)).await.unwrap();
        assert!(after.end_time() > before.end_time());
    }
}
