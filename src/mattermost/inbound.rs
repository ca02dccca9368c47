//! The routes that Mattermost calls. Mattermost shows a failure after three seconds: work that
//! takes longer continues, and the bot sends the result.

mod click;
mod dialog;
mod fields;
mod reason;
mod typed;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use tokio::sync::oneshot;

use super::{ACTION, Answer, COMMAND, DIALOG, Mattermost};
use crate::clock::Uptime;
use crate::domain::{Millis, MmUserId};
use crate::http::limits::SeatFor;

const ANSWER_WITHIN: Millis = Millis(2_600);

pub fn router(mattermost: Arc<Mattermost>) -> Router {
    Router::new()
        .route(COMMAND, post(typed::command))
        .route(ACTION, post(click::action))
        .route(DIALOG, post(dialog::dialog))
        .with_state(mattermost)
}

impl Mattermost {
    /// Runs the work to its end, if there is a seat for it. If it takes too long, the bot sends the
    /// result to the user.
    async fn in_time(
        self: &Arc<Self>,
        begun: Uptime,
        user: MmUserId,
        seat_for: SeatFor,
        work: impl Future<Output = Answer> + Send + 'static,
    ) -> Answer {
        let seat = match self.app.seats.take(seat_for) {
            Ok(seat) => seat,
            Err(full) => return Answer::Text(full.message),
        };
        let (tell, told) = oneshot::channel();
        let mattermost = self.clone();
        self.app.tasks.spawn(async move {
            let done = work.await;
            drop(seat);
            if let Err(late) = tell.send(done) {
                mattermost.send_later(&user, late).await;
            }
        });
        tokio::select! {
            biased;
            told = told => told.unwrap_or_else(|_| {
                Answer::Text(":warning: jit could not carry out the command because of an internal error; ask an operator to read the log of jit".into())
            }),
            () = self.clock().sleep_until(begun + ANSWER_WITHIN) => Answer::Text(
                "This takes longer than usual. jit continues, and sends you the result in a direct message.".into(),
            ),
        }
    }

    async fn send_later(&self, user: &MmUserId, answer: Answer) {
        let message = match answer {
            Answer::Nothing => return,
            Answer::Text(message) => message,
            Answer::Wrong(fields) => fields.into_values().collect::<Vec<_>>().join("\n"),
        };
        let once = self.clock().draw().to_string();
        if let Err(why) = self.bot.send(user, &message, &once).await {
            tracing::error!(user_id = %user, error = %why, "result of a command not sent; the user must look with `/jit status`");
        }
    }
}
