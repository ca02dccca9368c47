//! Identity Center at AWS, through the AWS SDK: one method is one call. The SDK retries
//! nothing: the caller decides about retries.

mod errors;
mod inspect;

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_sdk_identitystore::Client as People;
use aws_sdk_identitystore::config::timeout::TimeoutConfig;
use aws_sdk_identitystore::operation::get_user_id::GetUserIdError;
use aws_sdk_identitystore::types::{AlternateIdentifier, ResourceType, UniqueAttribute};
use aws_sdk_ssoadmin::Client as Assignments;
use aws_sdk_ssoadmin::config::retry::RetryConfig;
use aws_sdk_ssoadmin::types::{
    AccountAssignmentOperationStatus, AccountAssignmentOperationStatusMetadata,
    OperationStatusFilter, PrincipalType, ProvisionTargetType, StatusValues, TargetType,
};
use aws_sdk_sts::Client as Identity;
use metrics::counter;

use super::{
    Assignee, AssignmentPlace, CALL_PATIENCE, Deletion, IdentityCenter, IdentityCenterError,
    IdentityCenterErrorKind, Operation, OperationKind, Page, Progress, Provisioning, UserAttribute,
    progress_of_failure,
};
use crate::domain::{Email, HoldingKey, Millis, PermissionSet, UserId};
use errors::{is_absent, unexpected};
pub use inspect::{Finding, Verdict};

/// The longest page of a list call.
const PAGE: i32 = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityCenterOptions {
    pub instance_arn: String,
    pub identity_store_id: String,
    /// Name and ARN of every configured permission set.
    pub permission_sets: BTreeMap<PermissionSet, String>,
}

pub struct SsoIdentityCenter {
    options: IdentityCenterOptions,
    assignments: Assignments,
    people: People,
    /// jit's own AWS identity.
    own: Identity,
    region: Option<String>,
}

type CallResult<T> = Result<T, IdentityCenterError>;

impl SsoIdentityCenter {
    /// Uses the region, credentials and endpoints of the AWS SDK's environment.
    pub async fn connect(options: IdentityCenterOptions) -> Self {
        Self::new(options, &environment().load().await)
    }

    pub fn new(options: IdentityCenterOptions, config: &SdkConfig) -> Self {
        Self {
            assignments: Assignments::new(config),
            people: People::new(config),
            own: Identity::new(config),
            region: config.region().map(ToString::to_string),
            options,
        }
    }

    fn arn(&self, set: &PermissionSet) -> CallResult<&str> {
        let arn = self.options.permission_sets.get(set);
        arn.map(String::as_str).ok_or_else(|| {
            let why = format!(
                "permission set {set} is no longer configured: put it back under \
                 [permission_sets] in jit.toml"
            );
            IdentityCenterError::new(IdentityCenterErrorKind::Denied, why)
        })
    }
}

/// The AWS SDK's environment. `CALL_PATIENCE` begins at the last check before a call, and the SDK
/// connects and signs after that: its timeout leaves two seconds for the way to AWS.
pub fn environment() -> ConfigLoader {
    let timeout = Millis(CALL_PATIENCE.0 - Millis::seconds(2).0).std();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(timeout / 3)
        .operation_timeout(timeout)
        .build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
}

/// Counts the result of a call under its name at AWS.
async fn counted<T>(
    action: &'static str,
    call: impl Future<Output = CallResult<T>>,
) -> CallResult<T> {
    let answer = call.await;
    let outcome = match &answer {
        Ok(_) => "ok",
        Err(error) => match error.kind {
            IdentityCenterErrorKind::Conflict => "conflict",
            IdentityCenterErrorKind::Throttled => "throttled",
            IdentityCenterErrorKind::NoAnswer => "no_answer",
            IdentityCenterErrorKind::Denied => "denied",
            IdentityCenterErrorKind::Unsent => "not_sent",
            IdentityCenterErrorKind::NoUser => "no_user",
            IdentityCenterErrorKind::NoSuchSet => "no_such_set",
            IdentityCenterErrorKind::Invalid => "invalid",
        },
    };
    counter!("jit_aws_calls_total", "action" => action, "outcome" => outcome).increment(1);
    answer
}

#[async_trait]
impl IdentityCenter for SsoIdentityCenter {
    async fn caller(&self) -> CallResult<String> {
        counted("GetCallerIdentity", self.get_caller_identity()).await
    }

    fn permission_set_arn(&self, set: &PermissionSet) -> CallResult<String> {
        self.arn(set).map(str::to_owned)
    }

    async fn find_user(&self, email: &Email, by: UserAttribute) -> CallResult<Option<UserId>> {
        counted("GetUserId", self.get_user_id(email, by)).await
    }

    async fn assigned(
        &self,
        place: &AssignmentPlace,
        after: Option<&str>,
    ) -> CallResult<Page<Assignee>> {
        counted("ListAccountAssignments", self.list(place, after)).await
    }

    async fn create(&self, key: &HoldingKey) -> CallResult<Operation> {
        counted("CreateAccountAssignment", self.begin_create(key)).await
    }

    async fn delete(&self, key: &HoldingKey) -> CallResult<Deletion> {
        counted("DeleteAccountAssignment", self.begin_delete(key)).await
    }

    async fn poll(&self, operation: &Operation) -> CallResult<Progress> {
        let action = match operation.kind {
            OperationKind::Create => "DescribeAccountAssignmentCreationStatus",
            OperationKind::Delete => "DescribeAccountAssignmentDeletionStatus",
        };
        counted(action, self.describe(operation)).await
    }

    async fn session_duration(&self, set: &PermissionSet) -> CallResult<Millis> {
        counted("DescribePermissionSet", self.describe_set(set)).await
    }

    async fn inline_policy(&self, set: &PermissionSet) -> CallResult<Option<String>> {
        counted("GetInlinePolicyForPermissionSet", self.get_policy(set)).await
    }

    async fn set_inline_policy(&self, set: &PermissionSet, policy: Option<&str>) -> CallResult<()> {
        match policy {
            Some(policy) => {
                let put = self.put_policy(set, policy);
                counted("PutInlinePolicyToPermissionSet", put).await
            }
            None => {
                let delete = self.delete_policy(set);
                counted("DeleteInlinePolicyFromPermissionSet", delete).await
            }
        }
    }

    async fn provision(&self, place: &AssignmentPlace) -> CallResult<Provisioning> {
        counted("ProvisionPermissionSet", self.begin_provisioning(place)).await
    }

    async fn provisioned(&self, provisioning: &Provisioning) -> CallResult<Progress> {
        let describe = self.describe_provisioning(provisioning);
        counted("DescribePermissionSetProvisioningStatus", describe).await
    }

    async fn under_way(
        &self,
        kind: OperationKind,
        after: Option<&str>,
    ) -> CallResult<Page<String>> {
        let action = match kind {
            OperationKind::Create => "ListAccountAssignmentCreationStatus",
            OperationKind::Delete => "ListAccountAssignmentDeletionStatus",
        };
        counted(action, self.list_under_way(kind, after)).await
    }
}

impl SsoIdentityCenter {
    /// The ARN of jit's identity.
    async fn get_caller_identity(&self) -> CallResult<String> {
        let identity = self.own.get_caller_identity().send().await?;
        Ok(identity.arn.unwrap_or_default())
    }

    async fn get_user_id(&self, email: &Email, by: UserAttribute) -> CallResult<Option<UserId>> {
        let path = match by {
            UserAttribute::UserName => "userName",
            UserAttribute::Email => "emails.value",
        };
        let attribute = UniqueAttribute::builder()
            .attribute_path(path)
            .attribute_value(email.as_str().into())
            .build()
            .map_err(|why| unexpected(&why))?;
        let asked = self
            .people
            .get_user_id()
            .identity_store_id(&self.options.identity_store_id)
            .alternate_identifier(AlternateIdentifier::UniqueAttribute(attribute));
        match asked.send().await {
            Ok(found) => parsed(Some(found.user_id())).map(Some),
            Err(error) if is_absent(&error) => match error.as_service_error() {
                // There is no such user; the identity store itself exists.
                Some(GetUserIdError::ResourceNotFoundException(why))
                    if why.resource_type() == Some(&ResourceType::IdentityStore) =>
                {
                    let why =
                        "there is no such identity store: see identity_center.identity_store_id";
                    Err(IdentityCenterError::new(
                        IdentityCenterErrorKind::Denied,
                        why,
                    ))
                }
                _ => Ok(None),
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn list(
        &self,
        place: &AssignmentPlace,
        after: Option<&str>,
    ) -> CallResult<Page<Assignee>> {
        let listed = self
            .assignments
            .list_account_assignments()
            .instance_arn(&self.options.instance_arn)
            .account_id(place.account_id.as_str())
            .permission_set_arn(self.arn(&place.permission_set)?)
            .max_results(PAGE)
            .set_next_token(after.map(str::to_owned))
            .send()
            .await;
        let listed = match listed {
            Err(error) if is_absent(&error) => {
                self.check_instance().await?;
                self.check_set(&place.permission_set).await?;
                let (items, next) = (Vec::new(), None);
                return Ok(Page { items, next });
            }
            listed => listed?,
        };
        let mut items = Vec::new();
        for one in listed.account_assignments() {
            let id = one.principal_id();
            items.push(match one.principal_type() {
                Some(PrincipalType::User) => Assignee::User(parsed(id)?),
                _ => Assignee::Group(id.unwrap_or_default().to_owned()),
            });
        }
        Ok(Page {
            items,
            next: listed.next_token,
        })
    }

    /// Whether AWS finds the permission set. A set that is not found was deleted or never existed
    /// under this ARN; only the caller knows which.
    async fn check_set(&self, set: &PermissionSet) -> CallResult<()> {
        let described = self
            .assignments
            .describe_permission_set()
            .instance_arn(&self.options.instance_arn)
            .permission_set_arn(self.arn(set)?)
            .send()
            .await;
        match described {
            Ok(_) => Ok(()),
            Err(error) if is_absent(&error) => {
                let why = format!("AWS has no permission set {}", self.arn(set)?);
                Err(IdentityCenterError::new(
                    IdentityCenterErrorKind::NoSuchSet,
                    why,
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// K15: "not found" as the answer of a list call means that the account or the permission set
    /// does not exist any more. But if AWS does not find the instance, it proves nothing.
    async fn check_instance(&self) -> CallResult<()> {
        let listed = self.assignments.list_instances().send().await?;
        let ours = Some(self.options.instance_arn.as_str());
        if listed
            .instances()
            .iter()
            .any(|one| one.instance_arn() == ours)
        {
            return Ok(());
        }
        let why = "AWS does not find the instance: check identity_center.instance_arn and the \
                   AWS region; until then no access counts as gone";
        Err(IdentityCenterError::new(
            IdentityCenterErrorKind::Denied,
            why,
        ))
    }

    async fn begin_create(&self, key: &HoldingKey) -> CallResult<Operation> {
        let created = self
            .assignments
            .create_account_assignment()
            .instance_arn(&self.options.instance_arn)
            .permission_set_arn(self.arn(&key.permission_set)?)
            .target_type(TargetType::AwsAccount)
            .target_id(key.account_id.as_str())
            .principal_type(PrincipalType::User)
            .principal_id(key.user.as_str())
            .send()
            .await?;
        begun(
            OperationKind::Create,
            created.account_assignment_creation_status,
        )
    }

    async fn begin_delete(&self, key: &HoldingKey) -> CallResult<Deletion> {
        let deleted = self
            .assignments
            .delete_account_assignment()
            .instance_arn(&self.options.instance_arn)
            .permission_set_arn(self.arn(&key.permission_set)?)
            .target_type(TargetType::AwsAccount)
            .target_id(key.account_id.as_str())
            .principal_type(PrincipalType::User)
            .principal_id(key.user.as_str())
            .send()
            .await;
        match deleted {
            Ok(deleted) => begun(
                OperationKind::Delete,
                deleted.account_assignment_deletion_status,
            )
            .map(Deletion::Started),
            Err(error) if is_absent(&error) => Ok(Deletion::NothingThere),
            Err(error) => Err(error.into()),
        }
    }

    async fn describe(&self, operation: &Operation) -> CallResult<Progress> {
        let (instance, id) = (&self.options.instance_arn, &operation.id);
        let status = match operation.kind {
            OperationKind::Create => {
                self.assignments
                    .describe_account_assignment_creation_status()
                    .instance_arn(instance)
                    .account_assignment_creation_request_id(id)
                    .send()
                    .await?
                    .account_assignment_creation_status
            }
            OperationKind::Delete => {
                self.assignments
                    .describe_account_assignment_deletion_status()
                    .instance_arn(instance)
                    .account_assignment_deletion_request_id(id)
                    .send()
                    .await?
                    .account_assignment_deletion_status
            }
        };
        let status = status.ok_or_else(|| unexpected("a status without content"))?;
        Ok(match progress(status.status(), status.failure_reason())? {
            Progress::Failed { why } => progress_of_failure(operation.kind, why),
            progress => progress,
        })
    }

    async fn describe_set(&self, set: &PermissionSet) -> CallResult<Millis> {
        let described = self
            .assignments
            .describe_permission_set()
            .instance_arn(&self.options.instance_arn)
            .permission_set_arn(self.arn(set)?)
            .send()
            .await?;
        let duration = described
            .permission_set
            .and_then(|set| set.session_duration);
        // The default of AWS for a set without a session duration.
        let duration = duration.unwrap_or_else(|| "PT1H".into());
        iso_duration(&duration).ok_or_else(|| unexpected(format!("the duration {duration:?}")))
    }

    async fn get_policy(&self, set: &PermissionSet) -> CallResult<Option<String>> {
        let found = self
            .assignments
            .get_inline_policy_for_permission_set()
            .instance_arn(&self.options.instance_arn)
            .permission_set_arn(self.arn(set)?)
            .send()
            .await?;
        Ok(found.inline_policy.filter(|policy| !policy.is_empty()))
    }

    async fn put_policy(&self, set: &PermissionSet, policy: &str) -> CallResult<()> {
        self.assignments
            .put_inline_policy_to_permission_set()
            .instance_arn(&self.options.instance_arn)
            .permission_set_arn(self.arn(set)?)
            .inline_policy(policy)
            .send()
            .await?;
        Ok(())
    }

    async fn delete_policy(&self, set: &PermissionSet) -> CallResult<()> {
        self.assignments
            .delete_inline_policy_from_permission_set()
            .instance_arn(&self.options.instance_arn)
            .permission_set_arn(self.arn(set)?)
            .send()
            .await?;
        Ok(())
    }

    async fn begin_provisioning(&self, place: &AssignmentPlace) -> CallResult<Provisioning> {
        let begun = self
            .assignments
            .provision_permission_set()
            .instance_arn(&self.options.instance_arn)
            .permission_set_arn(self.arn(&place.permission_set)?)
            .target_type(ProvisionTargetType::AwsAccount)
            .target_id(place.account_id.as_str())
            .send()
            .await?;
        let status = begun.permission_set_provisioning_status;
        let id = status.and_then(|status| status.request_id);
        id.map(Provisioning)
            .ok_or_else(|| unexpected("an accepted call without a request id"))
    }

    async fn describe_provisioning(&self, provisioning: &Provisioning) -> CallResult<Progress> {
        let described = self
            .assignments
            .describe_permission_set_provisioning_status()
            .instance_arn(&self.options.instance_arn)
            .provision_permission_set_request_id(&provisioning.0)
            .send()
            .await?;
        let status = described.permission_set_provisioning_status;
        let status = status.ok_or_else(|| unexpected("a status without content"))?;
        progress(status.status(), status.failure_reason())
    }

    async fn list_under_way(
        &self,
        kind: OperationKind,
        after: Option<&str>,
    ) -> CallResult<Page<String>> {
        let filter = OperationStatusFilter::builder()
            .status(StatusValues::InProgress)
            .build();
        let (instance, after) = (&self.options.instance_arn, after.map(str::to_owned));
        let (statuses, next) = match kind {
            OperationKind::Create => {
                let listed = self
                    .assignments
                    .list_account_assignment_creation_status()
                    .instance_arn(instance)
                    .filter(filter)
                    .max_results(PAGE)
                    .set_next_token(after)
                    .send()
                    .await?;
                let statuses = listed.account_assignments_creation_status;
                (statuses, listed.next_token)
            }
            OperationKind::Delete => {
                let listed = self
                    .assignments
                    .list_account_assignment_deletion_status()
                    .instance_arn(instance)
                    .filter(filter)
                    .max_results(PAGE)
                    .set_next_token(after)
                    .send()
                    .await?;
                let statuses = listed.account_assignments_deletion_status;
                (statuses, listed.next_token)
            }
        };
        Ok(Page {
            items: still_under_way(statuses.unwrap_or_default()),
            next,
        })
    }
}

fn progress(status: Option<&StatusValues>, why: Option<&str>) -> CallResult<Progress> {
    match status {
        Some(StatusValues::InProgress) => Ok(Progress::InProgress),
        Some(StatusValues::Succeeded) => Ok(Progress::Succeeded),
        Some(StatusValues::Failed) => {
            let why = why.unwrap_or("AWS gave no reason").to_owned();
            Ok(Progress::Failed { why })
        }
        other => Err(unexpected(format!("the status {other:?}"))),
    }
}

/// Reads `PT8H` or `PT1H30M`, the forms of a session duration.
fn iso_duration(text: &str) -> Option<Millis> {
    let mut rest = text.strip_prefix("PT")?;
    let mut all = Millis(0);
    for (unit, span) in [
        ('H', Millis::hours(1)),
        ('M', Millis::minutes(1)),
        ('S', Millis::seconds(1)),
    ] {
        if let Some((number, after)) = rest.split_once(unit) {
            all.0 += number.parse::<i64>().ok()? * span.0;
            rest = after;
        }
    }
    (rest.is_empty() && all.0 > 0).then_some(all)
}

/// Filters again, because an endpoint may ignore the filter of the call.
fn still_under_way(listed: Vec<AccountAssignmentOperationStatusMetadata>) -> Vec<String> {
    let under_way = |one: &AccountAssignmentOperationStatusMetadata| {
        !matches!(
            one.status(),
            Some(StatusValues::Succeeded | StatusValues::Failed)
        )
    };
    listed
        .into_iter()
        .filter(under_way)
        .filter_map(|one| one.request_id)
        .collect()
}

/// The operation of an accepted call. An answer without an operation counts as no answer,
/// because AWS may have carried the call out.
fn begun(
    kind: OperationKind,
    status: Option<AccountAssignmentOperationStatus>,
) -> CallResult<Operation> {
    let id = status.and_then(|status| status.request_id);
    match id {
        Some(id) => Ok(Operation { kind, id }),
        None => Err(unexpected("an accepted call without a request id")),
    }
}

fn parsed(id: Option<&str>) -> CallResult<UserId> {
    let id = id.unwrap_or_default();
    id.parse()
        .map_err(|_| unexpected(format!("the user id {id:?}")))
}
