//! Assembles the parts of a process from its configuration, and starts nothing: the same parts
//! for `jit serve`, for Lambda, for the commands of an operator and for the tests.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config, ConfigError, IdentityCenterConfig, StoreKind};
use crate::domain::Timestamp;
use crate::files;
use crate::http::address_book::AddressBook;
use crate::http::keyring::{Keyring, KnownSecrets};
use crate::http::rates::KeyRates;
use crate::http::{HttpState, router};
use crate::identity_center::sandbox::{Sandbox, SandboxError};
use crate::identity_center::sdk::SsoIdentityCenter;
use crate::identity_center::{Limits, Paced};
use crate::mattermost::{self, Addresses, Cards, DirectMessages, Mattermost, Names};
use crate::service::{Announce, Service};
use crate::signature;
use crate::store::dynamodb::DynamoStore;
use crate::store::portable::Portable;
use crate::store::sqlite::{OpenError, SqliteStore};
use crate::store::{Store, StoreError};
use crate::worker::Worker;
use crate::worker::notices::{NoticeWorker, Receiver};
use crate::worker::webhook::WebhookReceiver;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Store(#[from] OpenStoreError),
    #[error("the sandbox cannot store its state: {0}")]
    Sandbox(#[from] SandboxError),
    #[error("{key}: cannot listen on {address}: {why}; choose another address")]
    Listen {
        /// The configuration key with the address.
        key: &'static str,
        address: SocketAddr,
        why: io::Error,
    },
    #[error("the HTTP client for notices cannot be built: {0}")]
    Webhook(#[from] reqwest::Error),
}

/// The engine: the service on its store, and a worker that calls Identity Center.
pub struct App {
    pub service: Arc<Service>,
    /// Identity Center at the pace that the configuration allows.
    pub identity_center: Arc<Paced>,
    pub worker: Worker,
}

impl App {
    pub async fn open(
        config: &Config,
        identity_center: Arc<Paced>,
        purpose: Purpose,
    ) -> Result<Self, OpenStoreError> {
        let app = Self::new(service(config, purpose).await?, identity_center);
        Ok(match purpose {
            Purpose::Serve | Purpose::AnswerAtOnce => app,
            Purpose::Operate | Purpose::Read => Self {
                worker: app.worker.of_an_operator(),
                ..app
            },
        })
    }

    pub fn new(service: Arc<Service>, identity_center: Arc<Paced>) -> Self {
        Self {
            worker: Worker::new(service.clone(), identity_center.clone()),
            service,
            identity_center,
        }
    }
}

/// The engine with everything that reaches it from outside and everything that it tells.
pub(crate) struct Server {
    /// The state that the routes share.
    pub http: Arc<HttpState>,
    /// All routes, with those for Mattermost if it is configured.
    pub router: Router,
    pub worker: Worker,
    /// `None` if the configuration names no receiver of notices.
    pub notices: Option<NoticeWorker>,
}

impl Server {
    pub async fn build(
        mut config: Config,
        purpose: Purpose,
        metrics: PrometheusHandle,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let keyring = Arc::new(Keyring::new(KnownSecrets::take(&mut config)));
        let identity_center = identity_center(&config).await?;
        let app = App::open(&config, identity_center, purpose).await?;
        let (service, worker) = (app.service, app.worker);
        let names = Names::new(config.accounts);
        let mut receivers: Vec<Arc<dyn Receiver>> = Vec::new();
        if let (Some(webhook), Some(secret)) = (config.webhook, keyring.webhook_secret()) {
            let clock = Arc::new(SystemClock);
            receivers.push(Arc::new(WebhookReceiver::new(webhook, secret, clock)?));
        }
        let (mut chat, mut address_book) = (None, None::<Arc<dyn AddressBook>>);
        if let (Some(mattermost), Some(token)) = (config.mattermost, keyring.bot_token()) {
            let (shared, names) = (service.clone(), names.clone());
            let cards = Arc::new(Cards::of(&mattermost, token.clone(), names, shared)?);
            receivers.push(cards.clone());
            receivers.push(Arc::new(DirectMessages::of(&mattermost, cards.clone())));
            let clock = service.shared_clock();
            let addresses = Addresses::of(&mattermost, token.clone(), clock)?;
            address_book = Some(Arc::new(addresses));
            chat = Some((mattermost, token, cards));
        }
        // Under Lambda, CloudWatch has the metrics.
        let metrics = (purpose == Purpose::Serve).then_some(metrics);
        let mut http = HttpState::new(service.clone(), keyring, metrics, stop);
        http.rates = Arc::new(KeyRates::new(
            config.server.creates_per_second,
            config.server.create_burst,
        ));
        http.address_book = address_book;
        http.signed_after = signed_after(&service).await?;
        http.worker = (purpose == Purpose::Serve).then(|| worker.clone());
        let http = Arc::new(http);
        let others = match chat {
            Some((config, token, cards)) => {
                let mattermost = Mattermost::new(http.clone(), config, token, names, cards)?;
                mattermost::router(Arc::new(mattermost))
            }
            None => Router::new(),
        };
        Ok(Self {
            router: router(http.clone(), others),
            http,
            notices: (!receivers.is_empty()).then(|| NoticeWorker::new(service, receivers)),
            worker,
        })
    }
}

/// Returns the time before which this store accepts no signatures. A copy does not contain the
/// nonces that the original spent, so a call to the original could be replayed here. The same is
/// true for a store without its nonce logs.
async fn signed_after(service: &Service) -> Result<Option<Timestamp>, OpenStoreError> {
    let copied_at = service.copied_at().await?;
    let after = copied_at.map(|at| at + signature::WINDOW);
    if let Some(after) = after.filter(|after| *after > SystemClock.now()) {
        tracing::warn!(
            %after,
            "this store was copied just now or lost its nonce logs: jit refuses calls signed earlier, except revokes"
        );
    }
    Ok(after)
}

/// The purpose for which a process opens the store. It decides how SQLite locks the file; in
/// DynamoDB the conditions of each write decide between concurrent processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run a server: no other server may use the same SQLite file.
    Serve,
    /// To answer a call that already waits: jit does not check the tables first, and the first
    /// operation fails if one is missing.
    AnswerAtOnce,
    /// To run an operator's command, possibly beside a running server.
    Operate,
    /// To read only.
    Read,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    #[error("{0}")]
    File(#[from] OpenError),
    #[error("store.path: {0}")]
    Unusable(String),
    #[error("{0}")]
    Tables(#[from] StoreError),
}

/// The service on the configured store, for a command that needs no Identity Center.
pub(crate) async fn service(
    config: &Config,
    purpose: Purpose,
) -> Result<Arc<Service>, OpenStoreError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = store(&config.store, purpose, &clock).await?;
    let announce = Announce::to(config.webhook.as_ref(), config.mattermost.as_ref());
    let policy = config.policy.clone();
    let service = Service::new(store, clock, policy, announce);
    let service = service.sealing(config.seal_keys.clone());
    Ok(Arc::new(service.sealed_since(config.sealed_since)))
}

/// Opens the configured store. SQLite locks its file as `purpose` requires.
async fn store(
    which: &config::StoreConfig,
    purpose: Purpose,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn Store>, OpenStoreError> {
    let path = &which.path;
    Ok(match which.kind {
        StoreKind::Sqlite => Arc::new(match purpose {
            Purpose::Serve | Purpose::AnswerAtOnce => {
                SqliteStore::open(path).map_err(|why| unopened(path, why))?
            }
            Purpose::Operate => {
                SqliteStore::open_for_operator(path).map_err(|why| unopened(path, why))?
            }
            Purpose::Read => SqliteStore::open_read_only(path)?,
        }),
        StoreKind::Dynamodb if purpose == Purpose::AnswerAtOnce => {
            Arc::new(DynamoStore::connect(which.tables.clone(), clock.clone()).await)
        }
        StoreKind::Dynamodb => Arc::new(dynamo(which, clock).await?),
    })
}

/// H6: the error of the operating system does not say what is wrong with the path.
fn unopened(path: &Path, why: OpenError) -> OpenStoreError {
    match (&why, files::why_unusable(path)) {
        (OpenError::CannotLock { .. } | OpenError::CannotOpen { .. }, Some(unusable)) => {
            OpenStoreError::Unusable(unusable)
        }
        _ => why.into(),
    }
}

/// Opens the store as source or target of a copy. Fails if a server is using the SQLite file.
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
    store.check_tables().await?;
    Ok(store)
}

/// Connects to AWS or opens the sandbox, with the pace that each of them allows.
pub async fn identity_center(config: &Config) -> Result<Arc<Paced>, SandboxError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let paced = match config.identity_center.clone() {
        IdentityCenterConfig::Sandbox => {
            let sandbox = Sandbox::open(config.sandbox.clone(), clock.clone())?;
            Paced::new(Arc::new(sandbox), Limits::None, clock)
        }
        IdentityCenterConfig::Aws {
            options,
            calls_per_second,
        } => {
            let center = SsoIdentityCenter::connect(options).await;
            Paced::new(Arc::new(center), Limits::Aws { calls_per_second }, clock)
        }
    };
    Ok(Arc::new(paced))
}
