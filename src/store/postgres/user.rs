//! What becomes of accounts. Each function runs within one transaction, its locks taken user first.

use deadpool_postgres::Transaction;

use super::{
    audit,
    connection::{QueryError, QueryResult as Result},
    departed::depart,
    log,
    lookup::{lock_session, lock_user, user},
    mail,
    session::{insert_session, raise_user_expiry},
    statement::{NOW, now, one, only, only_bool, only_i64, run},
    sweep::remove_sessions,
};
use crate::{
    store::{AccountChange, Change, Grant, LogEntry, NewSession, NewUser, Note, Opened, Revoked},
    types::{Pseudonyms, Roles, UserId, Username},
};

pub(super) async fn create_user(
    tx: &Transaction<'_>,
    new: &NewUser,
    session: Option<&NewSession>,
    pseudonyms: &Pseudonyms,
) -> Result<Option<Opened>> {
    let mut skeleton = new.name.skeleton();
    let skeletons = vec![skeleton.clone(), pseudonyms.of(&skeleton)];
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
        release(tx, &skeletons).await?;
    }
    if is_retired(tx, &skeletons).await? {
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

async fn is_retired(tx: &Transaction<'_>, skeletons: &[String]) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM retired_names WHERE skeleton = ANY($1))";
    Ok(one(tx, sql, &[&skeletons], only_bool).await? == Some(true))
}

/// Removes what keeps a name reserved; whether there was anything.
async fn release(tx: &Transaction<'_>, skeletons: &Vec<String>) -> Result<bool> {
    let sql = "DELETE FROM retired_names WHERE skeleton = ANY($1)";
    // A second time: where the first had to wait for the clean-up, that has put a pseudonym in the name's place.
    Ok(run(tx, sql, &[skeletons]).await? + run(tx, sql, &[skeletons]).await? > 0)
}

pub(super) async fn release_name(
    tx: &Transaction<'_>,
    name: &Username,
    note: &Note,
    pseudonyms: &Pseudonyms,
) -> Result<bool> {
    let skeletons = vec![name.skeleton(), pseudonyms.of(&name.skeleton())];
    let released = release(tx, &skeletons).await?;
    if released {
        // Whose it was may be nobody's business any more.
        audit::append(tx, note, None, &pseudonyms.of(name.as_str())).await?;
    }
    Ok(released)
}

pub(super) async fn rehash(tx: &Transaction<'_>, user: UserId, old: &str, new: &str) -> Result<()> {
    let sql =
        "UPDATE users SET password_hash = $3, foreign_scheme = NULL WHERE id = $1 AND password_hash = $2";
    run(tx, sql, &[&user.uuid(), &old, &new]).await.map(drop)
}

pub(super) async fn change_user(
    tx: &Transaction<'_>,
    id: UserId,
    change: &AccountChange,
    pseudonyms: &Pseudonyms,
) -> Result<Change> {
    let Some(user) = lock_user(tx, id).await? else { return Ok(Change::Gone) };
    if let Some(refused) = change.refused_for(&user) {
        return Ok(refused);
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
    let entry = LogEntry::new(Revoked::User(id), user.generation + 1, access_exp_max, now);
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
