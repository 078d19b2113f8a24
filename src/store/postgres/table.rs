//! Reading a table of another program.

use std::pin::pin;

use futures_util::TryStreamExt;

use super::{connection::describe, tls};
use crate::{
    config::PostgresUrl,
    store::{
        Result, StoreError,
        table::{Row, Rows, Sink},
    },
};

pub(in crate::store) async fn read_table(
    location: &PostgresUrl,
    count: &str,
    select: String,
) -> Result<(u64, Rows)> {
    let (config, tls) = tls::settings(location)?;
    let failed = |error: tokio_postgres::Error| StoreError::Unusable(describe(&error));
    let (client, connection) = config.connect(tls).await.map_err(failed)?;
    tokio::spawn(connection);
    let statement = client.prepare(&select).await.map_err(failed)?;
    let total: i64 = client.query_one(count, &[]).await.map_err(failed)?.get(0);
    let (mut sink, rows) = Sink::new();
    tokio::spawn(async move {
        let sender = sink.sender();
        let reading = async {
            let parameters: [&str; 0] = [];
            let mut found = pin!(client.query_raw(&statement, parameters).await?);
            while let Some(row) = found.try_next().await? {
                let row: Row = (0..row.len())
                    .map(|column| row.try_get(column))
                    .collect::<std::result::Result<_, _>>()?;
                if let Some(batch) = sink.push(row)
                    && sender.send(Ok(batch)).await.is_err()
                {
                    return Ok(());
                }
            }
            drop(sender.send(Ok(sink.rest())).await);
            Ok::<(), tokio_postgres::Error>(())
        };
        if let Err(error) = reading.await {
            drop(sender.send(Err(describe(&error))).await);
        }
    });
    Ok((total.unsigned_abs(), rows))
}
