//! API keys. Each function runs within one transaction, its locks taken user first.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use futures_util::StreamExt;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    Postgres,
    connection::{QueryError, QueryResult as Result, convert},
    event, log,
    lookup::{lock_user, read_attributes},
    mail,
    statement::{NOW, now, one, only_i64, run},
};
use crate::{
    clock::UnixMillis,
    store::{
        self, AccountChange, ApiKey, ApiKeyAdded, ApiKeyLimits, ApiKeyPage, ApiKeySelection, ApiKeySink,
        ApiKeys, Event, LiveApiKey, LogEntry, NewApiKey, StoreError, User,
    },
    types::{ApiKeyId, Roles, UserId},
};

/// How many rows are taken from the connection at once.
const CHUNK: usize = 1_024;

/// A key that has not expired.
const LIVES: &str =
    "(k.expires_at IS NULL OR k.expires_at > (extract(epoch FROM clock_timestamp()) * 1000)::bigint)";

fn read_id(row: &Row) -> Result<ApiKeyId> {
    ApiKeyId::from_number(row.try_get("id")?).ok_or(QueryError::Broken("api_keys.id"))
}

fn read_limits(row: &Row) -> Result<ApiKeyLimits> {
    let (roles, routes, networks) = (row.try_get("roles")?, row.try_get("routes")?, row.try_get("networks")?);
    ApiKeyLimits::read(roles, routes, networks).ok_or(QueryError::Broken("api_keys.roles"))
}

fn read_key(row: &Row) -> Result<ApiKey> {
    Ok(ApiKey {
        id: read_id(row)?,
        name: row.try_get("name")?,
        limits: read_limits(row)?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
    })
}

fn read_live(row: &Row) -> Result<LiveApiKey> {
    let hash: &[u8] = row.try_get("hash")?;
    let roles = Roles::parse_joined(row.try_get("owner_roles")?);
    Ok(LiveApiKey {
        id: read_id(row)?,
        hash: hash.try_into().map_err(|_| QueryError::Broken("api_keys.hash"))?,
        limits: read_limits(row)?,
        expires_at: row.try_get("expires_at")?,
        owner: UserId::from_uuid(row.try_get("user_id")?).ok_or(QueryError::Broken("api_keys.user_id"))?,
        name: row.try_get("owner_name")?,
        roles: roles.map_err(|_| QueryError::Broken("users.roles"))?,
        external_id: row.try_get("external_id")?,
        generation: row.try_get("generation")?,
        email: row.try_get("email")?,
        email_verified: row.try_get("email_verified")?,
        attributes: read_attributes(row)?,
    })
}

async fn add(
    tx: &Transaction<'_>,
    owner: UserId,
    generation: i64,
    new: &NewApiKey,
    event: &Event,
) -> Result<ApiKeyAdded> {
    let is_theirs = |owner: &User| !owner.disabled && owner.generation == generation;
    let Some(owner) = lock_user(tx, owner).await?.filter(is_theirs) else { return Ok(ApiKeyAdded::Gone) };
    let sql = format!("SELECT count(*) FROM api_keys k WHERE user_id = $1 AND {LIVES}");
    let count = one(tx, &sql, &[&owner.id.uuid()], only_i64).await?.unwrap_or_default();
    if count >= i64::from(new.most) {
        return Ok(ApiKeyAdded::TooMany);
    }
    let now = now(tx).await?;
    let key = new.stored_at(now);
    let (roles, routes, networks) = new.limits.joined();
    let sql = "INSERT INTO api_keys (id, user_id, name, hash, roles, routes, networks, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let (id, user, hash) = (new.id.number(), owner.id.uuid(), new.hash.as_slice());
    run(tx, sql, &[&id, &user, &new.name, &hash, &roles, &routes, &networks, &now, &key.expires_at]).await?;
    let entry = LogEntry::of_new_api_key(new.id, now);
    log::append(tx, &entry).await?;
    event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
    if let Some(mail) = &new.mail {
        mail::enqueue(tx, mail).await?;
    }
    Ok(ApiKeyAdded::Done(key, entry))
}

async fn end(tx: &Transaction<'_>, owner: UserId, id: ApiKeyId, event: &Event) -> Result<Option<LogEntry>> {
    let Some(owner) = lock_user(tx, owner).await? else { return Ok(None) };
    let sql = "DELETE FROM api_keys WHERE id = $1 AND user_id = $2";
    if run(tx, sql, &[&id.number(), &owner.id.uuid()]).await? == 0 {
        return Ok(None);
    }
    let entry = LogEntry::of_ended_api_key(id, now(tx).await?);
    log::append(tx, &entry).await?;
    event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
    Ok(Some(entry))
}

/// Does to the keys of an account, which is locked, what a change of it does.
pub(super) async fn follow_change(
    tx: &Transaction<'_>,
    owner: &User,
    change: &AccountChange,
    generation: i64,
    now: UnixMillis,
) -> Result<()> {
    if change.ends_api_keys() {
        let statement = tx.prepare_cached("DELETE FROM api_keys WHERE user_id = $1 RETURNING id").await?;
        for row in tx.query(&statement, &[&owner.id.uuid()]).await? {
            log::append(tx, &LogEntry::of_ended_api_key(read_id(&row)?, now)).await?;
        }
    } else if let Some(generation) = change.key_owner_generation(generation) {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM api_keys WHERE user_id = $1 LIMIT 1) AS k";
        if one(tx, sql, &[&owner.id.uuid()], only_i64).await? != Some(0) {
            log::append(tx, &LogEntry::of_key_owner(owner.id, generation, now)).await?;
        }
    }
    Ok(())
}

/// Reads live keys, of which there may be many: they are taken as they come, and what is bounded is the wait for the next ones.
async fn read(
    tx: &Transaction<'_>,
    which: Option<&ApiKeySelection>,
    patience: Duration,
    sink: ApiKeySink<'_>,
) -> Result<()> {
    let all = which.is_none();
    let ids: Vec<i64> = which.iter().flat_map(|which| &which.ids).map(|id| id.number()).collect();
    let owners: Vec<Uuid> = which.iter().flat_map(|which| &which.owners).map(|id| id.uuid()).collect();
    let selected = if all {
        "$1::bigint[] IS NOT NULL AND $2::uuid[] IS NOT NULL"
    } else {
        "(k.id = ANY($1) OR k.user_id = ANY($2))"
    };
    let sql = format!(
        "SELECT k.id, k.hash, k.roles, k.routes, k.networks, k.expires_at, k.user_id, u.name AS owner_name, \
         u.roles AS owner_roles, u.external_id, u.generation, u.email, u.email_verified AND NOT u.email_is_weak AS email_verified, u.attributes \
         FROM api_keys k JOIN accounts u ON u.id = k.user_id \
         WHERE NOT u.disabled AND {LIVES} AND {selected}"
    );
    let params: [&(dyn ToSql + Sync); 2] = [&ids, &owners];
    let begin = async {
        tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
        let statement = tx.prepare_cached(&sql).await?;
        Ok::<_, QueryError>(tx.query_raw(&statement, params).await?)
    };
    let rows = log::in_time(patience, begin).await??;
    let mut chunks = std::pin::pin!(rows.ready_chunks(CHUNK));
    while let Some(rows) = log::in_time(patience, chunks.next()).await? {
        for row in rows {
            match read_live(&row?) {
                Ok(key) => sink(key),
                // One that cannot be read opens nothing, and stands in no other's way.
                Err(error) => {
                    tracing::error!(error = %convert(&error), "an API key in the store cannot be read")
                }
            }
        }
    }
    Ok(())
}

#[async_trait]
impl ApiKeys for Postgres {
    async fn add_api_key(
        &self,
        owner: UserId,
        generation: i64,
        key: &NewApiKey,
        event: &Event,
    ) -> store::Result<ApiKeyAdded> {
        self.pool.write(async |tx| add(tx, owner, generation, key, event).await).await
    }

    async fn api_keys(&self, owner: UserId, page: ApiKeyPage) -> store::Result<Vec<ApiKey>> {
        let sql = format!(
            "SELECT id, name, roles, routes, networks, created_at, expires_at, last_used_at FROM api_keys k \
             WHERE user_id = $1 AND {LIVES} AND (created_at < $2 OR (created_at = $2 AND id > $3)) \
             ORDER BY created_at DESC, id LIMIT $4"
        );
        let (created_at, id) = page.after.map_or((i64::MAX, -1), |(at, id)| (at, id.number()));
        self.pool
            .read(async |db| {
                let statement = db.prepare_cached(&sql).await?;
                let params: [&(dyn ToSql + Sync); 4] =
                    [&owner.uuid(), &created_at, &id, &i64::from(page.limit)];
                db.query(&statement, &params).await?.iter().map(read_key).collect()
            })
            .await
    }

    async fn end_api_key(
        &self,
        owner: UserId,
        id: ApiKeyId,
        event: &Event,
    ) -> store::Result<Option<LogEntry>> {
        let mut is_none = false;
        let ended = self.pool.write(async |tx| {
            let ended = end(tx, owner, id, event).await?;
            is_none = ended.is_none();
            Ok(ended)
        });
        match ended.await {
            // Nothing was written, whatever became of the COMMIT.
            Err(StoreError::OutcomeUnknown(_)) if is_none => Ok(None),
            ended => ended,
        }
    }

    async fn read_api_keys(
        &self,
        which: Option<&ApiKeySelection>,
        sink: ApiKeySink<'_>,
    ) -> store::Result<()> {
        let patience = self.reading.timeout;
        self.reading.snapshot(async |tx| read(tx, which, patience, sink).await).await
    }

    async fn note_api_keys_used(&self, used: &[(ApiKeyId, UnixMillis)]) -> store::Result<()> {
        let mut used = used.to_vec();
        // Two gateways that note the same keys never wait for each other's rows.
        used.sort_unstable();
        let (ids, times): (Vec<i64>, Vec<i64>) = used.iter().map(|(id, at)| (id.number(), *at)).unzip();
        let sql = format!(
            "WITH m AS (SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS m(id, at)), \
             locked AS (SELECT k.id FROM api_keys k JOIN m ON m.id = k.id ORDER BY k.id FOR UPDATE OF k SKIP LOCKED) \
             UPDATE api_keys k SET last_used_at = greatest(k.last_used_at, least(m.at, {NOW})) \
             FROM m JOIN locked ON locked.id = m.id WHERE k.id = m.id"
        );
        self.pool.write(async |tx| run(tx, &sql, &[&ids, &times]).await.map(drop)).await
    }
}
