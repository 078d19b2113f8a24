//! Client programs.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{
    Sqlite, event, log,
    statement::{Result, broken, uuid},
};
use crate::{
    clock::UnixMillis,
    store::{self, CLIENT, Client, ClientChange, Clients, Event, LogEntry, NewClient, Revoked},
    types::{ClientId, Roles},
};

fn read_client(row: &Row<'_>) -> Result<Client> {
    let roles: String = row.get("roles")?;
    Ok(Client {
        id: ClientId::from_uuid(uuid(row, "id")?).ok_or_else(|| broken("clients.id"))?,
        name: row.get("name")?,
        roles: Roles::parse_joined(&roles).map_err(|_| broken("clients.roles"))?,
        secret_hash: row.get("secret_hash")?,
        jwks: row.get("jwks")?,
        generation: row.get("generation")?,
        created_at: row.get("created_at")?,
        last_used_at: row.get("last_used_at")?,
    })
}

fn add(tx: &Transaction<'_>, new: &NewClient, event: &Event, now: UnixMillis) -> Result<bool> {
    let sql = "INSERT OR IGNORE INTO clients (id, name, roles, secret_hash, jwks, created_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (id, roles) = (new.id.uuid(), new.roles.to_string());
    let made = tx.execute(sql, params![id.as_bytes(), new.name, roles, new.secret_hash, new.jwks, now])?;
    if made > 0 {
        event::append(tx, event, None, &new.name, now)?;
    }
    Ok(made > 0)
}

fn change(
    tx: &Transaction<'_>,
    id: ClientId,
    change: &ClientChange,
    event: &Event,
    now: UnixMillis,
) -> Result<Option<LogEntry>> {
    let bytes = id.uuid();
    let sql = "SELECT name, generation, access_exp_max FROM clients WHERE id = ?1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let found: Option<(String, i64, i64)> = tx.query_row(sql, [bytes.as_bytes()], read).optional()?;
    let Some((name, generation, access_exp_max)) = found else { return Ok(None) };
    let raised = generation + 1;
    match change {
        ClientChange::Roles(roles) => {
            let sql = "UPDATE clients SET roles = ?2, generation = ?3 WHERE id = ?1";
            tx.execute(sql, params![bytes.as_bytes(), roles.to_string(), raised])?;
        }
        ClientChange::Secret(hash) => {
            let sql = "UPDATE clients SET secret_hash = ?2, jwks = NULL, generation = ?3 WHERE id = ?1";
            tx.execute(sql, params![bytes.as_bytes(), hash, raised])?;
        }
        ClientChange::Remove => {
            tx.execute("DELETE FROM clients WHERE id = ?1", [bytes.as_bytes()])?;
        }
    }
    let entry = LogEntry::new(Revoked::Client(id), change.below(raised), access_exp_max, now);
    log::append(tx, &entry)?;
    event::append(tx, event, None, &name, now)?;
    Ok(Some(entry))
}

#[async_trait]
impl Clients for Sqlite {
    async fn add_client(&self, client: &NewClient, event: &Event) -> store::Result<bool> {
        let (client, event, now) = (client.clone(), event.clone(), self.clock.wall());
        self.connections.write(move |tx| add(tx, &client, &event, now)).await
    }

    async fn client(&self, id: ClientId) -> store::Result<Option<Client>> {
        let sql = format!("SELECT {CLIENT} FROM clients WHERE id = ?1");
        let find = move |db: &rusqlite::Connection| {
            db.prepare_cached(&sql)?.query_row([id.uuid().as_bytes()], read_client).optional()
        };
        self.connections.read(move |db| find(db)).await
    }

    async fn client_by_name(&self, name: &str) -> store::Result<Option<Client>> {
        let sql = format!("SELECT {CLIENT} FROM clients WHERE name = ?1");
        let name = name.to_owned();
        self.connections
            .read(move |db| db.prepare_cached(&sql)?.query_row([name], read_client).optional())
            .await
    }

    async fn clients(&self, limit: u32, after: Option<&str>) -> store::Result<Vec<Client>> {
        let sql = format!("SELECT {CLIENT} FROM clients WHERE name > ?1 ORDER BY name LIMIT ?2");
        let after = after.unwrap_or_default().to_owned();
        self.connections
            .read(move |db| db.prepare_cached(&sql)?.query_map(params![after, limit], read_client)?.collect())
            .await
    }

    async fn change_client(
        &self,
        id: ClientId,
        wanted: &ClientChange,
        event: &Event,
    ) -> store::Result<Option<LogEntry>> {
        let (wanted, event, now) = (wanted.clone(), event.clone(), self.clock.wall());
        self.connections.write(move |tx| change(tx, id, &wanted, &event, now)).await
    }

    async fn allow_client_token(
        &self,
        id: ClientId,
        generation: i64,
        ttl: i64,
    ) -> store::Result<Option<UnixMillis>> {
        let now = self.clock.wall();
        self.connections
            .write(move |tx| {
                let sql = "UPDATE clients SET access_exp_max = max(access_exp_max, ?3 + ?4), last_used_at = ?3 \
                     WHERE id = ?1 AND generation = ?2";
                let raised = tx.execute(sql, params![id.uuid().as_bytes(), generation, now, ttl])?;
                Ok((raised > 0).then_some(now))
            })
            .await
    }
}
