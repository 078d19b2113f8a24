//! The start: the foundation is loaded, a first snapshot assembled on it, and what runs beside the workers begins.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::{runtime::Handle, sync::watch};

use super::{
    assemble::{Assembled, assemble},
    background::{follow, maintain, sweep},
    certificates,
    error::StartError,
    foundation::{self, Followed},
    load::LoadedGateway,
    process::{Process, Running},
};
use crate::{password::Hasher, upstream::Monitor};

/// How many mails are on their way at once: a slow server holds up no more.
const MAIL_TASKS: usize = 4;

/// Loads everything that nothing may be served without, waiting for a store that is away.
///
/// What keeps the mirror true runs on `vital`, where no client's work does; the rest on the runtime that this is
/// called on.
///
/// # Errors
/// What waiting does not mend.
pub(super) async fn start(
    loaded: LoadedGateway,
    process: Arc<Process>,
    hasher: Arc<Hasher>,
    vital: Handle,
) -> Result<Running, StartError> {
    let (foundation, followed) = foundation::load(&loaded.config, process, hasher, &vital).await?;
    let foundation = Arc::new(foundation);
    let keep_audit = loaded.config.keep_audit;
    let tls = loaded.tls.iter().chain([&loaded.admin_tls]).flatten().cloned().collect();
    tokio::spawn(certificates::follow(tls, foundation.process.metrics.clone()));
    let Assembled { snapshot, admin_api, mail_worker } = assemble(&foundation, loaded, None)?;
    if let Some(mail_worker) = mail_worker {
        for _ in 0..MAIL_TASKS {
            tokio::spawn(mail_worker.clone().work());
        }
    }
    for monitor in join_all(snapshot.upstreams().iter().map(Monitor::start)).await {
        vital.spawn(monitor.follow());
    }
    let Followed { follower, hints } = followed;
    vital.spawn(follow(follower, hints, foundation.clone()));
    vital.spawn(sweep(foundation.process.clone()));
    tokio::spawn(maintain(foundation, keep_audit));
    Ok(Running { snapshots: watch::Sender::new(snapshot), admin_api })
}
