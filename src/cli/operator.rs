//! The store and Identity Center for the commands of an operator, without a server.

use std::io::{BufRead, IsTerminal};
use std::sync::Arc;

use super::serve::failed;
use super::{CliContext, Failure};
use crate::app::{self, App, OpenStoreError, Purpose};
use crate::config::Config;
use crate::domain::{Person, Request, Text};
use crate::identity_center::{IdentityCenterErrorKind, Paced};
use crate::store::{Filter, Found, StoreError};

/// How long jit waits for STS to name the caller.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);
const NO_ANSWER: &str = "STS did not answer";

pub(super) struct OperatorTools {
    pub app: App,
    pub config: Config,
}

impl OperatorTools {
    pub async fn open(context: &CliContext) -> Result<Self, Failure> {
        Self::with(context.config_without_secrets()?, Purpose::Operate).await
    }

    /// To read only: it does not disturb a server on the same store.
    pub async fn open_read_only(context: &CliContext) -> Result<Self, Failure> {
        Self::with(context.config_without_secrets()?, Purpose::Read).await
    }

    async fn with(config: Config, purpose: Purpose) -> Result<Self, Failure> {
        let identity_center = identity_center(&config).await?;
        let operator = Self::with_identity_center(config, identity_center, purpose).await;
        operator.map_err(failed)
    }

    /// With a client of Identity Center that exists already and that works without the store.
    pub async fn with_identity_center(
        config: Config,
        identity_center: Arc<Paced>,
        purpose: Purpose,
    ) -> Result<Self, OpenStoreError> {
        let app = App::open(&config, identity_center, purpose).await?;
        Ok(Self { app, config })
    }

    /// All readable requests. One that is unreadable may have access, so the caller names it.
    pub async fn every(&self, filter: &Filter) -> Result<Found<Request>, StoreError> {
        self.app.service.newest(filter, usize::MAX).await
    }
}

/// Asks the person at the terminal.
pub(super) fn confirm(what: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        let why = "confirmation needs a terminal: check the list, then add --yes";
        return Err(Failure::Usage(why.into()));
    }
    eprint!("{what}? [y/N] ");
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(failed)?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Failed("not confirmed; nothing was changed".into())),
    }
}

pub(super) fn reason(text: &str) -> Result<Text, Failure> {
    let wrong = |why| Failure::Usage(format!("--reason {why}"));
    text.parse().map_err(wrong)
}

pub(super) async fn identity_center(config: &Config) -> Result<Arc<Paced>, Failure> {
    app::identity_center(config).await.map_err(failed)
}

/// The owner of the AWS credentials. If STS does not answer, jit continues; if the
/// credentials are refused, jit stops.
pub(super) async fn credentials(identity_center: &Paced) -> Result<Text, Failure> {
    match tokio::time::timeout(TIMEOUT, identity_center.caller()).await {
        Ok(Ok(arn)) => Ok(Text::clip(&arn)),
        Ok(Err(error)) if error.kind == IdentityCenterErrorKind::Denied => {
            let next = "sign in to AWS first, or set AWS_PROFILE";
            let why = format!("AWS does not accept these credentials: {error}; {next}");
            Err(Failure::Failed(why))
        }
        Ok(Err(error)) if error.kind == IdentityCenterErrorKind::Unsent => {
            Err(Failure::Failed(error.to_string()))
        }
        Ok(Err(_)) | Err(_) => Ok(Text::clip(&format!("unknown: {NO_ANSWER}"))),
    }
}

/// The person who acts: from --as, or from the credentials.
pub(super) fn operator(context: &CliContext, credentials: &Text) -> Result<Person, Failure> {
    if let Some(person) = context.acting.person_if_said()? {
        return Ok(person);
    }
    let derived = person_of(credentials.as_str());
    derived.ok_or_else(|| {
        let why = match credentials.as_str().ends_with(NO_ANSWER) {
            true => NO_ANSWER.to_owned(),
            false => format!("{credentials} names no person"),
        };
        Failure::Usage(format!("jit does not know who acts: {why}; add --as EMAIL"))
    })
}

/// A session of Identity Center has the e-mail address of the person as its name; any other
/// name belongs to a user or role of that account.
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
    fn the_person_is_derived_from_the_arn_of_the_credentials() {
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
