//! The slash command as Mattermost sends it. Only the token proves that Mattermost sent it;
//! only `user_id` identifies the user.

use axum::http::HeaderMap;

use crate::domain::{ChannelId, MmUserId};

/// The fields that jit uses. A user cannot choose any of them, except the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slash {
    pub team_id: String,
    pub channel_id: ChannelId,
    /// A direct message: its channel name is two user ids joined by `__`.
    pub is_direct: bool,
    pub user_id: MmUserId,
    pub text: String,
    /// Unique for each command that a user sent.
    pub trigger_id: String,
    /// The mentioned users by name and id; the text has only names, which users can change.
    pub mentions: Vec<(String, MmUserId)>,
}

/// The tokens of a call: in the form, in the header, or in both.
pub fn tokens<'c>(headers: &'c HeaderMap, form: &'c Form) -> impl Iterator<Item = &'c str> {
    let header = headers.get("authorization");
    let header = header.and_then(|value| value.to_str().ok()?.strip_prefix("Token "));
    header.into_iter().chain(form.one("token"))
}

/// A form; it may contain a key several times.
pub struct Form(Vec<(String, String)>);

impl Form {
    pub fn read(body: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(body);
        Self(pairs.into_owned().collect())
    }

    fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        let named = self.0.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// A field that occurs exactly once.
    pub fn one<'f>(&'f self, name: &'f str) -> Option<&'f str> {
        let mut all = self.all(name);
        let one = all.next()?;
        all.next().is_none().then_some(one)
    }
}

impl Slash {
    pub fn of(form: &Form) -> Option<Self> {
        let names = form.all("user_mentions").map(str::to_owned);
        let ids = form.all("user_mentions_ids");
        let mentions = names.zip(ids.map(str::parse));
        Some(Self {
            team_id: form.one("team_id")?.to_owned(),
            channel_id: form.one("channel_id")?.parse().ok()?,
            is_direct: is_direct(form.one("channel_name")?, form.one("user_id")?),
            user_id: form.one("user_id")?.parse().ok()?,
            text: form.one("text")?.to_owned(),
            trigger_id: form.one("trigger_id")?.to_owned(),
            mentions: mentions
                .filter_map(|(name, id)| Some((name, id.ok()?)))
                .collect(),
        })
    }
}

/// Reports whether the channel is a direct message of this user. A team channel may have `__`
/// in its name.
fn is_direct(name: &str, user: &str) -> bool {
    let is_id = |id: &str| id.len() == 26 && id.bytes().all(|b| b.is_ascii_alphanumeric());
    let both = name.split_once("__");
    both.is_some_and(|(one, other)| is_id(one) && is_id(other) && (one == user || other == user))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// W3: jit took a channel with this name for a direct message.
    #[test]
    fn a_channel_with_two_underscores_in_its_name_is_no_direct_message() {
        let (alice, bob) = ("qqobpx3sjjbfuy915pnc9djxmw", "o1pfxbncs7f43jbskgik8zuwxc");
        let ids = format!("{alice}__{bob}");
        for (name, user, wanted) in [
            ("aws__prod", alice, false),
            ("__", alice, false),
            (&ids, alice, true),
            (&ids, bob, true),
            (&ids, "mallorymallorymallorymallo", false),
        ] {
            assert_eq!(is_direct(name, user), wanted, "{name} {user}");
        }
    }

    /// A real server sends names and ids in two lists, not in the order of the text.
    #[test]
    fn mentioned_names_and_ids_are_paired() {
        let capture = include_str!("../../../tests/mattermost/captures/01i-slash-mentions.http");
        let body = capture.lines().find(|line| line.starts_with("channel_id="));
        let slash = Slash::of(&Form::read(body.unwrap().as_bytes())).unwrap();
        let mentions: Vec<(&str, &str)> = slash
            .mentions
            .iter()
            .map(|(name, id)| (name.as_str(), id.as_str()))
            .collect();
        let wanted = [
            ("carol", "jbtr8nxdbifq7kfpu64tjz6pzc"),
            ("jitbot", "bwt4yaznwtde3nucnwky358x5o"),
            ("bob", "88szrhrf4fnwjmfj5c5h39w31a"),
        ];
        assert_eq!(mentions, wanted);
        assert!(!slash.is_direct);
    }

    /// A user cannot add a second token to a form.
    #[test]
    fn a_field_that_occurs_twice_is_absent() {
        let form = Form::read(b"token=a&token=b&text=x");
        assert_eq!((form.one("token"), form.one("text")), (None, Some("x")));
    }
}
