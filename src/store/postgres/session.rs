//! What becomes of sessions. Each function runs within one transaction, its locks taken user first.

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::{
    Postgres,
    connection::{QueryError, QueryResult as Result},
    event, log,
    lookup::{self, lock_session, lock_user},
    statement::{now, one, only, only_i64, run},
};
use crate::{
    clock::UnixMillis,
    store::{
        self, Event, Grant, LogEntry, NewSession, Revoked, Rotation, RotationRequest, Session, SessionPage,
        Sessions, StepUp, StoreError, User,
        rule::{
            change::Rekeyed,
            rotation::{NO_SUCCESSOR, Plan, plan},
            session::{may_be_opened, may_be_reauthenticated},
        },
        session::MOST_ENDED_FOR_ONE,
    },
    types::{SessionId, UserId},
};

async fn open_session(
    tx: &Transaction<'_>,
    id: UserId,
    generation: i64,
    session: &NewSession,
    event: &Event,
) -> Result<Option<Grant>> {
    match lock_user(tx, id).await? {
        Some(user) if may_be_opened(&user, generation, session) => {
            event::append(tx, event, Some(id), user.name.as_str()).await?;
            insert_session(tx, user, session).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// Ends the sessions that were used longest ago, so that there is room for one more.
async fn make_room(tx: &Transaction<'_>, user: &User, most: u32) -> Result<Vec<LogEntry>> {
    let sql = "SELECT id FROM sessions WHERE user_id = $1 AND generation = $2 ORDER BY last_used_at, id LIMIT \
         least($4, greatest(0, (SELECT count(*) FROM sessions WHERE user_id = $1 AND generation = $2) - $3 + 1))";
    let statement = tx.prepare_cached(sql).await?;
    let most = i64::from(most);
    let rows = tx.query(&statement, &[&user.id.uuid(), &user.generation, &most, &MOST_ENDED_FOR_ONE]).await?;
    let mut ended = Vec::new();
    for row in rows {
        if let Some(id) = SessionId::from_uuid(only(&row)?) {
            ended.extend(end_locked_session(tx, user.id, id).await?);
        }
    }
    Ok(ended)
}

pub(super) async fn insert_session(tx: &Transaction<'_>, user: User, new: &NewSession) -> Result<Grant> {
    let ended = make_room(tx, &user, new.most).await?;
    let now = now(tx).await?;
    run(
        tx,
        "INSERT INTO sessions (id, user_id, generation, created_at, authenticated_at, last_used_at, ends_at, \
         refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce, access_exp_max, \
         methods, address, user_agent, kind) \
         VALUES ($1, $2, $3, $4, $4, $4, $5, $6, $4, 0, $7, NULL, $8, $9, $10, $11, $12, $13)",
        &[
            &new.id.uuid(),
            &user.id.uuid(),
            &user.generation,
            &now,
            &new.ttls.session_end(now),
            &new.ttls.refresh_end(now, new.ttls.session_end(now)),
            &new.refresh_hash.as_slice(),
            &new.nonce.as_slice(),
            &new.ttls.access_end(now),
            &new.proofs.to_string(),
            &new.place.address,
            &new.place.user_agent,
            &new.kind.number(),
        ],
    )
    .await?;
    raise_user_expiry(tx, user.id, new.ttls.access_end(now)).await?;
    Ok(Grant { ended, ..Grant::new(user, new.id, new.ttls.session_end(now), (now, new.proofs), now) })
}

async fn raise_user_expiry(tx: &Transaction<'_>, user: UserId, access_end: UnixMillis) -> Result<()> {
    let sql = "UPDATE users SET access_exp_max = greatest(access_exp_max, $2) WHERE id = $1";
    run(tx, sql, &[&user.uuid(), &access_end]).await.map(drop)
}

/// Moves a session to the new generation of its account, with new tokens.
pub(super) async fn move_session(
    tx: &Transaction<'_>,
    user: UserId,
    rekeyed: &Rekeyed<'_>,
    generation: i64,
    now: UnixMillis,
) -> Result<()> {
    raise_user_expiry(tx, user, rekeyed.access_end).await?;
    run(
        tx,
        "UPDATE sessions SET generation = $2, last_used_at = $3, refresh_expires_at = $4, rotated_at = $3, \
         refresh_number = 0, current_hash = $5, previous_hash = NULL, nonce = $6, \
         access_exp_max = greatest(access_exp_max, $7), \
         authenticated_at = $8 WHERE id = $1",
        &[
            &rekeyed.id().uuid(),
            &generation,
            &now,
            &rekeyed.refresh_end,
            &rekeyed.rekey.session.refresh_hash.as_slice(),
            &rekeyed.rekey.session.nonce.as_slice(),
            &rekeyed.access_end,
            &rekeyed.authenticated_at,
        ],
    )
    .await
    .map(drop)
}

async fn rotate_session(tx: &Transaction<'_>, request: &RotationRequest) -> Result<Rotation> {
    // The owner never changes, so it may be read before the locks are taken in their order.
    let owner = one(tx, "SELECT user_id FROM sessions WHERE id = $1", &[&request.session.uuid()], |row| {
        UserId::from_uuid(only::<Uuid>(row)?).ok_or(QueryError::Broken("sessions.user_id"))
    })
    .await?;
    let Some(owner) = owner else { return Ok(Rotation::Refused) };
    let Some(user) = lock_user(tx, owner).await? else { return Ok(Rotation::Refused) };
    let Some(session) = lock_session(tx, request.session).await? else { return Ok(Rotation::Refused) };
    let now = now(tx).await?;
    match plan(&session, &user, &request.presented, now, request.grace) {
        Plan::Refuse => Ok(Rotation::Refused),
        Plan::EndSession => {
            event::append(tx, &request.replayed, Some(user.id), user.name.as_str()).await?;
            Ok(end_locked_session(tx, user.id, session.id).await?.map_or(Rotation::Refused, Rotation::Ended))
        }
        plan => {
            let access_end = request.ttls.access_end(now);
            raise_user_expiry(tx, user.id, access_end).await?;
            let id = session.id.uuid();
            let used = "UPDATE sessions SET last_used_at = $2, access_exp_max = greatest(access_exp_max, $3) WHERE id = $1";
            run(tx, used, &[&id, &now, &access_end]).await?;
            let grant = Grant::new(
                user,
                session.id,
                session.ends_at,
                (session.authenticated_at, session.proofs),
                now,
            );
            if plan == Plan::Replay {
                return Ok(Rotation::Replayed(grant, session.nonce));
            }
            run(
                tx,
                "UPDATE sessions SET refresh_number = refresh_number + 1, previous_hash = current_hash, \
                 current_hash = $2, nonce = $3, rotated_at = $4, refresh_expires_at = $5 WHERE id = $1",
                &[
                    &id,
                    &request.successor.as_slice(),
                    &request.nonce.as_slice(),
                    &now,
                    &request.ttls.refresh_end(now, session.ends_at),
                ],
            )
            .await?;
            Ok(Rotation::Rotated(grant))
        }
    }
}

/// Steps up a session. The account is locked.
pub(super) async fn step_up_session(
    tx: &Transaction<'_>,
    user: User,
    generation: i64,
    step_up: &StepUp,
) -> Result<Option<Grant>> {
    let Some(session) = lock_session(tx, step_up.session).await? else { return Ok(None) };
    let now = now(tx).await?;
    if !may_be_reauthenticated(&user, &session, generation, step_up.proof, now) {
        return Ok(None);
    }
    let access_end = step_up.ttls.access_end(now);
    raise_user_expiry(tx, user.id, access_end).await?;
    let (id, proofs) = (session.id.uuid(), session.proofs.with(step_up.proof));
    let sql = "UPDATE sessions SET authenticated_at = $2, last_used_at = $2, methods = $4, \
         access_exp_max = greatest(access_exp_max, $3) WHERE id = $1";
    run(tx, sql, &[&id, &now, &access_end, &proofs.to_string()]).await?;
    if let Some(hash) = &step_up.refresh {
        let end = step_up.ttls.refresh_end(now, session.ends_at);
        let sql = "UPDATE sessions SET refresh_number = 0, previous_hash = current_hash, current_hash = $2, nonce = $3, \
             rotated_at = $4, refresh_expires_at = $5 WHERE id = $1";
        run(tx, sql, &[&id, &hash.as_slice(), &NO_SUCCESSOR.as_slice(), &now, &end]).await?;
    }
    Ok(Some(Grant::new(user, session.id, session.ends_at, (now, proofs), now)))
}

async fn reauthenticate_session(
    tx: &Transaction<'_>,
    user: UserId,
    generation: i64,
    step_up: &StepUp,
    event: &Event,
) -> Result<Option<Grant>> {
    let Some(user) = lock_user(tx, user).await? else { return Ok(None) };
    let (id, name) = (user.id, user.name.clone());
    let grant = step_up_session(tx, user, generation, step_up).await?;
    if grant.is_some() {
        event::append(tx, event, Some(id), name.as_str()).await?;
    }
    Ok(grant)
}

async fn end_session(
    tx: &Transaction<'_>,
    user: UserId,
    session: SessionId,
    event: Option<&Event>,
) -> Result<Option<LogEntry>> {
    let Some(owner) = lock_user(tx, user).await? else { return Ok(None) };
    let ended = end_locked_session(tx, user, session).await?;
    if let (Some(event), true) = (event, ended.is_some()) {
        event::append(tx, event, Some(user), owner.name.as_str()).await?;
    }
    Ok(ended)
}

async fn end_locked_session(
    tx: &Transaction<'_>,
    user: UserId,
    session: SessionId,
) -> Result<Option<LogEntry>> {
    let sql = "DELETE FROM sessions WHERE id = $1 AND user_id = $2 RETURNING access_exp_max";
    let access_exp_max = one(tx, sql, &[&session.uuid(), &user.uuid()], only_i64).await?;
    let Some(access_exp_max) = access_exp_max else { return Ok(None) };
    let entry = LogEntry::new(Revoked::Session(session), LogEntry::ALL, access_exp_max, now(tx).await?);
    log::append(tx, &entry).await?;
    Ok(Some(entry))
}

#[async_trait]
impl Sessions for Postgres {
    async fn open_session(
        &self,
        user: UserId,
        generation: i64,
        session: &NewSession,
        event: &Event,
    ) -> store::Result<Option<Grant>> {
        self.pool.write(async |tx| open_session(tx, user, generation, session, event).await).await
    }

    async fn rotate_session(&self, request: &RotationRequest) -> store::Result<Rotation> {
        let mut ends = None;
        let rotated = self
            .pool
            .write(async |tx| {
                let rotation = rotate_session(tx, request).await?;
                if let Rotation::Ended(entry) = &rotation {
                    ends = Some(*entry);
                }
                Ok(rotation)
            })
            .await;
        match (rotated, ends) {
            (Err(StoreError::OutcomeUnknown(_)), Some(entry)) => Ok(Rotation::InDoubt(entry)),
            (rotated, _) => rotated,
        }
    }

    async fn reauthenticate_session(
        &self,
        user: UserId,
        generation: i64,
        step_up: &StepUp,
        event: &Event,
    ) -> store::Result<Option<Grant>> {
        self.pool.write(async |tx| reauthenticate_session(tx, user, generation, step_up, event).await).await
    }

    async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        event: Option<&Event>,
    ) -> store::Result<Option<LogEntry>> {
        self.pool.write(async |tx| end_session(tx, user, session, event).await).await
    }

    async fn session(&self, session: SessionId) -> store::Result<Option<Session>> {
        self.pool.read(async |db| lookup::session(db, session).await).await
    }

    async fn sessions(&self, user: UserId, page: SessionPage) -> store::Result<Vec<Session>> {
        self.pool.read(async |db| lookup::sessions(db, user, page).await).await
    }
}
