//! What becomes of accounts. Each function runs within one transaction, its locks taken user first.

use async_trait::async_trait;
use deadpool_postgres::Transaction;

use super::{
    Postgres, api_key,
    connection::QueryResult as Result,
    departed::depart,
    event, factor, invitation, link, log,
    lookup::{self, lock_session, lock_user, user as user_by_id},
    mail,
    session::{insert_session, move_session},
    statement::{NOW, is_taken, now, one, only, only_bool, run},
    sweep::remove_sessions,
};
use crate::{
    store::{
        self, AccountChange, Change, Event, Grant, NewSession, NewUser, Opened, StoreError, User, UserFilter,
        Users,
        rule::{
            change::{Address, Facts, Plan, Rekeyed, any_admin, plan},
            registration::{is_refused, skeleton},
        },
        unlocked,
    },
    types::{Pseudonyms, Roles, UserId, Username},
};

async fn create_user(
    tx: &Transaction<'_>,
    new: &NewUser,
    session: Option<&NewSession>,
    pseudonyms: &Pseudonyms,
) -> Result<Option<Opened>> {
    let skeletons = vec![new.name.skeleton(), pseudonyms.of(&new.name.skeleton())];
    let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE skeleton = $1)";
    let skeleton = skeleton(new, one(tx, sql, &[&skeletons[0]], only_bool).await? == Some(true));
    // A retired name is looked for after the insert: a deletion that the insert had to wait for has
    // committed by then and is seen.
    let made = run(
        tx,
        &format!(
            "INSERT INTO users (id, name, skeleton, roles, attributes, created_at) \
             VALUES ($1, $2, $3, $4, $5, {NOW}) ON CONFLICT DO NOTHING"
        ),
        &[&new.id.uuid(), &new.name.as_str(), &skeleton, &new.roles.to_string(), &new.attributes.stored()],
    )
    .await?;
    if made == 0 {
        return Ok(None);
    }
    if let Some(hash) = &new.password_hash {
        set_password(tx, new.id, hash, (false, new.must_change_password)).await?;
    }
    set_address(tx, new.id, OWN, new.email.as_deref(), false).await?;
    if let Some(is_trusted) = new.email_verified {
        let sql = format!(
            "UPDATE addresses SET verified_at = {NOW}, is_weak = NOT $2 WHERE user_id = $1 AND NOT EXISTS \
             (SELECT 1 FROM addresses a WHERE a.key = addresses.key AND a.verified_at IS NOT NULL)"
        );
        run(tx, &sql, &[&new.id.uuid(), &is_trusted]).await?;
    }
    if let Some(link) = &new.link
        && !link::insert(tx, new.id, link).await?
    {
        // Somebody was faster, by the same way.
        run(tx, "DELETE FROM users WHERE id = $1", &[&new.id.uuid()]).await?;
        return Ok(None);
    }
    if new.release {
        release(tx, &skeletons).await?;
    }
    if is_refused(new, is_retired(tx, &skeletons).await?) {
        run(tx, "DELETE FROM users WHERE id = $1", &[&new.id.uuid()]).await?;
        return Ok(None);
    }
    // Last of what may refuse it.
    if let Some(invitation) = &new.invitation
        && !invitation::spend(tx, invitation).await?
    {
        run(tx, "DELETE FROM users WHERE id = $1", &[&new.id.uuid()]).await?;
        return Ok(None);
    }
    if let Some(mail) = &new.mail {
        mail::enqueue(tx, mail).await?;
    }
    let Some(user) = user_by_id(tx, new.id).await? else { return Ok(None) };
    if let Some(event) = &new.event {
        event::append(tx, event, Some(new.id), new.name.as_str()).await?;
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

/// Releases a retired name. Returns whether it was retired.
async fn release(tx: &Transaction<'_>, skeletons: &Vec<String>) -> Result<bool> {
    let sql = "DELETE FROM retired_names WHERE skeleton = ANY($1)";
    // A second time: where the first had to wait for the clean-up, that has put a pseudonym in the name's place.
    Ok(run(tx, sql, &[skeletons]).await? + run(tx, sql, &[skeletons]).await? > 0)
}

async fn release_name(
    tx: &Transaction<'_>,
    name: &Username,
    event: &Event,
    pseudonyms: &Pseudonyms,
) -> Result<bool> {
    let skeletons = vec![name.skeleton(), pseudonyms.of(&name.skeleton())];
    let released = release(tx, &skeletons).await?;
    if released {
        // Whose it was may be nobody's business any more.
        event::append(tx, event, None, &pseudonyms.of(name.as_str())).await?;
    }
    Ok(released)
}

/// The standing of an account's own address, and of its pending one.
const OWN: i16 = 1;
const PENDING: i16 = 2;

async fn set_password(
    tx: &Transaction<'_>,
    user: UserId,
    hash: &str,
    (is_by_mail, must_change): (bool, bool),
) -> Result<()> {
    let sql = format!(
        "INSERT INTO passwords (user_id, hash, changed_at, by_mail, must_change) VALUES ($1, $2, {NOW}, $3, $4) \
         ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, foreign_scheme = NULL, \
         changed_at = excluded.changed_at, by_mail = excluded.by_mail, must_change = excluded.must_change"
    );
    run(tx, &sql, &[&user.uuid(), &hash, &is_by_mail, &must_change]).await.map(drop)
}

async fn set_address(
    tx: &Transaction<'_>,
    user: UserId,
    standing: i16,
    address: Option<&str>,
    is_changed: bool,
) -> Result<()> {
    let sql = "DELETE FROM addresses WHERE user_id = $1 AND standing = $2";
    run(tx, sql, &[&user.uuid(), &standing]).await?;
    if let Some(address) = address {
        let sql =
            "INSERT INTO addresses (user_id, standing, address, key, is_changed) VALUES ($1, $2, $3, $4, $5)";
        run(tx, sql, &[&user.uuid(), &standing, &address, &address.to_lowercase(), &is_changed]).await?;
    }
    Ok(())
}

async fn rehash(tx: &Transaction<'_>, user: UserId, old: &str, new: &str) -> Result<()> {
    let sql = "UPDATE passwords SET hash = $3, foreign_scheme = NULL WHERE user_id = $1 AND hash = $2";
    run(tx, sql, &[&user.uuid(), &old, &new]).await.map(drop)
}

/// Gathers the facts that a change depends on, under the account's lock.
async fn facts(
    tx: &Transaction<'_>,
    user: User,
    change: &AccountChange,
    pseudonyms: &Pseudonyms,
) -> Result<Facts> {
    let id = user.id.uuid();
    let session = match change.rekey() {
        Some(rekey) => lock_session(tx, rekey.session.id).await?,
        None => None,
    };
    let has_other_admin = change.may_take_the_last_admin(&user) && has_other_admin(tx, user.id).await?;
    let name_is_taken = match change.new_name(&user) {
        Some(name) => {
            let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE id <> $1 AND (name = $2 OR skeleton = $3)) \
                 OR EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN ($3, $4) AND user_id IS DISTINCT FROM $1)";
            let (look, former) = (name.skeleton(), pseudonyms.of(&name.skeleton()));
            one(tx, sql, &[&id, &name.as_str(), &look, &former], only_bool).await? != Some(false)
        }
        None => false,
    };
    let token_holds = match &change.spends {
        Some(spend) => mail::holds(tx, &user, spend).await?,
        None => false,
    };
    let address_is_taken = change.verifies() && {
        let sql = "SELECT EXISTS (SELECT 1 FROM addresses a JOIN users u ON u.id = a.user_id \
             WHERE a.key = $1 AND a.verified_at IS NOT NULL AND a.user_id <> $2 AND NOT u.disabled)";
        let newest = user.unverified_email().unwrap_or_default().to_lowercase();
        one(tx, sql, &[&newest, &id], only_bool).await? == Some(true)
    };
    // A skeleton that it only shared stays with the account that has it.
    let sql = "SELECT skeleton = $2 AS holds_look, access_exp_max FROM users WHERE id = $1";
    let row = tx.query_one(&tx.prepare_cached(sql).await?, &[&id, &user.name.skeleton()]).await?;
    let (holds_look, access_exp_max) = (row.try_get("holds_look")?, row.try_get("access_exp_max")?);
    let now = now(tx).await?;
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

async fn has_other_admin(tx: &Transaction<'_>, than: UserId) -> Result<bool> {
    // Two admins who remove each other at once must not both succeed.
    tx.execute("SELECT pg_advisory_xact_lock(hashtext('authgate last admin'))", &[]).await?;
    let sql = "SELECT roles FROM users WHERE id <> $1 AND NOT disabled AND roles LIKE '%admin%'";
    let rows = tx.query(sql, &[&than.uuid()]).await?;
    let others = rows.iter().map(only::<String>).collect::<Result<Vec<_>>>()?;
    Ok(any_admin(&others))
}

async fn change_user(
    tx: &Transaction<'_>,
    id: UserId,
    change: &AccountChange,
    pseudonyms: &Pseudonyms,
) -> Result<Change> {
    let Some(user) = lock_user(tx, id).await? else { return Ok(Change::Gone) };
    let facts = facts(tx, user, change, pseudonyms).await?;
    let plan = match plan(change, &facts) {
        Ok(plan) => plan,
        Err(refused) => return Ok(refused),
    };
    if let Some(spend) = &change.spends
        && !mail::spend(tx, &facts.user, spend).await?
    {
        return Ok(Change::Gone);
    }
    // Another account may have taken the name meanwhile. Nothing else was written, as no rename spends a token.
    if let Some(name) = plan.renamed
        && !rename(tx, id, name, pseudonyms).await?
    {
        return Ok(Change::NameTaken);
    }
    write_down(tx, change, &facts, &plan).await?;
    if change.delete {
        delete(tx, id).await?;
        return Ok(Change::Done(plan.entry, None));
    }
    match move_addresses(tx, id, &plan.address).await {
        // Another account has verified the address a moment ago.
        Err(error) if is_taken(&error) => return Ok(Change::AddressTaken),
        moved => moved?,
    }
    if let Some(hash) = &change.password_hash {
        let marks = (change.is_by_mail(), change.must_change_password.unwrap_or(false));
        set_password(tx, id, hash, marks).await?;
    } else if let Some(must_change) = change.must_change_password {
        let sql = "UPDATE passwords SET must_change = $2 WHERE user_id = $1";
        run(tx, sql, &[&id.uuid(), &must_change]).await?;
    }
    let sql = "UPDATE users SET generation = $2, roles = coalesce($3, roles), disabled = coalesce($4, disabled), \
         attributes = coalesce($5, attributes) WHERE id = $1";
    let roles = change.roles.as_ref().map(Roles::to_string);
    let attributes = change.stored_attributes(&facts.user);
    run(tx, sql, &[&id.uuid(), &plan.generation, &roles, &change.disabled, &attributes]).await?;
    if change.remove_factors {
        factor::remove_all(tx, id).await?;
    }
    if plan.entry.is_some() {
        let kept = plan.rekeyed.as_ref().map(Rekeyed::id);
        remove_sessions(tx, id, kept, plan.generation).await?;
    }
    for mail in &change.mails {
        mail::enqueue(tx, mail).await?;
    }
    let Some(rekeyed) = &plan.rekeyed else { return Ok(Change::Done(plan.entry, None)) };
    move_session(tx, id, rekeyed, plan.generation, facts.now).await?;
    let Some(changed) = user_by_id(tx, id).await? else { return Ok(Change::Gone) };
    let grant = Grant::new(
        changed,
        rekeyed.id(),
        rekeyed.ends_at,
        (rekeyed.authenticated_at, rekeyed.proofs),
        facts.now,
    );
    Ok(Change::Done(plan.entry, Some(Box::new(grant))))
}

/// Writes the log entry, the event, and the retired names of a change.
async fn write_down(
    tx: &Transaction<'_>,
    change: &AccountChange,
    facts: &Facts,
    plan: &Plan<'_>,
) -> Result<()> {
    if let Some(entry) = &plan.entry {
        log::append(tx, entry).await?;
    }
    api_key::follow_change(tx, &facts.user, change, plan.generation, facts.now).await?;
    if let Some(event) = &change.event {
        event::append(tx, event, Some(facts.user.id), facts.user.name.as_str()).await?;
    }
    if let Some(retired) = &plan.retired {
        let sql = "INSERT INTO retired_names (skeleton, name, retired_at, user_id) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (skeleton) DO UPDATE SET name = excluded.name, user_id = excluded.user_id";
        let holder = retired.holder.map(UserId::uuid);
        run(tx, sql, &[&retired.skeleton, &retired.name, &facts.now, &holder]).await?;
    }
    if let Some(name) = plan.renamed {
        // Its own again.
        run(tx, "DELETE FROM retired_names WHERE skeleton = $1", &[&name.skeleton()]).await?;
    }
    Ok(())
}

/// Renames an account. Returns false if the name is taken or retired.
async fn rename(tx: &Transaction<'_>, id: UserId, name: &Username, pseudonyms: &Pseudonyms) -> Result<bool> {
    let sql = "UPDATE users SET name = $2, skeleton = $3 WHERE id = $1 \
         AND NOT EXISTS (SELECT 1 FROM users WHERE id <> $1 AND (name = $2 OR skeleton = $3)) \
         AND NOT EXISTS (SELECT 1 FROM retired_names WHERE skeleton IN ($3, $4) AND user_id IS DISTINCT FROM $1)";
    let (look, former) = (name.skeleton(), pseudonyms.of(&name.skeleton()));
    match run(tx, sql, &[&id.uuid(), &name.as_str(), &look, &former]).await {
        Ok(renamed) => Ok(renamed > 0),
        Err(error) if is_taken(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn delete(tx: &Transaction<'_>, id: UserId) -> Result<()> {
    run(tx, "UPDATE retired_names SET user_id = NULL WHERE user_id = $1", &[&id.uuid()]).await?;
    depart(tx, id).await?;
    remove_sessions(tx, id, None, i64::MAX).await?;
    run(tx, "DELETE FROM users WHERE id = $1", &[&id.uuid()]).await.map(drop)
}

async fn move_addresses(tx: &Transaction<'_>, id: UserId, address: &Address<'_>) -> Result<()> {
    match address {
        Address::Keep => Ok(()),
        Address::Replace(address) => {
            set_address(tx, id, PENDING, None, true).await?;
            set_address(tx, id, OWN, *address, true).await
        }
        Address::Await(address) => set_address(tx, id, PENDING, *address, true).await,
        Address::Verify { was_waiting } => {
            if *was_waiting {
                set_address(tx, id, OWN, None, true).await?;
            }
            // A disabled account that has verified it gives it up.
            let sql = "UPDATE addresses SET verified_at = NULL WHERE verified_at IS NOT NULL AND user_id <> $1 \
                 AND key = (SELECT key FROM addresses WHERE user_id = $1) \
                 AND user_id IN (SELECT id FROM users WHERE disabled)";
            run(tx, sql, &[&id.uuid()]).await?;
            let sql = format!("UPDATE addresses SET standing = 1, verified_at = {NOW} WHERE user_id = $1");
            run(tx, &sql, &[&id.uuid()]).await.map(drop)
        }
    }
}

#[async_trait]
impl Users for Postgres {
    async fn create_user(
        &self,
        user: &NewUser,
        session: Option<&NewSession>,
    ) -> store::Result<Option<Opened>> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        let made = async |tx: &Transaction<'_>| match create_user(tx, user, session, &pseudonyms).await {
            // Another account has verified the address a moment ago.
            Err(error) if is_taken(&error) => Ok(None),
            made => made,
        };
        self.pool.write(made).await
    }

    async fn release_name(&self, name: &Username, event: &Event) -> store::Result<bool> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.pool.write(async |tx| release_name(tx, name, event, &pseudonyms).await).await
    }

    async fn user_by_name(&self, name: &Username) -> store::Result<Option<User>> {
        self.pool.read(async |db| lookup::user_by_name(db, name).await).await
    }

    async fn user_by_skeleton(&self, name: &Username) -> store::Result<Option<User>> {
        self.pool.read(async |db| lookup::user_by_skeleton(db, name).await).await
    }

    async fn user(&self, id: UserId) -> store::Result<Option<User>> {
        self.pool.read(async |db| lookup::user(db, id).await).await
    }

    async fn user_by_external_id(&self, id: &str) -> store::Result<Option<User>> {
        self.pool.read(async |db| lookup::user_by_external_id(db, id).await).await
    }

    async fn user_by_verified_email(&self, email: &str) -> store::Result<Option<User>> {
        let key = email.to_lowercase();
        self.pool.read(async |db| lookup::user_by_verified_email(db, &key).await).await
    }

    async fn users(&self, filter: &UserFilter) -> store::Result<Vec<User>> {
        self.pool.read(async |db| lookup::users(db, filter).await).await
    }

    async fn rehash(&self, user: UserId, old: &str, new: &str) -> store::Result<()> {
        self.pool.write(async |tx| rehash(tx, user, old, new).await).await
    }

    async fn change_user(&self, user: UserId, change: &AccountChange) -> store::Result<Change> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        let mut refused = None;
        let changed = self
            .pool
            .write(async |tx| {
                let changed = change_user(tx, user, change, &pseudonyms).await?;
                refused = Some(changed.clone()).filter(|changed| !matches!(changed, Change::Done(..)));
                Ok(changed)
            })
            .await;
        match (changed, refused) {
            // Nothing was written, whatever became of the COMMIT.
            (Err(StoreError::OutcomeUnknown(_)), Some(refused)) => Ok(refused),
            (changed, _) => changed,
        }
    }
}
