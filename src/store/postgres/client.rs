//! Client programs.

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::{
    Postgres,
    connection::{QueryError, QueryResult as Result},
    event, log,
    statement::{NOW, now, one, only_i64, run},
};
use crate::{
    clock::UnixMillis,
    store::{self, CLIENT, Client, ClientChange, Clients, Event, LogEntry, NewClient, Revoked},
    types::{ClientId, Roles},
};

fn read_client(row: &Row) -> Result<Client> {
    let secret: Option<&[u8]> = row.try_get("secret_hash")?;
    let secret = secret.map(|hash| hash.try_into().map_err(|_| QueryError::Broken("clients.secret_hash")));
    Ok(Client {
        id: ClientId::from_uuid(row.try_get("id")?).ok_or(QueryError::Broken("clients.id"))?,
        name: row.try_get("name")?,
        roles: Roles::parse_joined(row.try_get("roles")?).map_err(|_| QueryError::Broken("clients.roles"))?,
        secret_hash: secret.transpose()?,
        jwks: row.try_get("jwks")?,
        generation: row.try_get("generation")?,
        created_at: row.try_get("created_at")?,
        last_used_at: row.try_get("last_used_at")?,
    })
}

async fn add(tx: &Transaction<'_>, new: &NewClient, event: &Event) -> Result<bool> {
    let sql = format!(
        "INSERT INTO clients (id, name, roles, secret_hash, jwks, created_at) VALUES ($1, $2, $3, $4, $5, {NOW}) \
         ON CONFLICT (name) DO NOTHING"
    );
    let secret = new.secret_hash.as_ref().map(<[u8; 32]>::as_slice);
    let (id, roles) = (new.id.uuid(), new.roles.to_string());
    let made = run(tx, &sql, &[&id, &new.name, &roles, &secret, &new.jwks]).await?;
    if made > 0 {
        event::append(tx, event, None, &new.name).await?;
    }
    Ok(made > 0)
}

async fn change(
    tx: &Transaction<'_>,
    id: ClientId,
    change: &ClientChange,
    event: &Event,
) -> Result<Option<LogEntry>> {
    let sql = "SELECT name, generation, access_exp_max FROM clients WHERE id = $1 FOR UPDATE";
    let statement = tx.prepare_cached(sql).await?;
    let Some(row) = tx.query_opt(&statement, &[&id.uuid()]).await? else { return Ok(None) };
    let (name, generation, access_exp_max): (String, i64, i64) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let raised = generation + 1;
    match change {
        ClientChange::Roles(roles) => {
            let sql = "UPDATE clients SET roles = $2, generation = $3 WHERE id = $1";
            run(tx, sql, &[&id.uuid(), &roles.to_string(), &raised]).await?;
        }
        ClientChange::Secret(hash) => {
            let sql = "UPDATE clients SET secret_hash = $2, jwks = NULL, generation = $3 WHERE id = $1";
            run(tx, sql, &[&id.uuid(), &hash.as_slice(), &raised]).await?;
        }
        ClientChange::Remove => {
            run(tx, "DELETE FROM clients WHERE id = $1", &[&id.uuid()]).await?;
        }
    }
    let entry = LogEntry::new(Revoked::Client(id), change.below(raised), access_exp_max, now(tx).await?);
    log::append(tx, &entry).await?;
    event::append(tx, event, None, &name).await?;
    Ok(Some(entry))
}

#[async_trait]
impl Clients for Postgres {
    async fn add_client(&self, client: &NewClient, event: &Event) -> store::Result<bool> {
        self.pool.write(async |tx| add(tx, client, event).await).await
    }

    async fn client(&self, id: ClientId) -> store::Result<Option<Client>> {
        let sql = format!("SELECT {CLIENT} FROM clients WHERE id = $1");
        self.pool.read(async |db| one(db, &sql, &[&id.uuid()], read_client).await).await
    }

    async fn client_by_name(&self, name: &str) -> store::Result<Option<Client>> {
        let sql = format!("SELECT {CLIENT} FROM clients WHERE name = $1");
        self.pool.read(async |db| one(db, &sql, &[&name], read_client).await).await
    }

    async fn clients(&self, limit: u32, after: Option<&str>) -> store::Result<Vec<Client>> {
        let sql = format!(
            r#"SELECT {CLIENT} FROM clients WHERE name COLLATE "C" > $1 ORDER BY name COLLATE "C" LIMIT $2"#
        );
        self.pool
            .read(async |db| {
                let statement = db.prepare_cached(&sql).await?;
                let rows = db.query(&statement, &[&after.unwrap_or_default(), &i64::from(limit)]).await?;
                rows.iter().map(read_client).collect()
            })
            .await
    }

    async fn change_client(
        &self,
        id: ClientId,
        wanted: &ClientChange,
        event: &Event,
    ) -> store::Result<Option<LogEntry>> {
        self.pool.write(async |tx| change(tx, id, wanted, event).await).await
    }

    async fn allow_client_token(
        &self,
        id: ClientId,
        generation: i64,
        ttl: i64,
    ) -> store::Result<Option<UnixMillis>> {
        // The time is read once, before the row is locked: the token ends no later than what is noted.
        let sql = format!(
            "UPDATE clients SET access_exp_max = greatest(access_exp_max, n.at + $3), last_used_at = n.at \
             FROM (SELECT {NOW} AS at) n WHERE id = $1 AND generation = $2 RETURNING n.at"
        );
        self.pool.write(async |tx| one(tx, &sql, &[&id.uuid(), &generation, &ttl], only_i64).await).await
    }
}
