//! The commands: they read the arguments, call the other modules and print the result.
//!
//! Exit codes: 0 is done, 1 is refused or failed, 2 is wrong usage, 3 is an end of access that
//! jit cannot confirm. stdout has the result for programs; stderr has the messages for people,
//! with the next command.

mod access_left;
mod already;
mod arguments;
mod audit;
mod break_glass;
mod cleanup;
mod client;
mod config;
mod differences;
mod fields;
mod invoke;
mod keys;
mod lambda;
mod mattermost;
mod operator;
mod output;
mod pages;
mod reconcile;
mod requests;
mod sandbox;
mod serve;
mod short_id;
mod sign;
mod store;
mod tables;
mod typed;
mod unwritten;
mod verify;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use serde_json::Value;

use crate::config::{Client, Config, ConfigError, StoreKind, Variables};
use crate::domain::AccountId;
use arguments::{
    Arguments, AuditCommand, BreakGlassCommand, CliCommand, ConfigCommand, KeysCommand,
    MattermostCommand, StoreCommand, TablesCommand,
};
use output::Output;
use reconcile::Fix;

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{message}")]
    Refused {
        message: String,
        code: String,
        /// The request whose status does not allow the command.
        request: Option<Box<Value>>,
    },
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Usage(String),
    /// `jit break-glass`: the person may have access all the same.
    #[error("{0}")]
    Unconfirmed(String),
}

impl Failure {
    fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::Config(_) => "configuration",
            Self::Failed(_) => "failed",
            Self::Usage(_) => "usage",
            Self::Unconfirmed(_) => "unconfirmed",
        }
    }

    fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unconfirmed(_) => 3,
            _ => 1,
        }
    }
}

/// The context of every command.
pub(crate) struct CliContext {
    pub config_path: Option<PathBuf>,
    pub variables: Variables,
    pub output: Output,
    pub via: Option<arguments::Via>,
    pub acting: arguments::Acting,
}

impl CliContext {
    pub async fn config(&self) -> Result<Config, ConfigError> {
        let read = crate::config::read(self.config_path.as_deref(), &self.variables).await;
        read.map_err(|why| self.without_file(why))
    }

    /// Without a file, the missing file is the error, and not the first key that it would have.
    fn without_file(&self, why: ConfigError) -> ConfigError {
        let Some(missing) = self.missing_file() else {
            return why;
        };
        // Variables can take the place of the whole file, and then one of them is wrong.
        let has_variables = self.variables.keys().any(|name| name.starts_with("JIT_"));
        let text = match has_variables {
            true => format!("{missing}; without it, {why}"),
            false => format!("{missing}: write one as docs/install.md tells, or try: jit sandbox"),
        };
        ConfigError::new("jit.toml", text)
    }

    /// Says that the command finds no configuration file; none if it reads one.
    pub fn missing_file(&self) -> Option<&'static str> {
        let is_named = self.config_path.is_some() || self.variables.contains_key("JIT_CONFIG");
        let has_file = is_named || Path::new("jit.toml").exists();
        (!has_file).then_some("this folder has no such file, and --config and JIT_CONFIG name none")
    }

    pub fn config_offline(&self) -> Result<Config, ConfigError> {
        crate::config::read_offline(self.config_path.as_deref(), &self.variables)
            .map_err(|why| self.without_file(why))
    }

    /// For commands that need the store and AWS, and no keys of callers.
    pub fn config_without_secrets(&self) -> Result<Config, ConfigError> {
        crate::config::read_without_secrets(self.config_path.as_deref(), &self.variables)
            .map_err(|why| self.without_file(why))
    }

    /// For commands that need only the store.
    pub fn config_of_store(&self) -> Result<Config, ConfigError> {
        let read = crate::config::read_store(self.config_path.as_deref(), &self.variables);
        let config = read.map_err(|why| self.without_file(why))?;
        self.check_store_is_there(&config)?;
        Ok(config)
    }

    /// The default store is a file in this folder. If it is missing as well, the operator is in
    /// another folder than jit.
    fn check_store_is_there(&self, config: &Config) -> Result<(), ConfigError> {
        let path = &config.store.path;
        match self.missing_file() {
            Some(missing) if config.store.kind == StoreKind::Sqlite && !path.exists() => {
                let next = "run the command in jit's folder, or add --config FILE";
                let text = format!("{missing}, and there is no {}: {next}", path.display());
                Err(ConfigError::new("jit.toml", text))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The names of the accounts, which a client may have as well.
    pub fn account_names(&self) -> Result<BTreeMap<AccountId, String>, ConfigError> {
        crate::config::read_account_names(self.config_path.as_deref(), &self.variables)
    }

    /// The permission sets of which a request must name one.
    pub fn sets_to_choose(&self) -> Result<Vec<String>, ConfigError> {
        crate::config::read_sets_to_choose(self.config_path.as_deref(), &self.variables)
    }

    /// The permission sets that this `jit.toml` names; a client may name none.
    pub fn sets(&self) -> Result<Vec<String>, ConfigError> {
        crate::config::read_sets(self.config_path.as_deref(), &self.variables)
    }

    pub async fn config_with_seal_key(&self) -> Result<Config, ConfigError> {
        let path = self.config_path.as_deref();
        let config = crate::config::read_with_seal_key(path, &self.variables).await?;
        self.check_store_is_there(&config)?;
        Ok(config)
    }

    pub async fn client_if_any(&self) -> Result<Option<Client>, ConfigError> {
        crate::config::read_client(self.config_path.as_deref(), &self.variables).await
    }

    pub async fn client(&self) -> Result<Client, ConfigError> {
        let why = "jit has no key to sign with: set client.url, client.key_id and client.secret in \
                   jit.toml, or JIT_CLIENT__URL, JIT_CLIENT__KEY_ID and JIT_CLIENT__SECRET";
        self.client_if_any()
            .await?
            .ok_or_else(|| self.without_file(ConfigError::new("client", why)))
    }
}

pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(typed(std::env::args_os().collect())) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to stdout and is not a failure; every other message goes to stderr.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(1),
            };
        }
    };
    let context = CliContext {
        config_path: arguments.config,
        variables: variables(),
        output: arguments.output,
        via: arguments.via,
        acting: arguments.acting,
    };
    match run(&context, arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            context.output.failure(&failure.to_string(), failure.code());
            ExitCode::from(failure.exit())
        }
    }
}

/// AWS Lambda starts the binary as `bootstrap`, without arguments.
fn typed(mut words: Vec<OsString>) -> Vec<OsString> {
    let name = words.first().map(Path::new).and_then(Path::file_name);
    if words.len() == 1 && name.is_some_and(|name| name == "bootstrap") {
        words.push("lambda".into());
    }
    words
}

fn run(context: &CliContext, command: CliCommand) -> Result<(), Failure> {
    match command {
        CliCommand::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "jit", &mut std::io::stdout());
            Ok(())
        }
        CliCommand::Keys(KeysCommand::Generate { id, write }) => {
            keys::generate(context, &id, write)
        }
        command => {
            let runtime = tokio::runtime::Runtime::new()
                .map_err(|why| Failure::Failed(format!("jit cannot start its threads: {why}")))?;
            runtime.block_on(run_async(context, command))
        }
    }
}

async fn run_async(context: &CliContext, command: CliCommand) -> Result<(), Failure> {
    match command {
        CliCommand::Serve => serve::serve(context).await,
        CliCommand::Lambda => lambda::lambda(context).await,
        CliCommand::Sign(sign) => sign::sign(context, &sign).await,
        CliCommand::Sandbox { once } => sandbox::sandbox(context, once).await,
        CliCommand::BreakGlass(BreakGlassCommand::Revoke(asked)) => {
            break_glass::revoke(context, &asked).await
        }
        CliCommand::Cleanup(asked) => cleanup::cleanup(context, &asked).await,
        CliCommand::Reconcile { fix, yes } => {
            let fix = match (fix, yes) {
                (false, _) => Fix::Nothing,
                (true, false) => Fix::Ask,
                (true, true) => Fix::Yes,
            };
            reconcile::reconcile(context, fix).await
        }
        CliCommand::Config(ConfigCommand::Check { offline }) => {
            config::check(context, offline).await
        }
        CliCommand::Store(StoreCommand::Copy(copy)) => store::copy(context, &copy).await,
        CliCommand::Store(StoreCommand::Backup { file }) => store::back_up(context, &file).await,
        CliCommand::Mattermost(MattermostCommand::Setup(asked)) => {
            mattermost::set_up(context, &asked).await
        }
        CliCommand::Mattermost(MattermostCommand::Check) => mattermost::check(context).await,
        CliCommand::Tables(TablesCommand::Create) => tables::create(context).await,
        CliCommand::Tables(TablesCommand::Check) => tables::check(context).await,
        CliCommand::Audit(AuditCommand::Show { id }) => audit::show(context, &id).await,
        CliCommand::Audit(AuditCommand::Export(filter)) => audit::export(context, &filter).await,
        CliCommand::Audit(AuditCommand::Verify { id }) => {
            verify::verify(context, id.as_deref()).await
        }
        command => requests::run(context, command).await,
    }
}

fn variables() -> BTreeMap<String, String> {
    // jit ignores variables that are not UTF-8.
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name
            .into_string()
            .ok()
            .filter(|name| name.starts_with("JIT_"))?;
        Some((name, value.into_string().ok()?))
    });
    ours.collect()
}

#[cfg(test)]
mod advice;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_definition_of_the_arguments() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let after = command.get_after_help().map(ToString::to_string);
                let after = after.unwrap_or_default();
                assert!(
                    after.contains("Example"),
                    "{path} has no example: {after:?}"
                );
            }
            for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
                walk(inner, &path);
            }
        }
        walk(&Arguments::command(), "");
    }
}
