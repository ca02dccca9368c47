//! One server process: starts its loops and its listener, and stops them in order.

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

use crate::app::{Purpose, Server, StartError};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError};
use crate::domain::Millis;
use crate::http::connections::Connections;
use crate::http::keyring::{Keyring, KnownSecrets};
use crate::http::listen::{IDLE_TIMEOUT, listen};
use crate::http::{HttpState, metrics_router};
use crate::worker::heads::{CatchUp, keep_heads};
use crate::worker::tidy::tidy_up;

/// The key of the main address.
const LISTEN: &str = "server.listen";
const LOOK_AT_KEYS_EVERY: Millis = Millis::seconds(2);
/// How often jit reads keys from Secrets Manager, which charges for each call.
pub(crate) const ASK_FOR_KEYS_EVERY: Millis = Millis::minutes(1);
/// How long a stop may take: less than the ten seconds between SIGTERM and SIGKILL.
const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(8);

/// A running server.
#[derive(Debug)]
pub struct Running {
    pub address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The function that reads the configuration again when its files change.
pub type Reload = Arc<dyn Fn() -> BoxFuture<'static, Result<Config, ConfigError>> + Send + Sync>;

/// Starts the server: the worker, the notice worker, the clean-up, the watch of the keys and the
/// HTTP listener.
pub async fn start(
    config: Config,
    reload: Reload,
    metrics: PrometheusHandle,
) -> Result<Running, StartError> {
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (listen_on, watched) = (config.server.listen, Watched::of(&config));
    let metrics_on = config.server.metrics_listen;
    let no_metrics = metrics_on.is_none() && config.server.metrics_token.is_none();
    let server = Server::build(config, Purpose::Serve, metrics, stop.clone()).await?;
    if let Err(error) = server.http.service.begin_heads().await {
        tracing::error!(%error, "the first entry of the head log is not written, will be retried");
    }
    let listener = bind(LISTEN, listen_on).await?;
    if let Some(address) = metrics_on {
        let listener = bind("server.metrics_listen", address).await?;
        tasks.spawn(answer_metrics(listener, server.http.clone(), stop.clone()));
    }
    let address = listener.local_addr().map_err(|why| StartError::Listen {
        key: LISTEN,
        address: listen_on,
        why,
    })?;

    if no_metrics {
        tracing::info!("/metrics answers 404: set server.metrics_listen or server.metrics_token");
    }
    let Server {
        http,
        router,
        worker,
        notices,
    } = server;
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
        async move { tidy_up(&service, stop).await }
    });
    tasks.spawn({
        let (service, stop) = (http.service.clone(), stop.clone());
        async move { keep_heads(&service, CatchUp::EachMinute, stop).await }
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

impl Running {
    /// Accepts no more calls, gives up work that does not finish in time, and returns when all
    /// tasks have ended. The remaining work stays due, and the next worker claims it.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("stopped before all work was done; the next start continues it");
        }
    }
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|why| StartError::Listen { key, address, why })
}

async fn answer(
    listener: TcpListener,
    router: Router,
    http: Arc<HttpState>,
    stop: CancellationToken,
) {
    let open_files = raise_open_files();
    let connections = Connections::within(open_files);
    let most = connections.most();
    http.bodies.fit(most);
    if open_files < Connections::files_wanted() {
        let wanted = Connections::files_wanted();
        tracing::warn!(
            open_files,
            connections = most,
            "the limit of open files is low, so jit accepts fewer connections; raise it to {wanted} \
             (systemd: LimitNOFILE)"
        );
    } else {
        tracing::info!(open_files, connections = most, "jit limits its connections");
    }
    listen(listener, router, connections, IDLE_TIMEOUT, stop).await;
    http.tasks.close();
    http.tasks.wait().await;
}

async fn answer_metrics(listener: TcpListener, http: Arc<HttpState>, stop: CancellationToken) {
    let (router, connections) = (metrics_router(http), Connections::few());
    listen(listener, router, connections, IDLE_TIMEOUT, stop).await;
}

/// A3: raises the limit of open files, as far as the system allows, and returns it.
fn raise_open_files() -> u64 {
    let wanted = Connections::files_wanted();
    let limit = rlimit::increase_nofile_limit(wanted);
    limit.unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files could not be read or raised; jit accepts few connections");
        0
    })
}

/// The places where jit looks for changed keys.
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

/// Replaces the keys without a restart: after a change of the files, after SIGHUP, and, if
/// Secrets Manager keeps a secret, every minute. If the configuration cannot be read, the old
/// keys stay valid.
async fn watch_keys(
    mut watched: Watched,
    reload: Reload,
    keyring: Arc<Keyring>,
    stop: CancellationToken,
) {
    let mut hangup = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            return tracing::error!(%error, "SIGHUP has no handler: new keys need a restart");
        }
    };
    let clock = SystemClock;
    let (mut seen, mut read_at) = (changed_at(&watched.files), clock.uptime());
    loop {
        let asked = tokio::select! {
            notified = hangup.recv() => notified.is_some(),
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
            watched = Watched::of(&config);
            seen = changed_at(&watched.files);
        }
    }
}

/// Reads the configuration and replaces the keys. On an error the old keys stay valid.
pub(crate) async fn read_again(reload: &Reload, keyring: &Keyring) -> Option<Config> {
    match reload().await {
        Ok(mut config) => {
            let changed = keyring.replace(KnownSecrets::take(&mut config));
            if !changed.is_empty() {
                let changed = changed.join(", ");
                tracing::info!(%changed, "jit has read these keys and tokens again and uses the new ones");
            }
            Some(config)
        }
        Err(error) => {
            tracing::error!(%error, "the configuration cannot be read; the old keys stay valid");
            None
        }
    }
}

/// Returns the modification time and the size of each file, to detect a change.
fn changed_at(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let look = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        Some((found.modified().ok()?, found.len()))
    };
    files.iter().map(look).collect()
}
