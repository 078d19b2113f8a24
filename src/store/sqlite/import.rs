//! Users who come from another program.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    audit,
    lookup::{read_user, user_by_external_id},
    statement::Result,
};
use crate::{
    clock::UnixMillis,
    store::{ImportOutcome, ImportedUser, Note, USER, User, import::explain},
    types::Pseudonyms,
};

pub(super) fn import(
    tx: &Transaction<'_>,
    users: &[ImportedUser],
    note: &Note,
    keep: bool,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Vec<ImportOutcome>> {
    tx.execute_batch("SAVEPOINT import")?;
    let outcomes =
        users.iter().map(|user| import_one(tx, user, note, pseudonyms, now)).collect::<Result<_>>()?;
    tx.execute_batch(if keep { "RELEASE import" } else { "ROLLBACK TO import; RELEASE import" })?;
    Ok(outcomes)
}

fn import_one(
    tx: &Transaction<'_>,
    user: &ImportedUser,
    note: &Note,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<ImportOutcome> {
    let skeleton = user.name.skeleton();
    if insert(tx, user, &skeleton, note, pseudonyms, now)? {
        return Ok(ImportOutcome::Imported);
    }
    let same_id = user_by_external_id(tx, &user.external_id)?;
    let holder = by_skeleton(tx, &skeleton)?;
    let outcome = explain(user, same_id.as_ref(), holder.as_ref());
    let similar = user.similar && matches!(outcome, ImportOutcome::LooksLike(_));
    if similar && insert(tx, user, &user.name.own_skeleton(user.id), note, pseudonyms, now)? {
        return Ok(ImportOutcome::Imported);
    }
    Ok(outcome)
}

/// Makes the account, if nothing stands in its way.
fn insert(
    tx: &Transaction<'_>,
    user: &ImportedUser,
    skeleton: &str,
    note: &Note,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<bool> {
    let made = tx
        .prepare_cached(
            "INSERT OR IGNORE INTO users (id, name, skeleton, email, email_key, email_verified, password_hash, \
             foreign_scheme, roles, disabled, created_at, external_id) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 \
             WHERE NOT EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN (?3, ?13))",
        )?
        .execute(params![
            user.id.uuid().as_bytes(),
            user.name.as_str(),
            skeleton,
            user.email,
            user.email.as_deref().map(str::to_lowercase),
            user.email_verified,
            user.password_hash,
            user.foreign_scheme,
            user.roles.to_string(),
            user.disabled,
            now,
            user.external_id,
            pseudonyms.of(skeleton)
        ])?;
    if made > 0 {
        let note = Note { detail: user.note_detail(), ..note.clone() };
        audit::append(tx, &note, Some(user.id), user.name.as_str(), now)?;
    }
    Ok(made > 0)
}

fn by_skeleton(db: &Connection, skeleton: &str) -> Result<Option<User>> {
    db.prepare_cached(&format!("SELECT {USER} FROM users WHERE skeleton = ?1"))?
        .query_row([skeleton], read_user)
        .optional()
}

pub(super) fn note_own_scheme(tx: &Transaction<'_>, scheme: &str) -> Result<()> {
    tx.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('scheme:' || ?1, x'')", [scheme])?;
    Ok(())
}

/// The schemes and costs of hashes that are still another program's. Each is found by one step
/// through the index, however many users have it.
pub(super) fn foreign_schemes(db: &Connection) -> Result<Vec<String>> {
    db.prepare_cached(
        "WITH RECURSIVE schemes (scheme) AS (SELECT min(foreign_scheme) FROM users UNION ALL \
         SELECT (SELECT min(foreign_scheme) FROM users WHERE foreign_scheme > scheme) FROM schemes \
         WHERE scheme IS NOT NULL) SELECT scheme FROM schemes WHERE scheme IS NOT NULL \
         UNION SELECT substr(key, 8) FROM meta WHERE key LIKE 'scheme:%' LIMIT 100",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}
