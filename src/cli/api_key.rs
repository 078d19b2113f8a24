//! `authgate api-key …`.

use super::{
    Outcome,
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
        ApiKeyCommand::End { owner, id, config } => with_config(&config.config, async |operator| {
            let owner = find(operator, &owner).await?;
            operator.end_api_key(&operator_name(), owner.id, &id).await?;
            print("Ended.\n")
        }),
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
