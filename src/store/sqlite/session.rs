//! What becomes of sessions, each function within one transaction.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::{
    Sqlite, event, log,
    lookup::{self, session, user},
    statement::{Result, uuid},
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

fn open_session(
    tx: &Transaction<'_>,
    id: UserId,
    generation: i64,
    session: &NewSession,
    event: &Event,
    now: UnixMillis,
) -> Result<Option<Grant>> {
    match user(tx, id)? {
        Some(user) if may_be_opened(&user, generation, session) => {
            event::append(tx, event, Some(id), user.name.as_str(), now)?;
            insert_session(tx, user, session, now).map(Some)
        }
        _ => Ok(None),
    }
}

/// Ends the sessions that were used longest ago, so that there is room for one more.
fn make_room(tx: &Transaction<'_>, user: &User, most: u32, now: UnixMillis) -> Result<Vec<LogEntry>> {
    let oldest: Vec<Uuid> = tx
        .prepare_cached(
            "SELECT id FROM sessions WHERE user_id = ?1 AND generation = ?2 ORDER BY last_used_at, id LIMIT \
             min(?4, max(0, (SELECT count(*) FROM sessions WHERE user_id = ?1 AND generation = ?2) - ?3 + 1))",
        )?
        .query_map(
            params![user.id.uuid().as_bytes(), user.generation, most, MOST_ENDED_FOR_ONE],
            |row| uuid(row, 0),
        )?
        .collect::<Result<_>>()?;
    let oldest = oldest.into_iter().filter_map(SessionId::from_uuid);
    oldest.filter_map(|id| end_session(tx, user.id, id, now).transpose()).collect()
}

pub(super) fn insert_session(
    tx: &Transaction<'_>,
    user: User,
    new: &NewSession,
    now: UnixMillis,
) -> Result<Grant> {
    let ended = make_room(tx, &user, new.most, now)?;
    tx.prepare_cached(
        "INSERT INTO sessions (id, user_id, generation, created_at, authenticated_at, last_used_at, ends_at, \
         refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce, access_exp_max, \
         methods, address, user_agent, kind) \
         VALUES (?1, ?2, ?3, ?4, ?4, ?4, ?5, ?6, ?4, 0, ?7, NULL, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        new.id.uuid().as_bytes(),
        user.id.uuid().as_bytes(),
        user.generation,
        now,
        new.ttls.session_end(now),
        new.ttls.refresh_end(now, new.ttls.session_end(now)),
        new.refresh_hash,
        new.nonce,
        new.ttls.access_end(now),
        new.proofs.to_string(),
        new.place.address,
        new.place.user_agent,
        new.kind.number()
    ])?;
    raise_user_expiry(tx, user.id, new.ttls.access_end(now))?;
    Ok(Grant { ended, ..Grant::new(user, new.id, new.ttls.session_end(now), (now, new.proofs), now) })
}

fn raise_user_expiry(tx: &Transaction<'_>, user: UserId, access_end: UnixMillis) -> Result<()> {
    tx.prepare_cached("UPDATE users SET access_exp_max = max(access_exp_max, ?2) WHERE id = ?1")?
        .execute(params![user.uuid().as_bytes(), access_end])?;
    Ok(())
}

/// Moves a session to the new generation of its account, with new tokens.
pub(super) fn move_session(
    tx: &Transaction<'_>,
    user: UserId,
    rekeyed: &Rekeyed<'_>,
    generation: i64,
    now: UnixMillis,
) -> Result<()> {
    raise_user_expiry(tx, user, rekeyed.access_end)?;
    tx.execute(
        "UPDATE sessions SET generation = ?2, last_used_at = ?3, refresh_expires_at = ?4, rotated_at = ?3, \
         refresh_number = 0, current_hash = ?5, previous_hash = NULL, nonce = ?6, \
         access_exp_max = max(access_exp_max, ?7), \
         authenticated_at = ?8 WHERE id = ?1",
        params![
            rekeyed.id().uuid().as_bytes(),
            generation,
            now,
            rekeyed.refresh_end,
            rekeyed.rekey.session.refresh_hash,
            rekeyed.rekey.session.nonce,
            rekeyed.access_end,
            rekeyed.authenticated_at
        ],
    )?;
    Ok(())
}

fn rotate_session(tx: &Transaction<'_>, request: &RotationRequest, now: UnixMillis) -> Result<Rotation> {
    let Some(session) = session(tx, request.session)? else { return Ok(Rotation::Refused) };
    let Some(user) = user(tx, session.user)? else { return Ok(Rotation::Refused) };
    match plan(&session, &user, &request.presented, now, request.grace) {
        Plan::Refuse => Ok(Rotation::Refused),
        Plan::EndSession => {
            event::append(tx, &request.replayed, Some(user.id), user.name.as_str(), now)?;
            Ok(end_session(tx, user.id, session.id, now)?.map_or(Rotation::Refused, Rotation::Ended))
        }
        plan => {
            let access_end = request.ttls.access_end(now);
            raise_user_expiry(tx, user.id, access_end)?;
            let id = session.id.uuid();
            tx.prepare_cached(
                "UPDATE sessions SET last_used_at = ?2, access_exp_max = max(access_exp_max, ?3) WHERE id = ?1",
            )?
            .execute(params![id.as_bytes(), now, access_end])?;
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
            tx.prepare_cached(
                "UPDATE sessions SET refresh_number = refresh_number + 1, previous_hash = current_hash, \
                 current_hash = ?2, nonce = ?3, rotated_at = ?4, refresh_expires_at = ?5 WHERE id = ?1",
            )?
            .execute(params![
                id.as_bytes(),
                request.successor,
                request.nonce,
                now,
                request.ttls.refresh_end(now, session.ends_at)
            ])?;
            Ok(Rotation::Rotated(grant))
        }
    }
}

/// Steps up a session.
pub(super) fn step_up_session(
    tx: &Transaction<'_>,
    user: User,
    generation: i64,
    step_up: &StepUp,
    now: UnixMillis,
) -> Result<Option<Grant>> {
    let Some(session) = session(tx, step_up.session)? else { return Ok(None) };
    if !may_be_reauthenticated(&user, &session, generation, step_up.proof, now) {
        return Ok(None);
    }
    let access_end = step_up.ttls.access_end(now);
    raise_user_expiry(tx, user.id, access_end)?;
    let (id, proofs) = (session.id.uuid(), session.proofs.with(step_up.proof));
    tx.prepare_cached(
        "UPDATE sessions SET authenticated_at = ?2, last_used_at = ?2, methods = ?4, \
         access_exp_max = max(access_exp_max, ?3) WHERE id = ?1",
    )?
    .execute(params![id.as_bytes(), now, access_end, proofs.to_string()])?;
    if let Some(hash) = &step_up.refresh {
        tx.prepare_cached(
            "UPDATE sessions SET refresh_number = 0, previous_hash = current_hash, current_hash = ?2, nonce = ?3, \
             rotated_at = ?4, refresh_expires_at = ?5 WHERE id = ?1",
        )?
        .execute(params![
            id.as_bytes(),
            hash,
            NO_SUCCESSOR,
            now,
            step_up.ttls.refresh_end(now, session.ends_at)
        ])?;
    }
    Ok(Some(Grant::new(user, session.id, session.ends_at, (now, proofs), now)))
}

fn reauthenticate_session(
    tx: &Transaction<'_>,
    user_id: UserId,
    generation: i64,
    step_up: &StepUp,
    event: &Event,
    now: UnixMillis,
) -> Result<Option<Grant>> {
    let Some(user) = user(tx, user_id)? else { return Ok(None) };
    let name = user.name.clone();
    let grant = step_up_session(tx, user, generation, step_up, now)?;
    if grant.is_some() {
        event::append(tx, event, Some(user_id), name.as_str(), now)?;
    }
    Ok(grant)
}

fn end_session(
    tx: &Transaction<'_>,
    user: UserId,
    session: SessionId,
    now: UnixMillis,
) -> Result<Option<LogEntry>> {
    let access_exp_max: Option<i64> = tx
        .query_row(
            "DELETE FROM sessions WHERE id = ?1 AND user_id = ?2 RETURNING access_exp_max",
            params![session.uuid().as_bytes(), user.uuid().as_bytes()],
            |row| row.get(0),
        )
        .optional()?;
    let Some(access_exp_max) = access_exp_max else { return Ok(None) };
    let entry = LogEntry::new(Revoked::Session(session), LogEntry::ALL, access_exp_max, now);
    log::append(tx, &entry)?;
    Ok(Some(entry))
}

#[async_trait]
impl Sessions for Sqlite {
    async fn open_session(
        &self,
        user: UserId,
        generation: i64,
        session: &NewSession,
        event: &Event,
    ) -> store::Result<Option<Grant>> {
        let (session, event) = (session.clone(), event.clone());
        let now = self.clock.wall();
        self.connections.write(move |tx| open_session(tx, user, generation, &session, &event, now)).await
    }

    async fn rotate_session(&self, request: &RotationRequest) -> store::Result<Rotation> {
        let (request, now) = (request.clone(), self.clock.wall());
        let ends = Arc::new(OnceLock::new());
        let noted = ends.clone();
        let rotate = move |tx: &rusqlite::Transaction<'_>| {
            let rotation = rotate_session(tx, &request, now)?;
            if let Rotation::Ended(entry) = &rotation {
                let _ = noted.set(*entry);
            }
            Ok(rotation)
        };
        match (self.connections.write(rotate).await, ends.get()) {
            (Err(StoreError::OutcomeUnknown(_)), Some(entry)) => Ok(Rotation::InDoubt(*entry)),
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
        let (step_up, event, now) = (step_up.clone(), event.clone(), self.clock.wall());
        self.connections
            .write(move |tx| reauthenticate_session(tx, user, generation, &step_up, &event, now))
            .await
    }

    async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        event: Option<&Event>,
    ) -> store::Result<Option<LogEntry>> {
        let (event, now) = (event.cloned(), self.clock.wall());
        self.connections
            .write(move |tx| {
                let ended = end_session(tx, user, session, now)?;
                if let (Some(event), true) = (&event, ended.is_some()) {
                    let name = lookup::user(tx, user)?.map(|user| user.name.to_string()).unwrap_or_default();
                    event::append(tx, event, Some(user), &name, now)?;
                }
                Ok(ended)
            })
            .await
    }

    async fn session(&self, session: SessionId) -> store::Result<Option<Session>> {
        self.connections.read(move |db| lookup::session(db, session)).await
    }

    async fn sessions(&self, user: UserId, page: SessionPage) -> store::Result<Vec<Session>> {
        let now = self.clock.wall();
        self.connections.read(move |db| lookup::sessions(db, user, page, now)).await
    }
}
