//! Copies of requests whose answers nobody waits for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::body::{self, Body, Copy, RequestBody, Streamed};
use super::metrics::Counters;
use super::upstream::{Pick, Upstreams};

/// Copies on their way at once, for each worker; more are dropped and counted.
const MAX_COPIES: usize = 256;
/// Pieces of a body that a mirror may lag behind; then its copy breaks off.
const MAX_LAG: usize = 32;
/// For a copy and its answer.
const TIME: Duration = Duration::from_secs(60);

/// The copies of a worker's requests.
#[derive(Debug, Default)]
pub(super) struct Mirrors {
    copies: Mutex<JoinSet<()>>,
}

impl Mirrors {
    /// Sends a copy of `request` to the endpoint that `mirror` has chosen. If the request `has_body`, the copy's comes by what is
    /// returned.
    pub(super) fn send<B>(
        &self,
        upstreams: &Arc<Upstreams>,
        counters: &Counters,
        mirror: Pick,
        request: &Request<B>,
        has_body: bool,
    ) -> Option<Copy> {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        while copies.try_join_next().is_some() {}
        if copies.len() >= MAX_COPIES {
            counters
                .mirrors_dropped
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return None;
        }
        let (pieces, body) = if has_body {
            let (pieces, body) = body::copy(MAX_LAG);
            (Some(pieces), body)
        } else {
            (None, RequestBody::Empty)
        };
        let mut copy = Request::new(body);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        let upstreams = Arc::clone(upstreams);
        copies.spawn(async move {
            let backend = mirror.cluster.breaker.backend.clone();
            let exchange = exchange(&upstreams, mirror, copy);
            if timeout(TIME, exchange).await.is_err() {
                tracing::debug!(backend, "mirror took too long");
            }
        });
        pieces
    }
}

/// Reads the answer to its end, so that the connection can be used again.
async fn exchange(upstreams: &Upstreams, mut pick: Pick, copy: Request<RequestBody>) {
    match upstreams.send(&mut pick, &mut Some(copy)).await {
        Ok((response, lease)) => {
            let body = Streamed::new(response.into_body(), lease, None, None, false);
            let mut body = Body::upstream(body);
            while let Some(Ok(_piece)) = body.frame().await {}
        }
        Err(failed) => {
            let backend = &pick.cluster.breaker.backend;
            tracing::debug!(backend, ?failed, "mirror failed");
        }
    }
}
