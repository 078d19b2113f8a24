//! Hints between gateways that the log has grown: NOTIFY, after the commit and on its own.
//!
//! Within the transaction it would take a lock that all commits of the database share, and a full queue
//! would fail a logout. A hint that is lost costs time only: the poll finds everything.

use std::future::poll_fn;

use deadpool_postgres::Client;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Connection, Socket, tls::TlsStream};

use super::connection::{Pool, QueryResult, describe};
use crate::store::{Hints, Result, StoreError};

/// How often a notification to oneself may get lost before a pooler is to blame.
const TRIES: u32 = 3;

pub(super) async fn send(db: &Client) -> QueryResult<()> {
    // A notification commits like a change does; that it survives a crash is worth no wait for the disk.
    let sql = "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_notify('authgate', ''); COMMIT";
    let sent = db.batch_execute(sql).await;
    if sent.is_err() {
        // The connection goes back to the pool, and not within a transaction.
        db.batch_execute("ROLLBACK").await?;
    }
    Ok(sent?)
}

/// Listens on a connection of its own, and makes sure that what is sent is heard: behind a pooler
/// that hands connections out by the transaction it would not be.
pub(super) async fn listen(pool: &Pool) -> Result<Hints> {
    // A server that will not do says why when a connection is set up, and would only refuse to listen here.
    pool.read(async |_| Ok(())).await?;
    let away = |error: tokio_postgres::Error| StoreError::Away(describe(&error));
    let mut config = pool.config.clone();
    config.application_name("authgate hints");
    let connecting = tokio::time::timeout(pool.timeout, config.connect(pool.tls.clone()));
    let late = |_| StoreError::Away("no answer in time".to_owned());
    let (client, connection) = connecting.await.map_err(late)?.map_err(away)?;
    let (sender, mut hints) = mpsc::channel(1);
    tokio::spawn(hear(connection, sender));
    let listening = tokio::time::timeout(pool.timeout, client.batch_execute("LISTEN authgate"));
    listening.await.map_err(late)?.map_err(away)?;
    for attempt in 1.. {
        // Even a full queue is no reason not to serve: hints only save time.
        pool.read(async |db| send(db).await).await.map_err(|error| match error {
            StoreError::Failed(text) => StoreError::Away(text),
            error => error,
        })?;
        match tokio::time::timeout(pool.timeout, hints.recv()).await {
            Ok(Some(())) => break,
            Ok(None) => return Err(StoreError::Away("the listening connection ended".to_owned())),
            Err(_) if attempt < TRIES => {}
            Err(_) => {
                return Err(StoreError::Unusable(
                    "notifications do not arrive (LISTEN): connect to PostgreSQL itself, or to a pooler that keeps sessions"
                        .to_owned(),
                ));
            }
        }
    }
    let (sender, heard) = mpsc::channel(1);
    tokio::spawn(async move {
        // The connection ends with its client.
        let _client = client;
        while hints.recv().await.is_some() {
            // One that waits already says the same.
            if let Err(mpsc::error::TrySendError::Closed(())) = sender.try_send(()) {
                break;
            }
        }
    });
    Ok(heard)
}

/// Runs the connection; a notification becomes a hint.
async fn hear<S: TlsStream + Unpin>(mut connection: Connection<Socket, S>, sender: mpsc::Sender<()>) {
    while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
        if matches!(message, AsyncMessage::Notification(_)) {
            // One that waits already says the same.
            let _ = sender.try_send(());
        }
    }
}
