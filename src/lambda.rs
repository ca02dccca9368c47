//! jit under AWS Lambda, where no process runs all the time: each invocation does due work.
//!
//! The router is the same as in `jit serve`. The process does the work that a call left after
//! the answer, before it asks for the next invocation: Lambda lets a process run until it
//! asks. The invocation that the schedule makes every minute does the work that is due later.
//! The table's stream invokes jit for work that an invocation did not finish.

mod event;
mod runtime;

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::IntoResponse;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::app::{Purpose, Server, StartError};
use crate::clock::{Clock, SystemClock, Uptime};
use crate::config::{Config, ConfigError};
use crate::domain::{Millis, RequestId, Timestamp};
use crate::http::AnswerBy;
use crate::http::reply::Problem;
use crate::serve::{self, ASK_FOR_KEYS_EVERY, Reload};
use crate::service::Service;
use crate::store::StoreError;
use crate::telemetry::{self, CloudWatch};
use crate::worker::RunMode;
use crate::worker::heads::{self, CatchUp, keep_heads};
pub use event::{LambdaEvent, Occasion, understand};
pub use runtime::RuntimeError;
use runtime::{Invocation, Runtime};

/// The time reserved to record the interrupted work before Lambda ends the process.
const SHUTDOWN_MARGIN: Millis = Millis(1500);
/// The time reserved before that to send the answer.
const TO_ANSWER: Millis = Millis(500);
/// The period of the schedule.
const A_MINUTE: Millis = Millis::minutes(1);

#[derive(Debug, thiserror::Error)]
pub enum LambdaError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Runtime(#[from] RuntimeError),
}

/// The environment variables that Lambda sets for the process.
pub struct LambdaEnvironment {
    pub runtime_api: String,
    pub function: String,
}

/// The measurements of an invocation after its work. Only the schedule's invocation measures the
/// gauges: counting them after every change would cost too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measures {
    All,
    WhetherTheStoreAnswers,
}

struct Lambda {
    server: Server,
    router: Router,
    reload: Reload,
    kept_elsewhere: bool,
    keys_read_at: Timestamp,
    metrics: PrometheusHandle,
    cloud_watch: CloudWatch,
}

/// Serves invocations until it is asked to stop, or until the Runtime API fails.
pub async fn run(
    place: LambdaEnvironment,
    config: Result<Config, ConfigError>,
    reload: Reload,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> Result<(), LambdaError> {
    let mut runtime = Runtime::at(place.runtime_api);
    let cloud_watch = CloudWatch::of(place.function);
    let mut lambda = match Lambda::start(config, reload, metrics, cloud_watch, &stop).await {
        Ok(lambda) => lambda,
        Err(error) => {
            runtime.cannot_start(&error.to_string()).await?;
            return Err(error);
        }
    };
    loop {
        let invocation = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            next = runtime.next() => next?,
        };
        // Only this invocation failed, so the process continues with the next one.
        if let Err(error) = lambda.serve(invocation, &mut runtime, &stop).await {
            tracing::error!(%error, "Lambda did not accept an answer; the next invocation continues the work");
        }
    }
}

impl Lambda {
    async fn start(
        config: Result<Config, ConfigError>,
        reload: Reload,
        metrics: PrometheusHandle,
        cloud_watch: CloudWatch,
        stop: &CancellationToken,
    ) -> Result<Self, LambdaError> {
        let config = config?;
        let kept_elsewhere = config.kept_elsewhere;
        let server =
            Server::build(config, Purpose::AnswerAtOnce, metrics.clone(), stop.clone()).await?;
        // A closed tracker still accepts tasks, and each invocation waits until none is left.
        server.http.tasks.close();
        Ok(Self {
            router: server.router.clone(),
            server,
            reload,
            kept_elsewhere,
            keys_read_at: SystemClock.now(),
            metrics,
            cloud_watch,
        })
    }

    /// Serves one invocation, and gives up its work before Lambda's deadline.
    async fn serve(
        &mut self,
        invocation: Invocation,
        runtime: &mut Runtime,
        stop: &CancellationToken,
    ) -> Result<(), RuntimeError> {
        let left = invocation.deadline - SystemClock.now();
        let times = Times::until(left, SystemClock.uptime());
        let give_up = stop.child_token();
        let served = async {
            match understand(&invocation.event) {
                Ok(LambdaEvent::Call(call)) => {
                    self.answer(*call, &times, &invocation.id, runtime, &give_up)
                        .await
                }
                Ok(LambdaEvent::Work(occasion)) => {
                    self.work(occasion, &invocation.id, runtime, &give_up).await
                }
                Err(why) => {
                    tracing::error!(error = %why, "the event has no known form; its sender gets a 400");
                    let problem = Problem::malformed(why).into_response();
                    runtime
                        .answer(&invocation.id, &event::gateway_response(problem).await)
                        .await
                }
            }
        };
        let in_time = async {
            SystemClock.sleep_until(times.release_at).await;
            give_up.cancel();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            served = served => served,
            never = in_time => match never {},
        }
    }

    /// Answers a call, and then does the work that the call left.
    async fn answer(
        &mut self,
        mut call: Request<Body>,
        times: &Times,
        id: &str,
        runtime: &mut Runtime,
        give_up: &CancellationToken,
    ) -> Result<(), RuntimeError> {
        self.look_at_keys().await;
        call.extensions_mut().insert(AnswerBy(times.answer_by));
        let answered = CancellationToken::new();
        let service = self.server.http.service.clone();
        // The worker must own the queue before the call can put work into it.
        self.server.worker.take_own_work();
        let answer = async {
            let response = match self.router.call(call).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let told = runtime
                .answer(id, &event::gateway_response(response).await)
                .await;
            // The tasks of the call may still put work into the work queue.
            tokio::select! {
                () = self.server.http.tasks.wait() => {}
                () = give_up.cancelled() => {}
            }
            answered.cancel();
            told
        };
        let work =
            self.server
                .run_worker_and_notices(RunMode::OwnWorkOnly, &[], &answered, give_up);
        let both = async { tokio::join!(answer, work).0 };
        let told = keeping_heads(&service, both, give_up).await;
        self.cloud_watch.emit_counts(&self.metrics);
        told
    }

    /// Does all work that is due for this occasion. If the store cannot be read afterwards, the
    /// invocation fails, so that Lambda repeats it.
    async fn work(
        &mut self,
        occasion: Occasion,
        id: &str,
        runtime: &mut Runtime,
        give_up: &CancellationToken,
    ) -> Result<(), RuntimeError> {
        // The worker signs webhooks and writes as the bot.
        self.look_at_keys().await;
        let now = SystemClock.now();
        let (horizon, named, measures) = match occasion {
            Occasion::Minute => (now + A_MINUTE, Vec::new(), Measures::All),
            Occasion::Changed(ids) => (now, ids, Measures::WhetherTheStoreAnswers),
        };
        let mode = RunMode::UntilIdle(horizon);
        let service = &self.server.http.service;
        let work = self
            .server
            .run_worker_and_notices(mode, &named, give_up, give_up);
        keeping_heads(service, work, give_up).await;
        if measures == Measures::All
            && let Err(error) = heads::write(service, true).await
        {
            tracing::error!(%error, "head log not written, will be retried");
        }
        match self.measure(measures).await {
            Ok(()) => runtime.answer(id, &json!({"jit": "worked"})).await,
            Err(error) => {
                tracing::error!(%error, "the store did not answer; the invocation fails");
                runtime.fail(id, &error.to_string()).await
            }
        }
    }

    async fn measure(&mut self, measures: Measures) -> Result<(), StoreError> {
        let service = &self.server.http.service;
        match measures {
            Measures::All => {
                telemetry::set(&service.gauges().await?, service.clock().now());
                self.cloud_watch.emit_all(&self.metrics);
            }
            Measures::WhetherTheStoreAnswers => {
                service.check_store().await?;
                self.cloud_watch.emit_counts(&self.metrics);
            }
        }
        Ok(())
    }

    /// Reads the keys again, at most once per interval. Lambda freezes the process between two
    /// invocations, so only an invocation can do this.
    async fn look_at_keys(&mut self) {
        let now = SystemClock.now();
        if self.kept_elsewhere && now >= self.keys_read_at + ASK_FOR_KEYS_EVERY {
            self.keys_read_at = now;
            serve::read_again(&self.reload, &self.server.http.keyring).await;
        }
    }
}

/// Does this work, and writes the head log beside it: each second, and once after it, before Lambda
/// freezes the process. No caller waits for that. If the time is over before a write, the
/// schedule's invocation adds the missing entries.
async fn keeping_heads<T>(
    service: &Service,
    work: impl Future<Output = T>,
    give_up: &CancellationToken,
) -> T {
    let worked = CancellationToken::new();
    let work = async {
        let done = work.await;
        worked.cancel();
        done
    };
    let keep = async {
        tokio::select! {
            () = keep_heads(service, CatchUp::Never, worked.clone()) => {}
            () = give_up.cancelled() => {}
        }
    };
    tokio::join!(work, keep).0
}

impl Server {
    /// Runs the worker until its run mode ends, and delivers the notices of its work.
    async fn run_worker_and_notices(
        &self,
        mode: RunMode,
        named: &[RequestId],
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) {
        let worked = CancellationToken::new();
        let work = async {
            self.worker.run_as(mode, named, stop, give_up).await;
            worked.cancel();
        };
        let deliver = async {
            if let Some(notices) = &self.notices {
                notices.run_as(mode, &worked, give_up).await;
            }
        };
        tokio::join!(work, deliver);
    }
}

/// The times of an invocation that follow from Lambda's deadline.
struct Times {
    answer_by: Uptime,
    release_at: Uptime,
}

impl Times {
    fn until(left: Millis, now: Uptime) -> Self {
        let left = Millis(left.0.max(0));
        let last_words = SHUTDOWN_MARGIN.min(Millis(left.0 / 3));
        let to_answer = TO_ANSWER.min(Millis(left.0 / 6));
        let release_at = now + left + Millis(-last_words.0);
        Self {
            answer_by: release_at + Millis(-to_answer.0),
            release_at,
        }
    }
}
