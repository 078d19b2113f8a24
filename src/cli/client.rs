//! `authgate client …`.

use super::{
    Outcome, Refused,
    args::ClientCommand,
    inspect::columns,
    operator::{operator_name, parse_roles},
    print,
    user::{timestamp, with_config},
};
use crate::{account::Operator, store::Client};

/// Clients that are read at a time.
const PAGE: u32 = 500;

pub(super) fn run(command: ClientCommand) -> Outcome {
    match command {
        ClientCommand::Add { name, roles, jwks, config } => {
            let roles = parse_roles(&roles)?;
            let read = |path: &std::path::Path| {
                std::fs::read_to_string(path).map_err(|error| Refused(format!("{}: {error}", path.display())))
            };
            let jwks = jwks.as_deref().map(read).transpose()?;
            with_config(&config.config, async |operator| {
                let made = operator.add_client(&operator_name(), &name, roles, jwks).await?;
                let mut said = format!("client_id: {}\n", made.id);
                if let Some(secret) = &made.secret {
                    said.push_str(&format!("client_secret: {}\n", secret.expose()));
                }
                print(&said)
            })
        }
        ClientCommand::List { config } => with_config(&config.config, list),
        ClientCommand::SetRoles { client, roles, config } => {
            let roles = parse_roles(&roles)?;
            with_config(&config.config, async |operator| {
                let client = find(operator, &client).await?;
                operator.set_client_roles(&operator_name(), &client, roles).await?;
                print("Roles set; the client's tokens have ended.\n")
            })
        }
        ClientCommand::RenewSecret { client, config } => with_config(&config.config, async |operator| {
            let client = find(operator, &client).await?;
            let secret = operator.renew_client_secret(&operator_name(), &client).await?;
            print(&format!("client_secret: {}\n", secret.expose()))
        }),
        ClientCommand::Remove { client, config } => with_config(&config.config, async |operator| {
            let client = find(operator, &client).await?;
            operator.remove_client(&operator_name(), &client).await?;
            print("Removed; the client's tokens have ended.\n")
        }),
    }
}

async fn find(operator: &Operator, client: &str) -> Result<Client, Refused> {
    operator.find_client(client).await.map_err(|error| match error.kind() {
        crate::error::Kind::NotFound => Refused(format!("there is no client {client}")),
        _ => error.into(),
    })
}

async fn list(operator: &Operator) -> Outcome {
    let mut rows = vec![["NAME", "ID", "ROLES", "CREATED", "LAST USED"].map(str::to_owned)];
    let mut after: Option<String> = None;
    loop {
        let page = operator.store.clients(PAGE, after.as_deref()).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        rows.extend(page.iter().map(|client| {
            let used = client.last_used_at.map_or_else(|| "never".to_owned(), timestamp);
            [
                client.name.clone(),
                client.id.to_string(),
                client.roles.to_string(),
                timestamp(client.created_at),
                used,
            ]
        }));
    }
    print(&columns(&rows))
}
