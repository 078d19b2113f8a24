//! `authgate key …`.

use std::{path::Path, sync::Arc};

use super::{
    Outcome, args::KeyCommand, inspect::columns, load, operator::operator_name, print, quiet_log, runtime,
    user::timestamp,
};
use crate::{
    account::{Keys, Operator},
    app,
    clock::SystemClock,
};

pub(super) fn run(command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::List { config } => with(&config.config, async |keys, _| {
            let mut rows =
                vec![["KEY", "ALGORITHM", "CREATED", "SIGNS FROM", "VERIFIES UNTIL"].map(str::to_owned)];
            rows.extend(keys.list().await?.into_iter().map(|key| {
                let until = key.expires_at.map_or_else(|| "active".to_owned(), timestamp);
                [key.kid, key.algorithm, timestamp(key.created_at), timestamp(key.signs_at), until]
            }));
            print(&columns(&rows))
        }),
        KeyCommand::Rotate { config } => with(&config.config, async |keys, _| {
            let key = keys.rotate(&operator_name()).await?;
            print(&format!("Key {} signs from {} on.\n", key.kid, timestamp(key.signs_at)))
        }),
        KeyCommand::Rewrap { config } => with(&config.config, async |keys, _| {
            let count = keys.rewrap(&operator_name()).await?;
            print(&format!(
                "{count} secrets are wrapped with auth.master_key; the previous one is not needed any more.\n"
            ))
        }),
        KeyCommand::Revoke { kid, all: _, config } => with(&config.config, async |keys, operator| {
            let Some(revoked) = operator.revoke_keys(keys, &operator_name(), kid.as_deref()).await? else {
                return Err(format!("there is no key {}", kid.unwrap_or_default()).into());
            };
            let mut said = String::new();
            for kid in &revoked.kids {
                said.push_str(&format!("Key {kid} is revoked.\n"));
            }
            if let Some(key) = &revoked.successor {
                said.push_str(&format!("Key {} signs from {} on.\n", key.kid, timestamp(key.signs_at)));
            }
            print(&said)
        }),
    }
}

fn with(config: &Path, work: impl AsyncFnOnce(&Keys, &Operator) -> Outcome) -> Outcome {
    let loaded = load(config)?;
    let _log = quiet_log();
    runtime()?.block_on(async {
        let config = &loaded.config;
        let (operator, vault) = app::open_operator(config, Arc::new(SystemClock)).await?;
        let keys = Keys::new(operator.store.clone(), vault.masters, config);
        work(&keys, &operator).await
    })
}
