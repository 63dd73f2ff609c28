//! HTTP on one client connection, within the bounds on its time.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::drain::Draining;
use super::io::Rewind;
use super::life::{Doing, Life, Watched};
use super::metrics::Closed;
use super::offences::Suspect;
use super::pipeline::{self, Pipeline};
use super::quiet::QuietWaker;
use super::tunnel::Tunnel;
use crate::engine::connection::ConnectionBuckets;
use crate::policy::plan::{ClientSettings, InvalidMessage};

/// Idle HTTP/2 connections are asked this often whether they are alive.
const PING_INTERVAL: Duration = Duration::from_secs(60);
/// HTTP/2 streams that a client reset before they were accepted, or that are reset for a client's
/// errors, until the connection is closed (rapid reset, CVE-2023-44487).
const MAX_RESETS: usize = 100;
/// The same for errors, where an invalid message is to end the connection. Not zero: a stream too
/// many, opened before the client knew how many it may have, counts as an error to the h2 crate.
const FEW_RESETS: usize = 10;
/// The least that hyper takes, in bytes.
const MIN_BUFFER: usize = 8 << 10;
/// Headers that hyper takes unless told otherwise.
const HYPER_HEADERS: usize = 100;
/// Bytes of an HTTP/2 response that wait for the client's window.
const MAX_SEND: usize = 128 << 10;
/// For the last words on a connection.
const GOODBYE: Duration = Duration::from_secs(1);

/// A client's connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) pipeline: Arc<Pipeline>,
    /// The address that we listen on.
    pub(super) bind: SocketAddr,
    /// The other end; as PROXY protocol states it, if that is on.
    pub(super) peer: SocketAddr,
    /// Its address, as `X-Forwarded-For` has it.
    pub(super) peer_text: HeaderValue,
    /// Whom its offences are counted against.
    pub(super) suspect: Suspect,
    /// `None`: clear text. The name that the client asked for, in lower case; empty: none.
    pub(super) sni: Option<Box<str>>,
    /// Of the listener that took the connection.
    pub(super) settings: Arc<ClientSettings>,
    pub(super) life: Arc<Life>,
    /// What the connection becomes after a response with 101.
    pub(super) tunnel: Mutex<Option<Tunnel>>,
    /// Of limits that each connection has a bucket of its own for.
    pub(super) buckets: ConnectionBuckets,
}

impl Conn {
    fn tunnel(&self) -> Option<Tunnel> {
        let mut tunnel = self.tunnel.lock().unwrap_or_else(PoisonError::into_inner);
        tunnel.take()
    }
}

/// Serves HTTP on `stream` until it ends, or `drain` says so.
pub(super) async fn serve<S>(conn: Arc<Conn>, stream: Rewind<S>, http2: bool, drain: Draining)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&conn.life)));
    let result = if http2 {
        serve_http2(&conn, io, drain).await
    } else {
        serve_http1(&conn, io, drain).await
    };
    if let Err(error) = result {
        tracing::debug!(peer = %conn.peer, %error, "connection ended");
        conn.suspect.broke(&conn.pipeline, &error);
    }
}

async fn serve_http1<S>(
    conn: &Arc<Conn>,
    io: TokioIo<Watched<Rewind<S>>>,
    drain: Draining,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let _clears = ClearsTunnel(conn);
    let settings = &conn.settings.http1;
    let max_head = usize::try_from(settings.max_head).unwrap_or(usize::MAX);
    let service = service_fn(|request| pipeline::answer(Arc::clone(conn), request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The bounds on time are kept by `Life`.
        .header_read_timeout(None)
        .max_header_size(max_head)
        .max_buf_size(max_head.max(MIN_BUFFER));
    // Told a number, even its own, hyper fills tables of so many places for each request.
    let max_headers = usize::try_from(settings.max_headers).unwrap_or(usize::MAX);
    if max_headers != HYPER_HEADERS {
        builder.max_headers(max_headers);
    }
    let mut served = builder.serve_connection(io, service).with_upgrades();
    let mut told = false;
    let ended = supervise(conn, dismissed(conn, drain, false), false, |cx, order| {
        if order == Order::Finish && !told {
            told = true;
            Pin::new(&mut served).graceful_shutdown();
        }
        Pin::new(&mut served).poll(cx)
    })
    .await;
    if let Some(tunnel) = conn.tunnel() {
        tunnel.run(conn).await;
    } else if ended.is_none()
        && conn.life.is_reading()
        && let Some(parts) = served.into_parts()
    {
        // The client is in the middle of a head. hyper has nothing to say to it.
        const LATE: &[u8] =
            b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let mut stream = parts.io.into_inner();
        let last_words = async {
            stream.write_all(LATE).await?;
            stream.shutdown().await
        };
        let _told = tokio::time::timeout(GOODBYE, last_words).await;
    }
    ended.unwrap_or(Ok(()))
}

async fn serve_http2<S>(
    conn: &Arc<Conn>,
    io: TokioIo<Watched<Rewind<S>>>,
    drain: Draining,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let settings = &conn.settings.http2;
    let max_errors = match settings.on_invalid_message {
        InvalidMessage::TerminateConnection => FEW_RESETS,
        InvalidMessage::TerminateStream => MAX_RESETS,
    };
    let service = service_fn(|request| pipeline::answer(Arc::clone(conn), request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_concurrent_streams)
        .initial_stream_window_size(settings.initial_stream_window)
        .initial_connection_window_size(settings.initial_connection_window)
        .max_header_list_size(conn.settings.http1.max_head)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(max_errors)
        .max_send_buf_size(MAX_SEND)
        .keep_alive_interval(PING_INTERVAL);
    let mut served = pin!(builder.serve_connection(io, service));
    let mut told = false;
    let ended = supervise(conn, dismissed(conn, drain, true), true, |cx, order| {
        if order == Order::Finish && !told {
            told = true;
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(cx)
    })
    .await;
    ended.unwrap_or(Ok(()))
}

/// A tunnel that nobody runs is dropped: it refers to its connection.
struct ClearsTunnel<'a>(&'a Conn);

impl Drop for ClearsTunnel<'_> {
    fn drop(&mut self) {
        drop(self.0.tunnel());
    }
}

/// No bound on time is shorter.
fn first_look(settings: &ClientSettings) -> Duration {
    let timeouts = &settings.timeouts;
    let others = [timeouts.stream_idle, settings.connections.max_duration];
    let shortest = others.into_iter().flatten().min();
    let own = timeouts.head.min(timeouts.idle);
    shortest.map_or(own, |shortest| shortest.min(own))
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    GoOn,
    /// Answer what was asked, and close.
    Finish,
}

/// Returns when the connection's address closes, or when it is this HTTP/2 connection's turn to go
/// before. HTTP/1.1 can ask a client to go in a response only, so that is what it does before.
async fn dismissed(conn: &Conn, mut drain: Draining, http2: bool) {
    if let Some(over) = drain.leaving().await {
        let turn = over.mul_f64(conn.pipeline.random.fraction());
        tokio::select! {
            () = sleep(turn) => {
                if http2 {
                    return;
                }
                conn.life.dismiss();
            }
            () = drain.closing() => return,
        }
    }
    drain.closing().await;
}

/// Polls a connection until it has ended. `None`: it is to be dropped, because a bound on its time is
/// over. Being `dismissed`, its age and its number of requests make it finish.
async fn supervise<T>(
    conn: &Conn,
    dismissed: impl Future<Output = ()>,
    http2: bool,
    mut poll: impl FnMut(&mut std::task::Context<'_>, Order) -> Poll<T>,
) -> Option<T> {
    let counters = &conn.pipeline.counters;
    let mut look = pin!(sleep(first_look(&conn.settings)));
    let mut dismissed = pin!(dismissed);
    let mut arrived = pin!(yield_now());
    let mut closing = false;
    let mut order = Order::GoOn;
    // A connection is polled several times a request; what follows is rarely ready.
    let mut quiet = QuietWaker::new();
    poll_fn(|cx| {
        let due = quiet.is_due(cx);
        let own = &mut quiet.context();
        if due && order == Order::GoOn && !closing && dismissed.as_mut().poll(own).is_ready() {
            closing = true;
            conn.life.close();
            look.as_mut().reset(tokio::time::Instant::now());
        }
        loop {
            // What has arrived is read before anything is decided.
            if let Poll::Ready(ended) = poll(cx, order) {
                return Poll::Ready(Some(ended));
            }
            if order == Order::GoOn && conn.life.is_spent() {
                if !conn.life.is_dismissed() {
                    counters.close(Closed::MaxRequests);
                }
                order = Order::Finish;
                continue;
            }
            if order == Order::GoOn && closing {
                // Told to finish, hyper drops an HTTP/1.1 connection that waits for a request, with
                // what may have come of it. So that is waited for: a first one, one that has begun,
                // and one that lies in the socket's queue, which the runtime learns of in a turn.
                let finish = http2
                    || match conn.life.doing() {
                        Doing::Answering => true,
                        Doing::Starting | Doing::Reading => false,
                        Doing::Idling => arrived.as_mut().poll(cx).is_ready(),
                    };
                if finish {
                    order = Order::Finish;
                    continue;
                }
            }
            if !due || look.as_mut().poll(own).is_pending() {
                return Poll::Pending;
            }
            match conn.life.check(&conn.settings) {
                Ok(next) => {
                    let now = tokio::time::Instant::now();
                    look.as_mut().reset(now + next);
                }
                Err(Closed::MaxDuration) if order == Order::GoOn => {
                    counters.close(Closed::MaxDuration);
                    order = Order::Finish;
                    conn.life.outlived();
                }
                Err(reason) => {
                    counters.close(reason);
                    conn.suspect.closed(&conn.pipeline, reason, &conn.life);
                    return Poll::Ready(None);
                }
            }
        }
    })
    .await
}
