//! `authgate audit`.

use std::sync::Arc;

use serde_json::json;

use super::{Outcome, args::Audit, inspect::columns, load, print, quiet_log, runtime, user::timestamp};
use crate::{
    account::AccountError,
    app,
    clock::SystemClock,
    error::Kind,
    store::{AuditEntry, AuditFilter},
    types::Username,
};

pub(super) fn run(args: &Audit) -> Outcome {
    let loaded = load(&args.config.config)?;
    let _log = quiet_log();
    let entries = runtime()?.block_on(async {
        let store = app::open_store(&loaded.config, Arc::new(SystemClock)).await?;
        let subject = match &args.user {
            Some(name) => {
                let user = store.user_by_name(&Username::new(name).map_err(AccountError::from)?).await?;
                Some(user.ok_or(AccountError::Refused(Kind::NotFound))?.id)
            }
            None => None,
        };
        let filter = AuditFilter { before: None, subject, limit: args.limit };
        Ok::<_, super::Refused>(store.audit(&filter).await?)
    })?;
    if args.json { print(&entries.iter().map(line).collect::<String>()) } else { print(&table(&entries)) }
}

fn table(entries: &[AuditEntry]) -> String {
    let mut rows = vec![["TIME", "WHO", "FROM", "ACTION", "OF", "DETAIL"].map(str::to_owned)];
    rows.extend(entries.iter().cloned().map(|entry| {
        let address = entry.address.unwrap_or_default();
        let actor = if entry.actor.is_empty() { "-".to_owned() } else { entry.actor };
        [timestamp(entry.at), actor, address, entry.action, entry.subject, entry.detail]
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
