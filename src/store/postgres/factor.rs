//! Second factors and challenges. Each function runs within one transaction, its locks taken user first.

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Postgres,
    connection::{QueryError, QueryResult as Result},
    event, link,
    lookup::{lock_session, lock_user, user},
    mail,
    session::{insert_session, step_up_session},
    statement::{NOW, is_taken, now, one, only_bool, only_i64, run},
};
use crate::{
    clock::UnixMillis,
    store::{
        self, AuthChallenge, ChallengeCompletion, ChallengePurpose, Confirmation, Confirmed, Event, Factor,
        FactorKind, FactorOwner, FactorRemoval, FactorUse, Factors, Grant, NewFactor, NewMail, Outcome,
        SessionKind, User,
        factor::{CHALLENGE, FACTOR, confirmed_since},
        rule::session::may_be_opened,
    },
    types::{FactorId, Proofs, SessionId, UserId},
};

fn read_factor(row: &Row) -> Result<Factor> {
    let kind = FactorKind::read(row.try_get("kind")?);
    let confirmed_at: Option<UnixMillis> = row.try_get("confirmed_at")?;
    Ok(Factor {
        id: FactorId::from_uuid(row.try_get("id")?).ok_or(QueryError::Broken("factors.id"))?,
        user: UserId::from_uuid(row.try_get("user_id")?).ok_or(QueryError::Broken("factors.user_id"))?,
        kind: kind.ok_or(QueryError::Broken("factors.kind"))?,
        name: row.try_get("name")?,
        created_at: row.try_get("created_at")?,
        is_confirmed: confirmed_at.is_some(),
        last_used_at: row.try_get("last_used_at")?,
        credential: row.try_get("credential")?,
        public_key: row.try_get("public_key")?,
        counter: row.try_get("counter")?,
    })
}

fn read_challenge(row: &Row) -> Result<AuthChallenge> {
    let kind = SessionKind::read(row.try_get("kind")?);
    let purpose = ChallengePurpose::read(row.try_get("purpose")?);
    let user: Option<Uuid> = row.try_get("user_id")?;
    let user = user.map(|id| UserId::from_uuid(id).ok_or(QueryError::Broken("challenges.user_id")));
    let session: Option<Uuid> = row.try_get("session_id")?;
    let session =
        session.map(|id| SessionId::from_uuid(id).ok_or(QueryError::Broken("challenges.session_id")));
    let token_hash: &[u8] = row.try_get("token_hash")?;
    let tries: i64 = row.try_get("tries")?;
    let link: Option<&str> = row.try_get("link")?;
    Ok(AuthChallenge {
        token_hash: token_hash.try_into().map_err(|_| QueryError::Broken("challenges.token_hash"))?,
        purpose: purpose.ok_or(QueryError::Broken("challenges.purpose"))?,
        user: user.transpose()?.zip(row.try_get("generation")?),
        session: session.transpose()?,
        proofs: Proofs::parse(row.try_get("methods")?),
        kind: kind.ok_or(QueryError::Broken("challenges.kind"))?,
        keep: row.try_get("keep")?,
        tries: u32::try_from(tries).map_err(|_| QueryError::Broken("challenges.tries"))?,
        link: link.and_then(|link| serde_json::from_str(link).ok()),
        code_mail: row.try_get("code_mail")?,
    })
}

async fn begin(tx: &Transaction<'_>, new: &NewFactor) -> Result<bool> {
    // Of several that are begun at once, each counts the others.
    if lock_user(tx, new.user).await?.is_none() {
        return Ok(false);
    }
    let now = now(tx).await?;
    let id = new.user.uuid();
    // What was begun and never confirmed makes room.
    let sql = "DELETE FROM factors WHERE user_id = $1 AND confirmed_at IS NULL AND created_at <= $2";
    run(tx, sql, &[&id, &confirmed_since(now)]).await?;
    let sql = "INSERT INTO factors (id, user_id, kind, name, created_at) SELECT $1, $2, $3, $4, $5 \
         WHERE (SELECT count(*) FROM factors WHERE user_id = $2) < $6";
    let most = i64::from(new.most);
    Ok(run(tx, sql, &[&new.id.uuid(), &id, &new.kind.number(), &new.name, &now, &most]).await? > 0)
}

/// Takes note of what was shown. Returns false if it was used before, or is not there any more.
async fn spend(tx: &Transaction<'_>, user: &User, by: &FactorUse, now: UnixMillis) -> Result<bool> {
    let owner = user.id.uuid();
    let spent = match by {
        FactorUse::Totp(id, step) => {
            let sql = "UPDATE factors SET counter = $3, last_used_at = $4 \
                 WHERE id = $1 AND user_id = $2 AND counter < $3";
            run(tx, sql, &[&id.uuid(), &owner, step, &now]).await?
        }
        // Many count nothing; one that counts counts on.
        FactorUse::Passkey { id, counter, .. } => {
            let sql = "UPDATE factors SET counter = $3, last_used_at = $4 WHERE id = $1 AND user_id = $2 \
                 AND (counter < $3 OR (counter = 0 AND $3 = 0))";
            run(tx, sql, &[&id.uuid(), &owner, counter, &now]).await?
        }
        FactorUse::Recovery(hash) => {
            let sql = "DELETE FROM recovery_codes WHERE user_id = $1 AND hash = $2";
            run(tx, sql, &[&owner, &hash.as_slice()]).await?
        }
        FactorUse::Mail(id) => {
            let sql = "UPDATE mails SET used_at = $3 WHERE id = $1 AND user_id = $2 AND used_at IS NULL";
            run(tx, sql, &[id, &owner, &now]).await?
        }
        FactorUse::Password => u64::from(!user.has_factors),
    };
    Ok(spent > 0)
}

/// Removes a challenge. Returns false if there is none any more.
async fn end_challenge(tx: &Transaction<'_>, token_hash: &[u8; 32]) -> Result<bool> {
    let sql = format!("DELETE FROM challenges WHERE token_hash = $1 AND expires_at > {NOW}");
    Ok(run(tx, &sql, &[&token_hash.as_slice()]).await? > 0)
}

async fn grant(
    tx: &Transaction<'_>,
    user: User,
    generation: i64,
    outcome: &Outcome,
) -> Result<Option<Grant>> {
    match outcome {
        Outcome::Open(session) if may_be_opened(&user, generation, session) => {
            insert_session(tx, user, session).await.map(Some)
        }
        Outcome::Open(_) => Ok(None),
        Outcome::StepUp(step_up) => step_up_session(tx, user, generation, step_up).await,
    }
}

async fn set_recovery_codes(tx: &Transaction<'_>, user: UserId, hashes: &[[u8; 32]]) -> Result<()> {
    run(tx, "DELETE FROM recovery_codes WHERE user_id = $1", &[&user.uuid()]).await?;
    for hash in hashes {
        let sql = "INSERT INTO recovery_codes (user_id, hash) VALUES ($1, $2)";
        run(tx, sql, &[&user.uuid(), &hash.as_slice()]).await?;
    }
    Ok(())
}

async fn confirm(tx: &Transaction<'_>, wanted: &Confirmation) -> Result<Option<Confirmed>> {
    let Some(owner) = lock_user(tx, wanted.user).await? else { return Ok(None) };
    // A challenge to get a factor is nothing beside one.
    let is_as_it_was = !owner.disabled
        && owner.generation == wanted.generation
        && owner.has_factors == wanted.has_factors
        && !(wanted.meets.is_some() && owner.has_factors);
    if !is_as_it_was {
        return Ok(None);
    }
    if let Some(token_hash) = &wanted.meets
        && !end_challenge(tx, token_hash).await?
    {
        return Ok(None);
    }
    let now = now(tx).await?;
    let (credential, public_key) = wanted.passkey.clone().unzip();
    let sql = "UPDATE factors SET confirmed_at = $3, credential = $5, public_key = $6 \
         WHERE id = $1 AND user_id = $2 AND confirmed_at IS NULL AND created_at > $4";
    let (id, since) = (wanted.id.uuid(), confirmed_since(now));
    let confirmed = run(tx, sql, &[&id, &wanted.user.uuid(), &now, &since, &credential, &public_key]).await?;
    if confirmed == 0 || !spend(tx, &owner, &wanted.by, now).await? {
        return Ok(None);
    }
    let is_first = !owner.has_factors;
    if is_first {
        set_recovery_codes(tx, wanted.user, &wanted.recovery).await?;
        // Who has given it, and who reads it, has shown no factor.
        let sql =
            "UPDATE addresses SET is_weak = TRUE WHERE user_id = $1 AND verified_at IS NULL AND is_changed";
        run(tx, sql, &[&wanted.user.uuid()]).await?;
    }
    if let Some(link) = &wanted.link
        && !link::insert(tx, owner.id, link).await?
    {
        return Ok(None);
    }
    for event in &wanted.events {
        event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
    }
    if let Some(mail) = &wanted.mail {
        mail::enqueue(tx, mail).await?;
    }
    let owner = User { has_factors: true, ..owner };
    let grant = grant(tx, owner, wanted.generation, &wanted.outcome).await?;
    Ok(grant.map(|grant| Confirmed { grant, is_first }))
}

async fn complete_challenge(tx: &Transaction<'_>, completion: &ChallengeCompletion) -> Result<Option<Grant>> {
    let Some(owner) = lock_user(tx, completion.user).await? else { return Ok(None) };
    let now = now(tx).await?;
    let is_as_it_was = !owner.disabled && owner.generation == completion.generation;
    if !is_as_it_was
        || !end_challenge(tx, &completion.token_hash).await?
        || !spend(tx, &owner, &completion.by, now).await?
    {
        return Ok(None);
    }
    if let Some(link) = &completion.link
        && !link::insert(tx, owner.id, link).await?
    {
        return Ok(None);
    }
    for event in &completion.events {
        event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
    }
    grant(tx, owner, completion.generation, &completion.outcome).await
}

/// Runs a step, and undoes what it did where nothing comes of it.
async fn whole<T>(
    tx: &Transaction<'_>,
    step: impl AsyncFnOnce(&Transaction<'_>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    tx.batch_execute("SAVEPOINT step").await?;
    let done = step(tx).await?;
    tx.batch_execute(if done.is_some() { "RELEASE step" } else { "ROLLBACK TO step" }).await?;
    Ok(done)
}

/// Locks an account, and returns it if it is as it was to whoever changes its factors.
async fn still(tx: &Transaction<'_>, owner: &FactorOwner) -> Result<Option<User>> {
    let Some(user) = lock_user(tx, owner.user).await? else { return Ok(None) };
    let session = lock_session(tx, owner.session).await?;
    Ok(Some(user).filter(|user| owner.is_unchanged(user, session.as_ref())))
}

async fn remove(
    tx: &Transaction<'_>,
    owner: &FactorOwner,
    id: FactorId,
    keeps_one: bool,
    event: &Event,
    mail: Option<&NewMail>,
) -> Result<FactorRemoval> {
    // The account is locked from here on, so that its factors are these.
    let Some(before) = still(tx, owner).await? else { return Ok(FactorRemoval::Gone) };
    if keeps_one && one(tx, IS_LAST, &[&id.uuid(), &before.id.uuid()], only_bool).await? == Some(true) {
        return Ok(FactorRemoval::Last);
    }
    let sql = "DELETE FROM factors WHERE id = $1 AND user_id = $2";
    if run(tx, sql, &[&id.uuid(), &before.id.uuid()]).await? == 0 {
        return Ok(FactorRemoval::Gone);
    }
    let Some(owner) = user(tx, before.id).await? else { return Ok(FactorRemoval::Gone) };
    if before.has_factors && !owner.has_factors {
        set_recovery_codes(tx, owner.id, &[]).await?;
        // What was shown is a proof of nothing any more.
        run(tx, WITHOUT_FACTORS, &[&owner.id.uuid()]).await?;
    }
    event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
    if let Some(mail) = mail {
        mail::enqueue(tx, mail).await?;
    }
    Ok(FactorRemoval::Done)
}

/// Whether a factor is the only confirmed one of a user.
const IS_LAST: &str = "SELECT EXISTS (SELECT 1 FROM factors WHERE id = $1 AND user_id = $2 AND confirmed_at IS NOT NULL) \
     AND NOT EXISTS (SELECT 1 FROM factors WHERE id <> $1 AND user_id = $2 AND confirmed_at IS NOT NULL)";

/// Removes the factors and recovery codes of an account.
pub(super) async fn remove_all(tx: &Transaction<'_>, owner: UserId) -> Result<()> {
    run(tx, "DELETE FROM factors WHERE user_id = $1", &[&owner.uuid()]).await?;
    set_recovery_codes(tx, owner, &[]).await
}

async fn add_challenge(tx: &Transaction<'_>, new: &AuthChallenge, holds_for: i64) -> Result<()> {
    let (user, generation) = new.user.unzip();
    let (user, session) = (user.map(UserId::uuid), new.session.map(SessionId::uuid));
    let sql = format!(
        "INSERT INTO challenges (token_hash, purpose, user_id, generation, session_id, methods, kind, keep, tries, \
         expires_at, link) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, {NOW} + $10, $11)"
    );
    let (purpose, kind) = (new.purpose.number(), new.kind.number());
    let (hash, methods, tries) = (new.token_hash.as_slice(), new.proofs.to_string(), i64::from(new.tries));
    let link = new.link.as_ref().and_then(|link| serde_json::to_string(link).ok());
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 11] = [
        &hash,
        &purpose,
        &user,
        &generation,
        &session,
        &methods,
        &kind,
        &new.keep,
        &tries,
        &holds_for,
        &link,
    ];
    run(tx, &sql, &values).await.map(drop)
}

const WITHOUT_FACTORS: &str = "UPDATE sessions SET methods = CASE WHEN methods LIKE '%pwd%' THEN 'pwd' \
     WHEN methods LIKE '%fed%' THEN 'fed' ELSE '' END WHERE user_id = $1";

#[async_trait]
impl Factors for Postgres {
    async fn factors(&self, user: UserId) -> store::Result<Vec<Factor>> {
        let sql = format!(
            "SELECT {FACTOR} FROM factors WHERE user_id = $1 AND (confirmed_at IS NOT NULL OR created_at > $2) \
             ORDER BY created_at, id"
        );
        self.pool
            .read(async |db| {
                let since = confirmed_since(now(db).await?);
                let statement = db.prepare_cached(&sql).await?;
                let rows = db.query(&statement, &[&user.uuid(), &since]).await?;
                rows.iter().map(read_factor).collect()
            })
            .await
    }

    async fn passkey(&self, credential: &[u8]) -> store::Result<Option<Factor>> {
        let sql = format!("SELECT {FACTOR} FROM factors WHERE credential = $1 AND confirmed_at IS NOT NULL");
        self.pool.read(async |db| one(db, &sql, &[&credential], read_factor).await).await
    }

    async fn begin_factor(&self, factor: &NewFactor) -> store::Result<bool> {
        self.pool.write(async |tx| begin(tx, factor).await).await
    }

    async fn confirm_factor(&self, confirmation: &Confirmation) -> store::Result<Option<Confirmed>> {
        self.pool
            .write(async |tx| {
                match whole(tx, async |tx| confirm(tx, confirmation).await).await {
                    // Somebody has the passkey.
                    Err(error) if is_taken(&error) => {
                        tx.batch_execute("ROLLBACK TO step").await?;
                        Ok(None)
                    }
                    confirmed => confirmed,
                }
            })
            .await
    }

    async fn remove_factor(
        &self,
        owner: &FactorOwner,
        id: FactorId,
        keeps_one: bool,
        event: &Event,
        mail: Option<&NewMail>,
    ) -> store::Result<FactorRemoval> {
        self.pool.write(async |tx| remove(tx, owner, id, keeps_one, event, mail).await).await
    }

    async fn set_recovery_codes(
        &self,
        owner: &FactorOwner,
        hashes: &[[u8; 32]],
        event: &Event,
    ) -> store::Result<bool> {
        self.pool
            .write(async |tx| {
                let found = still(tx, owner).await?.filter(|owner| owner.has_factors);
                let Some(owner) = found else { return Ok(false) };
                set_recovery_codes(tx, owner.id, hashes).await?;
                event::append(tx, event, Some(owner.id), owner.name.as_str()).await?;
                Ok(true)
            })
            .await
    }

    async fn recovery_codes(&self, user: UserId) -> store::Result<u32> {
        let sql = "SELECT count(*) FROM recovery_codes WHERE user_id = $1";
        let count = self.pool.read(async |db| one(db, sql, &[&user.uuid()], only_i64).await).await?;
        Ok(count.and_then(|count| u32::try_from(count).ok()).unwrap_or_default())
    }

    async fn add_auth_challenge(&self, challenge: &AuthChallenge, holds_for: i64) -> store::Result<()> {
        self.pool.write(async |tx| add_challenge(tx, challenge, holds_for).await).await
    }

    async fn auth_challenge(&self, token_hash: &[u8; 32], most: u32) -> store::Result<Option<AuthChallenge>> {
        let sql = format!("SELECT {CHALLENGE} FROM challenges WHERE {}", live());
        let most = i64::from(most);
        self.pool.read(async |db| one(db, &sql, &[&token_hash.as_slice(), &most], read_challenge).await).await
    }

    async fn try_auth_challenge(
        &self,
        token_hash: &[u8; 32],
        most: u32,
    ) -> store::Result<Option<AuthChallenge>> {
        let sql = format!("UPDATE challenges SET tries = tries + 1 WHERE {} RETURNING {CHALLENGE}", live());
        let most = i64::from(most);
        self.pool
            .write(async |tx| one(tx, &sql, &[&token_hash.as_slice(), &most], read_challenge).await)
            .await
    }

    async fn mail_code(&self, token_hash: &[u8; 32], mail: &NewMail) -> store::Result<bool> {
        let sql = format!(
            "UPDATE challenges SET code_mail = $2 WHERE token_hash = $1 AND code_mail IS NULL AND expires_at > {NOW}"
        );
        self.pool
            .write(async |tx| {
                // The account before the challenge, as whoever meets it takes them.
                if lock_user(tx, mail.user).await?.is_none() {
                    return Ok(false);
                }
                let send = async |tx: &Transaction<'_>| {
                    let noted = run(tx, &sql, &[&token_hash.as_slice(), &mail.id]).await?;
                    Ok((noted == 0 || mail::enqueue(tx, mail).await?).then_some(()))
                };
                Ok(whole(tx, send).await?.is_some())
            })
            .await
    }

    async fn complete_auth_challenge(
        &self,
        completion: &ChallengeCompletion,
    ) -> store::Result<Option<Grant>> {
        self.pool.write(async |tx| whole(tx, async |tx| complete_challenge(tx, completion).await).await).await
    }
}

/// The condition of a challenge that may still be met.
fn live() -> String {
    format!("token_hash = $1 AND expires_at > {NOW} AND tries < $2")
}
