//! Accounts and sessions as they are read.

use deadpool_postgres::{Client, GenericClient, Transaction};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    connection::{QueryError, QueryResult as Result},
    statement::{NOW, one, only_bool},
};
use crate::{
    store::{Place, SESSION, Session, SessionKind, SessionPage, USER, User, UserFilter},
    types::{Attributes, Proofs, Role, Roles, SessionId, UserId, Username},
};

pub(super) fn read_user(row: &Row) -> Result<User> {
    Ok(User {
        id: UserId::from_uuid(row.try_get("id")?).ok_or(QueryError::Broken("users.id"))?,
        name: Username::from_stored(row.try_get("name")?),
        email: row.try_get("email")?,
        password_hash: row.try_get("password_hash")?,
        roles: Roles::parse_joined(row.try_get("roles")?).map_err(|_| QueryError::Broken("users.roles"))?,
        disabled: row.try_get("disabled")?,
        generation: row.try_get("generation")?,
        created_at: row.try_get("created_at")?,
        email_verified: row.try_get("email_verified")?,
        external_id: row.try_get("external_id")?,
        pending_email: row.try_get("pending_email")?,
        password_by_mail: row.try_get("password_by_mail")?,
        must_change_password: row.try_get("must_change_password")?,
        has_factors: row.try_get("has_factors")?,
        email_is_weak: row.try_get("email_is_weak")?,
        attributes: read_attributes(row)?,
    })
}

pub(super) fn read_attributes(row: &Row) -> Result<Attributes> {
    Attributes::parse(row.try_get("attributes")?).ok_or(QueryError::Broken("users.attributes"))
}

fn fixed<const N: usize>(bytes: &[u8], column: &'static str) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| QueryError::Broken(column))
}

pub(super) fn read_session(row: &Row) -> Result<Session> {
    let previous: Option<&[u8]> = row.try_get("previous_hash")?;
    let kind = SessionKind::read(row.try_get("kind")?);
    let number: i64 = row.try_get("refresh_number")?;
    Ok(Session {
        id: SessionId::from_uuid(row.try_get("id")?).ok_or(QueryError::Broken("sessions.id"))?,
        user: UserId::from_uuid(row.try_get("user_id")?).ok_or(QueryError::Broken("sessions.user_id"))?,
        kind: kind.ok_or(QueryError::Broken("sessions.kind"))?,
        generation: row.try_get("generation")?,
        created_at: row.try_get("created_at")?,
        authenticated_at: row.try_get("authenticated_at")?,
        proofs: Proofs::parse(row.try_get("methods")?),
        last_used_at: row.try_get("last_used_at")?,
        ends_at: row.try_get("ends_at")?,
        refresh_expires_at: row.try_get("refresh_expires_at")?,
        rotated_at: row.try_get("rotated_at")?,
        refresh_number: u32::try_from(number).map_err(|_| QueryError::Broken("sessions.refresh_number"))?,
        current_hash: fixed(row.try_get("current_hash")?, "sessions.current_hash")?,
        previous_hash: previous.map(|hash| fixed(hash, "sessions.previous_hash")).transpose()?,
        nonce: fixed(row.try_get("nonce")?, "sessions.nonce")?,
        place: Place { address: row.try_get("address")?, user_agent: row.try_get("user_agent")? },
    })
}

pub(super) async fn user_by_name(db: &Client, name: &Username) -> Result<Option<User>> {
    one(db, &format!("SELECT {USER} FROM accounts WHERE name = $1"), &[&name.as_str()], read_user).await
}

pub(super) async fn user_by_skeleton(db: &Client, name: &Username) -> Result<Option<User>> {
    let sql = format!(
        "SELECT {USER} FROM accounts WHERE name = $1 OR skeleton = $2 ORDER BY name = $1 DESC LIMIT 1"
    );
    one(db, &sql, &[&name.as_str(), &name.skeleton()], read_user).await
}

pub(super) async fn user(db: &impl GenericClient, id: UserId) -> Result<Option<User>> {
    one(db, &format!("SELECT {USER} FROM accounts WHERE id = $1"), &[&id.uuid()], read_user).await
}

pub(super) async fn lock_user(tx: &Transaction<'_>, id: UserId) -> Result<Option<User>> {
    // Read by a statement of its own: what this one would read beside the locked row is older than the lock.
    let sql = "SELECT TRUE FROM users WHERE id = $1 FOR NO KEY UPDATE";
    match one(tx, sql, &[&id.uuid()], only_bool).await? {
        Some(_) => user(tx, id).await,
        None => Ok(None),
    }
}

pub(super) async fn user_by_verified_email(db: &Client, key: &str) -> Result<Option<User>> {
    let sql = format!("SELECT {USER} FROM accounts WHERE email_key = $1 AND email_verified");
    one(db, &sql, &[&key], read_user).await
}

pub(super) async fn user_by_external_id(db: &impl GenericClient, id: &str) -> Result<Option<User>> {
    // PostgreSQL refuses text that no column of it can hold.
    if id.contains('\0') {
        return Ok(None);
    }
    one(db, &format!("SELECT {USER} FROM accounts WHERE external_id = $1"), &[&id], read_user).await
}

pub(super) async fn users(db: &Client, filter: &UserFilter) -> Result<Vec<User>> {
    let sql = format!(
        r#"SELECT {USER} FROM accounts WHERE name COLLATE "C" > $1 AND ($2 OR name LIKE $3 ESCAPE '\' OR email_key LIKE $3 ESCAPE '\')
         AND ($5::text IS NULL OR email_key = $5) AND ($6::text IS NULL OR external_id = $6)
         AND ($7::text IS NULL OR strpos(',' || roles || ',', ',' || $7 || ',') > 0) AND ($8::bool IS NULL OR disabled = $8)
         ORDER BY name COLLATE "C" LIMIT $4"#
    );
    let statement = db.prepare_cached(&sql).await?;
    let (after, all) = (filter.after.as_deref().unwrap_or_default(), filter.search.is_none());
    let role = filter.role.as_ref().map(Role::as_str);
    let params: [&(dyn ToSql + Sync); 8] = [
        &after,
        &all,
        &filter.pattern(),
        &i64::from(filter.limit),
        &filter.email_key(),
        &filter.external_id,
        &role,
        &filter.disabled,
    ];
    let rows = db.query(&statement, &params).await?;
    rows.iter().map(read_user).collect()
}

/// Whether the row of a session is that of a live one: rows of dead ones are removed later.
const OF_THE_LIVING: &str = "generation = (SELECT generation FROM users WHERE users.id = sessions.user_id)";

pub(super) async fn session(db: &Client, id: SessionId) -> Result<Option<Session>> {
    let sql = format!("SELECT {SESSION} FROM sessions WHERE id = $1 AND {OF_THE_LIVING}");
    one(db, &sql, &[&id.uuid()], read_session).await
}

pub(super) async fn lock_session(tx: &Transaction<'_>, id: SessionId) -> Result<Option<Session>> {
    let sql = format!("SELECT {SESSION} FROM sessions WHERE id = $1 FOR UPDATE");
    one(tx, &sql, &[&id.uuid()], read_session).await
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
