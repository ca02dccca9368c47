//! One process: every room put together, started in order and stopped in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, ConfigError, IdentityCenterConfig, StoreKind};
use crate::domain::{Millis, Timestamp};
use crate::http::keyring::Keyring;
use crate::http::listen::{HEAD_PATIENCE, listen};
use crate::http::{HttpState, router};
use crate::identity_center::sandbox::{Sandbox, SandboxError, SandboxOptions};
pub(crate) use crate::identity_center::sdk as real;
use crate::identity_center::{Limits, Paced};
use crate::mattermost::{self, Cards, Mattermost, Names};
use crate::service::{Announce, Service};
use crate::signature;
use crate::store::dynamodb::DynamoStore;
use crate::store::portable::Portable;
use crate::store::sqlite::{OpenError, SqliteStore};
use crate::store::{Store, StoreError};
use crate::worker::Worker;
use crate::worker::notices::{NoticeWorker, Receiver};
use crate::worker::webhook::WebhookReceiver;

const LOOK_AT_KEYS_EVERY: Millis = Millis::seconds(2);
/// Of Secrets Manager, which charges for every question.
pub(crate) const ASK_FOR_KEYS_EVERY: Millis = Millis::minutes(1);
/// Within the ten seconds that a process has between SIGTERM and SIGKILL.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(8);

/// A process that serves.
#[derive(Debug)]
pub struct Running {
    pub address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Store(#[from] OpenStoreError),
    #[error("the simulated Identity Center cannot keep its state: {0}")]
    Sandbox(#[from] SandboxError),
    #[error("server.listen: cannot listen on {address}: {why}; choose another address")]
    Listen { address: SocketAddr, why: io::Error },
    #[error("no calls can be made: {0}")]
    Webhook(#[from] reqwest::Error),
}

/// How the configuration is read again when its files change.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Config, ConfigError>> + Send + Sync>;

/// The rooms of a process, put together and not yet at work.
pub(crate) struct App {
    pub http: Arc<HttpState>,
    pub router: Router,
    pub worker: Worker,
    /// Nobody carries if nobody is told.
    pub notices: Option<NoticeWorker>,
}

pub(crate) async fn build(
    config: Config,
    purpose: Purpose,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> Result<App, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = store(&config.store, purpose, &clock).await?;
    let signed_after = signed_after(store.as_ref()).await?;
    let access = Arc::new(identity_center(config.identity_center, config.sandbox, &clock).await?);
    let announce = Announce::to(config.webhook.as_ref(), config.mattermost.as_ref());
    let service = Arc::new(Service::new(store, clock.clone(), config.policy, announce));
    let names = Names::new(config.accounts);
    let mut receivers: Vec<Arc<dyn Receiver>> = Vec::new();
    if let Some(webhook) = config.webhook {
        receivers.push(Arc::new(WebhookReceiver::new(webhook, clock)?));
    }
    let (mut tokens, mut chat) = (Vec::new(), None);
    if let Some(mut mattermost) = config.mattermost {
        tokens = std::mem::take(&mut mattermost.command_tokens);
        let cards = Cards::of(&mattermost, names.clone(), service.clone())?;
        let cards = Arc::new(cards);
        receivers.push(cards.clone());
        chat = Some((mattermost, cards));
    }
    let keyring = Arc::new(Keyring::new(config.keys, tokens));
    let worker = Worker::new(service.clone(), access);
    let mut http = HttpState::new(service.clone(), keyring, metrics, stop);
    http.signed_after = signed_after;
    http.worker = (purpose == Purpose::Serve).then(|| worker.clone());
    let http = Arc::new(http);
    let others = match chat {
        Some((config, cards)) => {
            let mattermost = Mattermost::new(http.clone(), config, names, cards)?;
            mattermost::router(Arc::new(mattermost))
        }
        None => Router::new(),
    };
    Ok(App {
        router: router(http.clone(), others),
        http,
        notices: (!receivers.is_empty())
            .then(|| NoticeWorker::new(service.clone(), Arc::new(receivers))),
        worker,
    })
}

pub async fn start(
    config: Config,
    reload: Reload,
    metrics: PrometheusHandle,
) -> Result<Running, StartError> {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (listen_on, watched) = (config.server.listen, Watched::of(&config));
    let app = build(config, Purpose::Serve, metrics, stop.clone()).await?;
    let listener = bind(listen_on).await?;
    let address = listener.local_addr().map_err(|why| StartError::Listen {
        address: listen_on,
        why,
    })?;

    let App {
        http,
        router,
        worker,
        notices,
    } = app;
    tasks.spawn({
        let stop = stop.clone();
        async move { worker.run(stop).await }
    });
    if let Some(notices) = notices {
        let stop = stop.clone();
        tasks.spawn(async move { notices.run(stop).await });
    }
    tasks.spawn({
        let (service, stop) = (http.service.clone(), stop.clone());
        async move { service.tidy_up(stop).await }
    });
    let keyring = http.keyring.clone();
    tasks.spawn(watch_keys(watched, reload, keyring, stop.clone()));
    tasks.spawn(answer(listener, router, http, stop.clone()));
    tasks.close();
    Ok(Running {
        address,
        stop,
        tasks,
    })
}

/// A copy does not have what was spent in the original: what could have been signed for
/// that one is not taken here.
async fn signed_after(store: &dyn Store) -> Result<Option<Timestamp>, OpenStoreError> {
    let copied_at = store.copied_at().await?;
    let after = copied_at.map(|at| at + signature::WINDOW);
    if let Some(after) = after.filter(|after| *after > SystemClock.now()) {
        tracing::warn!(%after, "this store was copied just now: signed calls are taken only after");
    }
    Ok(after)
}

/// What a process opens the store for. In one file they differ; in DynamoDB conditions
/// decide between all who come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Serve,
    /// To answer whoever called already: what is not there, the first call finds.
    AnswerAtOnce,
    /// Beside whoever serves.
    Operate,
    /// To change nothing.
    Look,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("{0}")]
    File(#[from] OpenError),
    #[error("{0}")]
    Tables(#[from] StoreError),
}

pub async fn store(
    which: &config::StoreConfig,
    purpose: Purpose,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Store>, OpenStoreError> {
    let path = &which.path;
    Ok(match which.kind {
        StoreKind::Sqlite => Arc::new(match purpose {
            Purpose::Serve | Purpose::AnswerAtOnce => SqliteStore::open(path)?,
            Purpose::Operate => SqliteStore::open_for_operator(path)?,
            Purpose::Look => SqliteStore::open_read_only(path)?,
        }),
        StoreKind::Dynamodb if purpose == Purpose::AnswerAtOnce => {
            Arc::new(DynamoStore::connect(which.tables.clone(), clock.clone()).await)
        }
        StoreKind::Dynamodb => Arc::new(dynamo(which, clock).await?),
    })
}

/// As something that can be copied, or copied into; nobody may be serving a file that is.
pub async fn portable(
    which: &config::StoreConfig,
    clock: &Arc<dyn Clock>,
) -> Result<Box<dyn Portable>, OpenStoreError> {
    Ok(match which.kind {
        StoreKind::Sqlite => Box::new(SqliteStore::open(&which.path)?),
        StoreKind::Dynamodb => Box::new(dynamo(which, clock).await?),
    })
}

async fn dynamo(
    which: &config::StoreConfig,
    clock: &Arc<dyn Clock>,
) -> Result<DynamoStore, StoreError> {
    let store = DynamoStore::connect(which.tables.clone(), clock.clone()).await;
    store.knock().await?;
    Ok(store)
}

/// The real one, or the simulated, at the pace that it allows.
pub async fn identity_center(
    which: IdentityCenterConfig,
    sandbox: SandboxOptions,
    clock: &Arc<dyn Clock>,
) -> Result<Paced, SandboxError> {
    Ok(match which {
        IdentityCenterConfig::Sandbox => {
            let sandbox = Sandbox::open(sandbox, clock.clone())?;
            Paced::new(Arc::new(sandbox), Limits::None, clock.clone())
        }
        IdentityCenterConfig::Aws {
            options,
            calls_per_second,
        } => {
            let center = real::SsoIdentityCenter::connect(options).await;
            let limits = Limits::Aws { calls_per_second };
            Paced::new(Arc::new(center), limits, clock.clone())
        }
    })
}

impl Running {
    /// Takes no more calls, lets go of what cannot be finished soon, and returns when all
    /// is still. What is left is due, and found by whoever comes next.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(PATIENCE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("stopped with work under way; it is found again at the next start");
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|why| StartError::Listen { address, why })
}

async fn answer(
    listener: TcpListener,
    router: Router,
    http: Arc<HttpState>,
    stop: CancellationToken,
) {
    listen(listener, router, HEAD_PATIENCE, stop).await;
    http.tasks.close();
    http.tasks.wait().await;
}

/// What a change of keys shows in.
struct Watched {
    files: Vec<PathBuf>,
    kept_elsewhere: bool,
}

impl Watched {
    fn of(config: &Config) -> Self {
        Self {
            files: config.files.clone(),
            kept_elsewhere: config.kept_elsewhere,
        }
    }
}

/// Keys are rotated without a restart: a change of the files, or SIGHUP, is enough; what
/// is kept in Secrets Manager is asked for again every minute. A configuration that cannot
/// be read leaves the keys as they are.
async fn watch_keys(
    mut watched: Watched,
    reload: Reload,
    keyring: Arc<Keyring>,
    stop: CancellationToken,
) {
    let mut hangup = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            return tracing::error!(%error, "SIGHUP cannot be heard; keys stay as they are");
        }
    };
    let clock = SystemClock;
    let (mut seen, mut read_at) = (changed_at(&watched.files), clock.uptime());
    loop {
        let asked = tokio::select! {
            rung = hangup.recv() => rung.is_some(),
            () = clock.sleep(LOOK_AT_KEYS_EVERY) => false,
            () = stop.cancelled() => return,
        };
        let now = changed_at(&watched.files);
        let due = watched.kept_elsewhere && clock.uptime() >= read_at + ASK_FOR_KEYS_EVERY;
        if !asked && !due && now == seen {
            continue;
        }
        (seen, read_at) = (now, clock.uptime());
        if let Some(config) = read_again(&reload, &keyring).await {
            tracing::debug!("keys read again");
            watched = Watched::of(&config);
            seen = changed_at(&watched.files);
        }
    }
}

/// Replaces the keys, if there is a configuration to take them from.
pub(crate) async fn read_again(reload: &Reload, keyring: &Keyring) -> Option<Config> {
    match reload().await {
        Ok(mut config) => {
            let tokens = config.mattermost.as_mut();
            let tokens = tokens.map(|mattermost| std::mem::take(&mut mattermost.command_tokens));
            keyring.replace(std::mem::take(&mut config.keys), tokens.unwrap_or_default());
            Some(config)
        }
        Err(error) => {
            tracing::error!(%error, "configuration not read again; the keys stay");
            None
        }
    }
}

/// What changes when a file does: when it was written, and how long it is.
fn changed_at(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let look = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    files.iter().map(look).collect()
}
