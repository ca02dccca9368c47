//! The state of the simulated Identity Center. An operation takes effect at its due time; the
//! next access to the state carries it out, so that no task has to run meanwhile.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{AssignmentPlace, Operation, OperationKind};
use super::SandboxError;
use crate::domain::{HoldingKey, PermissionSet, Timestamp, UserId};
use crate::files;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS assignments (
        account_id TEXT NOT NULL,
        permission_set TEXT NOT NULL,
        user_id TEXT NOT NULL,
        PRIMARY KEY (account_id, permission_set, user_id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS operations (
        id TEXT NOT NULL PRIMARY KEY,
        kind TEXT NOT NULL,
        account_id TEXT NOT NULL,
        permission_set TEXT NOT NULL,
        user_id TEXT NOT NULL,
        ready_at INTEGER NOT NULL,
        failure TEXT,
        done INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE IF NOT EXISTS policies (
        permission_set TEXT NOT NULL PRIMARY KEY,
        text TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS operations_open ON operations (ready_at) WHERE NOT done;";

/// Only one process uses the file, but an operator may read it meanwhile.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct SandboxFile(Connection);

pub(super) enum PlannedResult {
    Succeeds,
    Fails(&'static str),
}

pub(super) struct Started<'a> {
    pub id: String,
    pub kind: OperationKind,
    pub key: &'a HoldingKey,
    pub ready_at: Timestamp,
    pub fate: PlannedResult,
}

/// An operation that is due.
struct Ready {
    id: String,
    kind: String,
    key: [String; 3],
    failure: Option<String>,
}

pub(super) enum OperationState {
    InProgress,
    Succeeded,
    Failed(String),
}

type Sql<T> = rusqlite::Result<T>;

impl SandboxFile {
    pub fn open(path: Option<&Path>) -> Sql<Self> {
        let db = match path {
            Some(path) => {
                files::tighten(&files::of_sqlite(path));
                // SQLite's other files get the mode of this one. If it cannot be created, the
                // error of SQLite says why.
                files::create(path).ok();
                Connection::open(path)?
            }
            None => Connection::open_in_memory()?,
        };
        db.busy_timeout(BUSY_TIMEOUT)?;
        // The state must survive a crash of jit, but not a power failure.
        let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        tracing::debug!(mode, "simulated Identity Center opened");
        db.execute_batch("PRAGMA synchronous = NORMAL")?;
        db.execute_batch(SCHEMA)?;
        Ok(Self(db))
    }

    /// The number of all operations so far.
    pub fn operations(&self) -> Sql<u64> {
        let count: i64 = self
            .0
            .query_row("SELECT count(*) FROM operations", [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Carries out the due operations, in order.
    pub fn carry_out_due(&self, now: Timestamp) -> Sql<()> {
        let mut ready = self.0.prepare_cached(
            "SELECT id, kind, account_id, permission_set, user_id, failure FROM operations
             INDEXED BY operations_open
             WHERE NOT done AND ready_at <= ?1 ORDER BY ready_at, id",
        )?;
        let ready: Vec<Ready> = ready
            .query_map([now.millis()], |row| {
                Ok(Ready {
                    id: row.get(0)?,
                    kind: row.get(1)?,
                    key: [row.get(2)?, row.get(3)?, row.get(4)?],
                    failure: row.get(5)?,
                })
            })?
            .collect::<Sql<_>>()?;
        for Ready {
            id,
            kind,
            key,
            failure,
        } in ready
        {
            let effect = match (failure, kind.as_str()) {
                (Some(_), _) => None,
                (None, "create") => Some("INSERT OR IGNORE INTO assignments VALUES (?1, ?2, ?3)"),
                (None, _) => Some(
                    "DELETE FROM assignments
                     WHERE account_id = ?1 AND permission_set = ?2 AND user_id = ?3",
                ),
            };
            if let Some(effect) = effect {
                self.0.prepare_cached(effect)?.execute(key)?;
            }
            self.0
                .prepare_cached("UPDATE operations SET done = 1 WHERE id = ?1")?
                .execute([id])?;
        }
        Ok(())
    }

    pub fn assign(&self, key: &HoldingKey) -> Sql<()> {
        self.0
            .prepare_cached("INSERT OR IGNORE INTO assignments VALUES (?1, ?2, ?3)")?
            .execute(words(key))?;
        Ok(())
    }

    pub fn is_assigned(&self, key: &HoldingKey) -> Sql<bool> {
        self.0
            .prepare_cached(
                "SELECT 1 FROM assignments
                 WHERE account_id = ?1 AND permission_set = ?2 AND user_id = ?3",
            )?
            .exists(words(key))
    }

    pub fn assigned(&self, place: &AssignmentPlace) -> Result<Vec<UserId>, SandboxError> {
        let mut all = self.0.prepare_cached(
            "SELECT user_id FROM assignments WHERE account_id = ?1 AND permission_set = ?2",
        )?;
        let words = [place.account_id.as_str(), place.permission_set.as_str()];
        let mut rows = all.query(words)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let user: String = row.get(0)?;
            found.push(user.parse().map_err(|_| SandboxError::Foreign(user))?);
        }
        Ok(found)
    }

    pub fn under_way(&self, kind: OperationKind) -> Sql<Vec<String>> {
        self.0
            .prepare_cached(
                "SELECT id FROM operations INDEXED BY operations_open
                 WHERE NOT done AND kind = ?1",
            )?
            .query_map([word(kind)], |row| row.get(0))?
            .collect()
    }

    pub fn policy(&self, set: &PermissionSet) -> Sql<Option<String>> {
        self.0
            .prepare_cached("SELECT text FROM policies WHERE permission_set = ?1")?
            .query_row([set.as_str()], |row| row.get(0))
            .optional()
    }

    pub fn set_policy(&self, set: &PermissionSet, policy: Option<&str>) -> Sql<()> {
        let sql = match policy {
            Some(_) => "INSERT OR REPLACE INTO policies VALUES (?1, ?2)",
            None => "DELETE FROM policies WHERE permission_set = ?1 AND ?2 IS NULL",
        };
        self.0
            .prepare_cached(sql)?
            .execute(params![set.as_str(), policy])?;
        Ok(())
    }

    pub fn in_progress(&self, key: &HoldingKey) -> Sql<bool> {
        self.0
            .prepare_cached(
                "SELECT 1 FROM operations INDEXED BY operations_open WHERE NOT done
                 AND account_id = ?1 AND permission_set = ?2 AND user_id = ?3",
            )?
            .exists(words(key))
    }

    pub fn outstanding_creates(&self) -> Sql<u64> {
        let count: i64 = self
            .0
            .prepare_cached(
                "SELECT count(*) FROM operations INDEXED BY operations_open
                 WHERE NOT done AND kind = 'create'",
            )?
            .query_row([], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    pub fn start(&self, started: &Started<'_>) -> Sql<()> {
        let failure = match started.fate {
            PlannedResult::Succeeds => None,
            PlannedResult::Fails(why) => Some(why),
        };
        let [account, set, user] = words(started.key);
        self.0
            .prepare_cached(
                "INSERT INTO operations
                 (id, kind, account_id, permission_set, user_id, ready_at, failure)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                started.id,
                word(started.kind),
                account,
                set,
                user,
                started.ready_at.millis(),
                failure
            ])?;
        Ok(())
    }

    pub fn outcome(&self, operation: &Operation) -> Sql<Option<OperationState>> {
        self.0
            .prepare_cached("SELECT done, failure FROM operations WHERE id = ?1 AND kind = ?2")?
            .query_row([&operation.id, word(operation.kind)], |row| {
                let (done, failure): (bool, Option<String>) = (row.get(0)?, row.get(1)?);
                Ok(match (done, failure) {
                    (false, _) => OperationState::InProgress,
                    (true, None) => OperationState::Succeeded,
                    (true, Some(why)) => OperationState::Failed(why),
                })
            })
            .optional()
    }

    pub fn assignments(&self) -> Result<Vec<HoldingKey>, SandboxError> {
        let mut all = self.0.prepare_cached(
            "SELECT account_id, permission_set, user_id FROM assignments ORDER BY 1, 2, 3",
        )?;
        let mut rows = all.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let [account, set, user]: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            let foreign = || SandboxError::Foreign(format!("{account}/{set}/{user}"));
            found.push(HoldingKey {
                account_id: account.parse().map_err(|_| foreign())?,
                permission_set: set.parse().map_err(|_| foreign())?,
                user: user.parse().map_err(|_| foreign())?,
            });
        }
        Ok(found)
    }
}

fn word(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Create => "create",
        OperationKind::Delete => "delete",
    }
}

fn words(key: &HoldingKey) -> [&str; 3] {
    [
        key.account_id.as_str(),
        key.permission_set.as_str(),
        key.user.as_str(),
    ]
}
