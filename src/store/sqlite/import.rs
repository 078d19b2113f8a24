//! Users who come from another program.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    Sqlite, event,
    lookup::{read_user, user_by_external_id},
    statement::Result,
};
use crate::{
    clock::UnixMillis,
    store::{self, Event, ImportOutcome, ImportedUser, Imports, USER, User, import::explain, unlocked},
    types::Pseudonyms,
};

fn import(
    tx: &Transaction<'_>,
    users: &[ImportedUser],
    event: &Event,
    keep: bool,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Vec<ImportOutcome>> {
    tx.execute_batch("SAVEPOINT import")?;
    let outcomes =
        users.iter().map(|user| import_one(tx, user, event, pseudonyms, now)).collect::<Result<_>>()?;
    tx.execute_batch(if keep { "RELEASE import" } else { "ROLLBACK TO import; RELEASE import" })?;
    Ok(outcomes)
}

fn import_one(
    tx: &Transaction<'_>,
    user: &ImportedUser,
    event: &Event,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<ImportOutcome> {
    let skeleton = user.name.skeleton();
    if let Some(imported) = insert(tx, user, &skeleton, event, pseudonyms, now)? {
        return Ok(imported);
    }
    let same_id = user_by_external_id(tx, &user.external_id)?;
    let holder = by_skeleton(tx, &skeleton)?;
    let outcome = explain(user, same_id.as_ref(), holder.as_ref());
    if user.similar && matches!(outcome, ImportOutcome::LooksLike(_)) {
        let own = user.name.own_skeleton(user.id);
        return Ok(insert(tx, user, &own, event, pseudonyms, now)?.unwrap_or(outcome));
    }
    Ok(outcome)
}

/// Creates the account. Returns `None` if its name, skeleton or id is taken.
fn insert(
    tx: &Transaction<'_>,
    user: &ImportedUser,
    skeleton: &str,
    event: &Event,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Option<ImportOutcome>> {
    let made = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO users (id, name, skeleton, roles, disabled, created_at, external_id) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 \
             WHERE NOT EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN (?3, ?8))",
        )?
        .execute(params![
            user.id.uuid().as_bytes(),
            user.name.as_str(),
            skeleton,
            user.roles.to_string(),
            user.disabled,
            now,
            user.external_id,
            pseudonyms.of(skeleton)
        ])?;
    if made == 0 {
        return Ok(None);
    }
    let imported = insert_credentials(tx, user, now)?;
    let event = Event { detail: user.note_detail(), ..event.clone() };
    event::append(tx, &event, Some(user.id), user.name.as_str(), now)?;
    Ok(Some(imported))
}

/// Inserts the password and the address of a new account.
fn insert_credentials(tx: &Transaction<'_>, user: &ImportedUser, now: UnixMillis) -> Result<ImportOutcome> {
    tx.prepare_cached(
        "INSERT INTO passwords (user_id, hash, foreign_scheme, changed_at) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![user.id.uuid().as_bytes(), user.password_hash, user.foreign_scheme, now])?;
    let Some(address) = &user.email else { return Ok(ImportOutcome::Imported) };
    // Verified is an address that no other account has verified. A disabled account must not keep it from an active one.
    let verified = user.email_verified && !user.disabled;
    let is_unverified: bool = tx.prepare_cached(
        "INSERT INTO addresses (user_id, standing, address, key, verified_at) SELECT ?1, 1, ?2, ?3, \
         CASE WHEN ?4 AND NOT EXISTS (SELECT 1 FROM addresses WHERE key = ?3 AND verified_at IS NOT NULL) THEN ?5 END \
         RETURNING verified_at IS NULL",
    )?
    .query_row(params![user.id.uuid().as_bytes(), address, address.to_lowercase(), verified, now], |row| row.get(0))?;
    Ok(if verified && is_unverified { ImportOutcome::Unverified } else { ImportOutcome::Imported })
}

fn by_skeleton(db: &Connection, skeleton: &str) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM accounts WHERE skeleton = ?1"))?
        .query_row([skeleton], read_user)
        .optional()
}

fn note_own_scheme(tx: &Transaction<'_>, scheme: &str) -> Result<()> {
    tx.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('scheme:' || ?1, x'')", [scheme])?;
    Ok(())
}

/// The schemes and costs of hashes that are still another program's. Each is found by one step
/// through the index, however many users have it.
fn foreign_schemes(db: &Connection) -> Result<Vec<String>> {
    db.prepare_cached(
        "WITH RECURSIVE schemes (scheme) AS (SELECT min(foreign_scheme) FROM passwords UNION ALL \
         SELECT (SELECT min(foreign_scheme) FROM passwords WHERE foreign_scheme > scheme) FROM schemes \
         WHERE scheme IS NOT NULL) SELECT scheme FROM schemes WHERE scheme IS NOT NULL \
         UNION SELECT substr(key, 8) FROM meta WHERE key LIKE 'scheme:%' LIMIT 100",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}

#[async_trait]
impl Imports for Sqlite {
    async fn import_users(
        &self,
        users: Vec<ImportedUser>,
        event: &Event,
        keep: bool,
    ) -> store::Result<Vec<ImportOutcome>> {
        let (event, now) = (event.clone(), self.clock.wall());
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.connections.write(move |tx| import(tx, &users, &event, keep, &pseudonyms, now)).await
    }

    async fn note_own_scheme(&self, scheme: &str) -> store::Result<()> {
        let scheme = scheme.to_owned();
        if self.foreign_schemes().await?.contains(&scheme) {
            return Ok(());
        }
        self.connections.write(move |tx| note_own_scheme(tx, &scheme)).await
    }

    async fn foreign_schemes(&self) -> store::Result<Vec<String>> {
        self.connections.read(|db| foreign_schemes(db)).await
    }
}
