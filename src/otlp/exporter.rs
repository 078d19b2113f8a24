//! Gathering traced requests into batches, and exporting them.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc::Receiver, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{
    message::{encode, rejected},
    transport::Transport,
};
use crate::{
    config,
    telemetry::{Metrics, RequestTrace, TraceQueue},
};

/// Requests of a batch, at the most. Each is a few KiB, and a receiver takes 4 MiB.
const BATCH: usize = 256;

/// How long a request waits for others.
const GATHER: Duration = Duration::from_secs(1);

/// How often a batch is exported again if the receiver may come to take it, and the wait before the first time. Each further one is
/// twice as long.
const RETRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Exports traced requests.
pub struct Exporter {
    transport: Transport,
    service_name: String,
    /// What tells this process from others of its name.
    instance: String,
    receiver: Receiver<RequestTrace>,
    metrics: Arc<Metrics>,
    failing: bool,
}

impl Exporter {
    /// Creates an exporter, and the queue that it takes requests from.
    pub fn new(
        config: &config::Otlp,
        transport: Transport,
        metrics: Arc<Metrics>,
        instance: String,
    ) -> (TraceQueue, Self) {
        let (queue, receiver) = TraceQueue::new(metrics.clone());
        let service_name = config.service_name.clone();
        (queue, Self { transport, service_name, instance, receiver, metrics, failing: false })
    }

    /// Exports until nobody adds to the queue any more, or the process `ends`; then what is in the queue still, once.
    pub async fn run(mut self, mut ends: watch::Receiver<bool>) {
        loop {
            let mut batch = Vec::new();
            self.gather(&mut batch, &mut ends).await;
            if batch.is_empty() {
                return;
            }
            self.export(&batch, &mut ends).await;
        }
    }

    /// Gathers a batch. It stays empty if none will come.
    async fn gather(&mut self, batch: &mut Vec<RequestTrace>, ends: &mut watch::Receiver<bool>) {
        let mut due = None;
        while batch.len() < BATCH {
            if *ends.borrow() {
                while let Ok(trace) = self.receiver.try_recv() {
                    batch.push(trace);
                    if batch.len() == BATCH {
                        break;
                    }
                }
                return;
            }
            let next = async {
                match due {
                    Some(due) => timeout_at(due, self.receiver.recv()).await,
                    None => Ok(self.receiver.recv().await),
                }
            };
            tokio::select! {
                received = next => match received {
                    Ok(Some(trace)) => {
                        due.get_or_insert_with(|| Instant::now() + GATHER);
                        batch.push(trace);
                    }
                    // Nobody adds any more, or none came in time.
                    Ok(None) | Err(_) => return,
                },
                told = ends.wait_for(|ends| *ends) => if told.is_err() {
                    return;
                },
            }
        }
    }

    async fn export(&mut self, batch: &[RequestTrace], ends: &mut watch::Receiver<bool>) {
        let message = encode(batch, &self.service_name, &self.instance);
        let count = batch.len() as u64;
        for tries in 0..=RETRIES {
            let error = match self.transport.export(message.clone()).await {
                Ok(response) => {
                    self.metrics.traces(true, count);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("traces are exported again");
                    }
                    if let Some((spans, reason)) = rejected(&response) {
                        tracing::warn!(spans, reason, "the receiver of traces has rejected some");
                    }
                    return;
                }
                Err(error) => error,
            };
            if !std::mem::replace(&mut self.failing, true) {
                tracing::warn!(%error, "traces cannot be exported");
            }
            if !error.is_passing() || tries == RETRIES || *ends.borrow() {
                break;
            }
            tokio::select! {
                () = sleep(FIRST_WAIT * 2u32.pow(tries)) => {}
                _ = ends.wait_for(|ends| *ends) => {}
            }
        }
        self.metrics.traces(false, count);
    }
}
