//! `jit reconcile`: compares the records with Identity Center.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;

use super::differences::{Difference, LeftAccess, print_findings};
use super::operator::{OperatorTools, confirm, credentials};
use super::output::{progress, tell};
use super::serve::failed;
use super::{CliContext, Failure};
use crate::domain::{
    AccountId, Command, Holding, HoldingKey, Lane, Millis, Person, Presence, Request, RequestId,
    State, Status, Text, Timestamp, UserId,
};
use crate::identity_center::{Assignee, AssignmentPlace, IdentityCenterErrorKind};
use crate::service::ServiceError;
use crate::store::{Filter, StoreError, Unreadable};
use crate::worker::{ProveError, Remains};

const PAGE: usize = 200;
/// A server begins each removal at its end, within much less than this.
const BEGINS_WITHIN: Millis = Millis::seconds(10);
/// A lease and the pause after a failed attempt are shorter.
const WORKS_WITHIN: Millis = Millis::minutes(10);

/// The action of the command on access that is over in jit and exists in AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    Nothing,
    /// Remove it after the operator has confirmed the list.
    Ask,
    /// Remove it without a question.
    Yes,
}

pub(super) async fn reconcile(context: &CliContext, fix: Fix) -> Result<(), Failure> {
    let tools = match fix {
        Fix::Ask | Fix::Yes => OperatorTools::open(context).await?,
        Fix::Nothing => OperatorTools::open_read_only(context).await?,
    };
    let mut comparison = Comparison::begin(&tools).await?;
    let places = comparison.places();
    let bar = progress(places.len());
    for place in &places {
        bar.set_message(format!("{} {}", place.account_id, place.permission_set));
        comparison.compare(place).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut findings = comparison.into_findings();
    let confirmed = match fix {
        Fix::Nothing => Ok(()),
        Fix::Ask | Fix::Yes => confirmed(&findings, fix),
    };
    if fix != Fix::Nothing && confirmed.is_ok() {
        remove_left(context, &tools, &mut findings).await?;
    }
    let printed = print_findings(context, places.len(), &findings);
    confirmed.and(printed)
}

/// P4: AWS does not say who made an assignment, so the operator confirms each one by name.
fn confirmed(findings: &[Difference], fix: Fix) -> Result<(), Failure> {
    let left: Vec<String> = findings
        .iter()
        .filter_map(|finding| match finding {
            Difference::Left(left) => Some(left.described()),
            _ => None,
        })
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    tell(&format!(
        "removes these assignments. AWS does not say who made an assignment: a person may \
         have made one after jit removed its own. To remove only some of them: jit break-glass \
         revoke ID --reason TEXT\n{}",
        left.join("\n")
    ));
    match fix {
        Fix::Yes => Ok(()),
        Fix::Ask | Fix::Nothing => confirm(&format!("remove {} assignments", left.len())),
    }
}

/// Removes each access that is left, and puts the result in its place.
async fn remove_left(
    context: &CliContext,
    tools: &OperatorTools,
    findings: &mut [Difference],
) -> Result<(), Failure> {
    let mut operator = None;
    for finding in findings {
        if let Difference::Left(left) = finding {
            let operator = match &operator {
                Some(operator) => operator,
                None => operator.insert(Operator::of(context, tools).await?),
            };
            *finding = remove(operator, tools, left).await?;
        }
    }
    Ok(())
}

/// The operator who removes the access. B4: the audit records the AWS credentials too, because
/// anyone can write a name after `--as`.
struct Operator {
    by: Option<Person>,
    credentials: Text,
}

impl Operator {
    async fn of(context: &CliContext, tools: &OperatorTools) -> Result<Self, Failure> {
        Ok(Self {
            by: context.acting.person_if_said()?,
            credentials: credentials(&tools.app.identity_center).await?,
        })
    }
}

async fn remove(
    operator: &Operator,
    tools: &OperatorTools,
    left: &LeftAccess,
) -> Result<Difference, Failure> {
    let (request, revision) = (left.request, left.revision);
    let found = Command::FoundPresent {
        by: operator.by.clone(),
        credentials: operator.credentials.clone(),
        revision,
    };
    let removed = async {
        tools.app.service.handle(request, found, None).await?;
        let never = CancellationToken::new();
        let told = |_: &Request| {};
        tools.app.worker.follow_to_end(request, &never, told).await
    };
    match removed.await {
        Ok(ended) => Ok(if let State::Error(end) = ended.state {
            let why = end.why.to_string();
            Difference::NotRemoved { request, why }
        } else {
            Difference::Removed { request }
        }),
        Err(error @ (ServiceError::Refused(_) | ServiceError::Store(StoreError::Corrupt(_)))) => {
            let why = error.to_string();
            Ok(Difference::NotRemoved { request, why })
        }
        Err(error) => Err(failed(error)),
    }
}

/// The accounts that are bound to a channel, also those of bindings that jit cannot read.
pub(super) struct BoundAccounts {
    pub accounts: BTreeSet<AccountId>,
    unreadable: Vec<Unreadable>,
}

pub(super) async fn bound_accounts(tools: &OperatorTools) -> Result<BoundAccounts, Failure> {
    let mut bound = BoundAccounts {
        accounts: BTreeSet::new(),
        unreadable: Vec::new(),
    };
    let mut after: Option<AccountId> = None;
    loop {
        let page = tools.app.service.all_bindings(after.as_ref(), PAGE).await;
        let page = page.map_err(failed)?;
        // The name of a binding ends with its account.
        let named = page.unreadable.iter().filter_map(|one| {
            let account = one.name.rsplit([' ', '#']).next()?;
            account.parse::<AccountId>().ok()
        });
        bound.accounts.extend(named);
        after = page.last().map(|last| last.account_id.clone());
        bound.unreadable.extend(page.unreadable);
        let accounts = page.items.into_iter().map(|binding| binding.account_id);
        bound.accounts.extend(accounts);
        if after.is_none() {
            return Ok(bound);
        }
    }
}

/// Every granted request, by its assignment.
type Live = BTreeMap<HoldingKey, RequestId>;

struct Comparison<'t> {
    tools: &'t OperatorTools,
    accounts: BTreeSet<AccountId>,
    live: Live,
    findings: Vec<Difference>,
    /// K12: the records that were skipped, with what is wrong with them.
    unreadable: BTreeMap<String, String>,
}

impl<'t> Comparison<'t> {
    /// Reads the records.
    async fn begin(tools: &'t OperatorTools) -> Result<Self, Failure> {
        let bound = bound_accounts(tools).await?;
        let mut comparison = Self {
            tools,
            accounts: bound.accounts,
            live: Live::new(),
            findings: Vec::new(),
            unreadable: BTreeMap::new(),
        };
        comparison.skip(bound.unreadable);
        for status in [Status::Granted, Status::Error] {
            let requests = comparison.requests(&of_status(status)).await?;
            comparison.findings.extend(failing(&requests));
            let now = tools.app.service.clock().now();
            comparison.findings.extend(overdue(&requests, now));
            // A request that jit checks has the status ERROR, and no access.
            if status == Status::Granted {
                let live = requests
                    .into_iter()
                    .filter_map(|request| Some((request.holding_key()?, request.id)));
                comparison.live.extend(live);
            }
        }
        let live = comparison.live.keys().map(|key| key.account_id.clone());
        comparison.accounts.extend(live);
        comparison.add_accounts_of_ends().await?;
        Ok(comparison)
    }

    /// The status of an end that a worker has yet to verify is that of any ended request, and its
    /// account may be bound no more. A worker must work on it soon.
    async fn add_accounts_of_ends(&mut self) -> Result<(), Failure> {
        let due = self.tools.app.worker.removals_within(WORKS_WITHIN).await;
        for id in due.map_err(failed)? {
            let read = self.tools.app.service.request(id).await;
            let read = self.readable(&id.to_string(), read)?;
            let ending = read.filter(|one| one.state.must_end());
            let account = ending.map(|one| one.asked.account_id);
            self.accounts.extend(account);
        }
        Ok(())
    }

    fn skip(&mut self, unreadable: Vec<Unreadable>) {
        let named = unreadable.into_iter().map(|one| (one.name, one.why));
        self.unreadable.extend(named);
    }

    async fn requests(&mut self, filter: &Filter) -> Result<Vec<Request>, Failure> {
        let found = self.tools.every(filter).await.map_err(failed)?;
        self.skip(found.unreadable);
        Ok(found.items)
    }

    /// None, and the record is named, if jit cannot read it.
    fn readable<T>(
        &mut self,
        name: &str,
        read: Result<T, ServiceError>,
    ) -> Result<Option<T>, Failure> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(ServiceError::Store(StoreError::Corrupt(why))) => {
                self.unreadable.insert(name.to_owned(), why);
                Ok(None)
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn holding(&mut self, key: &HoldingKey) -> Result<Option<Holding>, Failure> {
        let held = self.tools.app.service.holding(key.clone()).await;
        let name = format!("the record of the assignment {key}");
        self.readable(&name, held.map_err(ServiceError::from))
    }

    /// Every bound account and every account with live access, with every known permission set.
    fn places(&self) -> Vec<AssignmentPlace> {
        let sets = self.tools.config.policy.permission_sets.keys();
        let everywhere = self.accounts.iter().flat_map(|account| {
            sets.clone().map(|set| AssignmentPlace {
                account_id: account.clone(),
                permission_set: set.clone(),
            })
        });
        everywhere.collect()
    }

    async fn compare(&mut self, place: &AssignmentPlace) -> Result<(), Failure> {
        let identity_center = &self.tools.app.identity_center;
        let there = match identity_center.assignees(Lane::Other, place).await {
            Ok(there) => there,
            // About this account or set only, for example a closed account.
            Err(error)
                if matches!(
                    error.kind,
                    IdentityCenterErrorKind::Invalid | IdentityCenterErrorKind::NoSuchSet
                ) =>
            {
                let (place, why) = (place.clone(), error.to_string());
                self.findings.push(Difference::NotCompared { place, why });
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        for who in there.iter() {
            let found = match who {
                Assignee::User(user) => self.unheld(place, user).await?,
                Assignee::Group(_) => vec![foreign(place, who)],
            };
            self.findings.extend(found);
        }
        let here: Vec<(HoldingKey, RequestId)> = self
            .live
            .iter()
            .filter(|(key, _)| AssignmentPlace::of(key) == *place)
            .map(|(key, request)| (key.clone(), *request))
            .collect();
        for (key, request) in here {
            let shown = there.contains(&Assignee::User(key.user.clone()));
            if !shown && self.is_missing(&key, request).await? {
                self.findings.push(Difference::Missing { request });
            }
        }
        Ok(())
    }

    /// For an assignment that AWS shows: none if a request may have it, the holders that must end
    /// it, or the last holder.
    async fn unheld(
        &mut self,
        place: &AssignmentPlace,
        user: &UserId,
    ) -> Result<Vec<Difference>, Failure> {
        let key = place.key_of(user);
        let who = Assignee::User(user.clone());
        let Some(held) = self.holding(&key).await? else {
            return Ok(vec![unclear(place, who)]);
        };
        if !held.holders.is_empty() {
            return self.ending(&held).await;
        }
        if held.revision == 0 {
            return Ok(vec![foreign(place, &who)]);
        }
        // A grant that ended during the comparison existed when AWS answered.
        let remains = self.tools.app.worker.remains_of(Lane::Other, &key).await;
        let remains = match remains {
            Err(ProveError::Service(error)) => Err(error),
            Err(ProveError::IdentityCenter(error)) => return Err(failed(error)),
            Ok(remains) => Ok(remains),
        };
        let name = format!("the record of the assignment {key}");
        let revision = match self.readable(&name, remains)? {
            Some(Remains::Unheld { revision }) => revision,
            Some(Remains::Nothing | Remains::HeldBy(_)) => return Ok(Vec::new()),
            None => return Ok(vec![unclear(place, who)]),
        };
        let filter = Filter {
            account_id: Some(key.account_id.clone()),
            ..Filter::default()
        };
        let found = self.tools.every(&filter).await.map_err(failed)?;
        let is_whole = found.unreadable.is_empty();
        self.skip(found.unreadable);
        let has_key = |request: &&Request| request.holding_key().as_ref() == Some(&key);
        Ok(vec![match found.items.iter().find(has_key) {
            // P4: jit refused the assignment as one from outside, or saw that it was gone.
            Some(last) if matches!(last.state, State::Error(_)) => foreign(place, &who),
            Some(last) => Difference::Left(LeftAccess::of(last, revision)),
            None if is_whole => foreign(place, &who),
            None => unclear(place, who),
        }])
    }

    /// For an assignment that AWS shows: the holders that must end it, if no holder may have it.
    async fn ending(&mut self, held: &Holding) -> Result<Vec<Difference>, Failure> {
        let mut ending = Vec::new();
        for id in &held.holders {
            let read = self.tools.app.service.request(*id).await;
            let Some(holder) = self.readable(&id.to_string(), read)? else {
                return Ok(Vec::new());
            };
            if !holder.state.must_end() {
                return Ok(Vec::new());
            }
            if !self.names(*id) {
                let (request, status) = (holder.id, holder.status());
                let going = Difference::Ending { request, status };
                ending.push(failed_attempt(&holder).unwrap_or(going));
            }
        }
        Ok(ending)
    }

    /// Whether the records alone showed that the access of this request must go.
    fn names(&self, id: RequestId) -> bool {
        self.findings.iter().any(|one| {
            matches!(one, Difference::Failing { request, .. } | Difference::Overdue { request, .. }
                if *request == id)
        })
    }

    /// Not for a grant that was made just now, or that is being removed.
    async fn is_missing(&mut self, key: &HoldingKey, id: RequestId) -> Result<bool, Failure> {
        let now = self.tools.app.service.request(id).await;
        let now = self.readable(&id.to_string(), now)?;
        if now.is_none_or(|now| now.state != State::Granted) {
            return Ok(false);
        }
        let again = self.tools.app.identity_center.look(Lane::Other, key).await;
        Ok(again.map_err(failed)? == Presence::Absent)
    }

    fn into_findings(self) -> Vec<Difference> {
        let unreadable = self.unreadable.into_iter();
        let unreadable = unreadable.map(|(name, why)| Difference::Unreadable { name, why });
        self.findings.into_iter().chain(unreadable).collect()
    }
}

fn of_status(status: Status) -> Filter {
    Filter {
        status: Some(status),
        ..Filter::default()
    }
}

/// The removals whose last attempt failed, also if AWS shows no assignment.
fn failing(requests: &[Request]) -> Vec<Difference> {
    let is_removing = |request: &&Request| {
        matches!(
            request.state,
            State::Removing { .. } | State::Checking { .. }
        )
    };
    let removing = requests.iter().filter(is_removing);
    removing.filter_map(failed_attempt).collect()
}

fn failed_attempt(request: &Request) -> Option<Difference> {
    let failing = request.schedule.failures.as_ref()?;
    Some(Difference::Failing {
        request: request.id,
        attempts: failing.attempts,
        why: failing.why.to_string(),
    })
}

/// The grants whose end is over. The worker begins a removal within moments.
fn overdue(requests: &[Request], now: Timestamp) -> Vec<Difference> {
    let granted = requests.iter().filter(|one| one.state == State::Granted);
    let overdue = granted.filter_map(|request| {
        let until = request.grant.period?.until;
        let request = request.id;
        (now - until > BEGINS_WITHIN).then_some(Difference::Overdue { request, until })
    });
    overdue.collect()
}

fn foreign(place: &AssignmentPlace, who: &Assignee) -> Difference {
    Difference::Foreign {
        place: place.clone(),
        who: who.clone(),
    }
}

fn unclear(place: &AssignmentPlace, who: Assignee) -> Difference {
    Difference::Unclear {
        place: place.clone(),
        who,
    }
}
