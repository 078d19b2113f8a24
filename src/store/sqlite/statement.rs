//! What every statement is read with.

use rusqlite::{Row, RowIndex, Transaction, types::Type};
use uuid::Uuid;

pub(super) type Result<T> = rusqlite::Result<T>;

/// What is said of a value that could not have been written here.
pub(super) fn broken(column: &str) -> rusqlite::Error {
    let problem = format!("{column} holds an illegal value");
    rusqlite::Error::FromSqlConversionFailure(0, Type::Null, problem.into())
}

pub(super) fn uuid(row: &Row<'_>, column: impl RowIndex) -> Result<Uuid> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

pub(super) fn schema_version(db: &Transaction<'_>) -> Result<Option<i32>> {
    let there: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'refinery_schema_history')",
        [],
        |row| row.get(0),
    )?;
    match there {
        true => db.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0)),
        false => Ok(None),
    }
}
