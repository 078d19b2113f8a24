//! Second factors and challenges, each function within one transaction.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use super::{
    Sqlite, event, link,
    lookup::{self, user},
    mail,
    session::{insert_session, step_up_session},
    statement::{Result, broken, uuid},
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

fn read_factor(row: &Row<'_>) -> Result<Factor> {
    let kind = FactorKind::read(row.get("kind")?);
    Ok(Factor {
        id: FactorId::from_uuid(uuid(row, "id")?).ok_or_else(|| broken("factors.id"))?,
        user: UserId::from_uuid(uuid(row, "user_id")?).ok_or_else(|| broken("factors.user_id"))?,
        kind: kind.ok_or_else(|| broken("factors.kind"))?,
        name: row.get("name")?,
        created_at: row.get("created_at")?,
        is_confirmed: row.get::<_, Option<i64>>("confirmed_at")?.is_some(),
        last_used_at: row.get("last_used_at")?,
        credential: row.get("credential")?,
        public_key: row.get("public_key")?,
        counter: row.get("counter")?,
    })
}

fn read_challenge(row: &Row<'_>) -> Result<AuthChallenge> {
    let kind = SessionKind::read(row.get("kind")?);
    let purpose = ChallengePurpose::read(row.get("purpose")?);
    let optional = |column| -> Result<Option<Uuid>> {
        Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(Uuid::from_bytes))
    };
    let user =
        optional("user_id")?.map(|id| UserId::from_uuid(id).ok_or_else(|| broken("challenges.user_id")));
    let link: Option<String> = row.get("link")?;
    let session = optional("session_id")?;
    let session = session.map(|id| SessionId::from_uuid(id).ok_or_else(|| broken("challenges.session_id")));
    Ok(AuthChallenge {
        token_hash: row.get("token_hash")?,
        purpose: purpose.ok_or_else(|| broken("challenges.purpose"))?,
        user: user.transpose()?.zip(row.get("generation")?),
        session: session.transpose()?,
        proofs: Proofs::parse(row.get_ref("methods")?.as_str()?),
        kind: kind.ok_or_else(|| broken("challenges.kind"))?,
        keep: row.get("keep")?,
        tries: row.get("tries")?,
        link: link.as_deref().and_then(|link| serde_json::from_str(link).ok()),
        code_mail: optional("code_mail")?,
    })
}

fn factors(db: &Connection, user: UserId, now: UnixMillis) -> Result<Vec<Factor>> {
    let sql = format!(
        "SELECT {FACTOR} FROM factors WHERE user_id = ?1 AND (confirmed_at IS NOT NULL OR created_at > ?2) \
         ORDER BY created_at, id"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let found = statement.query_map(params![user.uuid().as_bytes(), confirmed_since(now)], read_factor)?;
    found.collect()
}

fn begin(tx: &Transaction<'_>, new: &NewFactor, now: UnixMillis) -> Result<bool> {
    let id = new.user.uuid();
    // What was begun and never confirmed makes room.
    tx.prepare_cached(
        "DELETE FROM factors WHERE user_id = ?1 AND confirmed_at IS NULL AND created_at <= ?2",
    )?
    .execute(params![id.as_bytes(), confirmed_since(now)])?;
    let begun = tx
        .prepare_cached(
            "INSERT INTO factors (id, user_id, kind, name, created_at) SELECT ?1, id, ?3, ?4, ?5 FROM users \
             WHERE id = ?2 AND (SELECT count(*) FROM factors WHERE user_id = ?2) < ?6",
        )?
        .execute(params![
            new.id.uuid().as_bytes(),
            id.as_bytes(),
            new.kind.number(),
            new.name,
            now,
            new.most
        ])?;
    Ok(begun > 0)
}

/// Takes note of what was shown. Returns false if it was used before, or is not there any more.
fn spend(tx: &Transaction<'_>, user: &User, by: &FactorUse, now: UnixMillis) -> Result<bool> {
    let owner = user.id.uuid();
    let spent = match by {
        FactorUse::Totp(id, step) => tx
            .prepare_cached(
                "UPDATE factors SET counter = ?3, last_used_at = ?4 WHERE id = ?1 AND user_id = ?2 AND counter < ?3",
            )?
            .execute(params![id.uuid().as_bytes(), owner.as_bytes(), step, now])?,
        // Many count nothing; one that counts counts on.
        FactorUse::Passkey { id, counter, .. } => tx
            .prepare_cached(
                "UPDATE factors SET counter = ?3, last_used_at = ?4 WHERE id = ?1 AND user_id = ?2 \
                 AND (counter < ?3 OR (counter = 0 AND ?3 = 0))",
            )?
            .execute(params![id.uuid().as_bytes(), owner.as_bytes(), counter, now])?,
        FactorUse::Recovery(hash) => tx
            .prepare_cached("DELETE FROM recovery_codes WHERE user_id = ?1 AND hash = ?2")?
            .execute(params![owner.as_bytes(), hash])?,
        FactorUse::Mail(id) => tx
            .prepare_cached("UPDATE mails SET used_at = ?3 WHERE id = ?1 AND user_id = ?2 AND used_at IS NULL")?
            .execute(params![id.as_bytes(), owner.as_bytes(), now])?,
        FactorUse::Password => usize::from(!user.has_factors),
    };
    Ok(spent > 0)
}

/// Removes a challenge. Returns false if there is none any more.
fn end_challenge(tx: &Transaction<'_>, token_hash: &[u8; 32], now: UnixMillis) -> Result<bool> {
    let ended = tx
        .prepare_cached("DELETE FROM challenges WHERE token_hash = ?1 AND expires_at > ?2")?
        .execute(params![token_hash, now])?;
    Ok(ended > 0)
}

fn grant(
    tx: &Transaction<'_>,
    user: User,
    generation: i64,
    outcome: &Outcome,
    now: UnixMillis,
) -> Result<Option<Grant>> {
    match outcome {
        Outcome::Open(session) if may_be_opened(&user, generation, session) => {
            insert_session(tx, user, session, now).map(Some)
        }
        Outcome::Open(_) => Ok(None),
        Outcome::StepUp(step_up) => step_up_session(tx, user, generation, step_up, now),
    }
}

fn set_recovery_codes(tx: &Transaction<'_>, user: UserId, hashes: &[[u8; 32]]) -> Result<()> {
    let id = user.uuid();
    tx.execute("DELETE FROM recovery_codes WHERE user_id = ?1", [id.as_bytes()])?;
    for hash in hashes {
        tx.prepare_cached("INSERT INTO recovery_codes (user_id, hash) VALUES (?1, ?2)")?
            .execute(params![id.as_bytes(), hash])?;
    }
    Ok(())
}

fn confirm(tx: &Transaction<'_>, wanted: &Confirmation, now: UnixMillis) -> Result<Option<Confirmed>> {
    let Some(owner) = user(tx, wanted.user)? else { return Ok(None) };
    // A challenge to get a factor is nothing beside one.
    let is_as_it_was = !owner.disabled
        && owner.generation == wanted.generation
        && owner.has_factors == wanted.has_factors
        && !(wanted.meets.is_some() && owner.has_factors);
    if !is_as_it_was {
        return Ok(None);
    }
    if let Some(token_hash) = &wanted.meets
        && !end_challenge(tx, token_hash, now)?
    {
        return Ok(None);
    }
    let (credential, public_key) = wanted.passkey.clone().unzip();
    let confirmed = tx
        .prepare_cached(
            "UPDATE OR IGNORE factors SET confirmed_at = ?3, credential = ?5, public_key = ?6 \
             WHERE id = ?1 AND user_id = ?2 AND confirmed_at IS NULL AND created_at > ?4",
        )?
        .execute(params![
            wanted.id.uuid().as_bytes(),
            wanted.user.uuid().as_bytes(),
            now,
            confirmed_since(now),
            credential,
            public_key
        ])?;
    if confirmed == 0 || !spend(tx, &owner, &wanted.by, now)? {
        return Ok(None);
    }
    let is_first = !owner.has_factors;
    if is_first {
        set_recovery_codes(tx, wanted.user, &wanted.recovery)?;
        // Who has given it, and who reads it, has shown no factor.
        tx.execute(
            "UPDATE addresses SET is_weak = 1 WHERE user_id = ?1 AND verified_at IS NULL AND is_changed",
            [wanted.user.uuid().as_bytes()],
        )?;
    }
    if let Some(link) = &wanted.link
        && !link::insert(tx, owner.id, link, now)?
    {
        return Ok(None);
    }
    for event in &wanted.events {
        event::append(tx, event, Some(owner.id), owner.name.as_str(), now)?;
    }
    if let Some(mail) = &wanted.mail {
        mail::enqueue(tx, mail, now)?;
    }
    let owner = User { has_factors: true, ..owner };
    let grant = grant(tx, owner, wanted.generation, &wanted.outcome, now)?;
    Ok(grant.map(|grant| Confirmed { grant, is_first }))
}

fn complete_challenge(
    tx: &Transaction<'_>,
    completion: &ChallengeCompletion,
    now: UnixMillis,
) -> Result<Option<Grant>> {
    let Some(owner) = user(tx, completion.user)? else { return Ok(None) };
    let is_as_it_was = !owner.disabled && owner.generation == completion.generation;
    if !is_as_it_was
        || !end_challenge(tx, &completion.token_hash, now)?
        || !spend(tx, &owner, &completion.by, now)?
    {
        return Ok(None);
    }
    if let Some(link) = &completion.link
        && !link::insert(tx, owner.id, link, now)?
    {
        return Ok(None);
    }
    for event in &completion.events {
        event::append(tx, event, Some(owner.id), owner.name.as_str(), now)?;
    }
    grant(tx, owner, completion.generation, &completion.outcome, now)
}

/// Runs a step, and undoes what it did where nothing comes of it.
fn whole<T>(
    tx: &Transaction<'_>,
    step: impl FnOnce(&Transaction<'_>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    tx.execute_batch("SAVEPOINT step")?;
    let done = step(tx)?;
    tx.execute_batch(if done.is_some() { "RELEASE step" } else { "ROLLBACK TO step; RELEASE step" })?;
    Ok(done)
}

/// Finds an account, if it is as it was to whoever changes its factors.
fn still(tx: &Transaction<'_>, owner: &FactorOwner) -> Result<Option<User>> {
    let session = lookup::session(tx, owner.session)?;
    Ok(user(tx, owner.user)?.filter(|user| owner.is_unchanged(user, session.as_ref())))
}

fn remove(
    tx: &Transaction<'_>,
    owner: &FactorOwner,
    id: FactorId,
    keeps_one: bool,
    event: &Event,
    mail: Option<&NewMail>,
    now: UnixMillis,
) -> Result<FactorRemoval> {
    let Some(before) = still(tx, owner)? else { return Ok(FactorRemoval::Gone) };
    if keeps_one
        && tx.query_row(IS_LAST, params![id.uuid().as_bytes(), before.id.uuid().as_bytes()], |row| {
            row.get(0)
        })?
    {
        return Ok(FactorRemoval::Last);
    }
    let sql = "DELETE FROM factors WHERE id = ?1 AND user_id = ?2";
    if tx.execute(sql, params![id.uuid().as_bytes(), before.id.uuid().as_bytes()])? == 0 {
        return Ok(FactorRemoval::Gone);
    }
    let Some(owner) = user(tx, before.id)? else { return Ok(FactorRemoval::Gone) };
    if before.has_factors && !owner.has_factors {
        set_recovery_codes(tx, owner.id, &[])?;
        // What was shown is a proof of nothing any more.
        tx.execute(WITHOUT_FACTORS, [owner.id.uuid().as_bytes()])?;
    }
    event::append(tx, event, Some(owner.id), owner.name.as_str(), now)?;
    if let Some(mail) = mail {
        mail::enqueue(tx, mail, now)?;
    }
    Ok(FactorRemoval::Done)
}

/// Whether a factor is the only confirmed one of a user.
const IS_LAST: &str = "SELECT EXISTS (SELECT 1 FROM factors WHERE id = ?1 AND user_id = ?2 AND confirmed_at IS NOT NULL) \
     AND NOT EXISTS (SELECT 1 FROM factors WHERE id <> ?1 AND user_id = ?2 AND confirmed_at IS NOT NULL)";

/// Removes the factors and recovery codes of an account.
pub(super) fn remove_all(tx: &Transaction<'_>, owner: UserId) -> Result<()> {
    tx.execute("DELETE FROM factors WHERE user_id = ?1", [owner.uuid().as_bytes()])?;
    set_recovery_codes(tx, owner, &[])
}

fn add_challenge(tx: &Transaction<'_>, new: &AuthChallenge, holds_for: i64, now: UnixMillis) -> Result<()> {
    let (user, generation) = new.user.unzip();
    tx.prepare_cached(
        "INSERT INTO challenges (token_hash, purpose, user_id, generation, session_id, methods, kind, keep, tries, \
         expires_at, link) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        new.token_hash,
        new.purpose.number(),
        user.map(|user| user.uuid().into_bytes()),
        generation,
        new.session.map(|session| session.uuid().into_bytes()),
        new.proofs.to_string(),
        new.kind.number(),
        new.keep,
        new.tries,
        now + holds_for,
        new.link.as_ref().and_then(|link| serde_json::to_string(link).ok())
    ])?;
    Ok(())
}

const WITHOUT_FACTORS: &str = "UPDATE sessions SET methods = CASE WHEN methods LIKE '%pwd%' THEN 'pwd' \
     WHEN methods LIKE '%fed%' THEN 'fed' ELSE '' END WHERE user_id = ?1";

const LIVE: &str = "token_hash = ?1 AND expires_at > ?2 AND tries < ?3";

#[async_trait]
impl Factors for Sqlite {
    async fn factors(&self, user: UserId) -> store::Result<Vec<Factor>> {
        let now = self.clock.wall();
        self.connections.read(move |db| factors(db, user, now)).await
    }

    async fn passkey(&self, credential: &[u8]) -> store::Result<Option<Factor>> {
        let credential = credential.to_vec();
        let sql = format!("SELECT {FACTOR} FROM factors WHERE credential = ?1 AND confirmed_at IS NOT NULL");
        self.connections
            .read(move |db| db.prepare_cached(&sql)?.query_row([credential], read_factor).optional())
            .await
    }

    async fn begin_factor(&self, factor: &NewFactor) -> store::Result<bool> {
        let (factor, now) = (factor.clone(), self.clock.wall());
        self.connections.write(move |tx| begin(tx, &factor, now)).await
    }

    async fn confirm_factor(&self, confirmation: &Confirmation) -> store::Result<Option<Confirmed>> {
        let (wanted, now) = (confirmation.clone(), self.clock.wall());
        self.connections.write(move |tx| whole(tx, |tx| confirm(tx, &wanted, now))).await
    }

    async fn remove_factor(
        &self,
        owner: &FactorOwner,
        id: FactorId,
        keeps_one: bool,
        event: &Event,
        mail: Option<&NewMail>,
    ) -> store::Result<FactorRemoval> {
        let (owner, event, mail, now) = (*owner, event.clone(), mail.cloned(), self.clock.wall());
        self.connections.write(move |tx| remove(tx, &owner, id, keeps_one, &event, mail.as_ref(), now)).await
    }

    async fn set_recovery_codes(
        &self,
        owner: &FactorOwner,
        hashes: &[[u8; 32]],
        event: &Event,
    ) -> store::Result<bool> {
        let (owner, hashes, event, now) = (*owner, hashes.to_vec(), event.clone(), self.clock.wall());
        self.connections
            .write(move |tx| {
                let found = still(tx, &owner)?.filter(|owner| owner.has_factors);
                let Some(owner) = found else { return Ok(false) };
                set_recovery_codes(tx, owner.id, &hashes)?;
                event::append(tx, &event, Some(owner.id), owner.name.as_str(), now)?;
                Ok(true)
            })
            .await
    }

    async fn recovery_codes(&self, user: UserId) -> store::Result<u32> {
        let sql = "SELECT count(*) FROM recovery_codes WHERE user_id = ?1";
        self.connections
            .read(move |db| db.prepare_cached(sql)?.query_row([user.uuid().as_bytes()], |row| row.get(0)))
            .await
    }

    async fn add_auth_challenge(&self, challenge: &AuthChallenge, holds_for: i64) -> store::Result<()> {
        let (challenge, now) = (challenge.clone(), self.clock.wall());
        self.connections.write(move |tx| add_challenge(tx, &challenge, holds_for, now)).await
    }

    async fn auth_challenge(&self, token_hash: &[u8; 32], most: u32) -> store::Result<Option<AuthChallenge>> {
        let (token_hash, now) = (*token_hash, self.clock.wall());
        let sql = format!("SELECT {CHALLENGE} FROM challenges WHERE {LIVE}");
        self.connections
            .read(move |db| {
                db.prepare_cached(&sql)?.query_row(params![token_hash, now, most], read_challenge).optional()
            })
            .await
    }

    async fn try_auth_challenge(
        &self,
        token_hash: &[u8; 32],
        most: u32,
    ) -> store::Result<Option<AuthChallenge>> {
        let (token_hash, now) = (*token_hash, self.clock.wall());
        let sql = format!("UPDATE challenges SET tries = tries + 1 WHERE {LIVE} RETURNING {CHALLENGE}");
        self.connections
            .write(move |tx| {
                tx.prepare_cached(&sql)?.query_row(params![token_hash, now, most], read_challenge).optional()
            })
            .await
    }

    async fn mail_code(&self, token_hash: &[u8; 32], mail: &NewMail) -> store::Result<bool> {
        let (token_hash, mail, now) = (*token_hash, mail.clone(), self.clock.wall());
        let sql = "UPDATE challenges SET code_mail = ?2 WHERE token_hash = ?1 AND code_mail IS NULL AND expires_at > ?3";
        let send = move |tx: &Transaction<'_>| {
            let noted = tx.prepare_cached(sql)?.execute(params![token_hash, mail.id.as_bytes(), now])?;
            Ok((noted == 0 || mail::enqueue(tx, &mail, now)?).then_some(()))
        };
        Ok(self.connections.write(move |tx| whole(tx, send)).await?.is_some())
    }

    async fn complete_auth_challenge(
        &self,
        completion: &ChallengeCompletion,
    ) -> store::Result<Option<Grant>> {
        let (completion, now) = (completion.clone(), self.clock.wall());
        self.connections.write(move |tx| whole(tx, |tx| complete_challenge(tx, &completion, now))).await
    }
}
