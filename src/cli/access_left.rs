//! After the removals of a person or an account, `jit break-glass` asks AWS what is left. The record
//! alone does not prove that a person has no access, and a misspelt name has no record.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::Failure;
use super::arguments::BreakGlass;
use super::operator::OperatorTools;
use super::reconcile::bound_accounts;
use super::serve::failed;
use super::typed::{self, nearest};
use crate::config::{Config, IdentityCenterConfig};
use crate::domain::{
    AccountId, AuditKey, Email, EventKind, Lane, PermissionSet, Request, RequestId, Status, UserId,
    counted,
};
use crate::identity_center::{
    Assignee, AssignmentPlace, IdentityCenterError, IdentityCenterErrorKind,
};
use crate::store::Filter;

/// The number of newest requests of each status whose requesters jit compares with a typed name.
const COMPARED: usize = 600;

/// The access that an operator names without a request.
pub(super) struct NamedAccess {
    pub user: Option<Email>,
    pub account: Option<AccountId>,
    pub permission_set: Option<PermissionSet>,
}

impl NamedAccess {
    pub fn of(asked: &BreakGlass, config: &Config) -> Result<Self, Failure> {
        let account = asked.account.as_deref();
        let account = account.map(|word| typed::account(word, &config.accounts));
        // H1: an unknown name ends nothing, so it must not look like an option that is typed wrongly.
        let unknown = |why| Failure::Unconfirmed(format!("{why}; nothing was changed"));
        let sets = config.policy.permission_sets.keys();
        let sets: Vec<String> = sets.map(ToString::to_string).collect();
        let set = asked.permission_set.as_ref();
        let set = set.map(|set| typed::permission_set(set.as_str(), &sets).parse());
        Ok(Self {
            user: asked.user.clone(),
            account: account.transpose().map_err(unknown)?,
            permission_set: set.transpose().map_err(failed)?,
        })
    }

    pub fn filter(&self) -> Filter {
        Filter {
            requester_email: self.user.clone(),
            account_id: self.account.clone(),
            ..Filter::default()
        }
    }

    /// Whose access the command ends, with every limit that the operator typed: a narrow command
    /// must not read as if nothing at all were left.
    fn owner(&self) -> String {
        let mut owner = match &self.user {
            Some(user) => format!("access of {user}"),
            None => "access that jit made".to_owned(),
        };
        if let Some(set) = &self.permission_set {
            owner.push_str(&format!(" with the permission set {set}"));
        }
        if let Some(account) = &self.account {
            owner.push_str(&format!(" in account {account}"));
        }
        owner
    }
}

/// Fails if the permission set is not configured.
pub(super) fn check_set(
    wanted: Option<&PermissionSet>,
    known: &[PermissionSet],
) -> Result<(), Failure> {
    let Some(wanted) = wanted.filter(|wanted| !known.contains(wanted)) else {
        return Ok(());
    };
    let words = || known.iter().map(PermissionSet::as_str);
    Err(not_known(
        &format!("permission set {wanted}"),
        nearest(wanted.as_str(), words()),
        &format!("known: {}", words().collect::<Vec<_>>().join(", ")),
    ))
}

fn not_known(what: &str, near: Option<&str>, otherwise: &str) -> Failure {
    let near = near.map_or_else(|| otherwise.to_owned(), |near| format!("nearest: {near}"));
    Failure::Unconfirmed(format!("no {what} is known; nothing was changed; {near}"))
}

/// Fails if a name of the command is not known: an unknown name matches no record, so an empty
/// result proves nothing.
pub(super) async fn check_names(tools: &OperatorTools, named: &NamedAccess) -> Result<(), Failure> {
    let sets: Vec<PermissionSet> = tools
        .config
        .policy
        .permission_sets
        .keys()
        .cloned()
        .collect();
    check_set(named.permission_set.as_ref(), &sets)?;
    if let Some(account) = &named.account {
        check_account(tools, account).await?;
    }
    match &named.user {
        Some(user) => check_user(tools, user).await,
        None => Ok(()),
    }
}

async fn has_requests(tools: &OperatorTools, filter: &Filter) -> Result<bool, Failure> {
    let found = tools.app.service.list(filter, None, 1).await;
    Ok(!found.map_err(failed)?.is_empty())
}

async fn check_account(tools: &OperatorTools, account: &AccountId) -> Result<(), Failure> {
    let filter = Filter {
        account_id: Some(account.clone()),
        ..Filter::default()
    };
    let bound = bound_accounts(tools).await?.accounts;
    if bound.contains(account) || has_requests(tools, &filter).await? {
        return Ok(());
    }
    let bound: Vec<&str> = bound.iter().map(AccountId::as_str).collect();
    Err(not_known(
        &format!("account {account}"),
        nearest(account.as_str(), bound.into_iter()),
        "no channel has it: `jit reconcile` compares all accounts that jit knows with AWS",
    ))
}

/// Known is a person with a request, and a user of Identity Center. The sandbox without a list of
/// users knows every address, so there an address that is almost the one of an open request is
/// unknown.
async fn check_user(tools: &OperatorTools, user: &Email) -> Result<(), Failure> {
    let filter = Filter {
        requester_email: Some(user.clone()),
        ..Filter::default()
    };
    if has_requests(tools, &filter).await? {
        return Ok(());
    }
    let mut open = BTreeSet::new();
    for status in [
        Status::Granted,
        Status::Approved,
        Status::Pending,
        Status::Error,
    ] {
        let filter = Filter {
            status: Some(status),
            ..Filter::default()
        };
        let found = tools.app.service.newest(&filter, COMPARED).await;
        let found = found.map_err(failed)?.items;
        open.extend(
            found
                .into_iter()
                .map(|request| request.asked.requester.email),
        );
    }
    let near = nearest(user.as_str(), open.iter().map(Email::as_str));
    let unknown = || {
        let next = "jit list shows the people who have access";
        not_known(&format!("user {user}"), near, next)
    };
    let is_distinguished = !knows_every_address(&tools.config) || near.is_none();
    match user_at_aws(tools, user).await? {
        Some(_) if is_distinguished => Ok(()),
        Some(_) | None => Err(unknown()),
    }
}

fn knows_every_address(config: &Config) -> bool {
    match config.identity_center {
        IdentityCenterConfig::Sandbox => config.sandbox.users.is_empty(),
        IdentityCenterConfig::Aws { .. } => false,
    }
}

/// The user of Identity Center with this address, if there is one.
async fn user_at_aws(tools: &OperatorTools, user: &Email) -> Result<Option<UserId>, Failure> {
    let identity_center = &tools.app.identity_center;
    match identity_center.find_user(Lane::Revoke, user).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == IdentityCenterErrorKind::NoUser => Ok(None),
        Err(error) => Err(not_asked(&error)),
    }
}

fn not_asked(why: &IdentityCenterError) -> Failure {
    Failure::Unconfirmed(format!(
        "AWS did not say what access is left: {why}; run the command again"
    ))
}

/// Asks AWS, and fails if it shows access that the command should have ended. Returns what the
/// operator may rely on.
pub(super) async fn check_none(
    tools: &OperatorTools,
    named: &NamedAccess,
) -> Result<String, Failure> {
    let look = Look::prepare(tools, named).await?;
    if look.places.is_empty() {
        return Err(nowhere(&tools.config));
    }
    let asked = look.places.iter().map(|place| async {
        let identity_center = &tools.app.identity_center;
        identity_center.assignees(Lane::Revoke, place).await
    });
    let answers = join_all(asked).await;
    let (mut left, mut groups) = (Vec::new(), 0);
    for (place, answer) in look.places.iter().zip(answers) {
        for who in answer.map_err(|why| not_asked(&why))?.iter() {
            match who {
                Assignee::User(user) => left.extend(look.judge(tools, place, user).await?),
                Assignee::Group(_) => groups += usize::from(named.user.is_some()),
            }
        }
    }
    let owner = named.owner();
    if left.is_empty() {
        let groups = match groups {
            0 => "",
            1 => "; 1 group has access there, and jit does not know who belongs to it",
            many => &format!(
                "; {many} groups have access there, and jit does not know who belongs to them"
            ),
        };
        return Ok(format!(
            "AWS shows no {owner} (jit asked about {}){groups}",
            asked_about(&look.places)
        ));
    }
    Err(Failure::Unconfirmed(format!(
        "AWS still shows {owner}:\n{}",
        left.join("\n")
    )))
}

/// The scope of an answer: `2 permission sets in 1 account`.
fn asked_about(places: &[AssignmentPlace]) -> String {
    let accounts: BTreeSet<&AccountId> = places.iter().map(|place| &place.account_id).collect();
    let sets: BTreeSet<&PermissionSet> = places.iter().map(|place| &place.permission_set).collect();
    format!(
        "{} in {}",
        counted(sets.len() as u64, "permission set"),
        counted(accounts.len() as u64, "account")
    )
}

/// Without an account there is nothing that jit could ask AWS about, so nothing is confirmed.
fn nowhere(config: &Config) -> Failure {
    Failure::Unconfirmed(format!(
        "jit knows no account, so it did not ask AWS: the store ({}) has no binding and no request \
         that matches, and [accounts] names none; check store.path, or name the account: jit \
         break-glass revoke --user EMAIL --account ID --reason TEXT",
        config.store
    ))
}

/// Where jit looks, and for whom.
struct Look {
    places: Vec<AssignmentPlace>,
    /// All requests of the person, or in the account.
    requests: Vec<Request>,
    /// None if the command names no person.
    users: Option<BTreeSet<UserId>>,
}

impl Look {
    async fn prepare(tools: &OperatorTools, named: &NamedAccess) -> Result<Self, Failure> {
        // Of a record that jit cannot read, AWS shows the access; the log names the record.
        let requests = tools.every(&named.filter()).await.map_err(failed)?.items;
        let accounts = match &named.account {
            Some(account) => BTreeSet::from([account.clone()]),
            None => {
                let mut accounts = bound_accounts(tools).await?.accounts;
                accounts.extend(tools.config.accounts.keys().cloned());
                accounts.extend(requests.iter().map(|one| one.asked.account_id.clone()));
                accounts
            }
        };
        let sets = tools.config.policy.permission_sets.keys().filter(|set| {
            let wanted = named.permission_set.as_ref();
            wanted.is_none_or(|wanted| wanted == *set)
        });
        let everywhere = accounts.iter().flat_map(|account| {
            sets.clone().map(|set| AssignmentPlace {
                account_id: account.clone(),
                permission_set: set.clone(),
            })
        });
        let users = match &named.user {
            Some(user) => Some(users(tools, user, &requests).await?),
            None => None,
        };
        Ok(Self {
            places: everywhere.collect(),
            requests,
            users,
        })
    }

    /// A line about an assignment that AWS shows; none if the command is not about it. In an
    /// account, assignments from outside are usual: they belong to people who do not use jit.
    async fn judge(
        &self,
        tools: &OperatorTools,
        place: &AssignmentPlace,
        user: &UserId,
    ) -> Result<Option<String>, Failure> {
        if self
            .users
            .as_ref()
            .is_some_and(|users| !users.contains(user))
        {
            return Ok(None);
        }
        let key = place.key_of(user);
        let held = tools
            .app
            .service
            .holding(key.clone())
            .await
            .map_err(failed)?;
        let what = format!("{} in {}", place.permission_set, place.account_id);
        if let Some(id) = held.holders.first() {
            return Ok(Some(format!("{what}: a request has it; {}", next(id))));
        }
        let is_its = |request: &&Request| request.holding_key().as_ref() == Some(&key);
        let mut last = None;
        for request in self.requests.iter().filter(is_its) {
            // H1: without a record of the assignment, its history says whether jit asked for it.
            if held.revision > 0 || was_sent(tools, request).await? {
                last = Some(request);
                break;
            }
        }
        Ok(match (last, &self.users) {
            (Some(last), _) => Some(format!("{what}: its request is over; {}", next(&last.id))),
            (None, Some(_)) => Some(format!(
                "{what}: not made by jit, not changed; runbooks/break-glass.md tells how to remove \
                 it by hand"
            )),
            (None, None) => None,
        })
    }
}

/// Whether the create of this request was sent, according to its history.
async fn was_sent(tools: &OperatorTools, request: &Request) -> Result<bool, Failure> {
    let (key, since) = (AuditKey::Request(request.id), request.asked.created_at);
    let events = tools.app.service.events_from(&key, 1, since).await;
    let mut events = events.map_err(failed)?.into_iter();
    Ok(events.any(|event| event.event_type == EventKind::Assigning))
}

fn next(id: &RequestId) -> String {
    format!("end it with: jit break-glass revoke {id} --reason TEXT")
}

/// The user of Identity Center, and the users that earlier requests of the person had.
async fn users(
    tools: &OperatorTools,
    user: &Email,
    requests: &[Request],
) -> Result<BTreeSet<UserId>, Failure> {
    let recorded = requests.iter().filter_map(|one| one.access.user().cloned());
    let mut users: BTreeSet<UserId> = recorded.collect();
    // A person who was deleted, or never had access, is none.
    users.extend(user_at_aws(tools, user).await?);
    Ok(users)
}
