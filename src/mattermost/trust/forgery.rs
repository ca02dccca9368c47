//! Forgeries: jit counts them, logs them, and records them in the history of the channel that
//! they name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::domain::{ChannelId, Millis, Text, Timestamp};
use crate::http::reply::Problem;
use crate::http::unsigned::Unsigned;
use crate::mattermost::Mattermost;
use crate::service::work_queue::locked;

/// Every caller that reaches jit can send forgeries: after this many in a minute, jit only
/// counts and logs them.
const MOST_WRITTEN: u32 = 60;

/// The number of forgeries recorded in this minute.
#[derive(Debug, Default)]
pub struct Forgeries(Mutex<(Timestamp, u32)>);

impl Forgeries {
    fn may_be_written(&self, now: Timestamp) -> bool {
        let mut seen = locked(&self.0);
        if now - seen.0 > Millis::minutes(1) {
            *seen = (now, 0);
        }
        seen.1 += 1;
        seen.1 <= MOST_WRITTEN
    }
}

impl Mattermost {
    /// `claim` is the content of the call.
    pub(in crate::mattermost) fn forged(
        self: &Arc<Self>,
        why: Unsigned,
        path: &'static str,
        claim: &Value,
    ) -> Problem {
        let said = |name: &str| {
            claim[name]
                .as_str()
                .map(|said| Text::clip(said).to_string())
        };
        let mut details = BTreeMap::from([
            ("reason".to_owned(), why.as_str().to_owned()),
            ("path".to_owned(), path.to_owned()),
        ]);
        for name in ["user_id", "post_id"] {
            details.extend(said(name).map(|said| (name.to_owned(), said)));
        }
        let about = claim["context"]["request_id"].as_str();
        let about = about.map(|id| ("request".to_owned(), Text::clip(id).to_string()));
        details.extend(about);
        let user = details.get("user_id").map_or("", String::as_str);
        let post = details.get("post_id").map_or("", String::as_str);
        tracing::warn!(
            reason = why.as_str(),
            path,
            user,
            post,
            "click or dialog refused as forged"
        );
        let channel: Option<ChannelId> = said("channel_id").and_then(|id| id.parse().ok());
        if let Some(channel) = channel.filter(|_| self.forgeries.may_be_written(self.clock().now()))
        {
            let service = self.app.service.clone();
            self.app.tasks.spawn(async move {
                if let Err(error) = service.note_forgery(&channel, &details).await {
                    tracing::error!(%error, %channel, "forgery not recorded in the audit of the channel");
                }
            });
        }
        Problem::unsigned(why, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_sixty_forgeries_are_recorded_in_one_minute() {
        let (forgeries, at) = (Forgeries::default(), Timestamp::from_seconds(1_000_000));
        let written = |at| (0..100).filter(|_| forgeries.may_be_written(at)).count();
        assert_eq!(written(at), 60);
        assert_eq!(written(at + Millis::minutes(1)), 0);
        assert_eq!(written(at + Millis::seconds(61)), 60);
    }
}
