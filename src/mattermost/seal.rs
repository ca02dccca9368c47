//! What jit hands out and wants back unaltered: buttons and dialogs. Neither brings a
//! signature of Mattermost's, so each carries one of jit's own, over all that it is for.

use serde::{Deserialize, Serialize};

use crate::domain::{ChannelId, Minutes, MmUserId, PostId, RequestId, Timestamp};
use crate::signature::{self, Secret};

/// What a button does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Approve,
    Deny,
    Revoke,
    Extend(Minutes),
}

impl Action {
    /// Letters and digits, and nothing else: to any other name a click is never sent.
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

/// What comes back with a click. Texts, all of them: numbers are not sent back as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClickContext {
    pub request_id: RequestId,
    action: String,
    until: String,
    seal: String,
}

/// What comes back with a dialog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogState {
    /// Of this dialog alone: it is submitted once.
    pub once: String,
    until: String,
    seal: String,
}

/// Why something that came back is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Seal,
    Late,
}

/// A button's place: what it is for, and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct ButtonPlace<'a> {
    pub request_id: RequestId,
    pub channel_id: &'a ChannelId,
    pub post: &'a PostId,
}

/// The key to all of them; who has the bot's token could post as the bot as well.
pub struct Seals(Secret);

impl Seals {
    pub fn of(bot_token: &Secret) -> Self {
        let key = signature::seal(bot_token, "jit: buttons and dialogs");
        Self(Secret::new(key))
    }

    pub fn button(&self, place: ButtonPlace<'_>, action: Action, until: Timestamp) -> ClickContext {
        let (action, until) = (action.word(), until.millis().to_string());
        let seal = signature::seal(&self.0, &button(place, &action, &until));
        ClickContext {
            request_id: place.request_id,
            action,
            until,
            seal,
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

    /// A word for this and nothing else, the same each time, that nobody can guess.
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

/// Ids have no line breaks: no two places make one text.
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
    fn a_button_is_for_one_thing_in_one_place_and_for_a_while() {
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
    fn a_dialog_is_one_persons_in_one_channel() {
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

    /// Trap 13: to an id with any other sign in it, no click is ever sent.
    #[test]
    fn an_actions_word_is_letters_and_digits() {
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
