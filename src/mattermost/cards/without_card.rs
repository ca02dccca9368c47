//! What jit does if the bot cannot join the channel of a request: the approvers and the
//! requester get direct messages.

use serde_json::json;

use super::history::{self, Line};
use super::tell::{Cards, FIRST_TRY, failed};
use super::text::short_id;
use crate::domain::{EventKind, Millis, MmUserId, Notice, Request, State, Timestamp};
use crate::mattermost::client::api::ApiError;
use crate::mattermost::client::bot::Post;
use crate::worker::notices::NotReceived;

/// A direct message carries the notice that it tells, so that jit does not send it again.
const TOLD: &str = "jit_told";

impl Cards {
    /// While the request waits for approvals, jit tries again to post the card: a member may
    /// invite the bot.
    pub(super) async fn deliver_without_card(
        &self,
        request: &Request,
        notice: &Notice,
        now: Timestamp,
    ) -> Result<(), NotReceived> {
        let Some(event) = self.event(notice).await? else {
            return Ok(());
        };
        let repeated = now - notice.created_at > FIRST_TRY;
        let kind = event.event_type;
        if kind == EventKind::Requested || kind == EventKind::ExtensionRequested {
            let message = self.asks(request, None).await;
            for approver in self.others(request).await? {
                let sent = self.send_once(request, notice, &approver, &message, repeated);
                if let Err(why) = sent.await {
                    tracing::warn!(
                        request_id = %request.id, %why,
                        "message to an approver not sent; the channel has no card of the request"
                    );
                }
            }
        }
        let to = &request.asked.requester.id;
        let handles = self.handles(request, Some(&event)).await;
        let id = short_id(request.id);
        let message = match history::line(&event, &handles) {
            Line::Called(line) => format!("`{id}`: {line}"),
            Line::None | Line::Told(_) if kind == EventKind::Requested => format!(
                "jit cannot post the card of your request `{id}`, because its bot is not in that channel. Type `/invite @jit` in the channel. The approvers get direct messages from jit, and can decide with `/jit approve {id}`."
            ),
            Line::None | Line::Told(_) => return Ok(()),
        };
        let sent = self.send_once(request, notice, to, &message, repeated);
        sent.await.map_err(failed)?;
        match request.state == State::Pending {
            true => Err(failed(ApiError::Forbidden(
                "the bot is not in the channel".into(),
            ))),
            false => Ok(()),
        }
    }

    /// A message for this notice, unless the person has it already.
    async fn send_once(
        &self,
        request: &Request,
        notice: &Notice,
        to: &MmUserId,
        message: &str,
        repeated: bool,
    ) -> Result<(), ApiError> {
        let channel = self.bot.direct(to).await?;
        let mark = notice.message_id();
        let since = request.asked.created_at + Millis::minutes(-5);
        if repeated
            && self
                .bot
                .find(&channel, since, (TOLD, &mark))
                .await?
                .is_some()
        {
            return Ok(());
        }
        let post = Post {
            props: json!({TOLD: mark}),
            ..Post::saying(message)
        };
        let once = self.seals.once(&["direct", &mark, to.as_str()]);
        self.bot.post(&channel, &post, &once).await.map(drop)
    }
}
