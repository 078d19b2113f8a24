//! What becomes of accounts, each function within one transaction.

use rusqlite::{Transaction, params};

use super::{
    audit,
    departed::depart,
    log,
    lookup::{session, user},
    mail,
    session::{insert_session, raise_user_expiry},
    statement::Result,
    sweep::remove_sessions,
};
use crate::{
    clock::UnixMillis,
    store::{AccountChange, Change, Grant, LogEntry, NewSession, NewUser, Note, Opened, Revoked},
    types::{Pseudonyms, Roles, UserId, Username},
};

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
    let skeletons = [name.skeleton(), pseudonyms.of(&name.skeleton())];
    let released = tx.execute("DELETE FROM retired_names WHERE skeleton IN (?1, ?2)", skeletons)? > 0;
    if released {
        // Whose it was may be nobody's business any more.
        audit::append(tx, note, None, &pseudonyms.of(name.as_str()), now)?;
    }
    Ok(released)
}

pub(super) fn rehash(tx: &Transaction<'_>, user: UserId, old: &str, new: &str) -> Result<()> {
    tx.execute(
        "UPDATE users SET password_hash = ?3, foreign_scheme = NULL WHERE id = ?1 AND password_hash = ?2",
        params![user.uuid().as_bytes(), old, new],
    )?;
    Ok(())
}

pub(super) fn change_user(
    tx: &Transaction<'_>,
    id: UserId,
    change: &AccountChange,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Change> {
    let Some(user) = user(tx, id)? else { return Ok(Change::Gone) };
    if let Some(refused) = change.refused_for(&user) {
        return Ok(refused);
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
    let entry = LogEntry::new(Revoked::User(id), user.generation + 1, access_exp_max, now);
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
