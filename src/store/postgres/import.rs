//! Users who come from another program.

use std::collections::HashSet;

use deadpool_postgres::{Client, Transaction};
use uuid::Uuid;

use super::{
    connection::QueryResult as Result,
    query::{NOW, USER, one, only, read_user, user_by_external_id},
};
use crate::store::{ImportOutcome, ImportedUser, import::explain};

pub(super) async fn import(
    tx: &Transaction<'_>,
    users: &[ImportedUser],
    keep: bool,
) -> Result<Vec<ImportOutcome>> {
    tx.batch_execute("SAVEPOINT import").await?;
    let outcomes = import_all(tx, users).await?;
    tx.batch_execute(if keep { "RELEASE import" } else { "ROLLBACK TO import" }).await?;
    Ok(outcomes)
}

async fn import_all(tx: &Transaction<'_>, users: &[ImportedUser]) -> Result<Vec<ImportOutcome>> {
    let sql = format!(
        "INSERT INTO users (id, name, skeleton, email, email_key, email_verified, password_hash, \
         foreign_scheme, roles, disabled, created_at, external_id) \
         SELECT u.id, u.name, u.skeleton, u.email, u.email_key, u.email_verified, u.password_hash, \
         u.foreign_scheme, u.roles, u.disabled, {NOW}, u.external_id \
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::text[], \
         $8::text[], $9::text[], $10::bool[], $11::text[]) AS u (id, name, skeleton, email, \
         email_key, email_verified, password_hash, foreign_scheme, roles, disabled, external_id) \
         WHERE NOT EXISTS (SELECT 1 FROM retired_names r WHERE r.skeleton = u.skeleton) \
         ON CONFLICT DO NOTHING RETURNING id"
    );
    let skeletons: Vec<String> = users.iter().map(|user| user.name.skeleton()).collect();
    let column = |read: fn(&ImportedUser) -> &str| users.iter().map(read).collect::<Vec<_>>();
    let optional = |read: fn(&ImportedUser) -> Option<&str>| users.iter().map(read).collect::<Vec<_>>();
    let keys: Vec<Option<String>> =
        users.iter().map(|user| user.email.as_deref().map(str::to_lowercase)).collect();
    let statement = tx.prepare_cached(&sql).await?;
    let rows = tx
        .query(
            &statement,
            &[
                &users.iter().map(|user| user.id.uuid()).collect::<Vec<_>>(),
                &column(|user| user.name.as_str()),
                &skeletons,
                &optional(|user| user.email.as_deref()),
                &keys,
                &users.iter().map(|user| user.email_verified).collect::<Vec<_>>(),
                &column(|user| &user.password_hash),
                &optional(|user| user.foreign_scheme.as_deref()),
                &users.iter().map(|user| user.roles.to_string()).collect::<Vec<_>>(),
                &users.iter().map(|user| user.disabled).collect::<Vec<_>>(),
                &column(|user| &user.external_id),
            ],
        )
        .await?;
    let taken = rows.iter().map(only::<Uuid>).collect::<Result<HashSet<_>>>()?;
    let mut outcomes = Vec::with_capacity(users.len());
    for (user, skeleton) in users.iter().zip(&skeletons) {
        outcomes.push(if taken.contains(&user.id.uuid()) {
            ImportOutcome::Imported
        } else {
            let same_id = user_by_external_id(tx, &user.external_id).await?;
            let sql = format!("SELECT {USER} FROM users WHERE skeleton = $1");
            let holder = one(tx, &sql, &[skeleton], read_user).await?;
            explain(user, same_id.as_ref(), holder.as_ref())
        });
    }
    Ok(outcomes)
}

/// The schemes and costs of hashes that are still another program's. Each is found by one step
/// through the index, however many users have it.
pub(super) async fn foreign_schemes(db: &Client) -> Result<Vec<String>> {
    let sql = "WITH RECURSIVE schemes (scheme) AS (SELECT min(foreign_scheme) FROM users UNION ALL \
         SELECT (SELECT min(foreign_scheme) FROM users WHERE foreign_scheme > scheme) FROM schemes \
         WHERE scheme IS NOT NULL) SELECT scheme FROM schemes WHERE scheme IS NOT NULL LIMIT 100";
    let statement = db.prepare_cached(sql).await?;
    db.query(&statement, &[]).await?.iter().map(only).collect()
}
