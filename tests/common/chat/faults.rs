//! Faults of the answers, which a test plans.

use std::time::Duration;

use super::Mattermost;

impl Mattermost {
    /// The answer to later posts: an error status, or none for success.
    pub fn refuses(&self, status: Option<u16>) {
        self.kept().refuses = status;
    }

    pub fn closes(&self, channel: &str, may_be_joined: bool) {
        self.kept().closed.insert(channel.to_owned(), may_be_joined);
    }

    pub fn loses_answers(&self, many: usize) {
        self.kept().loses_answers = many;
    }

    /// This number of posts in this channel is answered 429.
    pub fn limits_posts(&self, channel: &str, many: usize) {
        self.kept().limits_posts = (channel.to_owned(), many);
    }

    /// This number of posts in this channel is created, and their answers are lost.
    pub fn loses_answers_in(&self, channel: &str, many: usize) {
        self.kept().loses_answers_in = (channel.to_owned(), many);
    }

    pub fn fails_changes(&self, channel: &str, many: usize) {
        self.kept().fails_changes = (channel.to_owned(), many);
    }

    pub fn answers_with_anothers(&self, many: usize) {
        self.kept().answers_with_another_post = many;
    }

    /// This number of calls from now on is answered 429.
    pub fn has_too_many(&self, many: usize) {
        self.kept().too_many = many;
    }

    /// The time between the last 429 and the next call of jit.
    pub fn rested(&self) -> Option<Duration> {
        self.kept().pause_after_429
    }

    /// Replaces the bot's token.
    pub fn has_another_bot_token(&self, token: &str) {
        self.kept().bot_token = Some(token.to_owned());
    }

    /// Every call is answered 503.
    pub fn is_down(&self, is_down: bool) {
        self.kept().is_down = is_down;
    }

    /// Every call for the settings is answered 404.
    pub fn hides_settings(&self, hides: bool) {
        self.kept().hides_settings = hides;
    }

    pub fn is_slow(&self, delay: Duration) {
        self.kept().delay = delay;
    }
}
