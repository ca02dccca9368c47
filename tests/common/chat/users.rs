//! The users of the server, and their channels for direct messages.

use serde_json::{Value, json};

use super::{ADA, ALICE, BOB, MALLORY, Mattermost};

/// The id, the name and the roles of each user.
const USERS: [(&str, &str, &str); 4] = [
    (ALICE, "alice", "system_user"),
    (BOB, "bob", "system_user"),
    (ADA, "ada", "system_user system_admin"),
    (MALLORY, "mallory", "system_user"),
];

pub(super) fn all() -> impl Iterator<Item = Value> {
    USERS.iter().map(|(id, name, roles)| user(id, name, roles))
}

/// The users whose names a text mentions, as ids and names.
pub(super) fn mentioned(
    text: &str,
) -> impl DoubleEndedIterator<Item = (&'static str, &'static str)> {
    let users = USERS.iter().map(|(id, name, _)| (*id, *name));
    users.filter(move |(_, name)| text.contains(&format!("@{name}")))
}

pub(super) fn user(id: &str, name: &str, roles: &str) -> Value {
    json!({
        "id": id, "create_at": 1_795_205_134_625_u64, "update_at": 1_795_205_135_266_u64, "delete_at": 0,
        "username": name, "auth_data": "", "auth_service": "", "email": format!("{name}@example.com"),
        "nickname": "", "first_name": name, "last_name": "Example", "position": "", "roles": roles,
        "locale": "en", "disable_welcome_email": false
    })
}

pub fn direct(user: &str) -> String {
    format!("dm{}", &user[..24])
}

impl Mattermost {
    /// `EmailSettings.RequireEmailVerification`.
    pub fn verify_addresses(&self) {
        self.kept().verifies_addresses = true;
    }

    pub fn change(&self, id: &str, name: &str, value: Value) {
        self.users.lock().unwrap().get_mut(id).unwrap()[name] = value;
    }
}
