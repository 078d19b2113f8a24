//! `authgate api-key …`.

use super::{
    Outcome, Refused,
    args::ApiKeyCommand,
    inspect::columns,
    load,
    operator::operator_name,
    print,
    user::{find, timestamp, with, with_config},
};
use crate::{
    access::may_reach,
    account::{ApiKeyRequest, MOST_KEYS, Operator, list_keys},
    config::Span,
    error::Kind,
    store::User,
};

pub(super) fn run(command: ApiKeyCommand) -> Outcome {
    match command {
        ApiKeyCommand::Add { owner, name, routes, roles, networks, expires, config } => {
            let loaded = load(&config.config)?;
            let given = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
            let wanted = ApiKeyRequest {
                name,
                roles: given(roles),
                routes: given(routes),
                networks: given(networks),
                expires_in: expires.map(|Span(span)| i64::try_from(span.as_secs()).unwrap_or(i64::MAX)),
            };
            let reaches = |pattern: &_, roles: &_| may_reach(&loaded.routes, pattern, roles);
            with(&loaded, async |operator| {
                let owner = find(operator, &owner).await?;
                let made = operator.add_api_key(&operator_name(), &owner, wanted, &reaches).await?;
                print(&format!("{}\n", made.text.expose()))
            })
        }
        ApiKeyCommand::List { owner, config } => {
            with_config(&config.config, async |operator| list(operator, &owner).await)
        }
        ApiKeyCommand::End { owner, id, all: _, config } => with_config(&config.config, async |operator| {
            let owner = find(operator, &owner).await?;
            let ended = match id {
                Some(id) => operator.end_api_key(&operator_name(), owner.id, &id).await.map(|()| 1)?,
                None => end_all(operator, &owner).await?,
            };
            print(&format!("Ended: {ended}.\n"))
        }),
    }
}

/// Ends the keys of an account until there is none, also of those that are made meanwhile. Returns how many.
async fn end_all(operator: &Operator, owner: &User) -> Result<usize, Refused> {
    let mut ended = 0;
    loop {
        let listed = list_keys(&*operator.store, owner.id, MOST_KEYS, None).await?;
        if listed.keys.is_empty() {
            return Ok(ended);
        }
        for key in &listed.keys {
            match operator.end_api_key(&operator_name(), owner.id, &key.id.to_string()).await {
                Ok(()) => ended += 1,
                // Its owner was sooner.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

async fn list(operator: &Operator, owner: &str) -> Outcome {
    let owner = find(operator, owner).await?;
    let listed = list_keys(&*operator.store, owner.id, MOST_KEYS, None).await?;
    let mut rows = vec![["KEY", "NAME", "CREATED", "EXPIRES", "LAST USED"].map(str::to_owned)];
    let at = |at: Option<i64>| at.map_or_else(|| "never".to_owned(), timestamp);
    rows.extend(listed.keys.into_iter().map(|key| {
        let (expires, used) = (at(key.expires_at), at(key.last_used_at));
        [key.id.to_string(), key.name, timestamp(key.created_at), expires, used]
    }));
    print(&columns(&rows))
}
