//! Links to providers. Each function runs within one transaction, its locks taken user first.

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Postgres,
    connection::QueryResult as Result,
    event,
    lookup::{lock_user, read_user},
    statement::{NOW, one, only_bool, run},
};
use crate::{
    store::{self, Event, Link, Linked, Links, NewLink, USER, Unlinked, User},
    types::UserId,
};

fn read_link(row: &Row) -> Result<Link> {
    Ok(Link {
        id: row.try_get("id")?,
        provider: row.try_get("provider")?,
        label: row.try_get("label")?,
        created_at: row.try_get("created_at")?,
    })
}

/// Makes a link. Returns false if somebody else has it.
pub(super) async fn insert(tx: &Transaction<'_>, owner: UserId, link: &NewLink) -> Result<bool> {
    let sql = format!(
        "INSERT INTO links (id, user_id, issuer, subject, provider, label, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, {NOW}) ON CONFLICT (issuer, subject) DO NOTHING"
    );
    let id = owner.uuid();
    run(tx, &sql, &[&link.id, &id, &link.issuer, &link.subject, &link.provider, &link.label]).await?;
    let sql = "SELECT user_id = $3 FROM links WHERE issuer = $1 AND subject = $2";
    Ok(one(tx, sql, &[&link.issuer, &link.subject, &id], only_bool).await? == Some(true))
}

async fn add(
    tx: &Transaction<'_>,
    owner: UserId,
    generation: i64,
    link: &NewLink,
    event: &Event,
) -> Result<Linked> {
    let is_theirs = |owner: &User| !owner.disabled && owner.generation == generation;
    let Some(owner) = lock_user(tx, owner).await?.filter(is_theirs) else { return Ok(Linked::Gone) };
    if !insert(tx, owner.id, link).await? {
        return Ok(Linked::Taken);
    }
    event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
    Ok(Linked::Done)
}

async fn remove(tx: &Transaction<'_>, owner: UserId, id: Uuid, event: &Event) -> Result<Unlinked> {
    let Some(owner) = lock_user(tx, owner).await? else { return Ok(Unlinked::None) };
    let sql = "SELECT id = $2 FROM links WHERE user_id = $1";
    let statement = tx.prepare_cached(sql).await?;
    let rows = tx.query(&statement, &[&owner.id.uuid(), &id]).await?;
    let all = rows.iter().map(only_bool).collect::<Result<Vec<bool>>>()?;
    if !all.contains(&true) {
        return Ok(Unlinked::None);
    }
    if all.len() == 1 && owner.password_hash.is_none() {
        return Ok(Unlinked::Last);
    }
    run(tx, "DELETE FROM links WHERE id = $1", &[&id]).await?;
    event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
    Ok(Unlinked::Done)
}

#[async_trait]
impl Links for Postgres {
    async fn linked_user(&self, issuer: &str, subject: &str) -> store::Result<Option<User>> {
        let sql = format!(
            "SELECT {USER} FROM accounts WHERE id = (SELECT user_id FROM links WHERE issuer = $1 AND subject = $2)"
        );
        self.pool.read(async |db| one(db, &sql, &[&issuer, &subject], read_user).await).await
    }

    async fn links(&self, user: UserId) -> store::Result<Vec<Link>> {
        let sql =
            "SELECT id, provider, label, created_at FROM links WHERE user_id = $1 ORDER BY created_at, id";
        self.pool
            .read(async |db| {
                let statement = db.prepare_cached(sql).await?;
                let rows = db.query(&statement, &[&user.uuid()]).await?;
                rows.iter().map(read_link).collect()
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
        self.pool.write(async |tx| add(tx, user, generation, link, event).await).await
    }

    async fn remove_link(&self, user: UserId, id: Uuid, event: &Event) -> store::Result<Unlinked> {
        self.pool.write(async |tx| remove(tx, user, id, event).await).await
    }

    async fn spend_state(&self, hash: &[u8; 32], keep_for: i64) -> store::Result<bool> {
        let sql = format!(
            "INSERT INTO spent_states (hash, expires_at) VALUES ($1, {NOW} + $2) ON CONFLICT DO NOTHING"
        );
        self.pool.write(async |tx| Ok(run(tx, &sql, &[&hash.as_slice(), &keep_for]).await? > 0)).await
    }
}
