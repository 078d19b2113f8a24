//! Users who come from another program.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use deadpool_postgres::{Client, Transaction};
use uuid::Uuid;

use super::{
    Postgres,
    connection::QueryResult as Result,
    lookup::read_user,
    statement::{NOW, is_taken, only, run},
};
use crate::{
    store::{self, Event, ImportOutcome, ImportedUser, Imports, USER, User, import::explain, unlocked},
    types::Pseudonyms,
};

/// The number of times that a batch is tried again if an address is taken meanwhile.
const MAX_RETRIES: u32 = 2;

async fn import(
    tx: &Transaction<'_>,
    users: &[ImportedUser],
    event: &Event,
    keep: bool,
    pseudonyms: &Pseudonyms,
) -> Result<Vec<ImportOutcome>> {
    tx.batch_execute("SAVEPOINT import").await?;
    let mut outcomes = import_anew(tx, users, event, false, pseudonyms).await?;
    let again: Vec<usize> = (0..users.len())
        .filter(|at| users[*at].similar && matches!(outcomes[*at], ImportOutcome::LooksLike(_)))
        .collect();
    if !again.is_empty() {
        let similar: Vec<ImportedUser> = again.iter().map(|at| users[*at].clone()).collect();
        for (at, outcome) in again.into_iter().zip(import_anew(tx, &similar, event, true, pseudonyms).await?)
        {
            outcomes[at] = outcome;
        }
    }
    tx.batch_execute(if keep { "RELEASE import" } else { "ROLLBACK TO import" }).await?;
    Ok(outcomes)
}

/// Imports users. Tries again if another transaction has verified one of their addresses meanwhile.
async fn import_anew(
    tx: &Transaction<'_>,
    users: &[ImportedUser],
    event: &Event,
    similar: bool,
    pseudonyms: &Pseudonyms,
) -> Result<Vec<ImportOutcome>> {
    for _ in 0..MAX_RETRIES {
        tx.batch_execute("SAVEPOINT attempt").await?;
        match import_all(tx, users, event, similar, pseudonyms).await {
            Err(error) if is_taken(&error) => tx.batch_execute("ROLLBACK TO attempt").await?,
            imported => return imported,
        }
    }
    import_all(tx, users, event, similar, pseudonyms).await
}

/// Makes accounts; with `similar` each under a skeleton of its own.
async fn import_all(
    tx: &Transaction<'_>,
    users: &[ImportedUser],
    event: &Event,
    similar: bool,
    pseudonyms: &Pseudonyms,
) -> Result<Vec<ImportOutcome>> {
    let sql = format!(
        "INSERT INTO users (id, name, skeleton, roles, disabled, created_at, external_id) \
         SELECT u.id, u.name, u.skeleton, u.roles, u.disabled, {NOW}, u.external_id \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::text[], $7::text[]) \
         AS u (id, name, skeleton, roles, disabled, external_id, former) \
         WHERE NOT EXISTS (SELECT 1 FROM retired_names r WHERE r.skeleton IN (u.skeleton, u.former)) \
         ON CONFLICT DO NOTHING RETURNING id"
    );
    let skeleton = |user: &ImportedUser| match similar {
        true => user.name.own_skeleton(user.id),
        false => user.name.skeleton(),
    };
    let skeletons: Vec<String> = users.iter().map(skeleton).collect();
    let column = |read: fn(&ImportedUser) -> &str| users.iter().map(read).collect::<Vec<_>>();
    let statement = tx.prepare_cached(&sql).await?;
    let rows = tx
        .query(
            &statement,
            &[
                &users.iter().map(|user| user.id.uuid()).collect::<Vec<_>>(),
                &column(|user| user.name.as_str()),
                &skeletons,
                &users.iter().map(|user| user.roles.to_string()).collect::<Vec<_>>(),
                &users.iter().map(|user| user.disabled).collect::<Vec<_>>(),
                &column(|user| &user.external_id),
                &skeletons.iter().map(|skeleton| pseudonyms.of(skeleton)).collect::<Vec<_>>(),
            ],
        )
        .await?;
    let mut taken = rows.iter().map(only::<Uuid>).collect::<Result<HashSet<_>>>()?;
    // A name whose deletion the insert had to wait for is retired by now, and is seen by another statement only.
    let sql = "DELETE FROM users u USING unnest($1::uuid[], $2::text[], $3::text[]) AS n (id, look, former) \
         WHERE u.id = n.id AND u.id = ANY($4) AND EXISTS \
         (SELECT 1 FROM retired_names r WHERE r.skeleton IN (n.look, n.former)) RETURNING u.id";
    let ids: Vec<Uuid> = users.iter().map(|user| user.id.uuid()).collect();
    let formers: Vec<String> = skeletons.iter().map(|skeleton| pseudonyms.of(skeleton)).collect();
    let here: Vec<Uuid> = taken.iter().copied().collect();
    for row in &tx.query(&tx.prepare_cached(sql).await?, &[&ids, &skeletons, &formers, &here]).await? {
        taken.remove(&only::<Uuid>(row)?);
    }
    let new: Vec<&ImportedUser> = users.iter().filter(|user| taken.contains(&user.id.uuid())).collect();
    let unverified = insert_credentials(tx, &new).await?;
    record_all(tx, event, &new).await?;
    explain_all(tx, users, &skeletons, (&taken, &unverified)).await
}

/// An event for each account that was made just now.
async fn record_all(tx: &Transaction<'_>, event: &Event, new: &[&ImportedUser]) -> Result<()> {
    let sql = format!(
        "INSERT INTO events (at, actor_id, actor, address, action, subject_id, subject, detail) \
         SELECT {NOW}, $1, $2, $3, $4, u.id, u.name, u.detail \
         FROM unnest($5::text[], $6::text[], $7::text[]) AS u (id, name, detail)"
    );
    run(
        tx,
        &sql,
        &[
            &event.actor_id.map(|id| id.to_string()),
            &event.actor,
            &event.address,
            &event.action,
            &new.iter().map(|user| user.id.to_string()).collect::<Vec<_>>(),
            &new.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(),
            &new.iter().map(|user| user.note_detail()).collect::<Vec<_>>(),
        ],
    )
    .await
    .map(drop)
}

/// What became of each, of those that were taken and of those in whose way somebody stands. That is looked up in one
/// go: an import that is run again meets nobody else.
async fn explain_all(
    tx: &Transaction<'_>,
    users: &[ImportedUser],
    skeletons: &[String],
    (taken, unverified): (&HashSet<Uuid>, &HashSet<Uuid>),
) -> Result<Vec<ImportOutcome>> {
    let sql = format!("SELECT {USER} FROM accounts WHERE external_id = ANY($1) OR skeleton = ANY($2)");
    let left = || users.iter().zip(skeletons).filter(|(user, _)| !taken.contains(&user.id.uuid()));
    let ids: Vec<&str> = left().map(|(user, _)| user.external_id.as_str()).collect();
    let left_skeletons: Vec<&str> = left().map(|(_, look)| look.as_str()).collect();
    let mut by_id: HashMap<String, User> = HashMap::new();
    let mut by_look: HashMap<String, User> = HashMap::new();
    if !ids.is_empty() {
        for row in &tx.query(&tx.prepare_cached(&sql).await?, &[&ids, &left_skeletons]).await? {
            let found = read_user(row)?;
            if let Some(id) = &found.external_id {
                by_id.insert(id.clone(), found.clone());
            }
            by_look.insert(found.name.skeleton(), found);
        }
    }
    let outcome = |(user, look): (&ImportedUser, &String)| match taken.contains(&user.id.uuid()) {
        true if unverified.contains(&user.id.uuid()) => ImportOutcome::Unverified,
        true => ImportOutcome::Imported,
        false => explain(user, by_id.get(&user.external_id), by_look.get(look)),
    };
    Ok(users.iter().zip(skeletons).map(outcome).collect())
}

/// Inserts the passwords and addresses of new accounts. Returns the accounts whose address is not verified because another
/// account has verified it.
async fn insert_credentials(tx: &Transaction<'_>, users: &[&ImportedUser]) -> Result<HashSet<Uuid>> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.id.uuid()).collect();
    let hashes: Vec<&str> = users.iter().map(|user| user.password_hash.as_str()).collect();
    let schemes: Vec<Option<&str>> = users.iter().map(|user| user.foreign_scheme.as_deref()).collect();
    let sql = format!(
        "INSERT INTO passwords (user_id, hash, foreign_scheme, changed_at) SELECT p.id, p.hash, p.scheme, {NOW} \
         FROM unnest($1::uuid[], $2::text[], $3::text[]) AS p (id, hash, scheme)"
    );
    run(tx, &sql, &[&ids, &hashes, &schemes]).await?;
    let addresses: Vec<Option<&str>> = users.iter().map(|user| user.email.as_deref()).collect();
    let keys: Vec<Option<String>> = addresses.iter().map(|address| address.map(str::to_lowercase)).collect();
    // A disabled account must not keep the address from an active one.
    let verified: Vec<bool> = users.iter().map(|user| user.email_verified && !user.disabled).collect();
    // Verified is an address that is nobody else's yet, and of several who bring the same the first one's.
    let sql = format!(
        "INSERT INTO addresses (user_id, standing, address, key, verified_at) \
         SELECT a.id, 1, a.address, a.key, CASE WHEN a.verified AND a.place = \
         min(a.place) FILTER (WHERE a.verified) OVER (PARTITION BY a.key) AND NOT EXISTS \
         (SELECT 1 FROM addresses b WHERE b.key = a.key AND b.verified_at IS NOT NULL) THEN {NOW} END \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bool[]) WITH ORDINALITY \
         AS a (id, address, key, verified, place) WHERE a.address IS NOT NULL RETURNING user_id, verified_at IS NULL"
    );
    let statement = tx.prepare_cached(&sql).await?;
    let mut unverified = HashSet::new();
    for row in &tx.query(&statement, &[&ids, &addresses, &keys, &verified]).await? {
        if row.try_get(1)? {
            unverified.insert(only::<Uuid>(row)?);
        }
    }
    let wanted = ids.into_iter().zip(verified).filter_map(|(id, verified)| verified.then_some(id));
    Ok(wanted.filter(|id| unverified.contains(id)).collect())
}

async fn note_own_scheme(tx: &Transaction<'_>, scheme: &str) -> Result<()> {
    let key = format!("scheme:{scheme}");
    run(tx, "INSERT INTO meta (key, value) VALUES ($1, '') ON CONFLICT DO NOTHING", &[&key]).await.map(drop)
}

/// The schemes and costs of hashes that are still another program's. Each is found by one step
/// through the index, however many users have it.
async fn foreign_schemes(db: &Client) -> Result<Vec<String>> {
    let sql = "WITH RECURSIVE schemes (scheme) AS (SELECT min(foreign_scheme) FROM passwords UNION ALL \
         SELECT (SELECT min(foreign_scheme) FROM passwords WHERE foreign_scheme > scheme) FROM schemes \
         WHERE scheme IS NOT NULL) SELECT scheme FROM schemes WHERE scheme IS NOT NULL \
         UNION SELECT substr(key, 8) FROM meta WHERE key LIKE 'scheme:%' LIMIT 100";
    let statement = db.prepare_cached(sql).await?;
    db.query(&statement, &[]).await?.iter().map(only).collect()
}

#[async_trait]
impl Imports for Postgres {
    async fn import_users(
        &self,
        users: Vec<ImportedUser>,
        event: &Event,
        keep: bool,
    ) -> store::Result<Vec<ImportOutcome>> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.pool.write(async |tx| import(tx, &users, event, keep, &pseudonyms).await).await
    }

    async fn note_own_scheme(&self, scheme: &str) -> store::Result<()> {
        if self.foreign_schemes().await?.iter().any(|known| known == scheme) {
            return Ok(());
        }
        self.pool.write(async |tx| note_own_scheme(tx, scheme).await).await
    }

    async fn foreign_schemes(&self) -> store::Result<Vec<String>> {
        self.pool.read(async |db| foreign_schemes(db).await).await
    }
}
