//! Reading a table of another program.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::store::{
    Result, StoreError,
    table::{Row, Rows, Sink},
};

pub(in crate::store) fn read_table(path: &Path, count: &str, select: String) -> Result<(u64, Rows)> {
    let failed = |error: rusqlite::Error| StoreError::Unusable(format!("{}: {error}", path.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    // Or a column that is not there would be read as the text of its name.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).map_err(failed)?;
    // A column that is not there is told now, not half-way.
    connection.prepare(&select).map_err(failed)?;
    let total: i64 = connection.query_row(count, [], |row| row.get(0)).map_err(failed)?;
    let (sink, rows) = Sink::new();
    std::thread::spawn(move || {
        let sender = sink.sender();
        if let Err(error) = copy(&connection, &select, sink) {
            drop(sender.blocking_send(Err(error.to_string())));
        }
    });
    Ok((total.unsigned_abs(), rows))
}

fn copy(connection: &Connection, select: &str, mut sink: Sink) -> rusqlite::Result<()> {
    let sender = sink.sender();
    let mut statement = connection.prepare(select)?;
    let width = statement.column_count();
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let row: Row = (0..width).map(|column| row.get(column)).collect::<rusqlite::Result<_>>()?;
        if let Some(batch) = sink.push(row)
            && sender.blocking_send(Ok(batch)).is_err()
        {
            // Nobody takes them any more.
            return Ok(());
        }
    }
    drop(sender.blocking_send(Ok(sink.rest())));
    Ok(())
}
