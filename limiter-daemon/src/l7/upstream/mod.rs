//! Connections to upstreams, pooled by each worker for itself.
//!
//! An HTTP/1.1 connection has no task of its own: the request that uses it drives it, and between
//! requests nobody does. That saves two changes of task a request, and the connection ends with the
//! request that is cut off. HTTP/2 connections are shared by requests, so a task drives each.

mod connect;
mod exchange;
mod pool;
mod target;

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;

pub(super) use connect::open;
pub(super) use exchange::{Lease, Switched};
pub(super) use target::Target;

use super::body::RequestBody;
use super::clock::Clock;
use super::respond::Refusal;
use connect::Connection;
use pool::{Pool, Pooled};

/// How long a connection to an endpoint may take (Envoy Gateway's `timeout.tcp.connectTimeout`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A worker's connections to upstreams.
#[derive(Debug)]
pub(super) struct Upstreams {
    pool: Arc<Pool>,
}

impl Upstreams {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            pool: Arc::new(Pool::new(clock)),
        }
    }

    /// Closes connections that were idle for long, or that the endpoint has closed.
    pub(super) fn sweep(&self) {
        self.pool.sweep();
    }

    /// Sends `request` to `target` and waits for the response's head. The lease must be kept for as
    /// long as the body is read.
    ///
    /// # Errors
    /// [`Refusal`] as the client is to see it.
    pub(super) async fn send(
        &self,
        target: &Arc<Target>,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Lease), Refusal> {
        loop {
            // What is rare is boxed: each request carries the size of what is not.
            let (pooled, fresh) = match self.pool.take(target) {
                Some(pooled) => (pooled, false),
                None => (Box::pin(self.pool.connect(target)).await?, true),
            };
            let outcome = match pooled {
                Pooled::Http1(connection) => {
                    exchange::http1(&self.pool, target, connection, request).await
                }
                Pooled::Http2(connection) => exchange::http2(target, connection, request).await,
            };
            match outcome {
                Ok(done) => return Ok(done),
                // A pooled connection may have been closed meanwhile. What was not sent is sent on
                // another.
                Err(_closed) if !fresh && request.is_some() => {}
                Err(error) => return Err(Refusal::Broken(error.into())),
            }
        }
    }

    /// Sends a request that asks for another protocol, on a connection of its own. If the upstream
    /// switches, the connection comes back as it is.
    ///
    /// # Errors
    /// [`Refusal`] as the client is to see it.
    pub(super) async fn upgrade(
        &self,
        target: &Arc<Target>,
        request: &mut Option<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, Switched), Refusal> {
        match connect::connect(target, false).await? {
            Connection::Http1(connection) => {
                exchange::upgrade(&self.pool, target, connection, request).await
            }
            Connection::Http2(_) => Err(Refusal::NoUpgrade),
        }
    }
}
