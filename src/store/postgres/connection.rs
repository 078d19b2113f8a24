//! The pool, and what holds for every connection and transaction.

use std::time::Duration;

use deadpool_postgres::{
    Client, ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, RecyclingMethod, Runtime,
    Timeouts, Transaction,
};
use tokio_postgres::{Config, IsolationLevel};

use super::tls::{self, MakeRustlsConnect};
use crate::{
    config::PostgresUrl,
    store::{Result, StoreError},
};

/// Any number that no other program takes for its advisory lock: the bytes of "authgate".
const MIGRATION_LOCK: i64 = i64::from_be_bytes(*b"authgate");

/// For how long the other side's kernel may say nothing before it is asked, or not answer, until a connection
/// counts as broken.
const SILENCE: Duration = Duration::from_secs(10);

/// How long another process's migration is waited for, before the start is tried again.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Pool {
    pool: deadpool_postgres::Pool,
    /// For connections beside the pool.
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
    pub(super) timeout: Duration,
}

impl Pool {
    pub(super) fn new(location: &PostgresUrl, size: usize, timeout: Duration) -> Result<Self> {
        let (mut config, tls) = tls::settings(location)?;
        config
            .connect_timeout(timeout)
            .application_name("authgate")
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE)
            .keepalives_interval(SILENCE / 4)
            .keepalives_retries(3);
        let manager = Manager::from_config(
            config.clone(),
            tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let server_timeout = timeout.as_millis();
        let pool = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait: Some(timeout), create: Some(timeout), recycle: Some(timeout) })
            .post_create(Hook::async_fn(move |client, _| Box::pin(prepare(client, server_timeout))))
            .build()
            .map_err(|error| StoreError::Unusable(error.to_string()))?;
        Ok(Self { pool, config, tls, timeout })
    }

    /// Runs `work` on a connection, one statement a transaction.
    pub(super) async fn read<T>(&self, work: impl AsyncFnOnce(&Client) -> QueryResult<T>) -> Result<T> {
        let client = self.client().await?;
        match tokio::time::timeout(self.timeout, work(&client)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(give_up(client, convert(&error))),
            Err(_) => Err(give_up(client, StoreError::Away("no answer in time".to_owned()))),
        }
    }

    /// Runs `work` in a transaction that commits if it succeeds.
    pub(super) async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> QueryResult<T>,
    ) -> Result<T> {
        self.write_within(self.timeout, work).await
    }

    /// The same for what rightly takes longer than a request may.
    pub(super) async fn write_within<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&Transaction<'_>) -> QueryResult<T>,
    ) -> Result<T> {
        let mut client = self.client().await?;
        let mut committing = false;
        let attempt = async {
            let tx = client.transaction().await?;
            if limit > self.timeout {
                let millis = limit.as_millis();
                let sql =
                    format!("SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis}");
                tx.batch_execute(&sql).await?;
            }
            let value = work(&tx).await?;
            committing = true;
            // Whatever the work took, this is but a word.
            tokio::time::timeout(self.timeout, tx.commit()).await.map_err(|_| QueryError::Late)??;
            Ok::<T, QueryError>(value)
        };
        let error = match tokio::time::timeout(limit.max(self.timeout), attempt).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => QueryError::Late,
        };
        let error = match convert(&error) {
            StoreError::Away(text) if committing && !error.is_refusal() => StoreError::OutcomeUnknown(text),
            error => error,
        };
        Err(give_up(client, error))
    }

    /// Reads within one snapshot, in a transaction that commits if it succeeds. `work` bounds its own time:
    /// there may be much to read.
    pub(super) async fn snapshot<T>(
        &self,
        work: impl AsyncFnOnce(&Transaction<'_>) -> QueryResult<T>,
    ) -> Result<T> {
        let mut client = self.client().await?;
        let late = |_| QueryError::Late;
        let attempt = async {
            let begin = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start();
            let tx = tokio::time::timeout(self.timeout, begin).await.map_err(late)??;
            let value = work(&tx).await?;
            tokio::time::timeout(self.timeout, tx.commit()).await.map_err(late)??;
            Ok::<T, QueryError>(value)
        };
        match attempt.await {
            Ok(value) => Ok(value),
            Err(error) => Err(give_up(client, convert(&error))),
        }
    }

    pub(super) async fn migrate(&self, runner: refinery::Runner) -> Result<()> {
        let mut client = self.client().await?;
        // Migrations and the wait for another gateway's may take longer than a request may.
        client
            .batch_execute(&format!(
                "SET statement_timeout = 0; SET lock_timeout = {}",
                MIGRATION_PATIENCE.as_millis()
            ))
            .await
            .map_err(|error| convert(&error.into()))?;
        let lock = client.execute("SELECT pg_advisory_lock($1)", &[&MIGRATION_LOCK]).await;
        let sql =
            "SELECT to_regclass('users') IS NOT NULL AND to_regclass('refinery_schema_history') IS NULL";
        let occupied = client.query_one(sql, &[]).await.and_then(|row| row.try_get(0));
        let result = match lock.and(occupied) {
            Ok(true) => Err(crate::store::error::occupied()),
            Ok(false) => {
                let wrapper: &mut ClientWrapper = &mut client;
                let client: &mut tokio_postgres::Client = wrapper;
                crate::store::error::migrated(runner.set_abort_missing(true).run_async(client).await)
            }
            Err(error) => Err(convert(&error.into())),
        };
        // Closing the connection gives up the lock and the settings above.
        drop(Object::take(client));
        result
    }

    async fn client(&self) -> Result<Client> {
        // The pool's own limits leave out what is asked on a new connection.
        let client = tokio::time::timeout(self.timeout, self.pool.get()).await;
        let client = client.map_err(|_| StoreError::Away("no connection in time".to_owned()))?;
        client.map_err(|error| match error {
            deadpool_postgres::PoolError::PostCreateHook(HookError::Message(text)) => {
                StoreError::Unusable(text.into_owned())
            }
            deadpool_postgres::PoolError::Backend(error) => StoreError::Away(describe(&error)),
            other => StoreError::Away(other.to_string()),
        })
    }
}

/// What a statement can fail with.
#[derive(Debug)]
pub(super) enum QueryError {
    Postgres(tokio_postgres::Error),
    /// A column holds what it cannot hold.
    Broken(&'static str),
    /// No response in time.
    Late,
    /// Rows were lost on their way.
    Incomplete,
}

impl QueryError {
    /// Whether the server itself refused a COMMIT, which then did not happen. One that got no response, or the
    /// word that the server is ending, may have.
    fn is_refusal(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code().is_some_and(|code| !code.code().starts_with("08") && !code.code().starts_with("57P"))
    }
}

pub(super) type QueryResult<T> = std::result::Result<T, QueryError>;

impl From<tokio_postgres::Error> for QueryError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Sets up a new connection, and refuses a server on which the guarantees would not hold.
async fn prepare(client: &mut ClientWrapper, timeout_millis: u128) -> std::result::Result<(), HookError> {
    let settings = format!(
        "SET statement_timeout = {timeout_millis}; SET lock_timeout = {timeout_millis}; \
         SET idle_in_transaction_session_timeout = {}; \
         SET default_transaction_isolation = 'read committed'; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
        timeout_millis * 2
    );
    client.batch_execute(&settings).await.map_err(HookError::Backend)?;
    let row = client
        .query_one("SELECT current_setting('server_version_num')::int, pg_is_in_recovery()", &[])
        .await
        .map_err(HookError::Backend)?;
    let (version, standby): (i32, bool) = (row.get(0), row.get(1));
    if version < 130_000 {
        return Err(HookError::message("PostgreSQL 13 or later is needed"));
    }
    if standby {
        return Err(HookError::message("the server is a standby; authgate needs the primary"));
    }
    Ok(())
}

/// A connection with a failure behind it is not used again if its state is in doubt.
fn give_up(client: Client, error: StoreError) -> StoreError {
    if matches!(error, StoreError::Away(_) | StoreError::OutcomeUnknown(_)) {
        drop(Object::take(client));
    }
    error
}

pub(super) fn convert(error: &QueryError) -> StoreError {
    let error = match error {
        QueryError::Broken(column) => return StoreError::Failed(format!("{column} holds an illegal value")),
        QueryError::Incomplete => return StoreError::Away("rows were lost on their way".to_owned()),
        QueryError::Late => return StoreError::Away("no answer in time".to_owned()),
        QueryError::Postgres(error) => error,
    };
    use tokio_postgres::error::SqlState;
    let away = match error.code() {
        None => true,
        Some(code) => {
            [
                &SqlState::QUERY_CANCELED,
                &SqlState::LOCK_NOT_AVAILABLE,
                &SqlState::ADMIN_SHUTDOWN,
                &SqlState::CRASH_SHUTDOWN,
                &SqlState::CANNOT_CONNECT_NOW,
                &SqlState::TOO_MANY_CONNECTIONS,
                &SqlState::READ_ONLY_SQL_TRANSACTION,
                &SqlState::T_R_DEADLOCK_DETECTED,
                &SqlState::T_R_SERIALIZATION_FAILURE,
                &SqlState::DISK_FULL,
                &SqlState::OUT_OF_MEMORY,
            ]
            .contains(&code)
                || code.code().starts_with("08")
        }
    };
    if away { StoreError::Away(describe(error)) } else { StoreError::Failed(describe(error)) }
}

/// The error with its cause, which the library's own text leaves out.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        // Without its detail, which may repeat values of the row.
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
