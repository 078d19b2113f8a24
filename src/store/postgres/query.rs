//! The statements. Each function runs within one transaction, its locks taken user first.

use deadpool_postgres::{Client, GenericClient, Transaction};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    audit,
    connection::{QueryError, QueryResult as Result},
    departed::depart,
    log, mail,
    sweep::remove_sessions,
};
use crate::{
    clock::UnixMillis,
    store::{
        self, AccountChange, Change, Grant, LogEntry, NewSession, NewUser, Note, Opened, Rotation,
        RotationRequest, RotationRule, Session, SessionPage, Subject, User, UserFilter, judge,
    },
    types::{Pseudonyms, Roles, SessionId, UserId, Username},
};

pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
pub(super) const USER: &str = "id, name, email, password_hash, roles, disabled, generation, created_at, email_verified, external_id, \
     pending_email";
const SESSION: &str = "id, user_id, generation, created_at, authenticated_at, last_used_at, ends_at, \
     refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce";

pub(super) fn read_user(row: &Row) -> Result<User> {
    Ok(User {
        id: UserId::from_uuid(row.try_get(0)?).ok_or(QueryError::Broken("users.id"))?,
        name: Username::from_stored(row.try_get(1)?),
        email: row.try_get(2)?,
        password_hash: row.try_get(3)?,
        roles: Roles::parse_joined(row.try_get(4)?).map_err(|_| QueryError::Broken("users.roles"))?,
        disabled: row.try_get(5)?,
        generation: row.try_get(6)?,
        created_at: row.try_get(7)?,
        email_verified: row.try_get(8)?,
        external_id: row.try_get(9)?,
        pending_email: row.try_get(10)?,
    })
}

fn fixed<const N: usize>(bytes: &[u8], column: &'static str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| QueryError::Broken(column))
}

fn read_session(row: &Row) -> Result<Session> {
    let previous: Option<&[u8]> = row.try_get(11)?;
    let number: i64 = row.try_get(9)?;
    Ok(Session {
        id: SessionId::from_uuid(row.try_get(0)?).ok_or(QueryError::Broken("sessions.id"))?,
        user: UserId::from_uuid(row.try_get(1)?).ok_or(QueryError::Broken("sessions.user_id"))?,
        generation: row.try_get(2)?,
        created_at: row.try_get(3)?,
        authenticated_at: row.try_get(4)?,
        last_used_at: row.try_get(5)?,
        ends_at: row.try_get(6)?,
        refresh_expires_at: row.try_get(7)?,
        rotated_at: row.try_get(8)?,
        refresh_number: u32::try_from(number).map_err(|_| QueryError::Broken("sessions.refresh_number"))?,
        current_hash: fixed(row.try_get(10)?, "sessions.current_hash")?,
        previous_hash: previous.map(|hash| fixed(hash, "sessions.previous_hash")).transpose()?,
        nonce: fixed(row.try_get(12)?, "sessions.nonce")?,
    })
}

pub(super) async fn one<T>(
    db: &impl GenericClient,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    read: fn(&Row) -> Result<T>,
) -> Result<Option<T>> {
    let statement = db.prepare_cached(sql).await?;
    db.query_opt(&statement, params).await?.as_ref().map(read).transpose()
}

pub(super) async fn run(
    db: &impl GenericClient,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<u64> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, params).await?)
}

pub(super) fn only<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row) -> Result<T> {
    Ok(row.try_get(0)?)
}

pub(super) fn only_i64(row: &Row) -> Result<i64> {
    only(row)
}

pub(super) fn only_bool(row: &Row) -> Result<bool> {
    only(row)
}

pub(super) async fn now(db: &impl GenericClient) -> Result<UnixMillis> {
    Ok(one(db, &format!("SELECT {NOW}"), &[], only_i64).await?.unwrap_or_default())
}

pub(super) async fn schema_version(db: &Client) -> Result<Option<i32>> {
    let there = one(db, "SELECT to_regclass('refinery_schema_history') IS NOT NULL", &[], only_bool).await?;
    if there != Some(true) {
        return Ok(None);
    }
    let row = db.query_one("SELECT max(version)::int FROM refinery_schema_history", &[]).await?;
    Ok(row.try_get(0)?)
}

pub(super) async fn user_by_name(db: &Client, name: &Username) -> Result<Option<User>> {
    one(db, &format!("SELECT {USER} FROM users WHERE name = $1"), &[&name.as_str()], read_user).await
}

pub(super) async fn user_by_look(db: &Client, name: &Username) -> Result<Option<User>> {
    let sql =
        format!("SELECT {USER} FROM users WHERE name = $1 OR skeleton = $2 ORDER BY name = $1 DESC LIMIT 1");
    one(db, &sql, &[&name.as_str(), &name.skeleton()], read_user).await
}

pub(super) async fn user(db: &impl GenericClient, id: UserId) -> Result<Option<User>> {
    one(db, &format!("SELECT {USER} FROM users WHERE id = $1"), &[&id.uuid()], read_user).await
}

pub(super) async fn lock_user(tx: &Transaction<'_>, id: UserId) -> Result<Option<User>> {
    let sql = format!("SELECT {USER} FROM users WHERE id = $1 FOR NO KEY UPDATE");
    one(tx, &sql, &[&id.uuid()], read_user).await
}

async fn lock_session(tx: &Transaction<'_>, id: SessionId) -> Result<Option<Session>> {
    let sql = format!("SELECT {SESSION} FROM sessions WHERE id = $1 FOR UPDATE");
    one(tx, &sql, &[&id.uuid()], read_session).await
}

pub(super) async fn user_by_external_id(db: &impl GenericClient, id: &str) -> Result<Option<User>> {
    // PostgreSQL refuses text that no column of it can hold.
    if id.contains('\0') {
        return Ok(None);
    }
    one(db, &format!("SELECT {USER} FROM users WHERE external_id = $1"), &[&id], read_user).await
}

pub(super) async fn users(db: &Client, filter: &UserFilter) -> Result<Vec<User>> {
    let sql = format!(
        r#"SELECT {USER} FROM users WHERE name COLLATE "C" > $1 AND ($2 OR name LIKE $3 ESCAPE '\' OR email_key LIKE $3 ESCAPE '\')
         ORDER BY name COLLATE "C" LIMIT $4"#
    );
    let statement = db.prepare_cached(&sql).await?;
    let (after, all) = (filter.after.as_deref().unwrap_or_default(), filter.search.is_none());
    let rows = db.query(&statement, &[&after, &all, &filter.pattern(), &i64::from(filter.limit)]).await?;
    rows.iter().map(read_user).collect()
}

/// Whether the row of a session is that of a live one: rows of dead ones are removed later.
const OF_THE_LIVING: &str = "generation = (SELECT generation FROM users WHERE users.id = sessions.user_id)";

pub(super) async fn session(db: &Client, id: SessionId) -> Result<Option<Session>> {
    let sql = format!("SELECT {SESSION} FROM sessions WHERE id = $1 AND {OF_THE_LIVING}");
    one(db, &sql, &[&id.uuid()], read_session).await
}

pub(super) async fn sessions(db: &Client, user: UserId, page: SessionPage) -> Result<Vec<Session>> {
    let sql = format!(
        "SELECT {SESSION} FROM sessions WHERE user_id = $1 AND least(refresh_expires_at, ends_at) > {NOW} \
         AND {OF_THE_LIVING} AND (created_at < $2 OR (created_at = $2 AND id > $3)) \
         ORDER BY created_at DESC, id LIMIT $4"
    );
    let (created_at, id) =
        page.after.map_or((i64::MAX, Uuid::nil()), |(created_at, id)| (created_at, id.uuid()));
    let statement = db.prepare_cached(&sql).await?;
    let rows = db.query(&statement, &[&user.uuid(), &created_at, &id, &i64::from(page.limit)]).await?;
    rows.iter().map(read_session).collect()
}

async fn is_retired(tx: &Transaction<'_>, looks: &[String]) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM retired_names WHERE skeleton = ANY($1))";
    Ok(one(tx, sql, &[&looks], only_bool).await? == Some(true))
}

pub(super) async fn create_user(
    tx: &Transaction<'_>,
    new: &NewUser,
    session: Option<&NewSession>,
    pseudonyms: &Pseudonyms,
) -> Result<Option<Opened>> {
    let mut skeleton = new.name.skeleton();
    let looks = vec![skeleton.clone(), pseudonyms.of(&skeleton)];
    if new.similar {
        let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE skeleton = $1)";
        if one(tx, sql, &[&skeleton], only_bool).await? == Some(true) {
            skeleton = new.name.own_skeleton(new.id);
        }
    }
    // A retired name is looked for after the insert: a deletion that the insert had to wait for has
    // committed by then and is seen.
    let made = run(
        tx,
        &format!(
            "INSERT INTO users (id, name, skeleton, email, password_hash, roles, created_at, email_key) \
             VALUES ($1, $2, $3, $4, $5, $6, {NOW}, $7) ON CONFLICT DO NOTHING"
        ),
        &[
            &new.id.uuid(),
            &new.name.as_str(),
            &skeleton,
            &new.email,
            &new.password_hash,
            &new.roles.to_string(),
            &new.email.as_deref().map(str::to_lowercase),
        ],
    )
    .await?;
    if made == 0 {
        return Ok(None);
    }
    if new.release {
        release(tx, &looks).await?;
    }
    if is_retired(tx, &looks).await? {
        run(tx, "DELETE FROM users WHERE id = $1", &[&new.id.uuid()]).await?;
        return Ok(None);
    }
    if let Some(mail) = &new.mail {
        mail::enqueue(tx, mail).await?;
    }
    let Some(user) = user(tx, new.id).await? else { return Ok(None) };
    if let Some(note) = &new.note {
        audit::append(tx, note, Some(new.id), new.name.as_str()).await?;
    }
    let grant = match session {
        Some(session) => Some(insert_session(tx, user.clone(), session).await?),
        None => None,
    };
    Ok(Some(Opened { user, grant }))
}

/// Removes what keeps a name reserved; whether there was anything.
async fn release(tx: &Transaction<'_>, looks: &Vec<String>) -> Result<bool> {
    let sql = "DELETE FROM retired_names WHERE skeleton = ANY($1)";
    // A second time: where the first had to wait for the clean-up, that has put a pseudonym in the name's place.
    Ok(run(tx, sql, &[looks]).await? + run(tx, sql, &[looks]).await? > 0)
}

pub(super) async fn release_name(
    tx: &Transaction<'_>,
    name: &Username,
    note: &Note,
    pseudonyms: &Pseudonyms,
) -> Result<bool> {
    let looks = vec![name.skeleton(), pseudonyms.of(&name.skeleton())];
    let released = release(tx, &looks).await?;
    if released {
        // Whose it was may be nobody's business any more.
        audit::append(tx, note, None, &pseudonyms.of(name.as_str())).await?;
    }
    Ok(released)
}

pub(super) async fn open_session(
    tx: &Transaction<'_>,
    id: UserId,
    password_hash: &str,
    session: &NewSession,
    note: &Note,
) -> Result<Option<Grant>> {
    match lock_user(tx, id).await? {
        Some(user) if !user.disabled && user.password_hash == password_hash => {
            audit::append(tx, note, Some(id), user.name.as_str()).await?;
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
    let rows =
        tx.query(&statement, &[&user.id.uuid(), &user.generation, &most, &store::MOST_ENDED_FOR_ONE]).await?;
    let mut ended = Vec::new();
    for row in rows {
        if let Some(id) = SessionId::from_uuid(only(&row)?) {
            ended.extend(end_locked_session(tx, user.id, id).await?);
        }
    }
    Ok(ended)
}

async fn insert_session(tx: &Transaction<'_>, user: User, new: &NewSession) -> Result<Grant> {
    let ended = make_room(tx, &user, new.most).await?;
    let now = now(tx).await?;
    run(
        tx,
        "INSERT INTO sessions (id, user_id, generation, created_at, authenticated_at, last_used_at, ends_at, \
         refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce, access_exp_max) \
         VALUES ($1, $2, $3, $4, $4, $4, $5, $6, $4, 0, $7, NULL, $8, $9)",
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
        ],
    )
    .await?;
    raise_user_expiry(tx, user.id, new.ttls.access_end(now)).await?;
    Ok(Grant { user, session: new.id, session_ends_at: new.ttls.session_end(now), issued_at: now, ended })
}

async fn raise_user_expiry(tx: &Transaction<'_>, user: UserId, access_end: UnixMillis) -> Result<()> {
    let sql = "UPDATE users SET access_exp_max = greatest(access_exp_max, $2) WHERE id = $1";
    run(tx, sql, &[&user.uuid(), &access_end]).await.map(drop)
}

pub(super) async fn rehash(tx: &Transaction<'_>, user: UserId, old: &str, new: &str) -> Result<()> {
    let sql =
        "UPDATE users SET password_hash = $3, foreign_scheme = NULL WHERE id = $1 AND password_hash = $2";
    run(tx, sql, &[&user.uuid(), &old, &new]).await.map(drop)
}

pub(super) async fn rotate_session(tx: &Transaction<'_>, request: &RotationRequest) -> Result<Rotation> {
    // The owner never changes, so it may be read before the locks are taken in their order.
    let owner = one(tx, "SELECT user_id FROM sessions WHERE id = $1", &[&request.session.uuid()], |row| {
        UserId::from_uuid(only::<Uuid>(row)?).ok_or(QueryError::Broken("sessions.user_id"))
    })
    .await?;
    let Some(owner) = owner else { return Ok(Rotation::Refused) };
    let Some(user) = lock_user(tx, owner).await? else { return Ok(Rotation::Refused) };
    let Some(session) = lock_session(tx, request.session).await? else { return Ok(Rotation::Refused) };
    let now = now(tx).await?;
    match judge(&session, &user, &request.presented, now, request.grace) {
        RotationRule::Refuse => Ok(Rotation::Refused),
        RotationRule::EndSession => {
            audit::append(tx, &request.replayed, Some(user.id), user.name.as_str()).await?;
            Ok(end_locked_session(tx, user.id, session.id).await?.map_or(Rotation::Refused, Rotation::Ended))
        }
        rule => {
            let access_end = request.ttls.access_end(now);
            raise_user_expiry(tx, user.id, access_end).await?;
            let id = session.id.uuid();
            let used = "UPDATE sessions SET last_used_at = $2, access_exp_max = greatest(access_exp_max, $3) WHERE id = $1";
            run(tx, used, &[&id, &now, &access_end]).await?;
            let session_ends_at = session.ends_at;
            let grant =
                Grant { user, session: session.id, session_ends_at, issued_at: now, ended: Vec::new() };
            if rule == RotationRule::Replay {
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

pub(super) async fn end_session(
    tx: &Transaction<'_>,
    user: UserId,
    session: SessionId,
    note: Option<&Note>,
) -> Result<Option<LogEntry>> {
    let Some(owner) = lock_user(tx, user).await? else { return Ok(None) };
    let ended = end_locked_session(tx, user, session).await?;
    if let (Some(note), true) = (note, ended.is_some()) {
        audit::append(tx, note, Some(user), owner.name.as_str()).await?;
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
    let entry = LogEntry::new(Subject::Session(session), LogEntry::ALL, access_exp_max, now(tx).await?);
    log::append(tx, &entry).await?;
    Ok(Some(entry))
}

pub(super) async fn change_user(
    tx: &Transaction<'_>,
    id: UserId,
    change: &AccountChange,
    pseudonyms: &Pseudonyms,
) -> Result<Change> {
    let Some(user) = lock_user(tx, id).await? else { return Ok(Change::Gone) };
    if change.expected_hash.as_ref().is_some_and(|hash| *hash != user.password_hash) {
        return Ok(Change::Gone);
    }
    if change.expected_generation.is_some_and(|expected| expected != user.generation) {
        return Ok(Change::Conflict);
    }
    let mut rekeyed = None;
    if let Some(rekey) = &change.rekey {
        let own = lock_session(tx, rekey.session.id).await?;
        let own = own.filter(|own| own.user == id && own.generation == user.generation);
        let Some(own) = own else { return Ok(Change::Gone) };
        rekeyed = Some((rekey, own.ends_at));
    }
    if change.keep_last_admin && change.takes_admin_from(&user) {
        // Two admins who remove each other at once must not both succeed.
        tx.execute("SELECT pg_advisory_xact_lock(hashtext('authgate last admin'))", &[]).await?;
        let others = tx
            .query(
                "SELECT roles FROM users WHERE id <> $1 AND NOT disabled AND roles LIKE '%admin%'",
                &[&id.uuid()],
            )
            .await?
            .iter()
            .map(only::<String>)
            .collect::<Result<Vec<_>>>()?;
        if !crate::store::any_admin(&others) {
            return Ok(Change::LastAdmin);
        }
    }
    let now = now(tx).await?;
    let renamed = change.name.as_ref().filter(|name| **name != user.name);
    let retires = change.delete || renamed.is_some_and(|name| name.skeleton() != user.name.skeleton());
    // A look that it only shared is guarded by the account that has it.
    let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE id = $1 AND skeleton = $2)";
    let retires =
        retires && one(tx, sql, &[&id.uuid(), &user.name.skeleton()], only_bool).await? == Some(true);
    if let Some(name) = renamed {
        let sql = "UPDATE users SET name = $2, skeleton = $3 WHERE id = $1 \
             AND NOT EXISTS (SELECT 1 FROM users WHERE id <> $1 AND (name = $2 OR skeleton = $3)) \
             AND NOT EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN ($3, $4) AND user_id IS DISTINCT FROM $1)";
        let skeleton = name.skeleton();
        let former = pseudonyms.of(&skeleton);
        match run(tx, sql, &[&id.uuid(), &name.as_str(), &skeleton, &former]).await {
            Ok(0) => return Ok(Change::NameTaken),
            Ok(_) => {}
            Err(QueryError::Postgres(error))
                if error.code() == Some(&tokio_postgres::error::SqlState::UNIQUE_VIOLATION) =>
            {
                return Ok(Change::NameTaken);
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(token_hash) = &change.spends
        && !mail::spend_reset(tx, &user, token_hash).await?
    {
        return Ok(Change::Gone);
    }
    let sql = "SELECT access_exp_max FROM users WHERE id = $1";
    let access_exp_max = one(tx, sql, &[&id.uuid()], only_i64).await?.unwrap_or(now);
    let entry = LogEntry::new(Subject::User(id), user.generation + 1, access_exp_max, now);
    log::append(tx, &entry).await?;
    if let Some(note) = &change.note {
        audit::append(tx, note, Some(id), user.name.as_str()).await?;
    }
    if retires {
        let sql = "INSERT INTO retired_names (skeleton, name, retired_at, user_id) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (skeleton) DO UPDATE SET name = excluded.name, user_id = excluded.user_id";
        let holder = (!change.delete).then_some(id.uuid());
        run(tx, sql, &[&user.name.skeleton(), &user.name.as_str(), &now, &holder]).await?;
    }
    if let Some(name) = renamed {
        // Its own again.
        run(tx, "DELETE FROM retired_names WHERE skeleton = $1", &[&name.skeleton()]).await?;
    }
    if change.delete {
        run(tx, "UPDATE retired_names SET user_id = NULL WHERE user_id = $1", &[&id.uuid()]).await?;
        depart(tx, id).await?;
        remove_sessions(tx, id, None, i64::MAX).await?;
        run(tx, "DELETE FROM users WHERE id = $1", &[&id.uuid()]).await?;
        return Ok(Change::Done(entry, None));
    }
    match &change.email {
        Some(Some(email)) if change.email_pending && user.email_verified => {
            // The same once more takes back what was pending.
            let pending = Some(email).filter(|email| user.email.as_ref() != Some(email));
            run(tx, "UPDATE users SET pending_email = $2 WHERE id = $1", &[&id.uuid(), &pending]).await?;
        }
        Some(email) => {
            let sql = "UPDATE users SET email = $2, email_key = $3, email_verified = FALSE, \
                 pending_email = NULL WHERE id = $1";
            run(tx, sql, &[&id.uuid(), email, &email.as_deref().map(str::to_lowercase)]).await?;
        }
        None => {}
    }
    run(
        tx,
        "UPDATE users SET generation = generation + 1, password_hash = coalesce($2, password_hash), \
         roles = coalesce($3, roles), disabled = coalesce($4, disabled), \
         foreign_scheme = CASE WHEN $2::text IS NULL THEN foreign_scheme END, \
         pending_email = CASE WHEN $5 THEN NULL ELSE pending_email END WHERE id = $1",
        &[
            &id.uuid(),
            &change.password_hash,
            &change.roles.as_ref().map(Roles::to_string),
            &change.disabled,
            &change.forgets_pending(),
        ],
    )
    .await?;
    let kept = rekeyed.map(|(rekey, _)| rekey.session.id);
    remove_sessions(tx, id, kept, user.generation + 1).await?;
    for mail in &change.mails {
        mail::enqueue(tx, mail).await?;
    }
    let Some((rekey, session_ends_at)) = rekeyed else { return Ok(Change::Done(entry, None)) };
    let access_end = rekey.session.ttls.access_end(now);
    raise_user_expiry(tx, id, access_end).await?;
    run(
        tx,
        "UPDATE sessions SET generation = $2, last_used_at = $3, refresh_expires_at = $4, rotated_at = $3, \
         refresh_number = 0, current_hash = $5, previous_hash = NULL, nonce = $6, \
         access_exp_max = greatest(access_exp_max, $7), \
         authenticated_at = CASE WHEN $8 THEN $3 ELSE authenticated_at END WHERE id = $1",
        &[
            &rekey.session.id.uuid(),
            &(user.generation + 1),
            &now,
            &rekey.session.ttls.refresh_end(now, session_ends_at),
            &rekey.session.refresh_hash.as_slice(),
            &rekey.session.nonce.as_slice(),
            &access_end,
            &rekey.authenticated,
        ],
    )
    .await?;
    let Some(changed) = self::user(tx, id).await? else { return Ok(Change::Gone) };
    let session = rekey.session.id;
    let grant = Grant { user: changed, session, session_ends_at, issued_at: now, ended: Vec::new() };
    Ok(Change::Done(entry, Some(Box::new(grant))))
}
