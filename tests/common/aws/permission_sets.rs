//! The inline policies of the permission sets, and their provisioning.

use serde_json::{Value, json};

use super::assignments::uuid;
use super::{Answer, Aws, Inner};

/// AWS refuses a policy longer than this.
const LONGEST_POLICY: usize = 10_240;

impl Aws {
    pub fn policy(&self, set: &str) -> Option<String> {
        self.inner().policies.get(set).cloned()
    }

    pub fn set_policy(&self, set: &str, policy: &str) {
        self.inner().policies.insert(set.into(), policy.into());
    }

    /// The provisioned permission sets and their accounts, in order.
    pub fn provisioned(&self) -> Vec<(String, String)> {
        self.inner().provisioned.clone()
    }
}

impl Inner {
    pub(super) fn inline_policy(&self, set: &str) -> Answer {
        let policy = self.policies.get(set).cloned();
        Ok(json!({"InlinePolicy": policy.unwrap_or_default()}))
    }

    pub(super) fn put_inline_policy(&mut self, set: String, policy: String) -> Answer {
        let parsed: Result<Value, _> = serde_json::from_str(&policy);
        if parsed.is_err() || policy.chars().count() > LONGEST_POLICY {
            return Err(("ValidationException", "no policy".into()));
        }
        self.policies.insert(set, policy);
        Ok(json!({}))
    }

    pub(super) fn provision(&mut self, set: String, account: String) -> Answer {
        self.provisioned.push((set, account));
        let id = uuid(&mut self.random);
        let status = json!({"RequestId": id, "Status": "IN_PROGRESS"});
        Ok(json!({"PermissionSetProvisioningStatus": status}))
    }
}
