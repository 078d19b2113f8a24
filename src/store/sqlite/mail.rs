//! The queue of mails, and what their tokens allow.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::{
    Sqlite, event,
    lookup::user,
    statement::{Result, broken, uuid},
};
use crate::{
    clock::UnixMillis,
    store::{self, ClaimedMail, Event, MailLease, Mails, NewMail, NewResetLink, Purpose, Sent, Spend, User},
    types::UserId,
};

pub(super) fn enqueue(tx: &Transaction<'_>, mail: &NewMail, now: UnixMillis) -> Result<bool> {
    let Some(user) = user(tx, mail.user)? else { return Ok(false) };
    let queued = tx
        .prepare_cached(
            "WITH live AS (SELECT user_id FROM mails WHERE bound_to = ?5 AND purpose = ?3 AND used_at IS NULL \
             AND coalesce(expires_at, ?6 + 1) > ?6) \
             INSERT INTO mails (id, user_id, purpose, token_hash, bound_to, created_at, next_attempt_at, recipient) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?6, ?9 WHERE (SELECT count(*) FROM live) < ?8 \
             AND (SELECT count(*) FROM live WHERE user_id = ?2) < ?7",
        )?
        .execute(params![
            mail.id.as_bytes(),
            mail.user.uuid().as_bytes(),
            mail.purpose.number(),
            mail.token_hash,
            mail.purpose.bound_to(&user),
            now,
            mail.most_live,
            mail.most_live_to_address,
            mail.recipient
        ])?;
    Ok(queued > 0)
}

fn claim(tx: &Transaction<'_>, lease: &MailLease, now: UnixMillis) -> Result<Option<ClaimedMail>> {
    let due = tx
        .prepare_cached(
            "UPDATE mails SET attempts = attempts + 1, next_attempt_at = ?1 + ?2, \
             expires_at = ?1 + CASE purpose WHEN 1 THEN ?3 WHEN 5 THEN ?5 ELSE ?4 END \
             WHERE id = (SELECT id FROM mails WHERE next_attempt_at <= ?1 ORDER BY next_attempt_at LIMIT 1) \
             RETURNING id, user_id, purpose, attempts, ?1 - created_at AS age, bound_to, recipient",
        )?
        .query_row(params![now, lease.hold, lease.ttls.verify, lease.ttls.reset, lease.ttls.code], |row| {
            let purpose = Purpose::read(row.get("purpose")?).ok_or_else(|| broken("mails.purpose"))?;
            let owner = UserId::from_uuid(uuid(row, "user_id")?).ok_or_else(|| broken("mails.user_id"))?;
            let (bound_to, age): ([u8; 32], i64) = (row.get("bound_to")?, row.get("age")?);
            Ok((uuid(row, "id")?, owner, purpose, row.get("attempts")?, age, bound_to, row.get("recipient")?))
        })
        .optional()?;
    let Some((id, owner, purpose, attempts, age, bound_to, recipient)) = due else { return Ok(None) };
    let holds = |user: &User| purpose.bound_to(user) == bound_to;
    let user = user(tx, owner)?;
    Ok(user.map(|user| ClaimedMail { id, purpose, recipient, attempts, age, holds: holds(&user), user }))
}

fn note_sent(tx: &Transaction<'_>, id: Uuid, sent: Sent, now: UnixMillis) -> Result<()> {
    let next = match sent {
        Sent::Again(after) => Some(now + after),
        Sent::Done | Sent::GivenUp => None,
    };
    tx.prepare_cached("UPDATE mails SET next_attempt_at = ?2 WHERE id = ?1")?
        .execute(params![id.as_bytes(), next])?;
    Ok(())
}

fn add_reset_link(
    tx: &Transaction<'_>,
    new: &NewResetLink,
    event: &Event,
    now: UnixMillis,
) -> Result<Option<UnixMillis>> {
    let Some(owner) = user(tx, new.user)?.filter(|owner| new.is_for(owner)) else { return Ok(None) };
    let (purpose, id, expires_at) = (Purpose::ResetLink, owner.id.uuid(), now + new.holds_for);
    tx.execute(
        "DELETE FROM mails WHERE user_id = ?1 AND purpose = ?2",
        params![id.as_bytes(), purpose.number()],
    )?;
    tx.execute(
        "INSERT INTO mails (id, user_id, purpose, token_hash, bound_to, created_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            new.id.as_bytes(),
            id.as_bytes(),
            purpose.number(),
            new.token_hash,
            purpose.bound_to(&owner),
            now,
            expires_at
        ],
    )?;
    event::append(tx, event, Some(owner.id), owner.name.as_str(), now)?;
    Ok(Some(expires_at))
}

/// Whose live token this is.
fn owner(
    db: &Transaction<'_>,
    purpose: Purpose,
    token_hash: &[u8; 32],
    now: UnixMillis,
) -> Result<Option<User>> {
    let row: Option<(Uuid, [u8; 32])> = db
        .prepare_cached(
            "SELECT user_id, bound_to FROM mails \
             WHERE token_hash = ?1 AND purpose = ?2 AND used_at IS NULL AND expires_at > ?3",
        )?
        .query_row(params![token_hash, purpose.number(), now], |row| {
            Ok((uuid(row, "user_id")?, row.get("bound_to")?))
        })
        .optional()?;
    let Some((id, bound_to)) = row else { return Ok(None) };
    let id = UserId::from_uuid(id).ok_or_else(|| broken("mails.user_id"))?;
    Ok(user(db, id)?.filter(|user| purpose.bound_to(user) == bound_to))
}

/// Whether a token of this account's holds.
pub(super) fn holds(tx: &Transaction<'_>, user: &User, spend: &Spend, now: UnixMillis) -> Result<bool> {
    Ok(owner(tx, spend.purpose, &spend.token_hash, now)?.is_some_and(|owner| owner.id == user.id))
}

/// Uses up a token. Returns false if it was used before.
pub(super) fn spend(tx: &Transaction<'_>, user: &User, spend: &Spend, now: UnixMillis) -> Result<bool> {
    let spent = tx.execute(
        "UPDATE mails SET used_at = ?1, next_attempt_at = NULL WHERE token_hash = ?2 AND user_id = ?3 \
         AND purpose = ?4 AND used_at IS NULL",
        params![now, spend.token_hash, user.id.uuid().as_bytes(), spend.purpose.number()],
    )?;
    Ok(spent > 0)
}

#[async_trait]
impl Mails for Sqlite {
    async fn enqueue_mail(&self, mail: &NewMail) -> store::Result<bool> {
        let (mail, now) = (mail.clone(), self.clock.wall());
        self.connections.write(move |tx| enqueue(tx, &mail, now)).await
    }

    async fn claim_mail(&self, lease: &MailLease) -> store::Result<Option<ClaimedMail>> {
        let (lease, now) = (*lease, self.clock.wall());
        self.connections.write(move |tx| claim(tx, &lease, now)).await
    }

    async fn mail_sent(&self, id: uuid::Uuid, sent: Sent) -> store::Result<()> {
        let now = self.clock.wall();
        self.connections.write(move |tx| note_sent(tx, id, sent, now)).await
    }

    async fn add_reset_link(&self, link: &NewResetLink, event: &Event) -> store::Result<Option<UnixMillis>> {
        let (link, event, now) = (link.clone(), event.clone(), self.clock.wall());
        self.connections.write(move |tx| add_reset_link(tx, &link, &event, now)).await
    }

    async fn mail_owner(&self, purpose: Purpose, token_hash: &[u8; 32]) -> store::Result<Option<User>> {
        let (token_hash, now) = (*token_hash, self.clock.wall());
        self.connections.read(move |db| owner(db, purpose, &token_hash, now)).await
    }
}
