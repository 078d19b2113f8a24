//! Links to providers.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::{
    Sqlite, event,
    lookup::{read_user, user},
    statement::{Result, uuid},
};
use crate::{
    clock::UnixMillis,
    store::{self, Event, Link, Linked, Links, NewLink, USER, Unlinked, User},
    types::UserId,
};

fn read_link(row: &Row<'_>) -> Result<Link> {
    Ok(Link {
        id: uuid(row, "id")?,
        provider: row.get("provider")?,
        label: row.get("label")?,
        created_at: row.get("created_at")?,
    })
}

/// Makes a link. Returns false if somebody else has it.
pub(super) fn insert(tx: &Transaction<'_>, owner: UserId, link: &NewLink, now: UnixMillis) -> Result<bool> {
    let id = owner.uuid();
    tx.prepare_cached(
        "INSERT OR IGNORE INTO links (id, user_id, issuer, subject, provider, label, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        link.id.as_bytes(),
        id.as_bytes(),
        link.issuer,
        link.subject,
        link.provider,
        link.label,
        now
    ])?;
    let sql = "SELECT user_id = ?3 FROM links WHERE issuer = ?1 AND subject = ?2";
    tx.prepare_cached(sql)?.query_row(params![link.issuer, link.subject, id.as_bytes()], |row| row.get(0))
}

fn add(
    tx: &Transaction<'_>,
    owner: UserId,
    generation: i64,
    link: &NewLink,
    event: &Event,
    now: UnixMillis,
) -> Result<Linked> {
    let is_theirs = |owner: &User| !owner.disabled && owner.generation == generation;
    let Some(owner) = user(tx, owner)?.filter(is_theirs) else { return Ok(Linked::Gone) };
    if !insert(tx, owner.id, link, now)? {
        return Ok(Linked::Taken);
    }
    event::append(tx, event, Some(owner.id), owner.name.as_str(), now)?;
    Ok(Linked::Done)
}

fn remove(tx: &Transaction<'_>, owner: UserId, id: Uuid, event: &Event, now: UnixMillis) -> Result<Unlinked> {
    let Some(owner) = user(tx, owner)? else { return Ok(Unlinked::None) };
    let bytes = owner.id.uuid();
    let (count, is_there): (i64, bool) = tx.query_row(
        "SELECT count(*), coalesce(max(id = ?2), 0) FROM links WHERE user_id = ?1",
        params![bytes.as_bytes(), id.as_bytes()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if !is_there {
        return Ok(Unlinked::None);
    }
    if count == 1 && owner.password_hash.is_none() {
        return Ok(Unlinked::Last);
    }
    tx.execute("DELETE FROM links WHERE id = ?1", [id.as_bytes()])?;
    event::append(tx, event, Some(owner.id), owner.name.as_str(), now)?;
    Ok(Unlinked::Done)
}

#[async_trait]
impl Links for Sqlite {
    async fn linked_user(&self, issuer: &str, subject: &str) -> store::Result<Option<User>> {
        let sql = format!(
            "SELECT {USER} FROM accounts WHERE id = (SELECT user_id FROM links WHERE issuer = ?1 AND subject = ?2)"
        );
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        self.connections
            .read(move |db| db.prepare_cached(&sql)?.query_row([issuer, subject], read_user).optional())
            .await
    }

    async fn links(&self, user: UserId) -> store::Result<Vec<Link>> {
        let sql =
            "SELECT id, provider, label, created_at FROM links WHERE user_id = ?1 ORDER BY created_at, id";
        self.connections
            .read(move |db| {
                let mut statement = db.prepare_cached(sql)?;
                statement.query_map([user.uuid().as_bytes()], read_link)?.collect()
            })
            .await
    }

    async fn add_link(
        &self,
        user: UserId,
        generation: i64,
        link: &NewLink,
        event: &Event,
    ) -> store::Result<Linked> {
        let (link, event, now) = (link.clone(), event.clone(), self.clock.wall());
        self.connections.write(move |tx| add(tx, user, generation, &link, &event, now)).await
    }

    async fn remove_link(&self, user: UserId, id: Uuid, event: &Event) -> store::Result<Unlinked> {
        let (event, now) = (event.clone(), self.clock.wall());
        self.connections.write(move |tx| remove(tx, user, id, &event, now)).await
    }

    async fn spend_state(&self, hash: &[u8; 32], keep_for: i64) -> store::Result<bool> {
        let (hash, expires_at) = (*hash, self.clock.wall() + keep_for);
        let sql = "INSERT OR IGNORE INTO spent_states (hash, expires_at) VALUES (?1, ?2)";
        self.connections
            .write(move |tx| Ok(tx.prepare_cached(sql)?.execute(params![hash, expires_at])? > 0))
            .await
    }
}
