//! One request and its response on one connection.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{Entry, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::coop::unconstrained;

use super::cluster::{InUse, Waiting};
use super::failed::Failed;
use super::life::Life;
use super::pool::{Http2, Pool};
use super::target::Target;
use crate::engine::upstream::Slot;
use crate::l7::body::RequestBody;
use crate::l7::io::{Rewind, UpstreamIo};

/// An HTTP/1.1 connection, driven by whoever has it.
#[derive(Debug)]
pub(in crate::l7) struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    /// `None`: it has ended.
    connection: Option<http1::Connection<TokioIo<UpstreamIo>, RequestBody>>,
    /// The number of the endpoint, and whether there still is one.
    pub(super) target: u64,
    endpoint: Weak<Target>,
    pub(super) life: Life,
    /// Dropped behind the connection itself.
    pub(super) slot: Slot<Waiting>,
}

impl Http1 {
    pub(super) fn new(
        sender: http1::SendRequest<RequestBody>,
        connection: http1::Connection<TokioIo<UpstreamIo>, RequestBody>,
        target: &Arc<Target>,
        life: Life,
        slot: Slot<Waiting>,
    ) -> Self {
        Self {
            sender,
            connection: Some(connection),
            target: target.id,
            endpoint: Arc::downgrade(target),
            life,
            slot,
        }
    }

    /// Whether it may be kept: its endpoint is one of the plan in force.
    pub(super) fn is_wanted(&self) -> bool {
        self.endpoint.strong_count() > 0
    }

    /// Closes it; its slot is free for another.
    pub(super) fn close(self) -> Slot<Waiting> {
        let Self {
            sender,
            connection,
            slot,
            ..
        } = self;
        drop((sender, connection));
        slot
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

/// What a response's body needs to come, and what it takes up while it does.
#[derive(Debug)]
pub(in crate::l7) struct Lease {
    /// Given back before the connection, which somebody may be waiting for who needs both.
    in_use: InUse,
    connection: Leased,
}

#[derive(Debug)]
pub(super) enum Leased {
    /// Drives the connection, and gives it back to the pool behind the body.
    Http1(Held),
    /// Holds the place of a request on a shared connection.
    Http2 { _place: InFlight },
}

/// A connection in use, and where it goes afterwards.
#[derive(Debug)]
pub(super) struct Held {
    connection: Box<Http1>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(super) const fn new(connection: Leased, in_use: InUse) -> Self {
        Self { in_use, connection }
    }

    /// Whether nothing comes unless [`Self::drive`] is called.
    pub(in crate::l7) const fn is_driven(&self) -> bool {
        matches!(self.connection, Leased::Http1(_))
    }

    pub(in crate::l7) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Leased::Http1(held) = &mut self.connection {
            held.connection.drive(cx);
        }
    }

    /// The body has ended: the connection is free.
    pub(in crate::l7) fn release(self) {
        let Self { in_use, connection } = self;
        drop(in_use);
        if let Leased::Http1(mut held) = connection
            && held.connection.is_open()
        {
            held.pool.put(held.connection);
        }
    }
}

#[derive(Debug)]
pub(super) struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of a request for another protocol.
pub(super) enum Switched {
    /// The upstream speaks the other protocol now.
    Yes(Box<Rewind<UpstreamIo>>, Slot<Waiting>),
    /// It answered as to any request.
    No(Leased),
}

pub(super) type Outcome = Result<(Response<Incoming>, Leased), Error>;

/// An exchange that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("there is no request to send any more")]
    Nothing,
}

impl Error {
    /// `sent`: whether some of the request may have been.
    pub(super) fn into_failed(self, sent: bool) -> Failed {
        if self.is_refusal() {
            Failed::Refused(self.into())
        } else if sent {
            Failed::Broken(self.into())
        } else {
            Failed::NotSent(self.into())
        }
    }

    /// Whether an HTTP/2 upstream says that it has not looked at the request (RFC 9113 section 8.7).
    fn is_refusal(&self) -> bool {
        let Self::Http(error) = self else {
            return false;
        };
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if let Some(h2) = error.downcast_ref::<h2::Error>() {
                return h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            }
            cause = error.source();
        }
        false
    }
}

type Unsent = hyper::client::conn::TrySendError<Request<RequestBody>>;

/// Puts back a request of which nothing was sent.
fn put_back(mut failed: Unsent, request: &mut Option<Request<RequestBody>>) -> Error {
    *request = failed.take_message();
    failed.into_error().into()
}

/// Sends the request on `connection`. If nothing of it was sent, it is put back.
pub(super) async fn http1(
    pool: &Arc<Pool>,
    mut connection: Box<Http1>,
    request: &mut Option<Request<RequestBody>>,
) -> Outcome {
    let Some(sending) = to_http1(request) else {
        return Err(Error::Nothing);
    };
    connection.life.begin();
    // Only driving the connection can bring the response, and that is done here: nobody else needs
    // to wake this task, and a budget that runs out must not.
    let mut sent = pin!(unconstrained(connection.sender.try_send_request(sending)));
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
    match response.await {
        Ok(response) => Ok((response, held(pool, connection))),
        Err(failed) => Err(put_back(failed, request)),
    }
}

fn held(pool: &Arc<Pool>, connection: Box<Http1>) -> Leased {
    Leased::Http1(Held {
        connection,
        pool: Arc::clone(pool),
    })
}

/// As [`http1`], but the connection may stop being HTTP.
pub(super) async fn upgrade(
    pool: &Arc<Pool>,
    mut connection: Box<Http1>,
    request: &mut Option<Request<RequestBody>>,
) -> Result<(Response<Incoming>, Switched), Failed> {
    let Some(request) = to_http1(request) else {
        return Err(Failed::Broken(Error::Nothing.into()));
    };
    connection.life.begin();
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
    let response = response
        .await
        .map_err(|failed| Failed::Broken(failed.into_error().into()))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let lease = held(pool, connection);
        return Ok((response, Switched::No(lease)));
    }
    let Http1 {
        connection, slot, ..
    } = *connection;
    let Some(connection) = connection else {
        return Err(Failed::NoUpgrade);
    };
    let parts = connection.into_parts();
    let io = Rewind::new(parts.read_buf, parts.io.into_inner());
    Ok((response, Switched::Yes(Box::new(io), slot)))
}

pub(super) async fn http2(
    target: &Target,
    mut connection: Http2,
    request: &mut Option<Request<RequestBody>>,
) -> Outcome {
    let Some(sending) = to_http2(target, request) else {
        return Err(Error::Nothing);
    };
    connection.in_flight.fetch_add(1, Ordering::Relaxed);
    let place = InFlight(Arc::clone(&connection.in_flight));
    match connection.sender.try_send_request(sending).await {
        Ok(response) => Ok((response, Leased::Http2 { _place: place })),
        Err(failed) => Err(put_back(failed, request)),
    }
}

/// Takes the request, with the target in origin form and the host in its header.
fn to_http1(request: &mut Option<Request<RequestBody>>) -> Option<Request<RequestBody>> {
    let mut request = request.take()?;
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).ok();
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
        // It is missing if the request was to go over HTTP/2 first.
        if let (Some(host), Entry::Vacant(slot)) = (host, request.headers_mut().entry(HOST)) {
            slot.insert(host);
        }
    }
    Some(request)
}

/// Takes the request, with the host in the target.
fn to_http2(
    target: &Target,
    request: &mut Option<Request<RequestBody>>,
) -> Option<Request<RequestBody>> {
    let mut request = request.take()?;
    let host = request.headers_mut().remove(HOST);
    let host = host.and_then(|host| {
        Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes())).ok()
    });
    let authority = host.or_else(|| request.uri().authority().cloned());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(target.scheme());
    parts.authority = Some(authority.unwrap_or_else(|| target.authority()));
    let path = request.uri().path_and_query().cloned();
    parts.path_and_query = Some(path.unwrap_or(PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    Some(request)
}
