//! The actions of the two services, by name.

use serde_json::{Value, json};

use super::faults::{conflict, throttled};
use super::{ADMIN, Answer, AwsError, Fault, INSTANCE, Inner, READONLY, STORE};

/// The error with which AWS refuses a call; none if AWS carries it out.
type Refusal = Option<AwsError>;

impl Inner {
    pub(super) fn carry_out(
        &mut self,
        action: &str,
        input: &Value,
        fault: Option<&Fault>,
    ) -> Answer {
        let refusal = fault.and_then(|fault| refused_by_fault(action, fault));
        let refusal = refusal.or_else(|| self.throttled_by_limit());
        if let Some(refusal) = refusal.or_else(|| self.refused_by_input(action, input)) {
            return Err(refusal);
        }
        let set = word(input, "PermissionSetArn");
        match action {
            "GetUserId" => self.get_user_id(input),
            "GetCallerIdentity" => Ok(json!(
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <GetCallerIdentityResult><Arn>arn:aws:sts::111111111111:assumed-role/Ops/dana</Arn>\
                 <UserId>AROAEXAMPLE:dana</UserId><Account>111111111111</Account>\
                 </GetCallerIdentityResult></GetCallerIdentityResponse>"
            )),
            "ListInstances" => Ok(json!({"Instances": [
                {"InstanceArn": INSTANCE, "IdentityStoreId": STORE, "Status": "ACTIVE"}
            ]})),
            "ListAccountAssignments" => self.list(input, &word(input, "AccountId"), &set),
            "CreateAccountAssignment" => self.begin("CREATE", input, fault),
            "DeleteAccountAssignment" => self.begin("DELETE", input, fault),
            "DescribeAccountAssignmentCreationStatus" => {
                self.describe("CREATE", &word(input, "AccountAssignmentCreationRequestId"))
            }
            "DescribeAccountAssignmentDeletionStatus" => {
                self.describe("DELETE", &word(input, "AccountAssignmentDeletionRequestId"))
            }
            "ListAccountAssignmentCreationStatus" => self.statuses("CREATE", input),
            "ListAccountAssignmentDeletionStatus" => self.statuses("DELETE", input),
            "DescribePermissionSet" => Ok(json!({"PermissionSet": {
                "PermissionSetArn": set, "Name": "Some", "SessionDuration": "PT1H"
            }})),
            "GetInlinePolicyForPermissionSet" => self.inline_policy(&set),
            "PutInlinePolicyToPermissionSet" => {
                self.put_inline_policy(set, word(input, "InlinePolicy"))
            }
            "DeleteInlinePolicyFromPermissionSet" => {
                self.policies.remove(&set);
                Ok(json!({}))
            }
            "ProvisionPermissionSet" => self.provision(set, word(input, "TargetId")),
            "DescribePermissionSetProvisioningStatus" => Ok(json!({
                "PermissionSetProvisioningStatus": {
                    "RequestId": word(input, "ProvisionPermissionSetRequestId"),
                    "Status": "SUCCEEDED"
                }
            })),
            other => Err(("UnknownOperationException", format!("{other}?"))),
        }
    }

    fn throttled_by_limit(&mut self) -> Refusal {
        self.fill();
        self.calls_per_second?;
        if self.tokens < 1.0 {
            return Some(throttled());
        }
        self.tokens -= 1.0;
        None
    }

    /// AWS refuses an instance, a permission set or an account that it does not have.
    fn refused_by_input(&self, action: &str, input: &Value) -> Refusal {
        let refused = |why: &str| Some(("ResourceNotFoundException", why.to_owned()));
        let is_sso = !["GetUserId", "GetCallerIdentity", "ListInstances"].contains(&action);
        if is_sso && word(input, "InstanceArn") != INSTANCE {
            return refused("no such instance");
        }
        let set = word(input, "PermissionSetArn");
        if !set.is_empty() && ![ADMIN, READONLY].contains(&set.as_str()) {
            return refused("PermissionSet not found");
        }
        let account = [word(input, "AccountId"), word(input, "TargetId")];
        if account.iter().any(|account| self.closed.contains(account)) {
            return refused("Account not found");
        }
        None
    }
}

fn refused_by_fault(action: &str, fault: &Fault) -> Refusal {
    match fault {
        Fault::Throttling => Some(throttled()),
        Fault::Denied => {
            let why = format!("User is not authorized to perform: sso:{action}");
            Some(("AccessDeniedException", why))
        }
        Fault::Internal => Some(("InternalServerException", "oh".into())),
        Fault::Conflict => Some(conflict()),
        _ => None,
    }
}

/// The text of one field of the input; empty if the field is missing.
pub(super) fn word(input: &Value, name: &str) -> String {
    input[name].as_str().unwrap_or_default().to_owned()
}
