//! Measures the time from a click in Mattermost until the card shows the result.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::Report;
use crate::chat::{ACCOUNT, BOB, CHANNEL, Mattermost, Post};
use crate::process::{Process, wanted};

const CARDS: usize = 64;
const AT_ONCE: usize = 8;
/// The duration of the simulated AWS operation: just longer than the poll interval, which is the
/// worst case.
const AWS: Duration = Duration::from_millis(1010);

pub async fn until_the_card_shows_it(report: &mut Report) {
    let mattermost = Mattermost::open().await;
    let folder = tempfile::tempdir().unwrap();
    let jit = Process::jit_with(folder.path(), 1010, &mattermost.config());
    let caller = jit.caller();
    let terms = json!({"channel_id": CHANNEL, "account_id": ACCOUNT});
    caller.post("/config/bind", &terms).await;
    let approvers = json!({"channel_id": CHANNEL, "approver_ids": [BOB]});
    caller.post("/config/approvers", &approvers).await;
    for number in 0..CARDS {
        let mut request = wanted(number);
        request["channel_id"] = CHANNEL.into();
        caller.post("/requests", &request).await;
    }
    let can_be = |button: &'static str| {
        move |mattermost: &Mattermost| {
            let cards = mattermost.cards();
            let ready = cards.iter().filter(|card| card.button(button).is_some());
            (ready.count() == CARDS).then_some(cards)
        }
    };
    for (button, status, figure) in [
        (
            "approve",
            "GRANTED",
            "a click on Approve until the card says GRANTED",
        ),
        (
            "revoke",
            "REVOKED",
            "a click on Revoke until the card says REVOKED",
        ),
    ] {
        let cards = mattermost.until(can_be(button)).await;
        let mut late = Vec::new();
        for some in cards.chunks(AT_ONCE) {
            let pressed = some.iter().map(|card| async {
                let begun = Instant::now();
                jit.press(&mattermost.click(card, button, BOB)).await;
                let shown = |mattermost: &Mattermost| {
                    let cards = mattermost.cards();
                    let card = cards.into_iter().find(|one| one.id == card.id)?;
                    shown_at(&card, status)
                };
                let shown = mattermost.until(shown).await;
                (shown - begun).saturating_sub(AWS)
            });
            late.extend(join_all(pressed).await);
        }
        late.sort();
        let (p50, p99) = (late[late.len() / 2], late[late.len() * 99 / 100]);
        report.hold(
            figure,
            &format!("p50 {}, p99 {}", crate::millis(p50), crate::millis(p99)),
            p99 < Duration::from_millis(500),
            "p99 within 500 ms beyond AWS's own time",
        );
    }
}

fn shown_at(card: &Post, status: &str) -> Option<Instant> {
    let titles = card.props.iter().zip(&card.changed_at);
    let says = |props: &serde_json::Value| {
        let title = props["attachments"][0]["title"].as_str();
        title.is_some_and(|title| title.starts_with(status))
    };
    titles
        .into_iter()
        .find(|(props, _)| says(props))
        .map(|(_, at)| *at)
}
