//! One request and its response on one connection.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;

use super::pool::{Http2, Pool};
use super::target::Target;
use crate::l7::body::RequestBody;
use crate::l7::io::{Rewind, UpstreamIo};
use crate::l7::respond::Refusal;

/// An HTTP/1.1 connection, driven by whoever has it.
#[derive(Debug)]
pub(super) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    /// `None`: it has ended.
    connection: Option<http1::Connection<TokioIo<UpstreamIo>, RequestBody>>,
}

impl Http1 {
    pub(super) const fn new(
        sender: http1::SendRequest<RequestBody>,
        connection: http1::Connection<TokioIo<UpstreamIo>, RequestBody>,
    ) -> Self {
        let connection = Some(connection);
        Self { sender, connection }
    }

    /// Does what can be done now; the task of `cx` is woken when there is more to do.
    fn drive(&mut self, cx: &mut Context<'_>) {
        let ended = self
            .connection
            .as_mut()
            .is_some_and(|connection| Pin::new(connection).poll(cx).is_ready());
        if ended {
            self.connection = None;
        }
    }

    /// Whether an idle connection can take a request, as far as one can know.
    pub(super) fn is_open(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// What a response's body needs to come.
#[derive(Debug)]
pub(in crate::l7) enum Lease {
    /// Drives the connection, and gives it back to the pool behind the body.
    Http1(Held),
    /// Holds the place of a request on a shared connection.
    Http2 { _place: InFlight },
}

/// A connection in use, and where it goes afterwards.
#[derive(Debug)]
pub(in crate::l7) struct Held {
    connection: Box<Http1>,
    pool: Arc<Pool>,
    target: u64,
}

impl Lease {
    /// Whether nothing comes unless [`Self::drive`] is called.
    pub(in crate::l7) const fn is_driven(&self) -> bool {
        matches!(self, Self::Http1(_))
    }

    pub(in crate::l7) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Self::Http1(held) = self {
            held.connection.drive(cx);
        }
    }

    /// The body has ended: the connection is free.
    pub(in crate::l7) fn release(self) {
        if let Self::Http1(mut held) = self
            && held.connection.is_open()
        {
            held.pool.put(held.target, held.connection);
        }
    }
}

#[derive(Debug)]
pub(in crate::l7) struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of a request for another protocol.
pub(in crate::l7) enum Switched {
    /// The upstream speaks the other protocol now.
    Yes(Box<Rewind<UpstreamIo>>),
    /// It answered as to any request.
    No(Lease),
}

pub(super) type Outcome = Result<(Response<Incoming>, Lease), Failed>;

/// An exchange that came to nothing.
pub(super) struct Failed {
    error: hyper::Error,
    /// The request, if none of it was sent.
    unsent: Option<Request<RequestBody>>,
}

impl Failed {
    pub(super) fn unsent(self) -> Result<Request<RequestBody>, Refusal> {
        match self.unsent {
            Some(request) => Ok(request),
            None => Err(Refusal::Broken(self.error.into())),
        }
    }

    pub(super) fn refusal(self) -> Refusal {
        Refusal::Broken(self.error.into())
    }
}

impl From<hyper::client::conn::TrySendError<Request<RequestBody>>> for Failed {
    fn from(mut failed: hyper::client::conn::TrySendError<Request<RequestBody>>) -> Self {
        let unsent = failed.take_message();
        let error = failed.into_error();
        Self { error, unsent }
    }
}

pub(super) async fn http1(
    pool: &Arc<Pool>,
    target: &Target,
    mut connection: Box<Http1>,
    mut request: Request<RequestBody>,
) -> Outcome {
    to_http1(&mut request);
    // Only driving the connection can bring the response, and that is done here: nobody else needs
    // to wake this task, and a budget that runs out must not.
    let mut sent = pin!(unconstrained(connection.sender.try_send_request(request)));
    let response = poll_fn(|cx| {
        let ended = match &mut connection.connection {
            Some(connection) => Pin::new(connection).poll(cx).is_ready(),
            None => false,
        };
        if ended {
            connection.connection = None;
        }
        sent.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    });
    let response = response.await.map_err(Failed::from)?;
    let lease = held(pool, target, connection);
    Ok((response, lease))
}

fn held(pool: &Arc<Pool>, target: &Target, connection: Box<Http1>) -> Lease {
    Lease::Http1(Held {
        connection,
        pool: Arc::clone(pool),
        target: target.id,
    })
}

/// As [`http1`], but the connection may stop being HTTP.
pub(super) async fn upgrade(
    pool: &Arc<Pool>,
    target: &Target,
    mut connection: Box<Http1>,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Switched), Refusal> {
    to_http1(&mut request);
    let mut sent = pin!(unconstrained(connection.sender.try_send_request(request)));
    let mut ended = false;
    let response = poll_fn(|cx| {
        if !ended && let Some(connection) = &mut connection.connection {
            ended = connection.poll_without_shutdown(cx).is_ready();
        }
        match sent.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending if ended => {
                // The response can only say now that there is none.
                connection.connection = None;
                sent.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            }
            polled => polled,
        }
    });
    let response = response.await.map_err(|e| Failed::from(e).refusal())?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let lease = held(pool, target, connection);
        return Ok((response, Switched::No(lease)));
    }
    let Some(connection) = connection.connection else {
        return Err(Refusal::NoUpgrade);
    };
    let parts = connection.into_parts();
    let io = Rewind::new(parts.read_buf, parts.io.into_inner());
    Ok((response, Switched::Yes(Box::new(io))))
}

pub(super) async fn http2(
    target: &Target,
    mut connection: Http2,
    request: Request<RequestBody>,
) -> Outcome {
    let request = to_http2(target, request);
    connection.in_flight.fetch_add(1, Ordering::Relaxed);
    let place = InFlight(Arc::clone(&connection.in_flight));
    let response = connection.sender.try_send_request(request).await?;
    Ok((response, Lease::Http2 { _place: place }))
}

/// The target in origin form; the host is in its header.
fn to_http1(request: &mut Request<RequestBody>) {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    }
}

/// The host in the target.
fn to_http2(target: &Target, mut request: Request<RequestBody>) -> Request<RequestBody> {
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| {
        Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes())).ok()
    });
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(target.scheme());
    parts.authority = Some(authority.unwrap_or_else(|| target.authority()));
    let path = request.uri().path_and_query().cloned();
    parts.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    request
}
