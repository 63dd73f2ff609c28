//! The thread that sends spans: in batches, again if it is worth it, and in no hurry.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Shared;
use super::span::of_resource;
use super::wire::{Failed, Wire};

/// Spans of a batch, as OpenTelemetry has it.
const BATCH: usize = 512;
/// How long a batch is waited for to become full.
const GATHER: Duration = Duration::from_secs(1);
/// Attempts at a batch.
const ATTEMPTS: u32 = 5;
/// Pause after the first attempt that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// What a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the thread has.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) wire: Wire,
    pub(super) resource: Resource,
    pub(super) spans: mpsc::Receiver<Span>,
    /// `true`: the daemon ends, nothing is waited for any more.
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) shared: Arc<Shared>,
    /// The last batch was not sent.
    pub(super) failing: bool,
}

impl Export {
    /// Sends until nobody has spans any more.
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.spans.recv_many(&mut batch, BATCH).await > 0 {
            let gathered = timeout(GATHER, gather(&mut self.spans, &mut batch));
            // Whatever came in time is the batch.
            let _late = gathered.await;
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let request = ExportTraceServiceRequest {
            resource_spans: vec![of_resource(&self.resource, spans)],
        };
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let failed = match self.wire.send(&request).await {
                Ok(answer) => {
                    let rejected = answer.rejected.min(count);
                    self.sent(count - rejected, rejected, &answer.message);
                    return;
                }
                Err(failed) => failed,
            };
            let last = attempt == ATTEMPTS || !failed.is_passing() || *self.stopped.borrow();
            if last {
                self.not_sent(count, &failed);
                return;
            }
            let asked = failed.asked().unwrap_or(pause).min(LONGEST_PAUSE);
            pause *= 2;
            tokio::select! {
                () = sleep(asked) => {}
                // Then there is one more attempt at once. The owner is gone if the daemon is.
                _told = self.stopped.wait_for(|stopped| *stopped) => {}
            }
        }
    }

    fn sent(&mut self, exported: u64, rejected: u64, message: &str) {
        self.shared.exported.fetch_add(exported, Ordering::Relaxed);
        self.shared.rejected.fetch_add(rejected, Ordering::Relaxed);
        let collector = self.wire.url();
        if self.failing {
            tracing::info!(collector, "spans are exported again");
        }
        self.failing = false;
        if rejected > 0 {
            tracing::warn!(collector, rejected, message, "the collector rejects spans");
        } else if !message.is_empty() {
            tracing::info!(collector, message, "the collector says something");
        }
    }

    fn not_sent(&mut self, count: u64, failed: &Failed) {
        self.shared.failed.fetch_add(count, Ordering::Relaxed);
        let collector = self.wire.url();
        if !self.failing {
            tracing::warn!(collector, error = %failed, "spans cannot be exported");
        }
        self.failing = true;
    }
}

/// Fills the batch; returns when it is full, or there will be no more.
async fn gather(spans: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    while batch.len() < BATCH && spans.recv_many(batch, BATCH - batch.len()).await > 0 {}
}
