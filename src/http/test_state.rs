//! The state of a server with one key, for unit tests.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::HttpState;
use super::keyring::{Keyring, KnownSecrets};
use crate::clock::SystemClock;
use crate::config::{KeyConfig, Scope};
use crate::domain::decide::fixtures::policy;
use crate::service::{Announce, Service};
use crate::signature::Secret;
use crate::store::sqlite::SqliteStore;

pub(super) fn secret() -> Secret {
    Secret::new("s3cret".into())
}

/// A key with this scope only.
pub(super) fn key(scope: Scope) -> KeyConfig {
    KeyConfig {
        secret: secret(),
        scopes: [scope].into(),
        require_v2: true,
        expires: None,
    }
}

/// A server on a store in this folder, which knows the key `plugin` with this scope.
pub(super) fn state(folder: &Path, scope: Scope) -> HttpState {
    let store = Arc::new(SqliteStore::open(&folder.join("jit.db")).unwrap());
    let service = Service::new(store, Arc::new(SystemClock), policy(), Announce::None);
    let keyring = Keyring::new(KnownSecrets {
        keys: [("plugin".into(), Arc::new(key(scope)))].into(),
        ..KnownSecrets::default()
    });
    let stop = CancellationToken::new();
    HttpState::new(Arc::new(service), Arc::new(keyring), None, stop)
}
