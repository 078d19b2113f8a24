//! The queue of mails, and what their tokens allow.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Transaction};
use uuid::Uuid;

use super::{
    Postgres,
    connection::{QueryError, QueryResult as Result},
    event,
    lookup::{lock_user, user},
    statement::{NOW, now, one, run},
};
use crate::{
    clock::UnixMillis,
    store::{self, ClaimedMail, Event, MailLease, Mails, NewMail, NewResetLink, Purpose, Sent, Spend, User},
    types::UserId,
};

pub(super) async fn enqueue(tx: &Transaction<'_>, mail: &NewMail) -> Result<bool> {
    // The lock makes the count hold until the row is there.
    let Some(user) = lock_user(tx, mail.user).await? else { return Ok(false) };
    let now = now(tx).await?;
    let sql = "WITH live AS (SELECT user_id FROM mails WHERE bound_to = $5 AND purpose = $3 AND used_at IS NULL \
         AND coalesce(expires_at, $6::bigint + 1) > $6::bigint) \
         INSERT INTO mails (id, user_id, purpose, token_hash, bound_to, created_at, next_attempt_at, recipient) \
         SELECT $1, $2, $3, $4, $5, $6, $6, $9 WHERE (SELECT count(*) FROM live) < $8 \
         AND (SELECT count(*) FROM live WHERE user_id = $2) < $7";
    let queued = run(
        tx,
        sql,
        &[
            &mail.id,
            &mail.user.uuid(),
            &mail.purpose.number(),
            &mail.token_hash.as_slice(),
            &mail.purpose.bound_to(&user).as_slice(),
            &now,
            &i64::from(mail.most_live),
            &i64::from(mail.most_live_to_address),
            &mail.recipient,
        ],
    )
    .await?;
    Ok(queued > 0)
}

async fn claim(tx: &Transaction<'_>, lease: &MailLease) -> Result<Option<ClaimedMail>> {
    let now = now(tx).await?;
    let sql = "UPDATE mails SET attempts = attempts + 1, next_attempt_at = $1::bigint + $2, \
         expires_at = $1::bigint + CASE purpose WHEN 1 THEN $3::bigint WHEN 5 THEN $5::bigint ELSE $4::bigint END \
         WHERE id = (SELECT id FROM mails WHERE next_attempt_at <= $1 ORDER BY next_attempt_at \
         LIMIT 1 FOR UPDATE SKIP LOCKED) \
         RETURNING id, user_id, purpose, attempts, $1::bigint - created_at AS age, bound_to, recipient";
    let ttls = lease.ttls;
    let due = one(tx, sql, &[&now, &lease.hold, &ttls.verify, &ttls.reset, &ttls.code], |row| {
        let purpose = Purpose::read(row.try_get("purpose")?).ok_or(QueryError::Broken("mails.purpose"))?;
        let owner = UserId::from_uuid(row.try_get("user_id")?).ok_or(QueryError::Broken("mails.user_id"))?;
        let attempts: i64 = row.try_get("attempts")?;
        let attempts = u32::try_from(attempts).map_err(|_| QueryError::Broken("mails.attempts"))?;
        let (age, bound_to): (i64, Vec<u8>) = (row.try_get("age")?, row.try_get("bound_to")?);
        let recipient: Option<String> = row.try_get("recipient")?;
        Ok((row.try_get::<_, Uuid>("id")?, owner, purpose, attempts, age, bound_to, recipient))
    })
    .await?;
    let Some((id, owner, purpose, attempts, age, bound_to, recipient)) = due else { return Ok(None) };
    let holds = |user: &User| purpose.bound_to(user).as_slice() == bound_to;
    let user = user(tx, owner).await?;
    Ok(user.map(|user| ClaimedMail { id, purpose, recipient, attempts, age, holds: holds(&user), user }))
}

async fn note_sent(tx: &Transaction<'_>, id: Uuid, sent: Sent) -> Result<()> {
    let after = match sent {
        Sent::Again(after) => Some(after),
        Sent::Done | Sent::GivenUp => None,
    };
    let sql = format!("UPDATE mails SET next_attempt_at = {NOW} + $2::bigint WHERE id = $1");
    run(tx, &sql, &[&id, &after]).await.map(drop)
}

async fn add_reset_link(
    tx: &Transaction<'_>,
    new: &NewResetLink,
    event: &Event,
) -> Result<Option<UnixMillis>> {
    let owner = lock_user(tx, new.user).await?.filter(|owner| new.is_for(owner));
    let Some(owner) = owner else { return Ok(None) };
    let (id, purpose, now) = (owner.id.uuid(), Purpose::ResetLink, now(tx).await?);
    let expires_at = now + new.holds_for;
    run(tx, "DELETE FROM mails WHERE user_id = $1 AND purpose = $2", &[&id, &purpose.number()]).await?;
    let sql = "INSERT INTO mails (id, user_id, purpose, token_hash, bound_to, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (hash, bound_to) = (new.token_hash.as_slice(), purpose.bound_to(&owner));
    run(tx, sql, &[&new.id, &id, &purpose.number(), &hash, &bound_to.as_slice(), &now, &expires_at]).await?;
    event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
    Ok(Some(expires_at))
}

/// Whose live token this is.
async fn owner(db: &impl GenericClient, purpose: Purpose, token_hash: &[u8; 32]) -> Result<Option<User>> {
    let sql = format!(
        "SELECT user_id, bound_to FROM mails \
         WHERE token_hash = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > {NOW}"
    );
    let row = one(db, &sql, &[&token_hash.as_slice(), &purpose.number()], |row| {
        let id = UserId::from_uuid(row.try_get("user_id")?).ok_or(QueryError::Broken("mails.user_id"))?;
        Ok((id, row.try_get::<_, Vec<u8>>("bound_to")?))
    })
    .await?;
    let Some((id, bound_to)) = row else { return Ok(None) };
    Ok(user(db, id).await?.filter(|user| purpose.bound_to(user).as_slice() == bound_to))
}

/// Whether a token of this account's holds.
pub(super) async fn holds(tx: &Transaction<'_>, user: &User, spend: &Spend) -> Result<bool> {
    let owner = owner(tx, spend.purpose, &spend.token_hash).await?;
    Ok(owner.is_some_and(|owner| owner.id == user.id))
}

/// Uses up a token. Returns false if it was used before.
pub(super) async fn spend(tx: &Transaction<'_>, user: &User, spend: &Spend) -> Result<bool> {
    let sql = format!(
        "UPDATE mails SET used_at = {NOW}, next_attempt_at = NULL WHERE token_hash = $1 AND user_id = $2 \
         AND purpose = $3 AND used_at IS NULL"
    );
    let spent =
        run(tx, &sql, &[&spend.token_hash.as_slice(), &user.id.uuid(), &spend.purpose.number()]).await?;
    Ok(spent > 0)
}

#[async_trait]
impl Mails for Postgres {
    async fn enqueue_mail(&self, mail: &NewMail) -> store::Result<bool> {
        self.pool.write(async |tx| enqueue(tx, mail).await).await
    }

    async fn claim_mail(&self, lease: &MailLease) -> store::Result<Option<ClaimedMail>> {
        self.pool.write(async |tx| claim(tx, lease).await).await
    }

    async fn mail_sent(&self, id: uuid::Uuid, sent: Sent) -> store::Result<()> {
        self.pool.write(async |tx| note_sent(tx, id, sent).await).await
    }

    async fn add_reset_link(&self, link: &NewResetLink, event: &Event) -> store::Result<Option<UnixMillis>> {
        self.pool.write(async |tx| add_reset_link(tx, link, event).await).await
    }

    async fn mail_owner(&self, purpose: Purpose, token_hash: &[u8; 32]) -> store::Result<Option<User>> {
        self.pool.read(async |db| owner(db, purpose, token_hash).await).await
    }
}
