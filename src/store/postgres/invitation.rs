//! Invitations.

use async_trait::async_trait;
use deadpool_postgres::Transaction;

use super::{
    Postgres,
    connection::{QueryError, QueryResult},
    event,
    statement::{NOW, now, one, run},
};
use crate::{
    clock::UnixMillis,
    store::{Event, Invitation, Invitations, NewInvitation, Result},
    types::Roles,
};

async fn add(tx: &Transaction<'_>, new: &NewInvitation, event: &Event) -> QueryResult<UnixMillis> {
    let now = now(tx).await?;
    let expires_at = now + new.holds_for;
    let sql = "INSERT INTO invitations (id, token_hash, roles, uses, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6)";
    let (hash, roles, uses) = (new.token_hash.as_slice(), new.roles.to_string(), i64::from(new.uses));
    run(tx, sql, &[&new.id, &hash, &roles, &uses, &now, &expires_at]).await?;
    event::append(tx, event, None, "").await?;
    Ok(expires_at)
}

/// Uses an invitation once. Returns whether it holds.
pub(super) async fn spend(tx: &Transaction<'_>, token_hash: &[u8; 32]) -> QueryResult<bool> {
    let sql = format!(
        "UPDATE invitations SET uses = uses - 1 WHERE token_hash = $1 AND uses > 0 AND expires_at > {NOW}"
    );
    Ok(run(tx, &sql, &[&token_hash.as_slice()]).await? == 1)
}

#[async_trait]
impl Invitations for Postgres {
    async fn add_invitation(&self, invitation: &NewInvitation, event: &Event) -> Result<UnixMillis> {
        self.pool.write(async |tx| add(tx, invitation, event).await).await
    }

    async fn invitation(&self, token_hash: &[u8; 32]) -> Result<Option<Invitation>> {
        let sql = format!(
            "SELECT roles FROM invitations WHERE token_hash = $1 AND uses > 0 AND expires_at > {NOW}"
        );
        let read = |row: &tokio_postgres::Row| {
            let roles = Roles::parse_joined(row.try_get("roles")?);
            Ok(Invitation { roles: roles.map_err(|_| QueryError::Broken("invitations.roles"))? })
        };
        self.pool.read(async |db| one(db, &sql, &[&token_hash.as_slice()], read).await).await
    }
}
