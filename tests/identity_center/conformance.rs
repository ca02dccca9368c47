//! The properties of AWS that jit relies on. One function for each property, so that every
//! `IdentityCenter` is tested with all of them.

use jit::domain::{Email, HoldingKey, Presence, UserId};
use jit::identity_center::{
    Assignee, AssignmentPlace, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Operation, OperationKind, Progress, UserAttribute,
    progress_of_failure,
};

/// An Identity Center with one user `alice`, one user `bob` and two users `twin`, without random
/// faults and without assignments.
pub trait Center {
    fn access(&self) -> &dyn IdentityCenter;
    /// Waits until the operations in progress have ended.
    fn let_time_pass(&self);
}

pub async fn all<C: Center>(make: impl AsyncFn() -> C) {
    an_operation_takes_effect_only_when_it_ends(&make().await).await;
    creating_an_existing_assignment_succeeds(&make().await).await;
    deleting_a_missing_assignment_succeeds(&make().await).await;
    one_assignment_takes_one_operation_at_a_time(&make().await).await;
    assignments_are_independent(&make().await).await;
    at_most_ten_creates_run_at_once(&make().await).await;
    a_user_is_found_only_if_there_is_exactly_one(&make().await).await;
    a_running_operation_is_listed_until_it_ends(&make().await).await;
    an_unknown_operation_is_not_a_success(&make().await).await;
}

pub fn email(name: &str) -> Email {
    format!("{name}@example.com").parse().unwrap()
}

pub async fn key(access: &dyn IdentityCenter, account: u64, set: &str) -> HoldingKey {
    HoldingKey {
        account_id: format!("{account:012}").parse().unwrap(),
        permission_set: set.parse().unwrap(),
        user: user(access, "alice").await,
    }
}

pub async fn user(access: &dyn IdentityCenter, name: &str) -> UserId {
    let found = access.find_user(&email(name), UserAttribute::Email).await;
    found.unwrap().unwrap()
}

pub async fn look(
    access: &dyn IdentityCenter,
    key: &HoldingKey,
) -> Result<Presence, IdentityCenterError> {
    let (mut after, assignee) = (None, Assignee::User(key.user.clone()));
    loop {
        let page = access
            .assigned(&AssignmentPlace::of(key), after.as_deref())
            .await?;
        if page.items.contains(&assignee) {
            return Ok(Presence::Present);
        }
        after = page.next;
        if after.is_none() {
            return Ok(Presence::Absent);
        }
    }
}

/// Removes an assignment and returns the result, with or without an operation at AWS.
pub async fn remove(center: &impl Center, key: &HoldingKey) -> Progress {
    match center.access().delete(key).await.unwrap() {
        Deletion::NothingThere => Progress::Succeeded,
        Deletion::Started(operation) => {
            center.let_time_pass();
            center.access().poll(&operation).await.unwrap()
        }
    }
}

async fn make(center: &impl Center, key: &HoldingKey) -> Progress {
    let operation = center.access().create(key).await.unwrap();
    center.let_time_pass();
    center.access().poll(&operation).await.unwrap()
}

async fn an_operation_takes_effect_only_when_it_ends(center: &impl Center) {
    let access = center.access();
    let key = key(access, 1, "admin").await;
    let making = access.create(&key).await.unwrap();
    assert_eq!(making.kind, OperationKind::Create);
    assert_eq!(access.poll(&making).await, Ok(Progress::InProgress));
    assert_eq!(look(access, &key).await, Ok(Presence::Absent));
    center.let_time_pass();
    assert_eq!(access.poll(&making).await, Ok(Progress::Succeeded));
    assert_eq!(look(access, &key).await, Ok(Presence::Present));
    let Deletion::Started(removing) = access.delete(&key).await.unwrap() else {
        panic!("an existing assignment is removed only by an operation");
    };
    assert_eq!(access.poll(&removing).await, Ok(Progress::InProgress));
    assert_eq!(look(access, &key).await, Ok(Presence::Present));
    center.let_time_pass();
    assert_eq!(access.poll(&removing).await, Ok(Progress::Succeeded));
    assert_eq!(look(access, &key).await, Ok(Presence::Absent));
    // The result of an ended operation stays the same in every poll.
    assert_eq!(access.poll(&making).await, Ok(Progress::Succeeded));
}

async fn creating_an_existing_assignment_succeeds(center: &impl Center) {
    let key = key(center.access(), 1, "admin").await;
    assert_eq!(make(center, &key).await, Progress::Succeeded);
    assert_eq!(make(center, &key).await, Progress::Succeeded);
    assert_eq!(look(center.access(), &key).await, Ok(Presence::Present));
}

/// Twenty deletes, so that both answers of AWS occur.
async fn deleting_a_missing_assignment_succeeds(center: &impl Center) {
    for account in 1..=20 {
        let key = key(center.access(), account, "admin").await;
        assert_eq!(remove(center, &key).await, Progress::Succeeded);
        assert_eq!(look(center.access(), &key).await, Ok(Presence::Absent));
    }
}

async fn one_assignment_takes_one_operation_at_a_time(center: &impl Center) {
    let access = center.access();
    let key = key(access, 1, "admin").await;
    let making = access.create(&key).await.unwrap();
    let again = access.create(&key).await.unwrap_err();
    let remove = access.delete(&key).await.unwrap_err();
    assert_eq!(again.kind, IdentityCenterErrorKind::Conflict);
    assert_eq!(remove.kind, IdentityCenterErrorKind::Conflict);
    center.let_time_pass();
    // A delete with a conflict removes nothing: the assignment is made.
    assert_eq!(access.poll(&making).await, Ok(Progress::Succeeded));
    assert_eq!(look(access, &key).await, Ok(Presence::Present));
    assert!(access.delete(&key).await.is_ok());
}

async fn assignments_are_independent(center: &impl Center) {
    let access = center.access();
    let kept = [
        key(access, 1, "readonly").await,
        key(access, 2, "admin").await,
        HoldingKey {
            user: user(access, "bob").await,
            ..key(access, 1, "admin").await
        },
    ];
    let gone = key(access, 1, "admin").await;
    for key in kept.iter().chain([&gone]) {
        assert_eq!(make(center, key).await, Progress::Succeeded);
    }
    assert_eq!(remove(center, &gone).await, Progress::Succeeded);
    assert_eq!(look(access, &gone).await, Ok(Presence::Absent));
    for key in &kept {
        assert_eq!(look(access, key).await, Ok(Presence::Present));
    }
}

async fn at_most_ten_creates_run_at_once(center: &impl Center) {
    let access = center.access();
    for account in 1..=10 {
        let key = key(access, account, "admin").await;
        access.create(&key).await.unwrap();
    }
    let eleventh = key(access, 11, "admin").await;
    let refused = access.create(&eleventh).await.unwrap_err();
    assert_eq!(refused.kind, IdentityCenterErrorKind::Throttled);
    // Creates do not delay a delete.
    let other = key(access, 12, "admin").await;
    assert!(access.delete(&other).await.is_ok());
    center.let_time_pass();
    assert!(access.create(&eleventh).await.is_ok());
}

/// A look-up by name or by address finds a user, unless the name of one user is the address of
/// another.
async fn a_user_is_found_only_if_there_is_exactly_one(center: &impl Center) {
    let access = center.access();
    let [name, address] = [UserAttribute::UserName, UserAttribute::Email];
    for by in [name, address] {
        let alice = access.find_user(&email("alice"), by).await;
        assert_eq!(alice, Ok(Some(user(access, "alice").await)));
        let stranger = access.find_user(&email("stranger"), by).await;
        assert_eq!(stranger, Ok(None));
    }
    assert_ne!(user(access, "bob").await, user(access, "alice").await);
    let twin = access.find_user(&email("twin"), name).await.unwrap();
    assert_ne!(access.find_user(&email("twin"), address).await, Ok(twin));
}

async fn a_running_operation_is_listed_until_it_ends(center: &impl Center) {
    let access = center.access();
    let mut making = Vec::new();
    for account in 1..=7 {
        let key = key(access, account, "admin").await;
        making.push(access.create(&key).await.unwrap());
    }
    let listed = under_way(access, OperationKind::Create).await;
    assert!(
        making.iter().all(|one| listed.contains(&one.id)),
        "{listed:?}"
    );
    assert_eq!(under_way(access, OperationKind::Delete).await, [""; 0]);
    center.let_time_pass();
    assert_eq!(under_way(access, OperationKind::Create).await, [""; 0]);
}

async fn under_way(access: &dyn IdentityCenter, kind: OperationKind) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = access.under_way(kind, after.as_deref()).await.unwrap();
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

async fn an_unknown_operation_is_not_a_success(center: &impl Center) {
    let access = center.access();
    let key = key(access, 1, "admin").await;
    let making = access.create(&key).await.unwrap();
    center.let_time_pass();
    let strange = Operation {
        id: "00000000-0000-0000-0000-000000000000".into(),
        ..making.clone()
    };
    let other_kind = Operation {
        kind: OperationKind::Delete,
        ..making
    };
    for operation in [strange, other_kind] {
        assert!(access.poll(&operation).await.is_err());
    }
}

/// A delete that found no assignment has succeeded; any other failed operation has not.
#[test]
fn only_an_absent_assignment_turns_a_failure_into_a_success() {
    let absent = "Received a 404 status error: Assignment not found";
    let other = "Received a 404 status error: PermissionSet not found";
    let come_to = |kind, why: &str| progress_of_failure(kind, why.to_owned());
    let failed = |why: &str| Progress::Failed { why: why.into() };
    let (create, delete) = (OperationKind::Create, OperationKind::Delete);
    assert_eq!(come_to(delete, absent), Progress::Succeeded);
    assert_eq!(come_to(create, absent), failed(absent));
    assert_eq!(come_to(delete, other), failed(other));
    assert_eq!(
        come_to(delete, "Assignment not found, 503"),
        failed("Assignment not found, 503")
    );
}
