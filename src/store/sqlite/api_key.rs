//! API keys.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use async_trait::async_trait;
use rusqlite::{Connection, Row, Transaction, params};

use super::{
    Sqlite, event, log,
    lookup::{read_attributes, user},
    mail,
    statement::{Result, broken, uuid},
};
use crate::{
    clock::UnixMillis,
    store::{
        self, AccountChange, ApiKey, ApiKeyAdded, ApiKeyLimits, ApiKeyPage, ApiKeySelection, ApiKeySink,
        ApiKeys, Event, LiveApiKey, LogEntry, NewApiKey, StoreError, User,
    },
    types::{ApiKeyId, Roles, UserId},
};

fn read_id(row: &Row<'_>) -> Result<ApiKeyId> {
    ApiKeyId::from_number(row.get("id")?).ok_or_else(|| broken("api_keys.id"))
}

fn read_limits(row: &Row<'_>) -> Result<ApiKeyLimits> {
    let (roles, routes, networks): (Option<String>, String, String) =
        (row.get("roles")?, row.get("routes")?, row.get("networks")?);
    ApiKeyLimits::read(roles.as_deref(), &routes, &networks).ok_or_else(|| broken("api_keys.roles"))
}

fn read_key(row: &Row<'_>) -> Result<ApiKey> {
    Ok(ApiKey {
        id: read_id(row)?,
        name: row.get("name")?,
        limits: read_limits(row)?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
        last_used_at: row.get("last_used_at")?,
    })
}

fn read_live(row: &Row<'_>) -> Result<LiveApiKey> {
    let roles: String = row.get("owner_roles")?;
    Ok(LiveApiKey {
        id: read_id(row)?,
        hash: row.get("hash")?,
        limits: read_limits(row)?,
        expires_at: row.get("expires_at")?,
        owner: UserId::from_uuid(uuid(row, "user_id")?).ok_or_else(|| broken("api_keys.user_id"))?,
        name: row.get("owner_name")?,
        roles: Roles::parse_joined(&roles).map_err(|_| broken("users.roles"))?,
        external_id: row.get("external_id")?,
        generation: row.get("generation")?,
        email: row.get("email")?,
        email_verified: row.get("email_verified")?,
        attributes: read_attributes(row)?,
    })
}

fn add(
    tx: &Transaction<'_>,
    owner: UserId,
    generation: i64,
    new: &NewApiKey,
    event: &Event,
    now: UnixMillis,
) -> Result<ApiKeyAdded> {
    let is_theirs = |owner: &User| !owner.disabled && owner.generation == generation;
    let Some(owner) = user(tx, owner)?.filter(is_theirs) else { return Ok(ApiKeyAdded::Gone) };
    let count: i64 = tx.query_row(
        "SELECT count(*) FROM api_keys WHERE user_id = ?1 AND coalesce(expires_at > ?2, TRUE)",
        params![owner.id.uuid().as_bytes(), now],
        |row| row.get(0),
    )?;
    if count >= i64::from(new.most) {
        return Ok(ApiKeyAdded::TooMany);
    }
    let key = new.stored_at(now);
    let (roles, routes, networks) = new.limits.joined();
    tx.execute(
        "INSERT INTO api_keys (id, user_id, name, hash, roles, routes, networks, created_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            new.id.number(),
            owner.id.uuid().as_bytes(),
            new.name,
            new.hash,
            roles,
            routes,
            networks,
            now,
            key.expires_at
        ],
    )?;
    let entry = LogEntry::of_new_api_key(new.id, now);
    log::append(tx, &entry)?;
    event::append(tx, event, Some(owner.id), owner.name.as_str(), now)?;
    if let Some(mail) = &new.mail {
        mail::enqueue(tx, mail, now)?;
    }
    Ok(ApiKeyAdded::Done(key, entry))
}

fn end(
    tx: &Transaction<'_>,
    owner: UserId,
    id: ApiKeyId,
    event: &Event,
    now: UnixMillis,
) -> Result<Option<LogEntry>> {
    let Some(owner) = user(tx, owner)? else { return Ok(None) };
    let sql = "DELETE FROM api_keys WHERE id = ?1 AND user_id = ?2";
    if tx.execute(sql, params![id.number(), owner.id.uuid().as_bytes()])? == 0 {
        return Ok(None);
    }
    let entry = LogEntry::of_ended_api_key(id, now);
    log::append(tx, &entry)?;
    event::append(tx, event, Some(owner.id), owner.name.as_str(), now)?;
    Ok(Some(entry))
}

/// Does to the keys of an account what a change of it does.
pub(super) fn follow_change(
    tx: &Transaction<'_>,
    owner: &User,
    change: &AccountChange,
    generation: i64,
    now: UnixMillis,
) -> Result<()> {
    let id = owner.id.uuid();
    if change.ends_api_keys() {
        let mut ended = tx.prepare_cached("DELETE FROM api_keys WHERE user_id = ?1 RETURNING id")?;
        let ids = ended.query_map([id.as_bytes()], read_id)?.collect::<Result<Vec<_>>>()?;
        for id in ids {
            log::append(tx, &LogEntry::of_ended_api_key(id, now))?;
        }
    } else if let Some(generation) = change.key_owner_generation(generation) {
        let sql = "SELECT EXISTS (SELECT 1 FROM api_keys WHERE user_id = ?1)";
        if tx.query_row(sql, [id.as_bytes()], |row| row.get(0))? {
            log::append(tx, &LogEntry::of_key_owner(owner.id, generation, now))?;
        }
    }
    Ok(())
}

const LIVE: &str = "SELECT k.id, k.hash, k.roles, k.routes, k.networks, k.expires_at, k.user_id, u.name AS owner_name, \
     u.roles AS owner_roles, u.external_id, u.generation, u.email, u.email_verified AND NOT u.email_is_weak AS email_verified, u.attributes FROM api_keys k JOIN accounts u ON u.id = k.user_id \
     WHERE NOT u.disabled AND coalesce(k.expires_at > ?1, TRUE)";

fn read(db: &Connection, which: Option<&ApiKeySelection>, now: UnixMillis) -> Result<Vec<LiveApiKey>> {
    let mut found = Vec::new();
    let mut take = |row: &Row<'_>| {
        match read_live(row) {
            Ok(key) => found.push(key),
            // One that cannot be read opens nothing, and stands in no other's way.
            Err(error) => tracing::error!(%error, "an API key in the store cannot be read"),
        }
        Ok(())
    };
    let Some(ApiKeySelection { ids, owners }) = which else {
        db.prepare_cached(LIVE)?.query_map([now], &mut take)?.collect::<Result<()>>()?;
        return Ok(found);
    };
    let mut by_id = db.prepare_cached(&format!("{LIVE} AND k.id = ?2"))?;
    for id in ids {
        by_id.query_map(params![now, id.number()], &mut take)?.collect::<Result<()>>()?;
    }
    let mut by_owner = db.prepare_cached(&format!("{LIVE} AND k.user_id = ?2"))?;
    for owner in owners {
        by_owner.query_map(params![now, owner.uuid().as_bytes()], &mut take)?.collect::<Result<()>>()?;
    }
    Ok(found)
}

fn list(db: &Connection, owner: UserId, page: ApiKeyPage, now: UnixMillis) -> Result<Vec<ApiKey>> {
    let (created_at, id) = page.after.map_or((i64::MAX, -1), |(at, id)| (at, id.number()));
    db.prepare_cached(
        "SELECT id, name, roles, routes, networks, created_at, expires_at, last_used_at FROM api_keys \
         WHERE user_id = ?1 AND coalesce(expires_at > ?2, TRUE) \
         AND (created_at < ?3 OR (created_at = ?3 AND id > ?4)) ORDER BY created_at DESC, id LIMIT ?5",
    )?
    .query_map(params![owner.uuid().as_bytes(), now, created_at, id, page.limit], read_key)?
    .collect()
}

#[async_trait]
impl ApiKeys for Sqlite {
    async fn add_api_key(
        &self,
        owner: UserId,
        generation: i64,
        key: &NewApiKey,
        event: &Event,
    ) -> store::Result<ApiKeyAdded> {
        let (key, event, now) = (key.clone(), event.clone(), self.clock.wall());
        self.connections.write(move |tx| add(tx, owner, generation, &key, &event, now)).await
    }

    async fn api_keys(&self, owner: UserId, page: ApiKeyPage) -> store::Result<Vec<ApiKey>> {
        let now = self.clock.wall();
        self.connections.read(move |db| list(db, owner, page, now)).await
    }

    async fn end_api_key(
        &self,
        owner: UserId,
        id: ApiKeyId,
        event: &Event,
    ) -> store::Result<Option<LogEntry>> {
        let (event, now) = (event.clone(), self.clock.wall());
        let is_none = Arc::new(AtomicBool::new(false));
        let noted = is_none.clone();
        let ended = self.connections.write(move |tx| {
            let ended = end(tx, owner, id, &event, now)?;
            noted.store(ended.is_none(), Relaxed);
            Ok(ended)
        });
        match ended.await {
            // Nothing was written, whatever became of the COMMIT.
            Err(StoreError::OutcomeUnknown(_)) if is_none.load(Relaxed) => Ok(None),
            ended => ended,
        }
    }

    async fn read_api_keys(
        &self,
        which: Option<&ApiKeySelection>,
        sink: ApiKeySink<'_>,
    ) -> store::Result<()> {
        let (which, now) = (which.cloned(), self.clock.wall());
        self.connections.read(move |db| read(db, which.as_ref(), now)).await?.into_iter().for_each(sink);
        Ok(())
    }

    async fn note_api_keys_used(&self, used: &[(ApiKeyId, UnixMillis)]) -> store::Result<()> {
        let used = used.to_vec();
        self.connections
            .write(move |tx| {
                let sql =
                    "UPDATE api_keys SET last_used_at = max(coalesce(last_used_at, 0), ?2) WHERE id = ?1";
                let mut note = tx.prepare_cached(sql)?;
                used.iter().try_for_each(|(id, at)| note.execute(params![id.number(), at]).map(drop))
            })
            .await
    }
}
