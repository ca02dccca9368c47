//! What an operator's command works with: the store and Identity Center without a server between.

use std::sync::Arc;

use super::serve::failed;
use super::{CliContext, Failure};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::{HoldingKey, Lane, Person, Presence, Request, RequestId, Text};
use crate::identity_center::{IdentityCenterErrorKind, Paced};
use crate::serve::{self, OpenStoreError, Purpose};
use crate::service::{Announce, Service};
use crate::store::{Filter, StoreError};
use crate::worker::Worker;

/// How long STS may take to say who calls.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);

pub(super) struct OperatorTools {
    pub service: Arc<Service>,
    pub access: Arc<Paced>,
    pub worker: Worker,
    pub config: Config,
}

impl OperatorTools {
    pub async fn take(context: &CliContext) -> Result<Self, Failure> {
        Self::with(context.config_without_secrets()?, Purpose::Operate).await
    }

    /// To look only: a server on the same store is not disturbed.
    pub async fn keep_off(context: &CliContext) -> Result<Self, Failure> {
        Self::with(context.config_without_secrets()?, Purpose::Look).await
    }

    async fn with(config: Config, purpose: Purpose) -> Result<Self, Failure> {
        let access = access(&config).await?;
        let operator = Self::with_access(config, access, purpose).await;
        operator.map_err(failed)
    }

    /// With what AWS can be asked by, whatever the store does.
    pub async fn with_access(
        config: Config,
        access: Arc<Paced>,
        purpose: Purpose,
    ) -> Result<Self, OpenStoreError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = serve::store(&config.store, purpose, &clock).await?;
        let announce = Announce::to(config.webhook.as_ref(), config.mattermost.as_ref());
        let service = Service::new(store, clock, config.policy.clone(), announce);
        let service = Arc::new(service);
        Ok(Self {
            worker: Worker::new(service.clone(), access.clone()).of_an_operator(),
            service,
            access,
            config,
        })
    }

    /// Whether AWS has it and nobody here holds it.
    pub async fn stands_unheld(&self, lane: Lane, key: &HoldingKey) -> Result<bool, Failure> {
        let seen = self.access.look(lane, key).await.map_err(failed)?;
        let held = self.service.holding(key.clone()).await.map_err(failed)?;
        Ok(seen == Presence::Present && held.holders.is_empty())
    }

    pub async fn every(&self, filter: &Filter) -> Result<Vec<Request>, StoreError> {
        // What is left out here may be access that stands.
        self.service.newest(filter, usize::MAX).await?.whole()
    }
}

pub(super) fn reason(text: &str) -> Result<Text, Failure> {
    let wrong = |why| Failure::Usage(format!("--reason {why}"));
    text.parse().map_err(wrong)
}

pub(super) fn id(text: &str) -> Result<RequestId, Failure> {
    let wrong = |why| Failure::Usage(format!("{text:?} {why}"));
    text.parse().map_err(wrong)
}

pub(super) async fn access(config: &Config) -> Result<Arc<Paced>, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (which, sandbox) = (config.identity_center.clone(), config.sandbox.clone());
    let access = serve::identity_center(which, sandbox, &clock).await;
    Ok(Arc::new(access.map_err(failed)?))
}

/// Whose AWS credentials these are. That nobody tells is no reason to leave access where
/// it is; that there are none is.
pub(super) async fn credentials(access: &Paced) -> Result<Text, Failure> {
    match tokio::time::timeout(PATIENCE, access.caller()).await {
        Ok(Ok(arn)) => Ok(Text::clip(&arn)),
        Ok(Err(error)) if error.kind == IdentityCenterErrorKind::Denied => {
            let next = "sign in to AWS first, or say which profile: AWS_PROFILE=…";
            let why = format!("AWS does not know who calls: {error}; {next}");
            Err(Failure::Failed(why))
        }
        _ => Ok(Text::clip("somebody whom STS did not name")),
    }
}

/// Who does it: as said, or else as the credentials say.
pub(super) fn operator(context: &CliContext, credentials: &Text) -> Result<Person, Failure> {
    if let Some(person) = context.acting.person_if_said()? {
        return Ok(person);
    }
    let derived = person_of(credentials.as_str());
    derived.ok_or_else(|| {
        let why = format!("{credentials:?} names nobody: say who acts with --as EMAIL");
        Failure::Usage(why)
    })
}

/// A session of Identity Center's is named by the person's address; any other name is
/// somebody in that account.
fn person_of(arn: &str) -> Option<Person> {
    let account = arn.split(':').nth(4)?;
    let name = arn.rsplit(['/', ':']).next()?;
    let email = match name.contains('@') {
        true => name.parse(),
        false => format!("{name}@{account}.aws").parse(),
    };
    let id: String = name
        .split('@')
        .next()?
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(64)
        .collect();
    Some(Person {
        id: id.parse().ok()?,
        email: email.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::person_of;

    #[test]
    fn credentials_say_who_acts() {
        for (arn, id, email) in [
            (
                "arn:aws:sts::111111111111:assumed-role/AWSReservedSSO_Sec_0f/dana.d@example.com",
                "dana-d",
                "dana.d@example.com",
            ),
            (
                "arn:aws:iam::111111111111:user/ops/dana",
                "dana",
                "dana@111111111111.aws",
            ),
            (
                "arn:aws:iam::111111111111:root",
                "root",
                "root@111111111111.aws",
            ),
        ] {
            let person = person_of(arn).unwrap();
            assert_eq!((person.id.as_str(), person.email.as_str()), (id, email));
        }
        assert_eq!(person_of("the simulated Identity Center"), None);
    }
}
