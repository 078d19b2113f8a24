//! What becomes of sessions, each function within one transaction.

use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::{
    audit, log,
    lookup::{session, user},
    statement::{Result, uuid},
};
use crate::{
    clock::UnixMillis,
    store::{
        self, Grant, LogEntry, NewSession, Note, Revoked, Rotation, RotationRequest, RotationRule, User,
        judge,
    },
    types::{SessionId, UserId},
};

pub(super) fn open_session(
    tx: &Transaction<'_>,
    id: UserId,
    generation: i64,
    session: &NewSession,
    note: &Note,
    now: UnixMillis,
) -> Result<Option<Grant>> {
    match user(tx, id)? {
        Some(user) if !user.disabled && user.generation == generation => {
            audit::append(tx, note, Some(id), user.name.as_str(), now)?;
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
            params![user.id.uuid().as_bytes(), user.generation, most, store::MOST_ENDED_FOR_ONE],
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
         methods, address, user_agent) \
         VALUES (?1, ?2, ?3, ?4, ?4, ?4, ?5, ?6, ?4, 0, ?7, NULL, ?8, ?9, ?10, ?11, ?12)",
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
        new.proof.method(),
        new.place.address,
        new.place.user_agent
    ])?;
    raise_user_expiry(tx, user.id, new.ttls.access_end(now))?;
    Ok(Grant { user, session: new.id, session_ends_at: new.ttls.session_end(now), issued_at: now, ended })
}

pub(super) fn raise_user_expiry(tx: &Transaction<'_>, user: UserId, access_end: UnixMillis) -> Result<()> {
    tx.prepare_cached("UPDATE users SET access_exp_max = max(access_exp_max, ?2) WHERE id = ?1")?
        .execute(params![user.uuid().as_bytes(), access_end])?;
    Ok(())
}

pub(super) fn rotate_session(
    tx: &Transaction<'_>,
    request: &RotationRequest,
    now: UnixMillis,
) -> Result<Rotation> {
    let Some(session) = session(tx, request.session)? else { return Ok(Rotation::Refused) };
    let Some(user) = user(tx, session.user)? else { return Ok(Rotation::Refused) };
    match judge(&session, &user, &request.presented, now, request.grace) {
        RotationRule::Refuse => Ok(Rotation::Refused),
        RotationRule::EndSession => {
            audit::append(tx, &request.replayed, Some(user.id), user.name.as_str(), now)?;
            Ok(end_session(tx, user.id, session.id, now)?.map_or(Rotation::Refused, Rotation::Ended))
        }
        rule => {
            let access_end = request.ttls.access_end(now);
            raise_user_expiry(tx, user.id, access_end)?;
            let id = session.id.uuid();
            tx.prepare_cached(
                "UPDATE sessions SET last_used_at = ?2, access_exp_max = max(access_exp_max, ?3) WHERE id = ?1",
            )?
            .execute(params![id.as_bytes(), now, access_end])?;
            let session_ends_at = session.ends_at;
            let grant =
                Grant { user, session: session.id, session_ends_at, issued_at: now, ended: Vec::new() };
            if rule == RotationRule::Replay {
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

pub(super) fn end_session(
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
