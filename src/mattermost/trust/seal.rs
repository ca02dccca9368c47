//! Seals of buttons and dialogs. Mattermost does not sign their content, so each carries a
//! MAC of jit over everything that it stands for.

use serde::{Deserialize, Serialize};

use crate::domain::{ChannelId, Minutes, MmUserId, PostId, RequestId, Timestamp};
use crate::signature::{self, Secret};

/// The action of a button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Approve,
    Deny,
    Revoke,
    Extend(Minutes),
}

impl Action {
    /// Only letters and digits: Mattermost sends no click of a button with another id.
    pub fn word(self) -> String {
        match self {
            Self::Approve => "approve".into(),
            Self::Deny => "deny".into(),
            Self::Revoke => "revoke".into(),
            Self::Extend(minutes) => format!("extend{}", minutes.get()),
        }
    }

    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "approve" => Self::Approve,
            "deny" => Self::Deny,
            "revoke" => Self::Revoke,
            _ => Self::Extend(Minutes::new(word.strip_prefix("extend")?.parse().ok()?).ok()?),
        })
    }
}

/// The context of a click. Every value is a text: Mattermost changes numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClickContext {
    pub request_id: RequestId,
    action: String,
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
}

/// Why jit does not accept a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Seal,
    Late,
}

/// The place of a button: its request, its channel and its post.
#[derive(Clone, Copy, Debug)]
pub struct ButtonPlace<'a> {
    pub request_id: RequestId,
    pub channel_id: &'a ChannelId,
    pub post: &'a PostId,
}

/// The key of all seals, derived from the token of the bot, and the name of the key.
pub struct Seals(Secret, String);

/// The length of the name of a key: enough to tell two keys from each other.
const KEY_NAME: usize = 8;

impl Seals {
    pub fn of(bot_token: &Secret) -> Self {
        let key = signature::seal(bot_token, "jit: buttons and dialogs");
        let key = Secret::new(key);
        let name = signature::seal(&key, "jit: the name of this key");
        Self(key, name.chars().take(KEY_NAME).collect())
    }

    /// Whether a context says that another key made its seal. Anybody can write that.
    pub fn is_of_another_key(&self, context: &ClickContext) -> bool {
        !context.key.is_empty() && context.key != self.1
    }

    pub fn button(&self, place: ButtonPlace<'_>, action: Action, until: Timestamp) -> ClickContext {
        let (action, until) = (action.word(), until.millis().to_string());
        let seal = signature::seal(&self.0, &button(place, &action, &until));
        ClickContext {
            request_id: place.request_id,
            action,
            until,
            seal,
            key: self.1.clone(),
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
        let text = button(place, &context.action, &context.until);
        self.check(&text, &context.seal, &context.until, now)?;
        Action::of(&context.action).ok_or(Broken::Seal)
    }

    pub fn dialog(
        &self,
        once: String,
        user: &MmUserId,
        channel: &ChannelId,
        until: Timestamp,
    ) -> DialogState {
        let until = until.millis().to_string();
        let seal = signature::seal(&self.0, &dialog(&once, user, channel, &until));
        DialogState { once, until, seal }
    }

    pub fn submitted(
        &self,
        state: &DialogState,
        user: &MmUserId,
        channel: &ChannelId,
        now: Timestamp,
    ) -> Result<(), Broken> {
        let text = dialog(&state.once, user, channel, &state.until);
        self.check(&text, &state.seal, &state.until, now)
    }

    /// A secret text that is always the same for the same input.
    pub fn once(&self, what: &[&str]) -> String {
        signature::seal(&self.0, &format!("once\n{}", what.join("\n")))
    }

    fn check(&self, text: &str, seal: &str, until: &str, now: Timestamp) -> Result<(), Broken> {
        if !signature::is_seal(&self.0, text, seal) {
            return Err(Broken::Seal);
        }
        let until = until.parse().map_err(|_| Broken::Seal)?;
        match now <= Timestamp::from_millis(until) {
            true => Ok(()),
            false => Err(Broken::Late),
        }
    }
}

/// Ids have no line breaks, so two places never have the same text.
fn button(place: ButtonPlace<'_>, action: &str, until: &str) -> String {
    let (id, channel, post) = (place.request_id, place.channel_id, place.post);
    format!("button\n{id}\n{channel}\n{post}\n{action}\n{until}")
}

fn dialog(once: &str, user: &MmUserId, channel: &ChannelId, until: &str) -> String {
    format!("dialog\n{once}\n{user}\n{channel}\n{until}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seals() -> Seals {
        Seals::of(&Secret::new("j6uwcwf9gigxjfcdfidacg8tkc".into()))
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
        let context = seals.button(place, Action::Deny, until);
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
            altered(|context| context.seal.clear()),
            altered(|context| context.seal.replace_range(..1, "x")),
            seals.pressed(&context, &text("town-square"), &post, until),
            seals.pressed(&context, &channel, &text("post2"), until),
            Seals::of(&Secret::new("another".into())).pressed(&context, &channel, &post, until),
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
        let state = seals.dialog("once".into(), &alice, &channel, until);
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

    /// Trap 13: Mattermost sends no click of a button with another character in its id.
    #[test]
    fn the_word_of_an_action_has_only_letters_and_digits() {
        let minutes = Minutes::new(30).unwrap();
        for action in [
            Action::Approve,
            Action::Deny,
            Action::Revoke,
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
