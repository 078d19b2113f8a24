//! `authgate audit`.

use std::sync::Arc;

use serde_json::json;

use super::{Outcome, args::Audit, inspect::columns, load, print, quiet_log, runtime, user::timestamp};
use crate::{
    app,
    clock::SystemClock,
    store::{AuditEntry, AuditFilter},
};

pub(super) fn run(args: &Audit) -> Outcome {
    let loaded = load(&args.config.config)?;
    let _log = quiet_log();
    let entries = runtime()?.block_on(async {
        let operator = app::open_operator(&loaded.config, Arc::new(SystemClock)).await?;
        let subject = match &args.user {
            Some(name) => Some(operator.find(name).await?.id),
            None => None,
        };
        let filter = AuditFilter { before: None, subject, limit: args.limit };
        Ok::<_, super::Refused>(operator.store.audit(&filter).await?)
    })?;
    if args.json { print(&entries.iter().map(line).collect::<String>()) } else { print(&table(&entries)) }
}

fn table(entries: &[AuditEntry]) -> String {
    let mut rows = vec![["TIME", "WHO", "FROM", "ACTION", "OF", "DETAIL"].map(str::to_owned)];
    rows.extend(entries.iter().cloned().map(|entry| {
        let address = entry.address.unwrap_or_default();
        [timestamp(entry.at), entry.actor, address, entry.action, entry.subject, entry.detail]
    }));
    columns(&rows)
}

fn line(entry: &AuditEntry) -> String {
    let object = json!({
        "seq": entry.seq,
        "at": timestamp(entry.at),
        "actor_id": entry.actor_id,
        "actor": entry.actor,
        "address": entry.address,
        "action": entry.action,
        "subject_id": entry.subject_id,
        "subject": entry.subject,
        "detail": entry.detail,
    });
    format!("{object}\n")
}
