//! Accounts and sessions as they are read.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::statement::{Result, broken, uuid};
use crate::{
    clock::UnixMillis,
    store::{Place, SESSION, Session, SessionKind, SessionPage, USER, User, UserFilter},
    types::{Attributes, Proofs, Role, Roles, SessionId, UserId, Username},
};

pub(super) fn read_user(row: &Row<'_>) -> Result<User> {
    Ok(User {
        id: UserId::from_uuid(uuid(row, "id")?).ok_or_else(|| broken("id"))?,
        name: Username::from_stored(row.get_ref("name")?.as_str()?),
        email: row.get("email")?,
        password_hash: row.get("password_hash")?,
        roles: Roles::parse_joined(row.get_ref("roles")?.as_str()?).map_err(|_| broken("roles"))?,
        disabled: row.get("disabled")?,
        generation: row.get("generation")?,
        created_at: row.get("created_at")?,
        email_verified: row.get("email_verified")?,
        external_id: row.get("external_id")?,
        pending_email: row.get("pending_email")?,
        password_by_mail: row.get("password_by_mail")?,
        must_change_password: row.get("must_change_password")?,
        has_factors: row.get("has_factors")?,
        email_is_weak: row.get("email_is_weak")?,
        attributes: read_attributes(row)?,
    })
}

pub(super) fn read_attributes(row: &Row<'_>) -> Result<Attributes> {
    Attributes::parse(row.get_ref("attributes")?.as_str()?).ok_or_else(|| broken("users.attributes"))
}

pub(super) fn read_session(row: &Row<'_>) -> Result<Session> {
    Ok(Session {
        id: SessionId::from_uuid(uuid(row, "id")?).ok_or_else(|| broken("id"))?,
        user: UserId::from_uuid(uuid(row, "user_id")?).ok_or_else(|| broken("user_id"))?,
        kind: SessionKind::read(row.get("kind")?).ok_or_else(|| broken("kind"))?,
        generation: row.get("generation")?,
        created_at: row.get("created_at")?,
        authenticated_at: row.get("authenticated_at")?,
        proofs: Proofs::parse(row.get_ref("methods")?.as_str()?),
        last_used_at: row.get("last_used_at")?,
        ends_at: row.get("ends_at")?,
        refresh_expires_at: row.get("refresh_expires_at")?,
        rotated_at: row.get("rotated_at")?,
        refresh_number: row.get("refresh_number")?,
        current_hash: row.get("current_hash")?,
        previous_hash: row.get("previous_hash")?,
        nonce: row.get("nonce")?,
        place: Place { address: row.get("address")?, user_agent: row.get("user_agent")? },
    })
}

pub(super) fn user_by_name(db: &Connection, name: &Username) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM accounts WHERE name = ?1"))?
        .query_row([name.as_str()], read_user)
        .optional()
}

pub(super) fn user_by_skeleton(db: &Connection, name: &Username) -> Result<Option<User>> {
    db.prepare_cached(&format!(
        "SELECT {USER} FROM accounts WHERE name = ?1 OR skeleton = ?2 ORDER BY name = ?1 DESC LIMIT 1"
    ))?
    .query_row([name.as_str(), &name.skeleton()], read_user)
    .optional()
}

pub(super) fn user(db: &Connection, id: UserId) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM accounts WHERE id = ?1"))?
        .query_row([id.uuid().as_bytes()], read_user)
        .optional()
}

pub(super) fn user_by_verified_email(db: &Connection, key: &str) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM accounts WHERE email_key = ?1 AND email_verified"))?
        .query_row([key], read_user)
        .optional()
}

pub(super) fn user_by_external_id(db: &Connection, id: &str) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM accounts WHERE external_id = ?1"))?
        .query_row([id], read_user)
        .optional()
}

pub(super) fn users(db: &Connection, filter: &UserFilter) -> Result<Vec<User>> {
    db.prepare_cached(&format!(
        "SELECT {USER} FROM accounts WHERE name > ?1 AND (?2 OR name LIKE ?3 ESCAPE '\\' OR email_key LIKE ?3 ESCAPE '\\') \
         AND (?5 IS NULL OR email_key = ?5) AND (?6 IS NULL OR external_id = ?6) \
         AND (?7 IS NULL OR instr(',' || roles || ',', ',' || ?7 || ',') > 0) AND (?8 IS NULL OR disabled = ?8) \
         ORDER BY name LIMIT ?4"
    ))?
    .query_map(
        params![
            filter.after.as_deref().unwrap_or_default(),
            filter.search.is_none(),
            filter.pattern(),
            filter.limit,
            filter.email_key(),
            filter.external_id,
            filter.role.as_ref().map(Role::as_str),
            filter.disabled
        ],
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
