//! What can be typed, and the help that goes with it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Failure;
use super::output::Output;
use crate::domain::{Email, MmUserId, Person};

/// Just-in-time AWS access from Mattermost: asked for in chat, given by IAM Identity
/// Center, taken away on time.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// The configuration [default: ./jit.toml]
    #[arg(long, global = true, value_name = "FILE", env = "JIT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Text for people, JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Call a function of AWS Lambda instead of client.url, with your own AWS credentials
    #[arg(long, global = true, value_name = "lambda:FUNCTION", env = "JIT_VIA")]
    pub via: Option<Via>,
    #[command(flatten)]
    pub acting: Acting,
    #[command(subcommand)]
    pub command: CliCommand,
}

/// Which way a signed call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// By its name or its ARN.
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

/// Who acts.
#[derive(Clone, Debug, Args)]
pub(crate) struct Acting {
    /// Who acts, by e-mail
    #[arg(
        id = "as",
        long = "as",
        global = true,
        value_name = "EMAIL",
        env = "JIT_AS"
    )]
    pub email: Option<Email>,
    /// Who acts, by Mattermost user id [default: the e-mail's part before the @]
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
        let ask = "say who acts: --as EMAIL (and --as-id ID), or JIT_AS and JIT_AS_ID";
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
            .map_err(|_| Failure::Usage(format!("{name:?} is no user id: say it with --as-id")))?;
        Ok(Person { id, email })
    }

    /// For what can also be done without saying who.
    pub fn person_if_said(&self) -> Result<Option<Person>, Failure> {
        match (&self.email, &self.id) {
            (None, None) => Ok(None),
            _ => self.person().map(Some),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// See the whole system on this machine: one request's life, then a server to try
    #[command(after_help = "Example:\n  jit sandbox\n  jit sandbox --once")]
    Sandbox {
        /// Exit after the walk
        #[arg(long)]
        once: bool,
    },
    /// Run the HTTP backend and its workers
    #[command(after_help = "Example:\n  jit serve --config /etc/jit/jit.toml")]
    Serve,
    /// Answer AWS Lambda: calls, schedules and streams
    #[command(
        after_help = "Example:\n  AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001 jit lambda\n\n\
                      Lambda starts it by itself, as bootstrap: make package, and infra/template.yaml."
    )]
    Lambda,
    /// Ask for access
    #[command(
        after_help = "Example:\n  jit request --account 123456789012 --channel town-square \\\n      \
                      --minutes 60 --reason 'INC-42: db down' --as alice@example.com"
    )]
    Request(NewRequest),
    /// Approve a request, or the extension it waits for
    #[command(after_help = "Example:\n  jit approve ID --as bob@example.com")]
    Approve { id: String },
    /// Deny a request
    #[command(after_help = "Example:\n  jit deny ID --reason 'use readonly' --as bob@example.com")]
    Deny {
        id: String,
        #[arg(long)]
        reason: Option<String>,
    },
    /// Take access away, now; done when AWS shows that it is gone
    #[command(
        after_help = "Example:\n  jit revoke ID --reason 'incident 7' --wait --as sec@example.com\n\n\
                      Straight to the function, if nothing else answers:\n  \
                      jit revoke ID --reason 'incident 7' --via lambda:jit-api --as sec@example.com\n\n\
                      Exits with 0 only if the access is gone. Without --wait, a removal that AWS\n\
                      has not finished after ten seconds goes on, and the exit code is 1."
    )]
    Revoke {
        id: String,
        #[arg(long)]
        reason: Option<String>,
        /// Wait until it is gone, however long AWS takes
        #[arg(long)]
        wait: bool,
    },
    /// Take back one's own request that nobody has decided yet
    #[command(after_help = "Example:\n  jit cancel ID --as alice@example.com")]
    Cancel { id: String },
    /// Ask for more time
    #[command(after_help = "Example:\n  jit extend ID --minutes 30 --as alice@example.com")]
    Extend {
        id: String,
        /// How much longer
        #[arg(long)]
        minutes: u32,
    },
    /// One request, and how much time is left
    #[command(after_help = "Example:\n  jit status ID\n  jit status ID -o json")]
    Status { id: String },
    /// Requests, newest first
    #[command(
        after_help = "Example:\n  jit list --channel town-square --status GRANTED\n  \
                      jit list --requester alice@example.com --from 2026-01-01"
    )]
    List(List),
    /// Bind an account to a channel, or change the terms of its binding
    #[command(
        after_help = "Example:\n  jit bind --channel town-square --account 123456789012 \\\n      \
                      --approvals-required 2 --max-hours 2"
    )]
    Bind(BindArguments),
    /// Take an account out of a channel; its pending requests are cancelled
    #[command(after_help = "Example:\n  jit unbind --channel town-square --account 123456789012")]
    Unbind {
        #[arg(long)]
        channel: String,
        #[arg(long)]
        account: String,
    },
    /// Say who approves in a channel
    #[command(after_help = "Example:\n  jit approvers --channel town-square bob carol")]
    Approvers {
        #[arg(long)]
        channel: String,
        /// Mattermost user ids: all of them, not the ones to add
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// The accounts of a channel, and their terms
    #[command(after_help = "Example:\n  jit accounts --channel town-square")]
    Accounts {
        #[arg(long)]
        channel: String,
    },
    /// Without a server: straight to AWS, with your own credentials
    #[command(subcommand)]
    BreakGlass(BreakGlassCommand),
    /// After access was removed by hand: make the record follow
    #[command(
        after_help = "Example:\n  jit cleanup ID --reason 'incident 7, removed in the console' --as sec@example.com\n  \
                      jit cleanup ID --reason 'incident 7' --unverified\n\n\
                      Needs the store and AWS, and no server. AWS is asked first whether the assignment\n\
                      is gone; the record is changed only if it is."
    )]
    Cleanup(Cleanup),
    /// Compare what is recorded with what Identity Center has
    #[command(
        after_help = "Example:\n  jit reconcile\n  jit reconcile --fix --as ops@example.com\n\n\
                      Exits with 1 if anything is not as recorded: live here and gone in AWS, or over\n\
                      here and still in AWS. Assignments that jit never made are listed and left alone."
    )]
    Reconcile {
        /// Remove what is over here and still in AWS
        #[arg(long)]
        fix: bool,
    },
    /// The tables in DynamoDB
    #[command(subcommand)]
    Tables(TablesCommand),
    /// The store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print the headers of a signed call
    #[command(
        after_help = "Example:\n  jit sign GET /requests/ID | curl -H @- http://127.0.0.1:8080/requests/ID\n  \
                      jit sign POST /requests/ID/revoke --body body.json --curl"
    )]
    Sign(Sign),
    /// What happened
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// A stock Mattermost, made ready for /jit
    #[command(subcommand)]
    Mattermost(MattermostCommand),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  jit completions bash > /etc/bash_completion.d/jit")]
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub(crate) struct NewRequest {
    /// AWS account, 12 digits
    #[arg(long)]
    pub account: String,
    /// Mattermost channel id
    #[arg(long)]
    pub channel: String,
    /// For how long
    #[arg(long)]
    pub minutes: u32,
    /// Why
    #[arg(long, required_unless_present = "jira")]
    pub reason: Option<String>,
    /// The ticket
    #[arg(long)]
    pub jira: Option<String>,
    /// Which permission set [default: the configured one]
    #[arg(long, value_name = "NAME")]
    pub permission_set: Option<String>,
    /// When it should begin [default: once approved]
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<String>,
    /// The same key gives the same request
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[arg(long)]
    pub channel: Option<String>,
    #[arg(long)]
    pub account: Option<String>,
    #[arg(long, value_name = "EMAIL")]
    pub requester: Option<String>,
    #[arg(long)]
    pub status: Option<String>,
    /// Created on or after
    #[arg(long, value_name = "DATE")]
    pub from: Option<String>,
    /// Created on or before
    #[arg(long, value_name = "DATE")]
    pub to: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// Where the last page ended
    #[arg(long, value_name = "TOKEN")]
    pub next_token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BindArguments {
    #[arg(long)]
    pub channel: String,
    #[arg(long)]
    pub account: String,
    /// How many must approve
    #[arg(long, value_name = "N")]
    pub approvals_required: Option<u32>,
    /// Whether one may approve one's own request
    #[arg(long, value_name = "BOOL")]
    pub allow_self_approval: Option<bool>,
    /// The longest request
    #[arg(long, value_name = "HOURS")]
    pub max_hours: Option<u32>,
    /// Which permission sets may be had; repeat for several
    #[arg(long = "permission-set", value_name = "NAME")]
    pub permission_sets: Option<Vec<String>>,
}

#[derive(Debug, Args)]
pub(crate) struct Sign {
    /// GET or POST
    pub method: String,
    /// With its query: /requests?status=GRANTED
    pub path: String,
    /// The body; - is standard input
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// The whole line for curl
    #[arg(long)]
    pub curl: bool,
    /// The older signature, that the query is no part of
    #[arg(long)]
    pub v1: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// One request's history, or with config#CHANNEL a channel's
    #[command(after_help = "Example:\n  jit audit show ID\n  jit audit show 'config#town-square'")]
    Show { id: String },
    /// Everything that happened, as JSON lines, from the store
    #[command(
        after_help = "Example:\n  jit audit export --from 2026-01-01 --to 2026-01-31 --account 123456789012"
    )]
    Export(Export),
    /// Check every history (or one) for tampering, in the store
    #[command(after_help = "Example:\n  jit audit verify\n  jit audit verify ID")]
    Verify { id: Option<String> },
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// On or after
    #[arg(long, value_name = "DATE")]
    pub from: Option<String>,
    /// On or before
    #[arg(long, value_name = "DATE")]
    pub to: Option<String>,
    #[arg(long)]
    pub account: Option<crate::domain::AccountId>,
    #[arg(long)]
    pub channel: Option<crate::domain::ChannelId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copy everything from one store into another, so that an installation can grow
    #[command(
        after_help = "Example:\n  jit store copy --from sqlite --to dynamodb\n  \
                      jit store copy --from sqlite:/backup/jit.db --to sqlite:/var/lib/jit/jit.db\n\n\
                      sqlite is store.path and dynamodb store.tables of jit.toml, whichever of them is\n\
                      served. Stop whoever serves the first; what was interrupted is gone on with.\n\
                      Afterwards every history is read again in both and compared. The copy takes\n\
                      signed calls five minutes later: what was signed before may have been taken."
    )]
    Copy(StoreCopy),
    /// Copy the SQLite file as it is now into another, while jit serves or not
    #[command(
        after_help = "Example:\n  jit store backup /backup/jit-2026-01-31.db\n\n\
                      Back again: jit store copy --from sqlite:/backup/jit-2026-01-31.db --to sqlite\n\
                      DynamoDB has point-in-time recovery instead."
    )]
    Backup {
        /// A file that is not there yet
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StoreCopy {
    /// sqlite, sqlite:PATH or dynamodb
    #[arg(long, value_name = "STORE")]
    pub from: StoreLocation,
    /// sqlite, sqlite:PATH or dynamodb
    #[arg(long, value_name = "STORE")]
    pub to: StoreLocation,
}

/// Where a store is.
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
    /// Make the tables that are not there yet, and wait until they can be used
    #[command(
        after_help = "Example:\n  jit tables create\n  AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:8000 jit tables create\n\n\
                      What is there already is left as it is; jit tables check says if it will do."
    )]
    Create,
    /// Say what about the tables is not as it must be
    #[command(after_help = "Example:\n  jit tables check\n  jit tables check -o json")]
    Check,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BreakGlassCommand {
    /// Take access away: one request, or all that is live for somebody or somewhere
    #[command(
        after_help = "Example:\n  jit break-glass revoke ID --reason 'incident 7' --as sec@example.com\n  \
                      jit break-glass revoke --user alice@example.com --reason 'laptop stolen' --as sec@example.com\n\n\
                      Needs the store and AWS, and no server. It is recorded before AWS is asked, and\n\
                      done when AWS shows that it is gone. Without --as, your AWS credentials say who\n\
                      you are.\n\n\
                      Without the store as well, say what to take away: --user and --account. It is\n\
                      taken away, and the row that cannot be written is printed, to be kept."
    )]
    Revoke(BreakGlass),
}

#[derive(Debug, Args)]
pub(crate) struct BreakGlass {
    #[arg(required_unless_present_any = ["user", "account"])]
    pub id: Option<String>,
    /// Everything that is live for this person
    #[arg(long, value_name = "EMAIL", conflicts_with = "id")]
    pub user: Option<Email>,
    /// Everything that is live in this account
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    pub account: Option<crate::domain::AccountId>,
    /// Only this permission set
    #[arg(long, value_name = "NAME", conflicts_with = "id")]
    pub permission_set: Option<crate::domain::PermissionSet>,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// Do not ask before taking away a list
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cleanup {
    /// The request
    pub id: String,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// Do not ask AWS first; the audit says so, and the next worker asks
    #[arg(long)]
    pub unverified: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether jit could start with it, and whether AWS lets it do what it will have to
    #[command(
        after_help = "Example:\n  jit config check --config /etc/jit/jit.toml\n  jit config check --offline\n\n\
                      Nothing is changed: AWS is only asked what can be asked without effect."
    )]
    Check {
        /// Do not ask AWS
        #[arg(long)]
        offline: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MattermostCommand {
    /// Make the bot and the command, or put them right, and write the configuration
    #[command(
        after_help = "Example:\n  jit mattermost setup --url https://mattermost.example.com --team acme \\\n      \
                      --public-url https://jit.example.com\n\n\
                      Asks for a system admin's token, or takes it from --token-file or from\n\
                      JIT_MATTERMOST_ADMIN_TOKEN; it is not kept. What is there already is kept: run it\n\
                      again whenever something was changed by hand."
    )]
    Setup(MattermostSetup),
    /// Say whether the bot and the command are as they must be
    #[command(after_help = "Example:\n  jit mattermost check")]
    Check,
}

#[derive(Debug, Args)]
pub(crate) struct MattermostSetup {
    /// Where Mattermost is
    #[arg(long)]
    pub url: String,
    /// The team's name, as in its addresses
    #[arg(long, value_name = "NAME")]
    pub team: String,
    /// Where Mattermost reaches jit
    #[arg(long, value_name = "URL")]
    pub public_url: String,
    /// A file with a system admin's token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a new key, ready for jit.toml
    #[command(after_help = "Example:\n  jit keys generate plugin >> jit.toml")]
    Generate {
        /// The key's id
        #[arg(default_value = "plugin")]
        id: String,
    },
}
