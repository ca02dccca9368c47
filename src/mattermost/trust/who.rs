//! The person behind a Mattermost user id, and whether they may use jit.

use crate::domain::{ChatUser, MmUserId, Person};
use crate::mattermost::client::api::ApiError;
use crate::mattermost::client::people::User;
use crate::mattermost::{Mattermost, No};

pub struct Rules {
    /// jit refuses users with another e-mail domain: a server that does not verify addresses
    /// lets a user choose any address.
    pub email_domain: Option<String>,
}

impl Rules {
    /// The error says why the user may not use jit.
    pub fn admit(&self, user: &User) -> Result<ChatUser, String> {
        if user.delete_at != 0 {
            return Err("your account is deactivated".into());
        }
        if user.is_bot {
            return Err("bots may not use jit".into());
        }
        if user.has_role("system_guest") {
            return Err("guests may not use jit".into());
        }
        if user.email.is_empty() {
            return Err("Mattermost shows jit no e-mail address of yours; ask an admin of Mattermost to show addresses to the bot of jit".into());
        }
        let email = user
            .email
            .parse()
            .map_err(|why| format!("your e-mail address in Mattermost {why}"))?;
        let id = user
            .id
            .parse()
            .map_err(|why| format!("your user id {why}"))?;
        let person = Person { id, email };
        let is_elsewhere =
            |domain: &String| !person.email.as_str().ends_with(&format!("@{domain}"));
        if self.email_domain.as_ref().is_some_and(is_elsewhere) {
            return Err("your e-mail address is not in the e-mail domain of this company".into());
        }
        Ok(ChatUser {
            person,
            is_system_admin: user.has_role("system_admin"),
        })
    }
}

impl Mattermost {
    /// Looks the person up in Mattermost by the user id.
    pub(in crate::mattermost) async fn who(&self, id: &MmUserId) -> Result<ChatUser, No> {
        let user = self.people.user(id).await.map_err(|error| {
            tracing::error!(user_id = %id, %error, "user not looked up at Mattermost; the command is refused");
            No::Message(match error {
                ApiError::NotThere(_) | ApiError::Refused(_) => {
                    "Mattermost does not know you".into()
                }
                _ => {
                    "jit cannot ask Mattermost who you are just now; nothing was changed, try again"
                        .into()
                }
            })
        })?;
        self.rules.admit(&user).map_err(No::Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> User {
        User {
            id: "qqobpx3sjjbfuy915pnc9djxmw".into(),
            username: "alice".into(),
            email: "Alice@example.com".into(),
            roles: "system_user".into(),
            delete_at: 0,
            is_bot: false,
        }
    }

    fn rules() -> Rules {
        Rules {
            email_domain: Some("example.com".into()),
        }
    }

    fn changed(change: impl Fn(&mut User)) -> Result<ChatUser, String> {
        let mut user = alice();
        change(&mut user);
        rules().admit(&user)
    }

    #[test]
    fn people_are_admitted_and_bots_guests_and_strangers_are_refused() {
        let who = rules().admit(&alice()).unwrap();
        assert_eq!(who.person.email.as_str(), "alice@example.com");
        assert!(!who.is_system_admin);
        assert!(
            changed(|user| user.delete_at = 1)
                .unwrap_err()
                .contains("deactivated")
        );
        assert!(
            changed(|user| user.is_bot = true)
                .unwrap_err()
                .contains("bots")
        );
        assert!(
            changed(|user| user.roles = "system_guest".into())
                .unwrap_err()
                .contains("guests")
        );
        assert!(
            changed(|user| user.email = String::new())
                .unwrap_err()
                .contains("no e-mail")
        );
        for other in [
            "alice@evil.example",
            "alice@notexample.com",
            "alice@example.com.evil",
        ] {
            assert!(
                changed(|user| user.email = other.into())
                    .unwrap_err()
                    .contains("company"),
                "{other}"
            );
        }
    }

    #[test]
    fn only_the_role_makes_a_system_admin() {
        for (roles, is_one) in [
            ("system_user system_admin", true),
            ("system_user_manager not_system_admin", false),
            ("system_user", false),
        ] {
            let who = changed(|user| user.roles = roles.into()).unwrap();
            assert_eq!(who.is_system_admin, is_one, "{roles}");
        }
        let named = changed(|user| user.username = "system_admin".into()).unwrap();
        assert!(!named.is_system_admin);
    }
}
