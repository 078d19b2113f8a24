//! Certificates are taken up when their files change.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    telemetry::Metrics,
    tls::{Refreshed, ServerTls},
};

/// How often the files are read. Their contents are compared, not their times: a link that is swapped, as Kubernetes does,
/// may lead to older files.
const INTERVAL: Duration = Duration::from_secs(2);

/// Follows the files of all listeners, for as long as the process runs.
pub(super) async fn follow(listeners: Vec<Arc<ServerTls>>, metrics: Arc<Metrics>) {
    if listeners.is_empty() {
        return;
    }
    show_expiries(&listeners, &metrics);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
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
        if !refreshed.is_empty() {
            show_expiries(&listeners, &metrics);
        }
    }
}

fn show_expiries(listeners: &[Arc<ServerTls>], metrics: &Metrics) {
    // Listeners may share a certificate.
    let expiries: HashSet<_> = listeners.iter().flat_map(|tls| tls.expiries()).collect();
    metrics.certificates(expiries.into_iter());
}
