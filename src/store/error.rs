//! Why a call to the store failed. The texts are for the log, never for a client.

use thiserror::Error;

/// A failed call.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database cannot be reached, or did not answer in time. Nothing was changed.
    #[error("the store is away: {0}")]
    Away(String),
    /// The connection broke while committing: the change may or may not have happened.
    #[error("the store broke off while committing: {0}")]
    OutcomeUnknown(String),
    /// The database is not fit for use: a newer schema, a standby, too old, locked by another.
    #[error("{0}")]
    Unusable(String),
    /// The database refused a statement, or a row cannot be read: an error of ours.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// A database that another program's tables are in, and none of ours.
pub(super) fn occupied() -> StoreError {
    StoreError::Unusable(
        "the database holds a table `users` of another program: give authgate a database or a schema of its own, \
         and take the users over with `authgate user import`"
            .to_owned(),
    )
}

/// The first schema that can be migrated from.
const FIRST_SCHEMA: i32 = 10;

/// A database of a build that came before that schema.
fn outdated() -> StoreError {
    StoreError::Unusable(
        "the database was made by an early build and cannot be migrated: use a new one".to_owned(),
    )
}

/// What became of a migration.
pub(super) fn migrated(result: std::result::Result<refinery::Report, refinery::Error>) -> super::Result<()> {
    match result {
        Ok(report) => {
            for migration in report.applied_migrations() {
                tracing::info!(migration = %migration, "schema migrated");
            }
            Ok(())
        }
        Err(error) => Err(match error.kind() {
            refinery::error::Kind::MissingVersion(version) if version.version() < FIRST_SCHEMA => outdated(),
            refinery::error::Kind::MissingVersion(version) => StoreError::Unusable(format!(
                "the database has schema {version}, which this binary does not know: use a newer authgate"
            )),
            refinery::error::Kind::DivergentVersion(applied, _) => StoreError::Unusable(format!(
                "the database was migrated by another program: its {applied} is not ours"
            )),
            _ => StoreError::Away(format!("migration: {error}")),
        }),
    }
}

/// Compares the database's schema with the newest that this binary knows.
pub(super) fn compare_schema(found: Option<i32>, newest: i32) -> super::Result<()> {
    match found {
        Some(found) if found == newest => Ok(()),
        Some(found) if found > newest => Err(StoreError::Unusable(format!(
            "the database has schema {found}, this binary knows up to {newest}: use a newer authgate"
        ))),
        Some(found) if found < FIRST_SCHEMA => Err(outdated()),
        _ => Err(StoreError::Unusable(
            "the database's schema is older than this binary: run `authgate migrate`, or set store.migrate: true"
                .to_owned(),
        )),
    }
}

/// The newest schema among the embedded migrations.
pub(super) fn newest(runner: &refinery::Runner) -> i32 {
    runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap_or(0)
}
