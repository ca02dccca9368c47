//! Calls from jit to Mattermost: its API, the bot that posts, and the users.

pub mod api;
pub mod bot;
pub mod people;
#[cfg(test)]
pub mod test_server;
