//! Certificates are taken up when their files change.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{foundation::Foundation, load::LoadedGateway, process::Process};
use crate::{
    acme,
    telemetry::Metrics,
    tls::{Refreshed, ServerTls},
};

/// How often the files are read. Their contents are compared, not their times: a link that is swapped, as Kubernetes does,
/// may lead to older files.
const INTERVAL: Duration = Duration::from_secs(2);

/// Shows when the certificates of all listeners, `admin` among them, expire. Returns what follows their files for as long as the
/// process runs.
pub(super) fn follow(admin: Option<Arc<ServerTls>>, process: Arc<Process>) -> impl Future<Output = ()> {
    // At once: whoever asks once it is ready finds them.
    let shown = all(admin.as_ref(), &process);
    show_expiries(&shown, &process.metrics);
    follow_files(admin, process, shown)
}

/// Lets the listeners of a config that is about to be served show what was issued so far. A store that is away leaves that for later.
pub(super) async fn show_issued(acme: &acme::Worker, loaded: &LoadedGateway) {
    let Some(config) = &loaded.config.acme else { return };
    if let Err(error) = acme.certificates().read(&config.names).await {
        tracing::warn!(%error, "certificates cannot be read from the store");
    }
    apply(acme, loaded.tls.iter().flatten().chain(&loaded.admin_tls), &config.names);
}

/// Shows what is issued from now on, for as long as the process runs.
pub(super) async fn follow_issued(admin: Option<Arc<ServerTls>>, foundation: Arc<Foundation>) {
    let (acme, process) = (foundation.acme.clone(), foundation.process.clone());
    let changed = |names: &[String], fresh: &[String]| {
        let listeners = all(admin.as_ref(), &process);
        apply(&acme, listeners.iter(), names);
        for name in fresh {
            tracing::info!(certificate = name, "certificate taken up");
        }
        if !fresh.is_empty() {
            show_expiries(&listeners, &process.metrics);
        }
    };
    foundation.acme.clone().follow(changed).await;
}

fn apply<'a>(acme: &acme::Worker, listeners: impl Iterator<Item = &'a Arc<ServerTls>>, names: &[String]) {
    for tls in listeners {
        if let Err(error) = acme.certificates().apply(tls, names) {
            tracing::error!(%error, "an issued certificate cannot be shown");
        }
    }
}

async fn follow_files(admin: Option<Arc<ServerTls>>, process: Arc<Process>, mut shown: Vec<Arc<ServerTls>>) {
    let metrics = &process.metrics;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let listeners = all(admin.as_ref(), &process);
        let read = listeners.clone();
        let refresh = move || read.iter().flat_map(|tls| tls.refresh()).collect::<Vec<_>>();
        let Ok(refreshed) = tokio::task::spawn_blocking(refresh).await else { continue };
        for refreshed in &refreshed {
            match refreshed {
                Refreshed::TakenUp(name) => tracing::info!(certificate = name, "certificate taken up"),
                Refreshed::Refused(error) => {
                    tracing::error!(%error, "a changed certificate cannot be used; the one before goes on");
                }
            }
            metrics.certificate_reload(matches!(refreshed, Refreshed::TakenUp(_)));
        }
        let changed = |now: &[Arc<ServerTls>], before: &[Arc<ServerTls>]| {
            now.len() != before.len() || now.iter().zip(before).any(|(now, before)| !Arc::ptr_eq(now, before))
        };
        if !refreshed.is_empty() || changed(&listeners, &shown) {
            show_expiries(&listeners, metrics);
            shown = listeners;
        }
    }
}

/// Returns TLS of all listeners as they are now.
fn all(admin: Option<&Arc<ServerTls>>, process: &Process) -> Vec<Arc<ServerTls>> {
    let listening = process.listening.borrow();
    let public = listening.iter().filter_map(|listening| listening.listener.tls.as_ref());
    public.chain(admin).cloned().collect()
}

fn show_expiries(listeners: &[Arc<ServerTls>], metrics: &Metrics) {
    // Listeners may share a certificate.
    let expiries: HashSet<_> = listeners.iter().flat_map(|tls| tls.expiries()).collect();
    metrics.certificates(expiries.into_iter());
}
