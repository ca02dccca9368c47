//! `jit sandbox`: the whole system on one machine, with nothing to install.
//!
//! The server, the store, the signatures and the worker are real; Identity Center and the
//! channel are simulated. All files are in a temporary folder, which jit deletes at the end.

mod channel;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::client::Caller;
use super::output::{clean, print, tell};
use super::requests::describe;
use super::serve::{failed, stop_asked};
use super::{CliContext, Failure};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Client, LogFormat, Variables};
use crate::files;
use crate::serve;
use crate::signature::Secret;
use crate::telemetry;
use channel::DemoChannel;

const ACCOUNT: &str = "123456789012";
const CHANNEL: &str = "town-square";

pub(super) async fn sandbox(context: &CliContext, once: bool) -> Result<(), Failure> {
    // The log of the server shows only warnings and errors.
    telemetry::log(LogFormat::Text, tracing::Level::WARN);
    let folder = Folder::new()?;
    let stop = stop_asked()?;
    let channel = DemoChannel::open().await?;
    let (file, secret) = write_configuration(&folder.0, &channel)?;
    let metrics = telemetry::install().map_err(failed)?;
    let reload: serve::Reload = Arc::new({
        let file = file.clone();
        move || {
            let file = file.clone();
            Box::pin(async move { config::read(Some(&file), &Variables::new()).await })
        }
    });
    let running = serve::start(reload().await?, reload, metrics)
        .await
        .map_err(failed)?;
    let url = format!("http://{}", running.address);
    rewrite_url(&file, &url)?;
    let caller = Caller::with(Client {
        url: url.clone(),
        key_id: "demo".into(),
        secret: Secret::new(secret),
    })?;
    let demo = Demo {
        context,
        caller,
        channel,
    };
    let told = demo.run().await;
    if told.is_ok() && !once {
        demo.invite(&url, &file).await?;
        stop.await;
    }
    running.stop().await;
    told
}

/// A temporary folder, deleted on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("jit-sandbox-{}", SystemClock.draw()));
        let made = std::fs::create_dir(&path)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)));
        made.map_err(|why| Failure::Failed(format!("jit cannot make {}: {why}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(why) = std::fs::remove_dir_all(&self.0) {
            tell(&format!("cannot delete {}: {why}", self.0.display()));
        }
    }
}

/// Returns the file and the secret of its key.
fn write_configuration(folder: &Path, channel: &DemoChannel) -> Result<(PathBuf, String), Failure> {
    let file = folder.join("jit.toml");
    let secret = format!("{}{}", SystemClock.draw(), SystemClock.draw());
    let store = folder.join("jit.db").display().to_string();
    let (hook, hook_secret) = (&channel.url, &channel.secret_text);
    let text = format!(
        "# The configuration of jit sandbox. jit deletes this folder when it stops.\n\
         [server]\nlisten = \"127.0.0.1:0\"\n\n\
         [store]\npath = {store:?}\n\n\
         [identity_center]\nmode = \"sandbox\"\n\n\
         [keys.demo]\nsecret = \"{secret}\"\n\n\
         [webhook]\nurl = \"{hook}\"\nsecret = \"{hook_secret}\"\n\n\
         [client]\nurl = \"http://127.0.0.1:0\"\nkey_id = \"demo\"\nsecret = \"{secret}\"\n"
    );
    write(&file, &text)?;
    Ok((file, secret))
}

/// Writes the address at which the server listens into the configuration.
fn rewrite_url(file: &Path, url: &str) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).map_err(failed)?;
    write(file, &text.replace("http://127.0.0.1:0", url))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let written = files::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(file)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|why| Failure::Failed(format!("jit cannot write {}: {why}", file.display())))
}

struct Demo<'a> {
    context: &'a CliContext,
    caller: Caller,
    channel: DemoChannel,
}

impl Demo<'_> {
    /// The life of one request, as the people see it.
    async fn run(&self) -> Result<(), Failure> {
        self.print("An admin binds an account to a channel and names the approvers.")?;
        let terms = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
        self.post("/config/bind", &terms).await?;
        let approvers = json!({"channel_id": CHANNEL, "approver_ids": ["bob", "carol"]});
        self.post("/config/approvers", &approvers).await?;

        self.print("\nAlice asks for an hour of admin.")?;
        let wanted = json!({
            "account_id": ACCOUNT,
            "channel_id": CHANNEL,
            "requester_mm_user_id": "alice",
            "requester_email": "alice@example.com",
            "reason": "INC-42: db down",
            "requested_duration_minutes": 60,
        });
        let request = self.post("/requests", &wanted).await?;
        let id = request["request_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();

        self.print("\nBob approves.")?;
        let bob = json!({"approver_mm_user_id": "bob", "approver_email": "bob@example.com"});
        self.post(&format!("/requests/{id}/approve"), &bob).await?;

        self.print("\nIdentity Center makes the assignment. The channel receives:")?;
        self.print_notice("GRANTED").await?;

        self.print(
            "\nSecurity revokes the access. jit answers when AWS shows that the access is gone.",
        )?;
        let sec = json!({
            "actor_mm_user_id": "sec",
            "actor_email": "sec@example.com",
            "reason": "incident 7",
        });
        let revoked = self.post(&format!("/requests/{id}/revoke"), &sec).await?;
        self.print("\nThe channel receives:")?;
        self.print_notice("REVOKED").await?;

        self.print("\nThe request now:")?;
        self.print(&indented(&describe(&revoked)))?;
        self.print("\nThe audit history, with a hash chain over all events:")?;
        let path = format!("/requests/{id}/audit");
        let audit = self.caller.get(&path).await?.value;
        for event in audit.as_array().into_iter().flatten() {
            let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let (time, kind, who) = (word("event_time"), word("event_type"), word("actor_email"));
            self.print(format!("    {time}  {kind:<17} {who}").trim_end())?;
        }
        Ok(())
    }

    /// Makes a signed call and prints it.
    async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let answer = self.caller.post(path, body).await?;
        let what = answer.value["status"].as_str().unwrap_or("done");
        self.print(&format!("    POST {path} → {} {what}", answer.status))?;
        Ok(answer.value)
    }

    async fn print_notice(&self, status: &str) -> Result<(), Failure> {
        let notice = self.channel.next().await?;
        let word = |name: &str| clean(notice[name].as_str().unwrap_or_default());
        let details = notice["details"].as_object().cloned().unwrap_or_default();
        let details: Vec<String> = details
            .iter()
            .map(|(name, value)| format!("{name}: {}", clean(value.as_str().unwrap_or_default())))
            .collect();
        self.print(&format!(
            "    #{}  {} by {} — {}",
            word("channel_id"),
            word("status"),
            word("actor"),
            details.join(", ")
        ))?;
        if notice["status"] == status {
            return Ok(());
        }
        let said = &notice["status"];
        Err(Failure::Failed(format!(
            "the channel received {said}, not {status}"
        )))
    }

    /// Prints commands that work when they are pasted together: their request exists.
    async fn invite(&self, url: &str, file: &Path) -> Result<(), Failure> {
        let wanted = json!({
            "account_id": ACCOUNT,
            "channel_id": CHANNEL,
            "requester_mm_user_id": "dave",
            "requester_email": "dave@example.com",
            "reason": "INC-43: a first test",
            "requested_duration_minutes": 30,
        });
        let request = self.caller.post("/requests", &wanted).await?.value;
        let id = request["request_id"].as_str().unwrap_or_default();
        let file = file.display();
        let jit = std::env::current_exe().map_err(failed)?;
        let jit = jit.display();
        self.print(&format!(
            "\njit listens on {url}. Dave has asked for half an hour of admin. Paste these commands into \
             another terminal:\n\n  \
             jit() {{ '{jit}' \"$@\"; }}\n  \
             export JIT_CONFIG='{file}'\n  \
             jit approve {id} --as bob@example.com\n  \
             jit status {id}\n  \
             jit revoke {id} --reason 'done' --wait --as sec@example.com\n  \
             jit list --channel {CHANNEL}\n  \
             jit request --account {ACCOUNT} --channel {CHANNEL} --minutes 30 \\\n      \
             --permission-set admin --reason 'a second test' --as alice@example.com\n  \
             jit audit verify\n\n\
             Ctrl-C stops jit and deletes the temporary folder."
        ))
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        match self.context.output {
            super::Output::Text => print(&clean(text)),
            super::Output::Json => print(&json!({"said": text.trim()}).to_string()),
        }
    }
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| format!("    {line}"));
    lines.collect::<Vec<_>>().join("\n")
}
