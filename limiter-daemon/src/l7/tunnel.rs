//! Bytes both ways until either side ends: of connections that have become something other than HTTP,
//! and of those that are passed on as they are.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::time::sleep;

use super::clock::Clock;
use super::connection::Conn;
use super::io::{Rewind, UpstreamIo};
use super::record::Ending;
use super::upstream::Hold;

/// Both ends of a connection whose protocol was switched.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The client's, as soon as it has the response.
    pub(super) client: OnUpgrade,
    pub(super) upstream: Box<Rewind<UpstreamIo>>,
    /// What it takes up at the upstream.
    pub(super) _hold: Hold,
    /// The request is over when the tunnel is.
    pub(super) ending: Option<Ending>,
}

impl Tunnel {
    /// Passes bytes on until both sides are done, or none came for the time that streams may be
    /// idle.
    pub(super) async fn run(mut self, conn: &Conn) {
        let client = match self.client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => {
                tracing::debug!(peer = %conn.peer, %error, "no tunnel");
                return;
            }
        };
        let tunnels = &conn.pipeline.counters.tunnels;
        tunnels.fetch_add(1, Ordering::Relaxed);
        let _open = Open(tunnels);
        let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
        let count = |own| Count { own, all: None };
        let tally = Tally {
            received: count(&received),
            sent: count(&sent),
        };
        let clock = conn.pipeline.clock;
        let bound = conn.settings.timeouts.stream_idle;
        let passed = pass(client, &mut self.upstream, tally, bound, clock).await;
        if let Some(ending) = &mut self.ending {
            if matches!(passed, Passed::Complete) {
                ending.completed();
            }
            if let Some(record) = ending.record() {
                record.sent = sent.into_inner();
                record.received = received.into_inner();
            }
        }
    }
}

/// Where bytes that were passed on are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally<'a> {
    /// From the client.
    pub(super) received: Count<'a>,
    /// To the client.
    pub(super) sent: Count<'a>,
}

/// Bytes of one connection, and of all like it if they are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count<'a> {
    pub(super) own: &'a AtomicU64,
    pub(super) all: Option<&'a AtomicU64>,
}

impl Count<'_> {
    fn add(self, bytes: usize) {
        let bytes = bytes as u64;
        self.own.fetch_add(bytes, Ordering::Relaxed);
        if let Some(all) = self.all {
            all.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Passed {
    /// Both sides were done.
    Complete,
    /// One of them broke off.
    Broken(io::Error),
    /// Nothing came for too long.
    Idle,
}

/// Passes bytes on until both sides are done, each in its own time, or none came from either for
/// `bound`.
pub(super) async fn pass<C, U>(
    client: C,
    upstream: U,
    tally: Tally<'_>,
    bound: Option<Duration>,
    clock: Clock,
) -> Passed
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let last = AtomicU64::new(clock.now());
    let mut client = Noted {
        inner: client,
        clock,
        last: &last,
        written: tally.sent,
    };
    let mut upstream = Noted {
        inner: upstream,
        clock,
        last: &last,
        written: tally.received,
    };
    tokio::select! {
        passed = copy_bidirectional(&mut client, &mut upstream) => match passed {
            Ok(_) => Passed::Complete,
            Err(error) => Passed::Broken(error),
        },
        () = idle(bound, clock, &last) => Passed::Idle,
    }
}

struct Open<'a>(&'a AtomicU64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns when nothing was read for `bound`.
async fn idle(bound: Option<Duration>, clock: Clock, last: &AtomicU64) {
    let Some(bound) = bound else {
        return std::future::pending().await;
    };
    loop {
        let passed = clock.now().saturating_sub(last.load(Ordering::Relaxed));
        match bound.checked_sub(Duration::from_nanos(passed)) {
            Some(left) if !left.is_zero() => sleep(left).await,
            _ => return,
        }
    }
}

/// A stream that notes when something came, and counts what was written.
struct Noted<'a, S> {
    inner: S,
    clock: Clock,
    last: &'a AtomicU64,
    written: Count<'a>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() {
            self.last.store(self.clock.now(), Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.written.add(*written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
