//! jit under AWS Lambda: no process of its own, so whoever is called does what
//! is due.
//!
//! A call is answered by the same router as elsewhere. What it left to be done at once is
//! done by the same process, after the answer and before the next question: Lambda lets a
//! process run until it asks. What is due later is done by the schedule's invocation of
//! its minute; what was not finished is heard of by the table's stream.

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
use tower::Service;

use crate::clock::{Clock, SystemClock, Uptime};
use crate::config::{Config, ConfigError};
use crate::domain::{Millis, RequestId, Timestamp};
use crate::http::AnswerBy;
use crate::http::reply::Problem;
use crate::serve::{self, ASK_FOR_KEYS_EVERY, App, Purpose, Reload, StartError};
use crate::store::StoreError;
use crate::telemetry::{self, CloudWatch};
use crate::worker::RunMode;
pub use event::{LambdaEvent, Occasion, understand};
pub use runtime::RuntimeError;
use runtime::{Invocation, Runtime};

/// To write down that something is let go of, before Lambda ends the process.
const LAST_WORDS: Millis = Millis(1500);
/// To get an answer out before that.
const TO_ANSWER: Millis = Millis(500);
/// How often the schedule calls.
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

/// What Lambda says of itself in the environment.
pub struct LambdaEnvironment {
    pub runtime_api: String,
    pub function: String,
}

/// What an invocation measures once its work is done: the figures are the schedule's, or
/// they would be counted with every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measures {
    All,
    WhetherTheStoreAnswers,
}

struct Lambda {
    app: App,
    router: Router,
    reload: Reload,
    kept_elsewhere: bool,
    keys_read_at: Timestamp,
    metrics: PrometheusHandle,
    cloud_watch: CloudWatch,
}

/// Answers until it is asked to stop, or Lambda does not answer any more.
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
        // Whoever asked has given up on it; the next may not have.
        if let Err(error) = lambda.serve(invocation, &mut runtime, &stop).await {
            tracing::error!(%error, "an answer was not taken");
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
        let app =
            serve::build(config, Purpose::AnswerAtOnce, metrics.clone(), stop.clone()).await?;
        // Each invocation waits until there are none; those that come later count as well.
        app.http.tasks.close();
        Ok(Self {
            router: app.router.clone(),
            app,
            reload,
            kept_elsewhere,
            keys_read_at: SystemClock.now(),
            metrics,
            cloud_watch,
        })
    }

    /// One invocation, let go of in time.
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
                    tracing::error!(%why, "an event was not understood");
                    let problem = Problem::malformed(why).into_response();
                    runtime
                        .answer(&invocation.id, &event::told(problem).await)
                        .await
                }
            }
        };
        let in_time = async {
            SystemClock.sleep_until(times.let_go_at).await;
            give_up.cancel();
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            served = served => served,
            never = in_time => match never {},
        }
    }

    /// The answer first, and then what it left to be done at once.
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
        // Before anybody could put something there.
        self.app.worker.take_own_work();
        let answer = async {
            let response = match self.router.call(call).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let told = runtime.answer(id, &event::told(response).await).await;
            // What it left at work may still leave something in the work queue.
            tokio::select! {
                () = self.app.http.tasks.wait() => {}
                () = give_up.cancelled() => {}
            }
            answered.cancel();
            told
        };
        let staff = self
            .app
            .staff(RunMode::OwnWorkOnly, &[], &answered, give_up);
        let (told, ()) = tokio::join!(answer, staff);
        self.cloud_watch.tell_counts(&self.metrics);
        told
    }

    /// All that is due for this occasion. If not even how it stands can be read, it is not
    /// called done.
    async fn work(
        &mut self,
        occasion: Occasion,
        id: &str,
        runtime: &mut Runtime,
        give_up: &CancellationToken,
    ) -> Result<(), RuntimeError> {
        let now = SystemClock.now();
        let (horizon, named, measures) = match occasion {
            Occasion::Minute => (now + A_MINUTE, Vec::new(), Measures::All),
            Occasion::Changed(ids) => (now, ids, Measures::WhetherTheStoreAnswers),
        };
        let mode = RunMode::UntilIdle(horizon);
        self.app.staff(mode, &named, give_up, give_up).await;
        match self.measure(measures).await {
            Ok(()) => runtime.answer(id, &json!({"jit": "worked"})).await,
            Err(error) => {
                tracing::error!(%error, "the store could not be measured");
                runtime.fail(id, &error.to_string()).await
            }
        }
    }

    async fn measure(&mut self, measures: Measures) -> Result<(), StoreError> {
        let service = &self.app.http.service;
        match measures {
            Measures::All => {
                telemetry::set(&service.gauges().await?, service.clock().now());
                self.cloud_watch.tell_all(&self.metrics);
            }
            Measures::WhetherTheStoreAnswers => {
                service.check_store().await?;
                self.cloud_watch.tell_counts(&self.metrics);
            }
        }
        Ok(())
    }

    /// A process sleeps between two calls: whether keys were changed is asked with one.
    async fn look_at_keys(&mut self) {
        let now = SystemClock.now();
        if self.kept_elsewhere && now >= self.keys_read_at + ASK_FOR_KEYS_EVERY {
            self.keys_read_at = now;
            serve::read_again(&self.reload, &self.app.http.keyring).await;
        }
    }
}

impl App {
    /// Works until the mode is over, and carries what comes of it.
    async fn staff(
        &self,
        mode: RunMode,
        named: &[RequestId],
        stop: &CancellationToken,
        give_up: &CancellationToken,
    ) {
        let worked = CancellationToken::new();
        let work = async {
            self.worker.stay(mode, named, stop, give_up).await;
            worked.cancel();
        };
        let carry = async {
            if let Some(notices) = &self.notices {
                notices.stay(mode, &worked, give_up).await;
            }
        };
        tokio::join!(work, carry);
    }
}

/// What must have happened when, for an invocation that Lambda ends at its deadline.
struct Times {
    answer_by: Uptime,
    let_go_at: Uptime,
}

impl Times {
    fn until(left: Millis, now: Uptime) -> Self {
        let left = Millis(left.0.max(0));
        let last_words = LAST_WORDS.min(Millis(left.0 / 3));
        let to_answer = TO_ANSWER.min(Millis(left.0 / 6));
        let let_go_at = now + left + Millis(-last_words.0);
        Self {
            answer_by: let_go_at + Millis(-to_answer.0),
            let_go_at,
        }
    }
}
