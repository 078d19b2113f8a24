//! The statements, each function within one transaction.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, types::Type};
use uuid::Uuid;

use super::{audit, departed::depart, log, mail, sweep::remove_sessions};
use crate::{
    clock::UnixMillis,
    store::{
        self, AccountChange, Change, Grant, LogEntry, NewSession, NewUser, Note, Opened, Rotation,
        RotationRequest, RotationRule, Session, SessionPage, Subject, User, UserFilter, judge,
    },
    types::{Pseudonyms, Roles, SessionId, UserId, Username},
};

pub(super) type Result<T> = rusqlite::Result<T>;

pub(super) const USER: &str = "id, name, email, password_hash, roles, disabled, generation, created_at, email_verified, external_id, \
     pending_email";
const SESSION: &str = "id, user_id, generation, created_at, authenticated_at, last_used_at, ends_at, \
     refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce";

pub(super) fn broken(column: usize) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, "an illegal value".to_owned(), Type::Null)
}

pub(super) fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

pub(super) fn read_user(row: &Row<'_>) -> Result<User> {
    Ok(User {
        id: UserId::from_uuid(uuid(row, 0)?).ok_or_else(|| broken(0))?,
        name: Username::from_stored(row.get_ref(1)?.as_str()?),
        email: row.get(2)?,
        password_hash: row.get(3)?,
        roles: Roles::parse_joined(row.get_ref(4)?.as_str()?).map_err(|_| broken(4))?,
        disabled: row.get(5)?,
        generation: row.get(6)?,
        created_at: row.get(7)?,
        email_verified: row.get(8)?,
        external_id: row.get(9)?,
        pending_email: row.get(10)?,
    })
}

fn read_session(row: &Row<'_>) -> Result<Session> {
    Ok(Session {
        id: SessionId::from_uuid(uuid(row, 0)?).ok_or_else(|| broken(0))?,
        user: UserId::from_uuid(uuid(row, 1)?).ok_or_else(|| broken(1))?,
        generation: row.get(2)?,
        created_at: row.get(3)?,
        authenticated_at: row.get(4)?,
        last_used_at: row.get(5)?,
        ends_at: row.get(6)?,
        refresh_expires_at: row.get(7)?,
        rotated_at: row.get(8)?,
        refresh_number: row.get(9)?,
        current_hash: row.get(10)?,
        previous_hash: row.get(11)?,
        nonce: row.get(12)?,
    })
}

pub(super) fn schema_version(db: &Transaction<'_>) -> Result<Option<i32>> {
    let there: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'refinery_schema_history')",
        [],
        |row| row.get(0),
    )?;
    match there {
        true => db.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0)),
        false => Ok(None),
    }
}

pub(super) fn user_by_name(db: &Connection, name: &Username) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM users WHERE name = ?1"))?
        .query_row([name.as_str()], read_user)
        .optional()
}

pub(super) fn user_by_look(db: &Connection, name: &Username) -> Result<Option<User>> {
    db.prepare_cached(&format!(
        "SELECT {USER} FROM users WHERE name = ?1 OR skeleton = ?2 ORDER BY name = ?1 DESC LIMIT 1"
    ))?
    .query_row([name.as_str(), &name.skeleton()], read_user)
    .optional()
}

pub(super) fn user(db: &Connection, id: UserId) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM users WHERE id = ?1"))?
        .query_row([id.uuid().as_bytes()], read_user)
        .optional()
}

pub(super) fn user_by_external_id(db: &Connection, id: &str) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM users WHERE external_id = ?1"))?
        .query_row([id], read_user)
        .optional()
}

pub(super) fn users(db: &Connection, filter: &UserFilter) -> Result<Vec<User>> {
    db.prepare_cached(&format!(
        "SELECT {USER} FROM users WHERE name > ?1 AND (?2 OR name LIKE ?3 ESCAPE '\\' OR email_key LIKE ?3 ESCAPE '\\') \
         ORDER BY name LIMIT ?4"
    ))?
    .query_map(
        params![filter.after.as_deref().unwrap_or_default(), filter.search.is_none(), filter.pattern(), filter.limit],
        read_user,
    )?
    .collect()
}

/// Whether the row of a session is that of a live one: rows of dead ones are removed later.
const OF_THE_LIVING: &str = "generation = (SELECT generation FROM users WHERE users.id = sessions.user_id)";

pub(super) fn session(db: &Connection, id: SessionId) -> Result<Option<Session>> {
    db.prepare_cached(&format!("SELECT {SESSION} FROM sessions WHERE id = ?1 AND {OF_THE_LIVING}"))?
        .query_row([id.uuid().as_bytes()], read_session)
        .optional()
}

pub(super) fn sessions(
    db: &Connection,
    user: UserId,
    page: SessionPage,
    now: UnixMillis,
) -> Result<Vec<Session>> {
    let (created_at, id) =
        page.after.map_or((i64::MAX, vec![]), |(created_at, id)| (created_at, id.uuid().as_bytes().to_vec()));
    db.prepare_cached(&format!(
        "SELECT {SESSION} FROM sessions WHERE user_id = ?1 AND refresh_expires_at > ?2 AND ends_at > ?2 \
         AND {OF_THE_LIVING} AND (created_at < ?3 OR (created_at = ?3 AND id > ?4)) \
         ORDER BY created_at DESC, id LIMIT ?5"
    ))?
    .query_map(params![user.uuid().as_bytes(), now, created_at, id, page.limit], read_session)?
    .collect()
}

pub(super) fn create_user(
    tx: &Transaction<'_>,
    new: &NewUser,
    session: Option<&NewSession>,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Option<Opened>> {
    let mut skeleton = new.name.skeleton();
    let former = pseudonyms.of(&skeleton);
    let retired: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN (?1, ?2))",
        [&skeleton, &former],
        |row| row.get(0),
    )?;
    if retired && !new.release {
        return Ok(None);
    }
    if new.similar {
        let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE skeleton = ?1)";
        if tx.query_row(sql, [&skeleton], |row| row.get(0))? {
            skeleton = new.name.own_skeleton(new.id);
        }
    }
    let made = tx.execute(
        "INSERT OR IGNORE INTO users (id, name, skeleton, email, password_hash, roles, created_at, email_key) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        params![
            new.id.uuid().as_bytes(),
            new.name.as_str(),
            skeleton,
            new.email,
            new.password_hash,
            new.roles.to_string(),
            now,
            new.email.as_deref().map(str::to_lowercase)
        ],
    )?;
    if made == 0 {
        return Ok(None);
    }
    if new.release {
        let sql = "DELETE FROM retired_names WHERE skeleton IN (?1, ?2)";
        tx.execute(sql, [new.name.skeleton(), former])?;
    }
    if let Some(note) = &new.note {
        audit::append(tx, note, Some(new.id), new.name.as_str(), now)?;
    }
    if let Some(mail) = &new.mail {
        mail::enqueue(tx, mail, now)?;
    }
    let user = user(tx, new.id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let grant = match session {
        Some(session) => Some(insert_session(tx, user.clone(), session, now)?),
        None => None,
    };
    Ok(Some(Opened { user, grant }))
}

pub(super) fn release_name(
    tx: &Transaction<'_>,
    name: &Username,
    note: &Note,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<bool> {
    let looks = [name.skeleton(), pseudonyms.of(&name.skeleton())];
    let released = tx.execute("DELETE FROM retired_names WHERE skeleton IN (?1, ?2)", looks)? > 0;
    if released {
        // Whose it was may be nobody's business any more.
        audit::append(tx, note, None, &pseudonyms.of(name.as_str()), now)?;
    }
    Ok(released)
}

pub(super) fn open_session(
    tx: &Transaction<'_>,
    id: UserId,
    password_hash: &str,
    session: &NewSession,
    note: &Note,
    now: UnixMillis,
) -> Result<Option<Grant>> {
    match user(tx, id)? {
        Some(user) if !user.disabled && user.password_hash == password_hash => {
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

fn insert_session(tx: &Transaction<'_>, user: User, new: &NewSession, now: UnixMillis) -> Result<Grant> {
    let ended = make_room(tx, &user, new.most, now)?;
    tx.prepare_cached(
        "INSERT INTO sessions (id, user_id, generation, created_at, authenticated_at, last_used_at, ends_at, \
         refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce, access_exp_max) \
         VALUES (?1, ?2, ?3, ?4, ?4, ?4, ?5, ?6, ?4, 0, ?7, NULL, ?8, ?9)",
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
        new.ttls.access_end(now)
    ])?;
    raise_user_expiry(tx, user.id, new.ttls.access_end(now))?;
    Ok(Grant { user, session: new.id, session_ends_at: new.ttls.session_end(now), issued_at: now, ended })
}

fn raise_user_expiry(tx: &Transaction<'_>, user: UserId, access_end: UnixMillis) -> Result<()> {
    tx.prepare_cached("UPDATE users SET access_exp_max = max(access_exp_max, ?2) WHERE id = ?1")?
        .execute(params![user.uuid().as_bytes(), access_end])?;
    Ok(())
}

pub(super) fn rehash(tx: &Transaction<'_>, user: UserId, old: &str, new: &str) -> Result<()> {
    tx.execute(
        "UPDATE users SET password_hash = ?3, foreign_scheme = NULL WHERE id = ?1 AND password_hash = ?2",
        params![user.uuid().as_bytes(), old, new],
    )?;
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
    let entry = LogEntry::new(Subject::Session(session), LogEntry::ALL, access_exp_max, now);
    log::append(tx, &entry)?;
    Ok(Some(entry))
}

pub(super) fn change_user(
    tx: &Transaction<'_>,
    id: UserId,
    change: &AccountChange,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Change> {
    let Some(user) = user(tx, id)? else { return Ok(Change::Gone) };
    if change.expected_hash.as_ref().is_some_and(|hash| *hash != user.password_hash) {
        return Ok(Change::Gone);
    }
    if change.expected_generation.is_some_and(|expected| expected != user.generation) {
        return Ok(Change::Conflict);
    }
    let mut rekeyed = None;
    if let Some(rekey) = &change.rekey {
        let own = session(tx, rekey.session.id)?;
        let own = own.filter(|own| own.user == id && own.generation == user.generation);
        let Some(own) = own else { return Ok(Change::Gone) };
        rekeyed = Some((rekey, own.ends_at));
    }
    if change.keep_last_admin && change.takes_admin_from(&user) {
        let others: Vec<String> = tx
            .prepare_cached(
                "SELECT roles FROM users WHERE id <> ?1 AND NOT disabled AND roles LIKE '%admin%'",
            )?
            .query_map([id.uuid().as_bytes()], |row| row.get(0))?
            .collect::<Result<_>>()?;
        if !crate::store::any_admin(&others) {
            return Ok(Change::LastAdmin);
        }
    }
    let renamed = change.name.as_ref().filter(|name| **name != user.name);
    if let Some(name) = renamed {
        let taken: bool = tx.query_row(
            "SELECT EXISTS (SELECT 1 FROM users WHERE id <> ?1 AND (name = ?2 OR skeleton = ?3)) \
             OR EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN (?3, ?4) AND user_id IS NOT ?1)",
            params![id.uuid().as_bytes(), name.as_str(), name.skeleton(), pseudonyms.of(&name.skeleton())],
            |row| row.get(0),
        )?;
        if taken {
            return Ok(Change::NameTaken);
        }
    }
    if let Some(token_hash) = &change.spends
        && !mail::spend_reset(tx, &user, token_hash, now)?
    {
        return Ok(Change::Gone);
    }
    let access_exp_max: i64 =
        tx.query_row("SELECT access_exp_max FROM users WHERE id = ?1", [id.uuid().as_bytes()], |row| {
            row.get(0)
        })?;
    let entry = LogEntry::new(Subject::User(id), user.generation + 1, access_exp_max, now);
    log::append(tx, &entry)?;
    if let Some(note) = &change.note {
        audit::append(tx, note, Some(id), user.name.as_str(), now)?;
    }
    if change.delete || renamed.is_some_and(|name| name.skeleton() != user.name.skeleton()) {
        let holder = (!change.delete).then_some(id.uuid());
        // A look that it only shared is guarded by the account that has it.
        tx.execute(
            "INSERT INTO retired_names (skeleton, name, retired_at, user_id) \
             SELECT skeleton, name, ?3, ?4 FROM users WHERE id = ?1 AND skeleton = ?2 \
             ON CONFLICT (skeleton) DO UPDATE SET name = excluded.name, user_id = excluded.user_id",
            params![
                id.uuid().as_bytes(),
                user.name.skeleton(),
                now,
                holder.as_ref().map(|holder| holder.as_bytes())
            ],
        )?;
    }
    if change.delete {
        tx.execute("UPDATE retired_names SET user_id = NULL WHERE user_id = ?1", [id.uuid().as_bytes()])?;
        depart(tx, id)?;
        remove_sessions(tx, id, None, i64::MAX)?;
        tx.execute("DELETE FROM users WHERE id = ?1", [id.uuid().as_bytes()])?;
        return Ok(Change::Done(entry, None));
    }
    if let Some(name) = renamed {
        tx.execute(
            "UPDATE users SET name = ?2, skeleton = ?3 WHERE id = ?1",
            params![id.uuid().as_bytes(), name.as_str(), name.skeleton()],
        )?;
        // Its own again.
        tx.execute("DELETE FROM retired_names WHERE skeleton = ?1", [name.skeleton()])?;
    }
    match &change.email {
        Some(Some(email)) if change.email_pending && user.email_verified => {
            // The same once more takes back what was pending.
            let pending = Some(email).filter(|email| user.email.as_ref() != Some(email));
            tx.execute(
                "UPDATE users SET pending_email = ?2 WHERE id = ?1",
                params![id.uuid().as_bytes(), pending],
            )?;
        }
        Some(email) => {
            tx.execute(
                "UPDATE users SET email = ?2, email_key = ?3, email_verified = 0, pending_email = NULL WHERE id = ?1",
                params![id.uuid().as_bytes(), email, email.as_deref().map(str::to_lowercase)],
            )?;
        }
        None => {}
    }
    tx.execute(
        "UPDATE users SET generation = generation + 1, password_hash = coalesce(?2, password_hash), \
         roles = coalesce(?3, roles), disabled = coalesce(?4, disabled), \
         foreign_scheme = CASE WHEN ?2 IS NULL THEN foreign_scheme END, \
         pending_email = CASE WHEN ?5 THEN NULL ELSE pending_email END WHERE id = ?1",
        params![
            id.uuid().as_bytes(),
            change.password_hash,
            change.roles.as_ref().map(Roles::to_string),
            change.disabled,
            change.forgets_pending()
        ],
    )?;
    remove_sessions(tx, id, rekeyed.map(|(rekey, _)| rekey.session.id), user.generation + 1)?;
    for mail in &change.mails {
        mail::enqueue(tx, mail, now)?;
    }
    let Some((rekey, session_ends_at)) = rekeyed else { return Ok(Change::Done(entry, None)) };
    let access_end = rekey.session.ttls.access_end(now);
    raise_user_expiry(tx, id, access_end)?;
    tx.execute(
        "UPDATE sessions SET generation = ?2, last_used_at = ?3, refresh_expires_at = ?4, rotated_at = ?3, \
         refresh_number = 0, current_hash = ?5, previous_hash = NULL, nonce = ?6, \
         access_exp_max = max(access_exp_max, ?7), \
         authenticated_at = CASE WHEN ?8 THEN ?3 ELSE authenticated_at END WHERE id = ?1",
        params![
            rekey.session.id.uuid().as_bytes(),
            user.generation + 1,
            now,
            rekey.session.ttls.refresh_end(now, session_ends_at),
            rekey.session.refresh_hash,
            rekey.session.nonce,
            access_end,
            rekey.authenticated
        ],
    )?;
    let changed = self::user(tx, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let session = rekey.session.id;
    let grant = Grant { user: changed, session, session_ends_at, issued_at: now, ended: Vec::new() };
    Ok(Change::Done(entry, Some(Box::new(grant))))
}
