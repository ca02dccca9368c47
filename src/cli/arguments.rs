//! The commands and options that a person can type, and their help.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

use super::Failure;
use super::output::Output;
use crate::domain::{Email, MmUserId, Person};

/// Just-in-time AWS access from Mattermost: a person asks for access in a channel, jit makes
/// the assignment in IAM Identity Center, and removes it when the time is over.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The configuration file [default: ./jit.toml]
    #[arg(long, global = true, value_name = "FILE", env = "JIT_CONFIG")]
    pub config: Option<PathBuf>,
    /// The format of the output: text for people, JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Call an AWS Lambda function with your own AWS credentials, instead of client.url
    #[arg(long, global = true, value_name = "lambda:FUNCTION", env = "JIT_VIA")]
    pub via: Option<Via>,
    #[command(flatten)]
    pub acting: Acting,
    #[command(subcommand)]
    pub command: CliCommand,
}

/// How a signed call reaches jit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// The name or the ARN of a Lambda function.
    Lambda(String),
}

impl std::str::FromStr for Via {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("lambda", function)) if !function.is_empty() => {
                Ok(Self::Lambda(function.to_owned()))
            }
            _ => Err("expected lambda:FUNCTION, as in lambda:jit-api"),
        }
    }
}

/// The person who acts.
#[derive(Clone, Debug, Args)]
pub(crate) struct Acting {
    /// The e-mail address of the person who acts
    #[arg(
        id = "as",
        long = "as",
        global = true,
        value_name = "EMAIL",
        env = "JIT_AS"
    )]
    pub email: Option<Email>,
    /// The Mattermost user id of the person who acts [default: the part of the e-mail
    /// address before the @]
    #[arg(
        id = "as-id",
        long = "as-id",
        global = true,
        value_name = "ID",
        env = "JIT_AS_ID"
    )]
    pub id: Option<MmUserId>,
}

impl Acting {
    pub fn person(&self) -> Result<Person, Failure> {
        let ask = "name the person who acts: --as EMAIL (and --as-id ID), or JIT_AS and JIT_AS_ID";
        let email = self
            .email
            .clone()
            .ok_or_else(|| Failure::Usage(ask.into()))?;
        if let Some(id) = &self.id {
            return Ok(Person {
                id: id.clone(),
                email,
            });
        }
        let name = email.as_str().split('@').next().unwrap_or_default();
        let id = name
            .parse()
            .map_err(|_| Failure::Usage(format!("{name:?} is not a user id: add --as-id ID")))?;
        Ok(Person { id, email })
    }

    /// For commands that do not require `--as`.
    pub fn person_if_said(&self) -> Result<Option<Person>, Failure> {
        match (&self.email, &self.id) {
            (None, None) => Ok(None),
            _ => self.person().map(Some),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Show the whole system on this machine: the life of one request, then a server to try
    #[command(after_help = "Example:\n  jit sandbox\n  jit sandbox --once")]
    Sandbox {
        /// Exit after the life of the first request
        #[arg(long)]
        once: bool,
    },
    /// Run the HTTP server and the workers
    #[command(after_help = "Example:\n  jit serve --config /etc/jit/jit.toml")]
    Serve,
    /// Run under AWS Lambda: handle calls, schedules and streams
    #[command(
        after_help = "Example:\n  AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001 jit lambda\n\n\
                      AWS Lambda starts it as bootstrap. `make package` makes the package;\n\
                      infra/template.yaml deploys it."
    )]
    Lambda,
    /// Ask for access
    #[command(
        after_help = "Example:\n  jit request --account 123456789012 --channel town-square \\\n      \
                      --permission-set readonly --minutes 60 --reason 'INC-42: db down' \\\n      \
                      --as alice@example.com"
    )]
    Request(NewRequest),
    /// Approve a request, or the extension that it waits for
    #[command(after_help = "Example:\n  jit approve ID --as bob@example.com")]
    Approve {
        /// The request: its id, or the beginning of its id
        id: String,
    },
    /// Deny a request or an extension
    #[command(after_help = "Example:\n  jit deny ID --reason 'use readonly' --as bob@example.com")]
    Deny {
        /// The request: its id, or the beginning of its id
        id: String,
        /// The reason, for the requester and the audit
        #[arg(long)]
        reason: Option<String>,
    },
    /// End access now; done when AWS shows that the access is gone
    #[command(
        after_help = "Example:\n  jit revoke ID --reason 'incident 7' --wait --as sec@example.com\n\n\
                      If the HTTP server does not answer, call the Lambda function directly:\n  \
                      jit revoke ID --reason 'incident 7' --via lambda:jit-api --as sec@example.com\n\n\
                      The exit code is 0 only if the access is gone. Without --wait, the command waits\n\
                      ten seconds; then the removal continues in the server and the exit code is 1."
    )]
    Revoke {
        /// The request: its id, or the beginning of its id
        id: String,
        /// The reason, for the requester and the audit
        #[arg(long)]
        reason: Option<String>,
        /// Wait until AWS shows that the access is gone, without a time limit
        #[arg(long)]
        wait: bool,
    },
    /// Withdraw your own request that has no decision yet
    #[command(after_help = "Example:\n  jit cancel ID --as alice@example.com")]
    Cancel {
        /// The request: its id, or the beginning of its id
        id: String,
    },
    /// Ask for more time for a grant
    #[command(after_help = "Example:\n  jit extend ID --minutes 30 --as alice@example.com")]
    Extend {
        /// The request: its id, or the beginning of its id
        id: String,
        /// The additional time: minutes like 30, or a time like 1h30m
        #[arg(long, visible_alias = "time", value_name = "TIME", value_parser = super::typed::minutes)]
        minutes: u32,
    },
    /// Show one request and the time that is left
    #[command(after_help = "Example:\n  jit status ID\n  jit status ID -o json")]
    Status {
        /// The request: its id, or the beginning of its id
        id: String,
    },
    /// List requests, newest first; without a filter, all open requests
    #[command(
        after_help = "Example:\n  jit list\n  jit list --channel town-square --status GRANTED\n  \
                      jit list --requester alice@example.com --from 2026-01-01"
    )]
    List(List),
    /// Bind an account to a channel, or change the terms of its binding
    #[command(
        after_help = "Example:\n  jit bind --channel town-square --account 123456789012 \\\n      \
                      --approvals-required 2 --max-hours 2"
    )]
    Bind(BindArguments),
    /// Remove the binding of an account; jit cancels its pending requests
    #[command(after_help = "Example:\n  jit unbind --channel town-square --account 123456789012")]
    Unbind {
        /// The id of the channel in Mattermost
        #[arg(long)]
        channel: String,
        /// The AWS account: its 12 digits, or its name in [accounts] of jit.toml
        #[arg(long)]
        account: String,
    },
    /// Set all approvers of a channel
    #[command(after_help = "Example:\n  jit approvers --channel town-square bob carol")]
    Approvers {
        /// The id of the channel in Mattermost
        #[arg(long)]
        channel: String,
        /// The Mattermost user ids of all approvers; they replace the present approvers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// List the accounts of a channel and their terms
    #[command(after_help = "Example:\n  jit accounts --channel town-square")]
    Accounts {
        /// The id of the channel in Mattermost
        #[arg(long)]
        channel: String,
    },
    /// End access without the server, with your own AWS credentials
    #[command(subcommand)]
    BreakGlass(BreakGlassCommand),
    /// Correct the record after an assignment was removed by hand
    #[command(
        after_help = "Example:\n  jit cleanup ID --reason 'incident 7, removed in the console' --as sec@example.com\n  \
                      jit cleanup ID --reason 'incident 7' --unverified\n\n\
                      Needs the store and AWS credentials, and no server. jit asks AWS first, and\n\
                      corrects the record only if AWS shows that the assignment is gone."
    )]
    Cleanup(Cleanup),
    /// Compare the records with Identity Center
    #[command(
        after_help = "Example:\n  jit reconcile\n  jit reconcile --fix --as ops@example.com\n\n\
                      The exit code is 1 if AWS lacks an access that is in force, if AWS has an access\n\
                      that has ended or must be removed, if a removal fails, or if a record cannot be\n\
                      read. jit lists the assignments that it did not make, and neither changes nor counts\n\
                      them. AWS does not say who made an assignment, so --fix shows what it would remove,\n\
                      and asks."
    )]
    Reconcile {
        /// Remove access that is over in jit and still exists in AWS, after a confirmation
        #[arg(long)]
        fix: bool,
        /// Do not ask for the confirmation
        #[arg(long, requires = "fix")]
        yes: bool,
    },
    /// Create or check the DynamoDB tables
    #[command(subcommand)]
    Tables(TablesCommand),
    /// Copy or back up the store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print the headers of a signed call
    #[command(
        after_help = "Example:\n  jit sign GET /requests/ID | curl -H @- http://127.0.0.1:8080/requests/ID\n  \
                      jit sign POST /requests/ID/revoke --body body.json --curl"
    )]
    Sign(Sign),
    /// Show, export or verify the audit
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Set up or check the bot and the slash command in Mattermost
    #[command(subcommand)]
    Mattermost(MattermostCommand),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  jit completions bash > /etc/bash_completion.d/jit")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct NewRequest {
    /// The AWS account: its 12 digits, or its name in [accounts] of jit.toml
    #[arg(long)]
    pub account: String,
    /// The id of the channel in Mattermost
    #[arg(long)]
    pub channel: String,
    /// The duration: minutes like 90, or a time like 1h30m
    #[arg(long, visible_alias = "time", value_name = "TIME", value_parser = super::typed::minutes)]
    pub minutes: u32,
    /// The reason
    #[arg(long, required_unless_present = "jira")]
    pub reason: Option<String>,
    /// The ticket; it can replace --reason
    #[arg(long)]
    pub jira: Option<String>,
    /// The permission set [default: policy.default_permission_set, or the only configured set]
    #[arg(long, value_name = "NAME")]
    pub permission_set: Option<String>,
    /// The time when the access begins, like 2026-01-31T12:00:00Z [default: after the approval]
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<String>,
    /// A repeated call with the same key returns the same request
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only requests of this channel
    #[arg(long)]
    pub channel: Option<String>,
    /// Only requests for this account: its 12 digits, or its name in [accounts] of jit.toml
    #[arg(long)]
    pub account: Option<String>,
    /// Only requests of this requester
    #[arg(long, value_name = "EMAIL")]
    pub requester: Option<String>,
    /// Only requests with this status, like GRANTED
    #[arg(long)]
    pub status: Option<String>,
    /// Only requests created on or after this day, like 2026-01-31
    #[arg(long, value_name = "DATE")]
    pub from: Option<String>,
    /// Only requests created on or before this day
    #[arg(long, value_name = "DATE")]
    pub to: Option<String>,
    /// Only one page with this number of requests [default: all requests]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: Option<u32>,
    /// Only one page: the one after the page that ended with this token
    #[arg(long, value_name = "TOKEN")]
    pub next_token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BindArguments {
    /// The id of the channel in Mattermost
    #[arg(long)]
    pub channel: String,
    /// The AWS account: its 12 digits, or its name in [accounts] of jit.toml
    #[arg(long)]
    pub account: String,
    /// The number of approvals that a request needs
    #[arg(long, value_name = "N")]
    pub approvals_required: Option<u32>,
    /// Whether requesters may approve their own requests
    #[arg(long, value_name = "BOOL")]
    pub allow_self_approval: Option<bool>,
    /// The longest duration of a request: hours like 4, or a time like 4h
    #[arg(long, value_name = "HOURS", value_parser = super::typed::hours)]
    pub max_hours: Option<u32>,
    /// A permission set that people may request; repeat it for several
    #[arg(long = "permission-set", value_name = "NAME")]
    pub permission_sets: Option<Vec<String>>,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// The HTTP method: GET or POST
    pub method: String,
    /// The path with its query: /requests?status=GRANTED
    pub path: String,
    /// The file with the body; - is standard input
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// Print the whole curl line
    #[arg(long)]
    pub curl: bool,
    /// Use signature scheme v1, which does not cover the query
    #[arg(long)]
    pub v1: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show the history of one request, or of one channel with config#CHANNEL
    #[command(after_help = "Example:\n  jit audit show ID\n  jit audit show 'config#town-square'")]
    Show {
        /// The request: its id, or the beginning of its id; or config#CHANNEL
        id: String,
    },
    /// Print all audit events from the store as JSON lines
    #[command(
        after_help = "Example:\n  jit audit export --from 2026-01-01 --to 2026-01-31 --account 123456789012"
    )]
    Export(Export),
    /// Check the audit chain of every history in the store, or of one, for tampering
    #[command(after_help = "Example:\n  jit audit verify\n  jit audit verify ID")]
    Verify {
        /// The request: its id, or the beginning of its id; or config#CHANNEL; without it, every history
        id: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Only events on or after this day or time
    #[arg(long, value_name = "DATE")]
    pub from: Option<String>,
    /// Only events on or before this day or time
    #[arg(long, value_name = "DATE")]
    pub to: Option<String>,
    /// Only events of this account: its 12 digits, or its name in [accounts] of jit.toml
    #[arg(long)]
    pub account: Option<String>,
    /// Only events of this channel
    #[arg(long)]
    pub channel: Option<crate::domain::ChannelId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy everything from one store into another, for example from SQLite into DynamoDB
    #[command(
        after_help = "Example:\n  jit store copy --from sqlite --to dynamodb\n  \
                      jit store copy --from sqlite:/backup/jit.db --to sqlite:/var/lib/jit/jit.db\n\n\
                      sqlite stands for store.path, and dynamodb for store.tables of jit.toml. Stop every\n\
                      jit that serves the source store before you copy. An interrupted copy continues\n\
                      when you run the command again. After the copy, jit reads every history in both\n\
                      stores and compares them. The target store refuses signed calls for five minutes,\n\
                      because it does not know the nonces of the source store."
    )]
    Copy(StoreCopy),
    /// Copy the SQLite file into a backup file, also while jit serves
    #[command(
        after_help = "Example:\n  jit store backup /backup/jit-2026-01-31.db\n\n\
                      To restore: jit store copy --from sqlite:/backup/jit-2026-01-31.db --to sqlite\n\
                      For DynamoDB, use point-in-time recovery: see runbooks/restore.md."
    )]
    Backup {
        /// The backup file; it must not exist yet
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StoreCopy {
    /// The source store: sqlite, sqlite:PATH or dynamodb
    #[arg(long, value_name = "STORE")]
    pub from: StoreLocation,
    /// The target store: sqlite, sqlite:PATH or dynamodb
    #[arg(long, value_name = "STORE")]
    pub to: StoreLocation,
}

/// The place of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreLocation {
    Sqlite(Option<PathBuf>),
    Dynamodb,
}

impl std::str::FromStr for StoreLocation {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "sqlite" => Ok(Self::Sqlite(None)),
            None if text == "dynamodb" => Ok(Self::Dynamodb),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(Some(path.into()))),
            _ => Err("expected sqlite, sqlite:PATH or dynamodb"),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TablesCommand {
    /// Create the tables that do not exist yet, and wait until they are ready
    #[command(
        after_help = "Example:\n  jit tables create\n  AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:8000 jit tables create\n\n\
                      Tables that exist stay as they are; check them with jit tables check."
    )]
    Create,
    /// Check the tables and print each problem
    #[command(after_help = "Example:\n  jit tables check\n  jit tables check -o json")]
    Check,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BreakGlassCommand {
    /// End one access, or all live access of a person or in an account
    #[command(
        after_help = "Example:\n  jit break-glass revoke ID --reason 'incident 7' --as sec@example.com\n  \
                      jit break-glass revoke --user alice@example.com --reason 'laptop stolen' --as sec@example.com\n\n\
                      Needs the store and AWS credentials, and no server. jit records the revoke before\n\
                      it calls AWS, and is done when AWS shows that the access is gone. Without --as,\n\
                      jit takes your name from your AWS credentials.\n\n\
                      With --user or --account, jit also ends the requests that wait for an approval, and\n\
                      in the end asks AWS what is left. The exit code is 3 if access is or may be left, or if the\n\
                      person, the account or the permission set is not known.\n\n\
                      If the store does not answer either, add --user EMAIL and --account ID. jit ends\n\
                      the access and prints the audit rows that it cannot write; keep them."
    )]
    Revoke(BreakGlass),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").args(["id", "user", "account"]).required(true).multiple(true))]
pub(crate) struct BreakGlass {
    /// The request: its id, or the beginning of its id
    pub id: Option<String>,
    /// End all live access and all open requests of this person
    #[arg(long, value_name = "EMAIL", conflicts_with = "id")]
    pub user: Option<Email>,
    /// End all live access in this account: its 12 digits, or its name in [accounts]
    #[arg(long, value_name = "ACCOUNT", conflicts_with = "id")]
    pub account: Option<String>,
    /// Only this permission set
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    pub permission_set: Option<crate::domain::PermissionSet>,
    /// The reason, for the audit
    #[arg(long)]
    pub reason: String,
    /// Do not ask for confirmation before ending several accesses
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cleanup {
    /// The request: its id, or the beginning of its id
    pub id: String,
    /// The reason, for the audit
    #[arg(long)]
    pub reason: String,
    /// Do not ask AWS first; the audit records this, and the next worker asks AWS
    #[arg(long)]
    pub unverified: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check that jit can start with the configuration and has its permissions at AWS
    #[command(
        after_help = "Example:\n  jit config check --config /etc/jit/jit.toml\n  jit config check --offline\n\n\
                      The command changes nothing: it makes only AWS calls without effect."
    )]
    Check {
        /// Do not ask AWS
        #[arg(long)]
        offline: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MattermostCommand {
    /// Make or correct the bot and the slash command, and write the configuration
    #[command(
        after_help = "Example:\n  jit mattermost setup --url https://mattermost.example.com --team acme \\\n      \
                      --public-url https://jit.example.com\n\n\
                      The command needs the token of a system admin: from --token-file, from\n\
                      JIT_MATTERMOST_ADMIN_TOKEN, or typed when it asks. jit does not store this token.\n\
                      The command keeps a bot and a slash command that exist, and corrects them. Run\n\
                      it again after a change by hand.\n\n\
                      To replace the token of the bot, remove the file mattermost-bot-token and run the\n\
                      command. jit serve reads the new token within two seconds. Then run the command\n\
                      again with --revoke-older-tokens."
    )]
    Setup(MattermostSetup),
    /// Check the bot and the slash command
    #[command(after_help = "Example:\n  jit mattermost check")]
    Check,
}

#[derive(Debug, Args)]
pub(crate) struct MattermostSetup {
    /// The address of Mattermost
    #[arg(long)]
    pub url: String,
    /// The name of the team, as in its addresses
    #[arg(long, value_name = "NAME")]
    pub team: String,
    /// The address at which Mattermost reaches jit
    #[arg(long, value_name = "URL")]
    pub public_url: String,
    /// A file with the token of a system admin
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Revoke the tokens of the bot that earlier setups made
    #[arg(long)]
    pub revoke_older_tokens: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a new key and print it as a section for jit.toml
    #[command(after_help = "Example:\n  jit keys generate plugin --write")]
    Generate {
        /// The id of the key
        #[arg(default_value = "plugin")]
        id: String,
        /// Write the secret into jit.toml, also for `[client]` if it signs with this key
        #[arg(long)]
        write: bool,
    },
}
