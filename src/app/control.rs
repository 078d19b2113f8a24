//! The start: the foundation is loaded, a first snapshot assembled on it, and what runs beside the workers begins.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use super::{
    assemble::{Means, assemble},
    background::{follow, maintain, sweep},
    certificates,
    error::StartError,
    foundation::{self, Followed, Foundation},
    load::LoadedGateway,
    process::{Process, Running},
    reload::Reloader,
};
use crate::password::Hasher;

/// How often it is looked whether the process has come to serve.
const UNTIL_SERVING: Duration = Duration::from_millis(100);

/// Loads everything that nothing may be served without, waiting for a store that is away. `source` is the file of the config.
///
/// What keeps the mirror true runs on `vital`, where no client's work does; the rest on the runtime that this is
/// called on.
///
/// # Errors
/// What waiting does not mend.
pub(super) async fn start(
    loaded: LoadedGateway,
    source: Option<PathBuf>,
    process: Arc<Process>,
    hasher: Arc<Hasher>,
    vital: Handle,
) -> Result<Running, StartError> {
    let (foundation, followed) = foundation::load(&loaded.config, process, hasher, &vital).await?;
    let foundation = Arc::new(foundation);
    let digest = loaded.digest;
    certificates::show_issued(&foundation.acme, &loaded).await;
    foundation.acme.set_wanted(loaded.config.acme.clone().zip(loaded.acme_client.clone()));
    let admin_tls = loaded.admin_tls.clone();
    let (config, parts) = loaded.split();
    let means = Means { hasher: foundation.hasher.load_full(), keys: foundation.keys.load_full() };
    let assembled = assemble(&foundation, &means, &config, parts, None)?;
    let (reloader, snapshot) =
        Reloader::begin(source, foundation.clone(), vital.clone(), config, digest, assembled).await;
    let Followed { follower, hints } = followed;
    vital.spawn(follow(follower, hints, foundation.clone()));
    vital.spawn(sweep(foundation.process.clone()));
    tokio::spawn(certificates::follow_issued(admin_tls, foundation.clone()));
    tokio::spawn(order_certificates(foundation.clone()));
    tokio::spawn(maintain(foundation));
    tokio::spawn(follow_hangups(reloader.clone()));
    tokio::spawn(reloader.clone().follow_file());
    Ok(Running { snapshots: watch::Sender::new(snapshot), reloader })
}

/// Orders certificates once clients, and with them the authorities, can come; until another process serves in place of this one.
async fn order_certificates(foundation: Arc<Foundation>) {
    let process = &foundation.process;
    while !process.serves.load(Relaxed) {
        sleep(UNTIL_SERVING).await;
    }
    tokio::select! {
        () = foundation.acme.clone().work() => {}
        () = process.has_handed_over() => {}
    }
}

/// Takes the config up anew at each SIGHUP, for as long as the process runs.
async fn follow_hangups(reloader: Arc<Reloader>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        reloader.take_up_unasked("SIGHUP").await;
    }
}
