//! Invitations.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Sqlite, event, statement};
use crate::{
    clock::UnixMillis,
    store::{Event, Invitation, Invitations, NewInvitation, Result},
    types::Roles,
};

fn add(
    tx: &Transaction<'_>,
    new: &NewInvitation,
    event: &Event,
    now: UnixMillis,
) -> statement::Result<UnixMillis> {
    let expires_at = now + new.holds_for;
    tx.execute(
        "INSERT INTO invitations (id, token_hash, roles, uses, created_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![new.id.as_bytes(), new.token_hash, new.roles.to_string(), new.uses, now, expires_at],
    )?;
    event::append(tx, event, None, "", now)?;
    Ok(expires_at)
}

/// Uses an invitation once. Returns whether it holds.
pub(super) fn spend(tx: &Transaction<'_>, token_hash: &[u8; 32], now: UnixMillis) -> statement::Result<bool> {
    let sql = "UPDATE invitations SET uses = uses - 1 WHERE token_hash = ?1 AND uses > 0 AND expires_at > ?2";
    Ok(tx.execute(sql, params![token_hash, now])? == 1)
}

#[async_trait]
impl Invitations for Sqlite {
    async fn add_invitation(&self, invitation: &NewInvitation, event: &Event) -> Result<UnixMillis> {
        let (invitation, event, now) = (invitation.clone(), event.clone(), self.clock.wall());
        self.connections.write(move |tx| add(tx, &invitation, &event, now)).await
    }

    async fn invitation(&self, token_hash: &[u8; 32]) -> Result<Option<Invitation>> {
        let (hash, now) = (*token_hash, self.clock.wall());
        self.connections
            .read(move |db| {
                let sql =
                    "SELECT roles FROM invitations WHERE token_hash = ?1 AND uses > 0 AND expires_at > ?2";
                let roles: Option<String> =
                    db.query_row(sql, params![hash, now], |row| row.get(0)).optional()?;
                let parsed = roles.map(|roles| Roles::parse_joined(&roles)).transpose();
                let roles = parsed.map_err(|_| rusqlite::Error::InvalidQuery)?;
                Ok(roles.map(|roles| Invitation { roles }))
            })
            .await
    }
}
