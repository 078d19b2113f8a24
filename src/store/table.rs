//! Reading a table of another program, row by row, as text.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::{Result, StoreError, postgres, sqlite};
use crate::config::PostgresUrl;

/// Rows that are handed over at a time.
const BATCH: usize = 500;

/// A row: the wanted columns in their order, null where there is none.
pub type Row = Vec<Option<String>>;

/// Batches of rows, or why there are no more.
pub type Rows = mpsc::Receiver<std::result::Result<Vec<Row>, String>>;

/// A database of another program.
#[derive(Debug, Clone)]
pub enum TableSource {
    /// A PostgreSQL server.
    Postgres(PostgresUrl),
    /// A SQLite file.
    Sqlite(PathBuf),
}

/// Starts to read `columns` of `table`, as it is now; with the number of its rows. It is read no
/// faster than it is taken, so that memory stays flat.
///
/// # Errors
/// When the table cannot be read.
pub async fn read_table(source: TableSource, table: &str, columns: &[String]) -> Result<(u64, Rows)> {
    let columns: Vec<String> =
        columns.iter().map(|column| format!("CAST({} AS TEXT)", quote(column))).collect();
    let select = format!("SELECT {} FROM {}", columns.join(", "), quote_path(table));
    let count = format!("SELECT count(*) FROM {}", quote_path(table));
    match source {
        TableSource::Postgres(url) => postgres::read_table(&url, &count, select).await,
        TableSource::Sqlite(path) => {
            let opened = tokio::task::spawn_blocking(move || sqlite::read_table(&path, &count, select)).await;
            opened.map_err(|error| StoreError::Failed(error.to_string()))?
        }
    }
}

/// Collects rows into batches and hands them over.
pub(super) struct Sink {
    batch: Vec<Row>,
    sender: mpsc::Sender<std::result::Result<Vec<Row>, String>>,
}

impl Sink {
    pub(super) fn new() -> (Self, Rows) {
        let (sender, rows) = mpsc::channel(4);
        (Self { batch: Vec::with_capacity(BATCH), sender }, rows)
    }

    /// Takes a row; a batch when it is full.
    pub(super) fn push(&mut self, row: Row) -> Option<Vec<Row>> {
        self.batch.push(row);
        (self.batch.len() == BATCH).then(|| std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH)))
    }

    pub(super) fn sender(&self) -> mpsc::Sender<std::result::Result<Vec<Row>, String>> {
        self.sender.clone()
    }

    /// The last batch.
    pub(super) fn rest(self) -> Vec<Row> {
        self.batch
    }
}

/// A name as SQL takes it, whatever is in it.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The same for a table, with its schema before a dot.
fn quote_path(table: &str) -> String {
    table.split('.').map(quote).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quote_path("public.users"), "\"public\".\"users\"");
        assert_eq!(quote("a\"; DROP TABLE users; --"), "\"a\"\"; DROP TABLE users; --\"");
    }
}
