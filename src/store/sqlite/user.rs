//! What becomes of accounts, each function within one transaction.

use async_trait::async_trait;
use rusqlite::{Transaction, params};

use super::{
    Sqlite, api_key,
    departed::depart,
    event, factor, invitation, link, log,
    lookup::{self, session, user as user_by_id},
    mail,
    session::{insert_session, move_session},
    statement::Result,
    sweep::remove_sessions,
};
use crate::{
    clock::UnixMillis,
    store::{
        self, AccountChange, Change, Event, Grant, NewSession, NewUser, Opened, User, UserFilter, Users,
        rule::{
            change::{Address, Facts, Plan, Rekeyed, any_admin, plan},
            registration::{is_refused, skeleton},
        },
        unlocked,
    },
    types::{Pseudonyms, Roles, UserId, Username},
};

fn create_user(
    tx: &Transaction<'_>,
    new: &NewUser,
    session: Option<&NewSession>,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Option<Opened>> {
    let (look, former) = (new.name.skeleton(), pseudonyms.of(&new.name.skeleton()));
    let (is_taken, is_retired) = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM users WHERE skeleton = ?1), \
         EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN (?1, ?2))",
        [&look, &former],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if is_refused(new, is_retired) {
        return Ok(None);
    }
    let skeleton = skeleton(new, is_taken);
    let made = tx.execute(
        "INSERT OR IGNORE INTO users (id, name, skeleton, roles, attributes, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            new.id.uuid().as_bytes(),
            new.name.as_str(),
            skeleton,
            new.roles.to_string(),
            new.attributes.stored(),
            now
        ],
    )?;
    if made == 0 {
        return Ok(None);
    }
    // Last of what may refuse it.
    if let Some(invitation) = &new.invitation
        && !invitation::spend(tx, invitation, now)?
    {
        tx.execute("DELETE FROM users WHERE id = ?1", params![new.id.uuid().as_bytes()])?;
        return Ok(None);
    }
    if let Some(hash) = &new.password_hash {
        set_password(tx, new.id, hash, (false, new.must_change_password), now)?;
    }
    set_address(tx, new.id, OWN, new.email.as_deref(), false)?;
    if let Some(is_trusted) = new.email_verified {
        tx.execute(
            "UPDATE addresses SET verified_at = ?2, is_weak = NOT ?3 WHERE user_id = ?1 AND NOT EXISTS \
             (SELECT 1 FROM addresses a WHERE a.key = addresses.key AND a.verified_at IS NOT NULL)",
            params![new.id.uuid().as_bytes(), now, is_trusted],
        )?;
    }
    if let Some(link) = &new.link
        && !link::insert(tx, new.id, link, now)?
    {
        // Somebody was faster, by the same way.
        tx.execute("DELETE FROM users WHERE id = ?1", params![new.id.uuid().as_bytes()])?;
        return Ok(None);
    }
    if new.release {
        let sql = "DELETE FROM retired_names WHERE skeleton IN (?1, ?2)";
        tx.execute(sql, [look, former])?;
    }
    if let Some(event) = &new.event {
        event::append(tx, event, Some(new.id), new.name.as_str(), now)?;
    }
    if let Some(mail) = &new.mail {
        mail::enqueue(tx, mail, now)?;
    }
    let user = user_by_id(tx, new.id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let grant = match session {
        Some(session) => Some(insert_session(tx, user.clone(), session, now)?),
        None => None,
    };
    Ok(Some(Opened { user, grant }))
}

fn release_name(
    tx: &Transaction<'_>,
    name: &Username,
    event: &Event,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<bool> {
    let skeletons = [name.skeleton(), pseudonyms.of(&name.skeleton())];
    let released = tx.execute("DELETE FROM retired_names WHERE skeleton IN (?1, ?2)", skeletons)? > 0;
    if released {
        // Whose it was may be nobody's business any more.
        event::append(tx, event, None, &pseudonyms.of(name.as_str()), now)?;
    }
    Ok(released)
}

/// The standing of an account's own address, and of its pending one.
const OWN: i16 = 1;
const PENDING: i16 = 2;

fn set_password(
    tx: &Transaction<'_>,
    user: UserId,
    hash: &str,
    (is_by_mail, must_change): (bool, bool),
    now: UnixMillis,
) -> Result<()> {
    tx.execute(
        "INSERT INTO passwords (user_id, hash, changed_at, by_mail, must_change) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, foreign_scheme = NULL, \
         changed_at = excluded.changed_at, by_mail = excluded.by_mail, must_change = excluded.must_change",
        params![user.uuid().as_bytes(), hash, now, is_by_mail, must_change],
    )?;
    Ok(())
}

fn set_address(
    tx: &Transaction<'_>,
    user: UserId,
    standing: i16,
    address: Option<&str>,
    is_changed: bool,
) -> Result<()> {
    let id = user.uuid();
    tx.execute(
        "DELETE FROM addresses WHERE user_id = ?1 AND standing = ?2",
        params![id.as_bytes(), standing],
    )?;
    if let Some(address) = address {
        tx.execute(
            "INSERT INTO addresses (user_id, standing, address, key, is_changed) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![id.as_bytes(), standing, address, address.to_lowercase(), is_changed],
        )?;
    }
    Ok(())
}

fn rehash(tx: &Transaction<'_>, user: UserId, old: &str, new: &str) -> Result<()> {
    tx.execute(
        "UPDATE passwords SET hash = ?3, foreign_scheme = NULL WHERE user_id = ?1 AND hash = ?2",
        params![user.uuid().as_bytes(), old, new],
    )?;
    Ok(())
}

/// Gathers the facts that a change depends on.
fn facts(
    tx: &Transaction<'_>,
    user: User,
    change: &AccountChange,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Facts> {
    let id = user.id.uuid();
    let session = match change.rekey() {
        Some(rekey) => session(tx, rekey.session.id)?,
        None => None,
    };
    let has_other_admin = change.may_take_the_last_admin(&user) && has_other_admin(tx, user.id)?;
    let name_is_taken = match change.new_name(&user) {
        Some(name) => tx.query_row(
            "SELECT EXISTS (SELECT 1 FROM users WHERE id <> ?1 AND (name = ?2 OR skeleton = ?3)) \
             OR EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN (?3, ?4) AND user_id IS NOT ?1)",
            params![id.as_bytes(), name.as_str(), name.skeleton(), pseudonyms.of(&name.skeleton())],
            |row| row.get(0),
        )?,
        None => false,
    };
    let token_holds = match &change.spends {
        Some(spend) => mail::holds(tx, &user, spend, now)?,
        None => false,
    };
    let newest = user.unverified_email().unwrap_or_default().to_lowercase();
    let address_is_taken = change.verifies()
        && tx.query_row(
            "SELECT EXISTS (SELECT 1 FROM addresses a JOIN users u ON u.id = a.user_id \
             WHERE a.key = ?1 AND a.verified_at IS NOT NULL AND a.user_id <> ?2 AND NOT u.disabled)",
            params![newest, id.as_bytes()],
            |row| row.get(0),
        )?;
    // A skeleton that it only shared stays with the account that has it.
    let (holds_look, access_exp_max) = tx.query_row(
        "SELECT skeleton = ?2, access_exp_max FROM users WHERE id = ?1",
        params![id.as_bytes(), user.name.skeleton()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(Facts {
        user,
        holds_look,
        access_exp_max,
        session,
        has_other_admin,
        name_is_taken,
        token_holds,
        address_is_taken,
        now,
    })
}

fn has_other_admin(tx: &Transaction<'_>, than: UserId) -> Result<bool> {
    let others: Vec<String> = tx
        .prepare_cached("SELECT roles FROM users WHERE id <> ?1 AND NOT disabled AND roles LIKE '%admin%'")?
        .query_map([than.uuid().as_bytes()], |row| row.get(0))?
        .collect::<Result<_>>()?;
    Ok(any_admin(&others))
}

fn change_user(
    tx: &Transaction<'_>,
    id: UserId,
    change: &AccountChange,
    pseudonyms: &Pseudonyms,
    now: UnixMillis,
) -> Result<Change> {
    let Some(user) = user_by_id(tx, id)? else { return Ok(Change::Gone) };
    let facts = facts(tx, user, change, pseudonyms, now)?;
    let plan = match plan(change, &facts) {
        Ok(plan) => plan,
        Err(refused) => return Ok(refused),
    };
    if let Some(spend) = &change.spends
        && !mail::spend(tx, &facts.user, spend, now)?
    {
        return Ok(Change::Gone);
    }
    write_down(tx, change, &facts, &plan)?;
    if change.delete {
        delete(tx, id)?;
        return Ok(Change::Done(plan.entry, None));
    }
    if let Some(name) = plan.renamed {
        tx.execute(
            "UPDATE users SET name = ?2, skeleton = ?3 WHERE id = ?1",
            params![id.uuid().as_bytes(), name.as_str(), name.skeleton()],
        )?;
        // Its own again.
        tx.execute("DELETE FROM retired_names WHERE skeleton = ?1", [name.skeleton()])?;
    }
    move_addresses(tx, id, &plan.address, now)?;
    if let Some(hash) = &change.password_hash {
        let marks = (change.is_by_mail(), change.must_change_password.unwrap_or(false));
        set_password(tx, id, hash, marks, now)?;
    } else if let Some(must_change) = change.must_change_password {
        let sql = "UPDATE passwords SET must_change = ?2 WHERE user_id = ?1";
        tx.execute(sql, params![id.uuid().as_bytes(), must_change])?;
    }
    tx.execute(
        "UPDATE users SET generation = ?2, roles = coalesce(?3, roles), disabled = coalesce(?4, disabled), \
         attributes = coalesce(?5, attributes) WHERE id = ?1",
        params![
            id.uuid().as_bytes(),
            plan.generation,
            change.roles.as_ref().map(Roles::to_string),
            change.disabled,
            change.stored_attributes(&facts.user)
        ],
    )?;
    if change.remove_factors {
        factor::remove_all(tx, id)?;
    }
    if plan.entry.is_some() {
        remove_sessions(tx, id, plan.rekeyed.as_ref().map(Rekeyed::id), plan.generation)?;
    }
    for mail in &change.mails {
        mail::enqueue(tx, mail, now)?;
    }
    let Some(rekeyed) = &plan.rekeyed else { return Ok(Change::Done(plan.entry, None)) };
    move_session(tx, id, rekeyed, plan.generation, now)?;
    let changed = user_by_id(tx, id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    let grant =
        Grant::new(changed, rekeyed.id(), rekeyed.ends_at, (rekeyed.authenticated_at, rekeyed.proofs), now);
    Ok(Change::Done(plan.entry, Some(Box::new(grant))))
}

/// Writes the log entry, the event, and the retired name of a change.
fn write_down(tx: &Transaction<'_>, change: &AccountChange, facts: &Facts, plan: &Plan<'_>) -> Result<()> {
    if let Some(entry) = &plan.entry {
        log::append(tx, entry)?;
    }
    api_key::follow_change(tx, &facts.user, change, plan.generation, facts.now)?;
    if let Some(event) = &change.event {
        event::append(tx, event, Some(facts.user.id), facts.user.name.as_str(), facts.now)?;
    }
    if let Some(retired) = &plan.retired {
        let holder = retired.holder.map(UserId::uuid);
        tx.execute(
            "INSERT INTO retired_names (skeleton, name, retired_at, user_id) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (skeleton) DO UPDATE SET name = excluded.name, user_id = excluded.user_id",
            params![
                retired.skeleton,
                retired.name,
                facts.now,
                holder.as_ref().map(|holder| holder.as_bytes())
            ],
        )?;
    }
    Ok(())
}

fn delete(tx: &Transaction<'_>, id: UserId) -> Result<()> {
    tx.execute("UPDATE retired_names SET user_id = NULL WHERE user_id = ?1", [id.uuid().as_bytes()])?;
    depart(tx, id)?;
    remove_sessions(tx, id, None, i64::MAX)?;
    tx.execute("DELETE FROM users WHERE id = ?1", [id.uuid().as_bytes()])?;
    Ok(())
}

fn move_addresses(tx: &Transaction<'_>, id: UserId, address: &Address<'_>, now: UnixMillis) -> Result<()> {
    match address {
        Address::Keep => Ok(()),
        Address::Replace(address) => {
            set_address(tx, id, PENDING, None, true)?;
            set_address(tx, id, OWN, *address, true)
        }
        Address::Await(address) => set_address(tx, id, PENDING, *address, true),
        Address::Verify { was_waiting } => {
            if *was_waiting {
                set_address(tx, id, OWN, None, true)?;
            }
            // A disabled account that has verified it gives it up.
            tx.execute(
                "UPDATE addresses SET verified_at = NULL WHERE verified_at IS NOT NULL AND user_id <> ?1 \
                 AND key = (SELECT key FROM addresses WHERE user_id = ?1) \
                 AND user_id IN (SELECT id FROM users WHERE disabled)",
                [id.uuid().as_bytes()],
            )?;
            tx.execute(
                "UPDATE addresses SET standing = 1, verified_at = ?2 WHERE user_id = ?1",
                params![id.uuid().as_bytes(), now],
            )?;
            Ok(())
        }
    }
}

#[async_trait]
impl Users for Sqlite {
    async fn create_user(
        &self,
        user: &NewUser,
        session: Option<&NewSession>,
    ) -> store::Result<Option<Opened>> {
        let (user, session, now) = (user.clone(), session.cloned(), self.clock.wall());
        let pseudonyms = unlocked(&self.pseudonyms)?;
        let create =
            move |tx: &rusqlite::Transaction<'_>| create_user(tx, &user, session.as_ref(), &pseudonyms, now);
        self.connections.write(create).await
    }

    async fn release_name(&self, name: &Username, event: &Event) -> store::Result<bool> {
        let (name, event, now) = (name.clone(), event.clone(), self.clock.wall());
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.connections.write(move |tx| release_name(tx, &name, &event, &pseudonyms, now)).await
    }

    async fn user_by_name(&self, name: &Username) -> store::Result<Option<User>> {
        let name = name.clone();
        self.connections.read(move |db| lookup::user_by_name(db, &name)).await
    }

    async fn user_by_skeleton(&self, name: &Username) -> store::Result<Option<User>> {
        let name = name.clone();
        self.connections.read(move |db| lookup::user_by_skeleton(db, &name)).await
    }

    async fn user(&self, id: UserId) -> store::Result<Option<User>> {
        self.connections.read(move |db| lookup::user(db, id)).await
    }

    async fn user_by_external_id(&self, id: &str) -> store::Result<Option<User>> {
        let id = id.to_owned();
        self.connections.read(move |db| lookup::user_by_external_id(db, &id)).await
    }

    async fn user_by_verified_email(&self, email: &str) -> store::Result<Option<User>> {
        let key = email.to_lowercase();
        self.connections.read(move |db| lookup::user_by_verified_email(db, &key)).await
    }

    async fn users(&self, filter: &UserFilter) -> store::Result<Vec<User>> {
        let filter = filter.clone();
        self.connections.read(move |db| lookup::users(db, &filter)).await
    }

    async fn rehash(&self, user: UserId, old: &str, new: &str) -> store::Result<()> {
        let (old, new) = (old.to_owned(), new.to_owned());
        self.connections.write(move |tx| rehash(tx, user, &old, &new)).await
    }

    async fn change_user(&self, user: UserId, change: &AccountChange) -> store::Result<Change> {
        let (change, now) = (change.clone(), self.clock.wall());
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.connections.write(move |tx| change_user(tx, user, &change, &pseudonyms, now)).await
    }
}
