//! The configuration with which a test starts jit.

use std::path::{Path, PathBuf};

use super::{HOOK_SECRET, METRICS_TOKEN, SECRET, aws, dynamo};

/// The parts of a configuration.
pub struct Setup {
    pub latency_ms: u32,
    /// More lines of the sandbox section.
    pub sandbox: String,
    pub more: String,
    pub webhook: Option<String>,
    /// The SDK client, with a simulated AWS.
    pub aws: Option<aws::Aws>,
    /// DynamoDB tables instead of a file.
    pub dynamo: Option<dynamo::Tables>,
    /// More environment variables.
    pub variables: Vec<(&'static str, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            latency_ms: 20,
            sandbox: String::new(),
            more: String::new(),
            webhook: None,
            aws: None,
            dynamo: None,
            variables: Vec::new(),
        }
    }
}

impl Setup {
    /// Adds lines of configuration.
    pub fn with(more: &str) -> Self {
        Self {
            more: more.to_owned(),
            ..Self::default()
        }
    }

    /// Uses the SDK client, and more lines of configuration.
    pub fn with_aws(aws: &aws::Aws, more: &str) -> Self {
        Self {
            aws: Some(aws.clone()),
            ..Self::with(more)
        }
    }

    /// Uses these tables instead of a file.
    pub fn in_dynamo(tables: &dynamo::Tables) -> Self {
        Self {
            dynamo: Some(tables.clone()),
            ..Self::default()
        }
    }

    pub fn write(&self, folder: &Path) -> PathBuf {
        let store = folder.join("jit.db");
        let webhook = self.webhook.as_ref().map_or_else(String::new, |url| {
            format!("[webhook]\nurl = \"{url}/plugins/com.example.jit/webhook\"\nsecret = \"{HOOK_SECRET}\"\n")
        });
        let text = format!(
            r#"
[server]
listen = "127.0.0.1:0"
metrics_token = "{METRICS_TOKEN}"
[store]
path = "{store}"
{tables}
{identity_center}
[sandbox]
latency_ms = {latency}
{sandbox}
[permission_sets]
admin = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-1111111111111111"
readonly = "arn:aws:sso:::permissionSet/ssoins-1111111111111111/ps-2222222222222222"
[keys.plugin]
secret = "{SECRET}"
{webhook}
{more}
"#,
            store = store.display(),
            tables = self
                .dynamo
                .as_ref()
                .map_or_else(String::new, dynamo::Tables::config),
            identity_center = self.identity_center(),
            latency = self.latency_ms,
            sandbox = self.sandbox,
            more = self.more,
        );
        let file = folder.join("jit.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    fn identity_center(&self) -> String {
        match self.aws {
            None => "[identity_center]\nmode = \"sandbox\"".into(),
            Some(_) => format!(
                "[identity_center]\ninstance_arn = \"{}\"\nidentity_store_id = \"{}\"\n\
                 calls_per_second = 20",
                aws::INSTANCE,
                aws::STORE
            ),
        }
    }

    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let aws = self.aws.iter().flat_map(aws::Aws::environment);
        aws.chain(self.dynamo.iter().flat_map(dynamo::Tables::environment))
            .chain(self.variables.iter().cloned())
            .collect()
    }
}
