//! Traces: a span for some of the requests, sent to a collector by OTLP.
//!
//! Whether a request is traced is decided once, at its beginning, by the W3C trace context that it
//! brings, or else by chance; who is not traced allocates nothing for it. At the end its span is put
//! into a bounded queue without waiting. A thread of its own takes spans out, in batches, and sends them
//! (`export`); where that cannot keep up, spans are dropped and counted.

mod context;
mod export;
pub mod headers;
mod span;
mod wire;

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use rustls::ClientConfig;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::policy::plan::{ALL_TRACED, TraceParent, TracingConfig};
pub use context::{Parent, TRACEPARENT, TRACESTATE, Traced};
pub use opentelemetry_proto::tonic::trace::v1::Span;
pub use span::{Attributes, Interval, Kind, server};
use wire::Wire;

/// Spans that wait to be sent, as OpenTelemetry has it. A span has about two KiB.
const QUEUE: usize = 2048;

/// Decides who is traced, and takes spans.
#[derive(Debug)]
pub struct Tracer {
    /// Of a million requests that bring no trace context.
    sampling: u32,
    parent: TraceParent,
    queue: mpsc::Sender<Span>,
    shared: Arc<Shared>,
    keys: RandomState,
    counter: AtomicU64,
}

/// What the tracer, its thread and the metrics share: what became of spans.
#[derive(Debug, Default)]
pub struct Shared {
    /// The collector has them.
    pub exported: AtomicU64,
    /// The queue was full.
    pub dropped: AtomicU64,
    /// They could not be sent.
    pub failed: AtomicU64,
    /// The collector did not want them.
    pub rejected: AtomicU64,
}

/// Whom the tracer belongs to.
#[derive(Debug)]
pub struct Owner {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    ended: std::sync::mpsc::Receiver<()>,
}

/// Why there can be no traces.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("`{0}` is no name that a certificate can have; set spec.tracing.otlp.endpoint")]
    ServerName(String),
    #[error("{path}: {why}; set spec.tracing.otlp.headersFile", path = path.display())]
    Headers { path: PathBuf, why: String },
    #[error("a thread or a runtime cannot be made: {0}")]
    Thread(#[from] io::Error),
}

impl Tracer {
    /// Starts the thread that sends. `tls`: how the collector is spoken to, if that is by TLS.
    /// `headers`: what is sent with each batch ([`headers::read`]). Nothing is connected before there
    /// is a span.
    ///
    /// # Errors
    /// [`TraceError`]
    pub fn start(
        config: &TracingConfig,
        tls: Option<Arc<ClientConfig>>,
        headers: HeaderMap,
    ) -> Result<(Arc<Self>, Owner), TraceError> {
        let wire = Wire::new(&config.otlp, tls, headers)?;
        let (queue, spans) = mpsc::channel(QUEUE);
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = std::sync::mpsc::channel();
        let shared = Arc::new(Shared::default());
        let export = export::Export {
            wire,
            resource: span::resource(&config.service_name),
            spans,
            stopped,
            shared: Arc::clone(&shared),
            failing: false,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || {
                runtime.block_on(export.run());
                // The owner may have given up waiting.
                let _gone = end.send(());
            })?;
        let owner = Owner {
            shared: Arc::clone(&shared),
            stop,
            ended,
        };
        Ok((Arc::new(Self::new(config, queue, shared)), owner))
    }

    fn new(config: &TracingConfig, queue: mpsc::Sender<Span>, shared: Arc<Shared>) -> Self {
        Self {
            sampling: config.sampling,
            parent: config.parent,
            queue,
            shared,
            keys: RandomState::new(),
            counter: AtomicU64::new(0),
        }
    }

    /// How a request with `headers` is traced; `None`: it is not. `random` gives numbers that nobody
    /// foresees.
    pub fn sample(&self, headers: &HeaderMap, random: impl Fn() -> u64) -> Option<Box<Traced>> {
        if let Some(parent) = self.parent(headers) {
            return parent
                .is_sampled()
                .then(|| Box::new(Traced::child(&parent, headers, &random)));
        }
        let sampled = match self.sampling {
            0 => false,
            ALL_TRACED => true,
            sampling => random() % u64::from(ALL_TRACED) < u64::from(sampling),
        };
        sampled.then(|| Box::new(Traced::root(&random)))
    }

    /// The same for a request that is traced only because the one before it is.
    pub fn follow(&self, headers: &HeaderMap) -> Option<Box<Traced>> {
        let parent = self.parent(headers).filter(Parent::is_sampled)?;
        Some(Box::new(Traced::child(&parent, headers, || self.random())))
    }

    fn parent(&self, headers: &HeaderMap) -> Option<Parent> {
        match self.parent {
            TraceParent::Follow => Parent::of(headers),
            TraceParent::Ignore => None,
        }
    }

    /// Takes the context away that a request brought and that is not to be believed.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if self.parent == TraceParent::Ignore {
            headers.remove(TRACEPARENT);
            headers.remove(TRACESTATE);
        }
    }

    /// Sends a span, some time. It is not made if there is no room for it.
    pub fn end(&self, span: impl FnOnce() -> Span) {
        match self.queue.try_reserve() {
            Ok(room) => room.send(span()),
            Err(TrySendError::Full(()) | TrySendError::Closed(())) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Unpredictable, as ids of requests are: a keyed hash of a counter.
    fn random(&self) -> u64 {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.keys.hash_one(number)
    }
}

impl Owner {
    /// Counters, for metrics.
    #[must_use]
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Waits until every span was sent, or was tried to be, for at most `patience`; `false` if some were
    /// not. The tracers must be gone.
    #[must_use]
    pub fn finish(self, patience: Duration) -> bool {
        self.stop.send_replace(true);
        self.ended.recv_timeout(patience).is_ok()
    }
}

#[cfg(test)]
mod tests;
