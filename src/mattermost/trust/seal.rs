//! Seals of buttons and dialogs. Mattermost does not sign their content, so each carries a
//! MAC of jit over everything that it stands for.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::domain::{ChannelId, Minutes, MmUserId, PostId, RequestId, Timestamp};
use crate::lock::locked;
use crate::signature::{self, CurrentSecret, Secret};

/// The action of a button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Approve,
    Deny,
    /// Opens the dialog for a reason; the submission denies.
    DenyWithReason,
    Revoke,
    /// Opens the dialog for a reason; the submission revokes.
    RevokeWithReason,
    Extend(Minutes),
}

impl Action {
    /// Only letters and digits: Mattermost sends no click of a button with another id.
    pub fn word(self) -> String {
        match self {
            Self::Approve => "approve".into(),
            Self::Deny => "deny".into(),
            Self::DenyWithReason => "denywithreason".into(),
            Self::Revoke => "revoke".into(),
            Self::RevokeWithReason => "revokewithreason".into(),
            Self::Extend(minutes) => format!("extend{}", minutes.get()),
        }
    }

    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "approve" => Self::Approve,
            "deny" => Self::Deny,
            "denywithreason" => Self::DenyWithReason,
            "revoke" => Self::Revoke,
            "revokewithreason" => Self::RevokeWithReason,
            _ => Self::Extend(Minutes::new(word.strip_prefix("extend")?.parse().ok()?).ok()?),
        })
    }
}

/// The context of a click. Every value is a text: Mattermost changes numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClickContext {
    pub request_id: RequestId,
    action: String,
    /// The subject of a decision; absent in other buttons, and in those of an earlier version of jit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    until: String,
    seal: String,
    /// Names the key of the seal; empty in a button of an earlier version of jit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key: String,
}

/// The state of a dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogState {
    /// Unique for each dialog, which counts once.
    pub once: String,
    until: String,
    seal: String,
    /// Absent in the dialog of a new request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_of: Option<ReasonOf>,
}

/// The step that a dialog asks a reason for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonOf {
    pub request_id: RequestId,
    pub step: ReasonedStep,
    /// The subject that the person saw waiting: the step is for that only.
    pub subject: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReasonedStep {
    Deny,
    Revoke,
}

impl ReasonedStep {
    pub fn word(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Revoke => "revoke",
        }
    }
}

/// Why jit does not accept a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Seal,
    /// This process made the seal with an earlier token of the bot.
    Earlier,
    Late,
}

/// The place of a button: its request, its channel and its post.
#[derive(Clone, Copy, Debug)]
pub struct ButtonPlace<'a> {
    pub request_id: RequestId,
    pub channel_id: &'a ChannelId,
    pub post: &'a PostId,
}

/// Makes and checks the seals. Their key comes from the current token of the bot: who knows an
/// old token can make no seal that jit accepts.
pub struct Seals {
    bot_token: CurrentSecret,
    /// The keys of this process with their names, the newest first. It knows by them that it made a
    /// seal before the token changed.
    used: Mutex<VecDeque<(String, Secret)>>,
}

/// A token changes rarely, and a dialog is valid for half an hour.
const MOST_KEYS: usize = 4;
/// The length of the name of a key: enough to tell two keys from each other.
const KEY_NAME: usize = 8;

impl Seals {
    pub fn of(bot_token: CurrentSecret) -> Self {
        Self {
            bot_token,
            used: Mutex::default(),
        }
    }

    fn key(&self) -> Secret {
        self.named_key().1
    }

    fn named_key(&self) -> (String, Secret) {
        let token = self.bot_token.get();
        let key = Secret::new(signature::seal(&token, "jit: buttons and dialogs"));
        let name = name_of(&key);
        let mut used = locked(&self.used);
        if used.front().is_none_or(|(newest, _)| *newest != name) {
            used.push_front((name.clone(), key.clone()));
            used.truncate(MOST_KEYS);
        }
        (name, key)
    }

    /// The name of the key of new seals, which the record of a request keeps.
    pub fn key_name(&self) -> String {
        self.named_key().0
    }

    /// Whether a context says that another key made its seal. Every user who can change a card can
    /// write that, so the caller compares the name with the recorded one.
    pub fn is_of_another_key(&self, context: &ClickContext) -> bool {
        context.key != self.key_name()
    }

    pub fn button(
        &self,
        place: ButtonPlace<'_>,
        action: Action,
        subject: Option<String>,
        until: Timestamp,
    ) -> ClickContext {
        let (action, until) = (action.word(), until.millis().to_string());
        let (key, secret) = self.named_key();
        let text = button(place, &action, subject.as_deref(), &until);
        let seal = signature::seal(&secret, &text);
        ClickContext {
            request_id: place.request_id,
            action,
            subject,
            until,
            seal,
            key,
        }
    }

    pub fn pressed(
        &self,
        context: &ClickContext,
        channel_id: &ChannelId,
        post: &PostId,
        now: Timestamp,
    ) -> Result<Action, Broken> {
        let place = ButtonPlace {
            request_id: context.request_id,
            channel_id,
            post,
        };
        let subject = context.subject.as_deref();
        let text = button(place, &context.action, subject, &context.until);
        self.check(&text, &context.seal, &context.until, now)?;
        Action::of(&context.action).ok_or(Broken::Seal)
    }

    pub fn dialog(
        &self,
        once: String,
        user: &MmUserId,
        channel: &ChannelId,
        until: Timestamp,
        reason_of: Option<ReasonOf>,
    ) -> DialogState {
        let until = until.millis().to_string();
        let text = dialog(reason_of.as_ref(), &once, user, channel, &until);
        let seal = signature::seal(&self.key(), &text);
        DialogState {
            once,
            until,
            seal,
            reason_of,
        }
    }

    pub fn submitted(
        &self,
        state: &DialogState,
        user: &MmUserId,
        channel: &ChannelId,
        now: Timestamp,
    ) -> Result<(), Broken> {
        let reason_of = state.reason_of.as_ref();
        let text = dialog(reason_of, &state.once, user, channel, &state.until);
        self.check(&text, &state.seal, &state.until, now)
    }

    /// A secret text that is always the same for the same input.
    pub fn once(&self, what: &[&str]) -> String {
        signature::seal(&self.key(), &format!("once\n{}", what.join("\n")))
    }

    fn check(&self, text: &str, seal: &str, until: &str, now: Timestamp) -> Result<(), Broken> {
        let is_current = signature::is_seal(&self.key(), text, seal);
        if !is_current && !self.has_made(text, seal) {
            return Err(Broken::Seal);
        }
        let until = until.parse().map_err(|_| Broken::Seal)?;
        match (now <= Timestamp::from_millis(until), is_current) {
            (true, true) => Ok(()),
            (true, false) => Err(Broken::Earlier),
            (false, _) => Err(Broken::Late),
        }
    }

    /// Whether this process made the seal, also with an earlier token.
    fn has_made(&self, text: &str, seal: &str) -> bool {
        let used = locked(&self.used);
        used.iter()
            .any(|(_, key)| signature::is_seal(key, text, seal))
    }
}

/// The name of a key, which a button carries.
fn name_of(key: &Secret) -> String {
    let name = signature::seal(key, "jit: the name of this key");
    name.chars().take(KEY_NAME).collect()
}

/// Ids have no line breaks, so two places never have the same text. A button with a subject has a
/// text with another first line, and each kind has a fixed number of lines.
fn button(place: ButtonPlace<'_>, action: &str, subject: Option<&str>, until: &str) -> String {
    let (id, channel, post) = (place.request_id, place.channel_id, place.post);
    let pressed = format!("{id}\n{channel}\n{post}\n{action}\n{until}");
    match subject {
        None => format!("button\n{pressed}"),
        Some(subject) => format!("decision\n{subject}\n{pressed}"),
    }
}

/// The two kinds of dialogs have texts with different first lines, and each kind has a fixed
/// number of lines.
fn dialog(
    reason_of: Option<&ReasonOf>,
    once: &str,
    user: &MmUserId,
    channel: &ChannelId,
    until: &str,
) -> String {
    let opened = format!("{once}\n{user}\n{channel}\n{until}");
    match reason_of {
        None => format!("dialog\n{opened}"),
        Some(of) => {
            let (id, step, subject) = (of.request_id, of.step.word(), &of.subject);
            format!("reason\n{id}\n{step}\n{subject}\n{opened}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(token: &str) -> Seals {
        Seals::of(CurrentSecret::new(Secret::new(token.into())))
    }

    fn seals() -> Seals {
        with("j6uwcwf9gigxjfcdfidacg8tkc")
    }

    fn text<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
        text.parse().unwrap()
    }

    #[test]
    fn a_button_with_a_changed_context_place_or_time_is_refused() {
        let (seals, until) = (seals(), Timestamp::from_seconds(100));
        let (channel, post): (ChannelId, PostId) = (text("aws-prod"), text("post1"));
        let id: RequestId = text("01a1fd36-48a0-7000-8000-000000000001");
        let place = ButtonPlace {
            request_id: id,
            channel_id: &channel,
            post: &post,
        };
        let context = seals.button(place, Action::Deny, Some("request".into()), until);
        let pressed = |context: &ClickContext| seals.pressed(context, &channel, &post, until);
        assert_eq!(pressed(&context), Ok(Action::Deny));
        let altered = |change: fn(&mut ClickContext)| {
            let mut context = context.clone();
            change(&mut context);
            pressed(&context)
        };
        for other in [
            altered(|context| context.action = "approve".into()),
            altered(|context| context.until = "100001".into()),
            altered(|context| context.request_id = text("01a1fd36-48a0-7000-8000-000000000002")),
            // W15
            altered(|context| context.subject = None),
            altered(|context| context.subject = Some("extension".into())),
            altered(|context| context.subject = Some("request\nx".into())),
            altered(|context| context.seal.clear()),
            altered(|context| context.seal.replace_range(..1, "x")),
            seals.pressed(&context, &text("town-square"), &post, until),
            seals.pressed(&context, &channel, &text("post2"), until),
            with("another").pressed(&context, &channel, &post, until),
        ] {
            assert_eq!(other, Err(Broken::Seal));
        }
        let late = Timestamp::from_seconds(101);
        assert_eq!(
            seals.pressed(&context, &channel, &post, late),
            Err(Broken::Late)
        );
    }

    #[test]
    fn a_dialog_is_valid_for_one_person_in_one_channel() {
        let (seals, until) = (seals(), Timestamp::from_seconds(100));
        let (alice, channel): (MmUserId, ChannelId) = (text("alice"), text("aws-prod"));
        let state = seals.dialog("once".into(), &alice, &channel, until, None);
        assert_eq!(seals.submitted(&state, &alice, &channel, until), Ok(()));
        let other = DialogState {
            once: "twice".into(),
            ..state.clone()
        };
        for other in [
            seals.submitted(&state, &text("bob"), &channel, until),
            seals.submitted(&state, &alice, &text("town-square"), until),
            seals.submitted(&other, &alice, &channel, until),
        ] {
            assert_eq!(other, Err(Broken::Seal));
        }
        let late = Timestamp::from_seconds(101);
        assert_eq!(
            seals.submitted(&state, &alice, &channel, late),
            Err(Broken::Late)
        );
    }

    /// W11: a user can change the state of a dialog, and can take it from one dialog to another.
    #[test]
    fn a_dialog_for_a_reason_is_valid_for_its_request_and_its_step_only() {
        let (seals, until) = (seals(), Timestamp::from_seconds(100));
        let (bob, channel): (MmUserId, ChannelId) = (text("bob"), text("aws-prod"));
        let of = ReasonOf {
            request_id: text("01a1fd36-48a0-7000-8000-000000000001"),
            step: ReasonedStep::Deny,
            subject: "request".into(),
        };
        let dialog = |of| seals.dialog("once".into(), &bob, &channel, until, of);
        let state = dialog(Some(of.clone()));
        let submitted = |state: &DialogState| seals.submitted(state, &bob, &channel, until);
        assert_eq!(submitted(&state), Ok(()));
        let of_another = |change: fn(&mut ReasonOf)| {
            let mut of = of.clone();
            change(&mut of);
            Some(of)
        };
        for reason_of in [
            None,
            of_another(|of| of.request_id = text("01a1fd36-48a0-7000-8000-000000000002")),
            of_another(|of| of.step = ReasonedStep::Revoke),
            of_another(|of| of.subject = "extension".into()),
            of_another(|of| of.subject = "request\nonce".into()),
        ] {
            let state = DialogState {
                reason_of,
                ..state.clone()
            };
            assert_eq!(submitted(&state), Err(Broken::Seal), "{state:?}");
        }
        let request = DialogState {
            reason_of: Some(of),
            ..dialog(None)
        };
        assert_eq!(submitted(&request), Err(Broken::Seal));
    }

    /// W13: a replaced token of the bot makes other seals at once.
    #[test]
    fn seals_follow_the_token_of_the_bot() {
        let (token, until) = (
            CurrentSecret::new(Secret::new("first".into())),
            Timestamp::from_seconds(100),
        );
        let seals = Seals::of(token.clone());
        let (channel, post): (ChannelId, PostId) = (text("aws-prod"), text("post1"));
        let place = ButtonPlace {
            request_id: text("01a1fd36-48a0-7000-8000-000000000001"),
            channel_id: &channel,
            post: &post,
        };
        let context = seals.button(place, Action::Deny, None, until);
        let pressed = |context| seals.pressed(context, &channel, &post, until);
        assert_eq!(pressed(&context), Ok(Action::Deny));
        let alice = text("alice");
        let dialog = seals.dialog("once".into(), &alice, &channel, until, None);
        token.replace(Secret::new("second".into()));
        assert_eq!(pressed(&context), Err(Broken::Earlier));
        assert!(seals.is_of_another_key(&context));
        // W9: a dialog that was open while the token changed is no forgery.
        let submitted = |state: &DialogState, now| seals.submitted(state, &alice, &channel, now);
        assert_eq!(submitted(&dialog, until), Err(Broken::Earlier));
        let late = Timestamp::from_seconds(101);
        assert_eq!(submitted(&dialog, late), Err(Broken::Late));
        let forged = DialogState {
            seal: "0".repeat(64),
            ..dialog
        };
        assert_eq!(submitted(&forged, until), Err(Broken::Seal));
        let context = seals.button(place, Action::Deny, None, until);
        assert_eq!(pressed(&context), Ok(Action::Deny));
    }

    /// Trap 13: Mattermost sends no click of a button with another character in its id.
    #[test]
    fn the_word_of_an_action_has_only_letters_and_digits() {
        let minutes = Minutes::new(30).unwrap();
        for action in [
            Action::Approve,
            Action::Deny,
            Action::DenyWithReason,
            Action::Revoke,
            Action::RevokeWithReason,
            Action::Extend(minutes),
        ] {
            let word = action.word();
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
            assert_eq!(Action::of(&word), Some(action));
        }
        for word in ["", "extend", "extend0", "extend-5", "Approve", "approve "] {
            assert_eq!(Action::of(word), None, "{word}");
        }
    }
}
