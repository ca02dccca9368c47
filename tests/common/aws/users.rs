//! The users of the identity store.

use serde_json::{Value, json};

use super::{Answer, Aws, Inner, STORE};

#[derive(Clone)]
pub(super) struct User {
    pub id: String,
    pub name: String,
    pub email: String,
}

impl Aws {
    pub fn add_user(&self, name: &str, email: &str) {
        let mut inner = self.inner();
        let id = format!("{:08x}-0000-4000-8000-000000000000", inner.users.len() + 1);
        inner.users.push(User {
            id,
            name: format!("{name}@example.com"),
            email: format!("{email}@example.com"),
        });
    }

    pub fn user_id(&self, email: &str) -> String {
        let inner = self.inner();
        let user = inner.users.iter().find(|user| user.email == email);
        user.unwrap().id.clone()
    }
}

impl Inner {
    pub(super) fn get_user_id(&self, input: &Value) -> Answer {
        if input["IdentityStoreId"] != STORE {
            let why = "IDENTITY_STORE not found.".to_owned();
            return Err(("ResourceNotFoundException/IDENTITY_STORE", why));
        }
        let attribute = &input["AlternateIdentifier"]["UniqueAttribute"];
        let value = attribute["AttributeValue"].as_str().unwrap_or_default();
        let found = self
            .users
            .iter()
            .find(|user| match attribute["AttributePath"].as_str() {
                Some("userName") => user.name == value,
                Some("emails.value") => user.email == value,
                _ => false,
            });
        match found {
            Some(user) => Ok(json!({"UserId": user.id, "IdentityStoreId": STORE})),
            None => Err(("ResourceNotFoundException", "USER not found.".into())),
        }
    }
}
