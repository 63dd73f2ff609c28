//! The life of a client's connection: what it is doing, and since when, so that one timer a
//! connection is enough for all bounds on its time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock::Clock;
use super::drain::FIRST_REQUEST;
use super::io::write_joined;
use super::metrics::Closed;
use crate::policy::plan::ClientSettings;

/// What a connection is doing. All in nanoseconds of the clock; written by the worker that has the
/// connection only.
#[derive(Debug)]
pub(super) struct Life {
    clock: Clock,
    born: u64,
    requests: AtomicU64,
    in_flight: AtomicU32,
    /// The first bytes of a head are there, and no request yet.
    reading: AtomicBool,
    /// Since when it is idle, or reading a head.
    since: AtomicU64,
    /// When a piece of a body last came from the client or went to it, or a request began.
    moved: AtomicU64,
    /// Since when the client takes nothing of what is sent to it; 0: it takes.
    stalled: AtomicU64,
    /// It had all the requests it may.
    spent: AtomicBool,
    /// It is told to finish because of its age.
    outlived: AtomicBool,
    /// Its address is going out of service: its next request is its last.
    dismissed: AtomicBool,
    /// Since when its address is closed; 0: it is not.
    closing: AtomicU64,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// Nothing has come yet.
    Starting,
    /// A request's head is on its way.
    Reading,
    Answering,
    /// Nothing, after a request.
    Idling,
}

impl Life {
    pub(super) fn new(clock: Clock) -> Self {
        let now = clock.now();
        Self {
            clock,
            born: now,
            requests: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            reading: AtomicBool::new(false),
            since: AtomicU64::new(now),
            moved: AtomicU64::new(now),
            stalled: AtomicU64::new(0),
            spent: AtomicBool::new(false),
            outlived: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            closing: AtomicU64::new(0),
        }
    }

    /// A request begins at `now`; whether it is the last one that the connection may have.
    pub(super) fn begin(&self, now: u64, max_requests: Option<u64>) -> bool {
        self.moved.store(now, Ordering::Relaxed);
        self.reading.store(false, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let requests = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let last = self.is_dismissed() || max_requests.is_some_and(|max| requests >= max);
        if last {
            self.spent.store(true, Ordering::Relaxed);
        }
        last
    }

    /// A response is over.
    pub(super) fn end(&self) {
        if self.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.reading.store(false, Ordering::Relaxed);
            self.since.store(self.clock.now(), Ordering::Relaxed);
        }
    }

    /// Whether a client is in the middle of a request's head.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.load(Ordering::Relaxed)
    }

    /// Its bound on its age was seen to.
    pub(super) fn outlived(&self) {
        self.outlived.store(true, Ordering::Relaxed);
    }

    /// Its next request is to be its last, because its address goes out of service.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Relaxed)
    }

    /// Its address is closed: it may finish, and begin only what it was accepted for.
    pub(super) fn close(&self) {
        self.dismiss();
        self.closing
            .store(self.clock.now().max(1), Ordering::Relaxed);
    }

    pub(super) fn doing(&self) -> Doing {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            Doing::Answering
        } else if self.is_reading() {
            Doing::Reading
        } else if self.requests.load(Ordering::Relaxed) == 0 {
            Doing::Starting
        } else {
            Doing::Idling
        }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Relaxed)
    }

    /// A piece of a body has passed.
    pub(super) fn has_moved(&self) {
        self.moved.store(self.clock.now(), Ordering::Relaxed);
    }

    fn has_read(&self) {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            self.has_moved();
        } else if !self.reading.swap(true, Ordering::Relaxed) {
            self.since.store(self.clock.now(), Ordering::Relaxed);
        }
    }

    fn has_written<T>(&self, written: &Poll<io::Result<T>>) {
        let stalled = self.stalled.load(Ordering::Relaxed) != 0;
        if written.is_pending() != stalled {
            let since = if stalled { 0 } else { self.clock.now().max(1) };
            self.stalled.store(since, Ordering::Relaxed);
        }
    }

    /// Whether something has lasted too long, or else when to look again.
    pub(super) fn check(&self, settings: &ClientSettings) -> Result<Duration, Closed> {
        let now = self.clock.now();
        let timeouts = &settings.timeouts;
        let mut next = u64::MAX;
        let mut until = |since: u64, bound: Duration, reason: Closed| {
            let deadline = since.saturating_add(nanos(bound));
            next = next.min(deadline.saturating_sub(now).max(1));
            if deadline <= now { Err(reason) } else { Ok(()) }
        };
        if let Some(max) = settings.connections.max_duration
            && !self.outlived.load(Ordering::Relaxed)
        {
            until(self.born, max, Closed::MaxDuration)?;
        }
        let busy = self.in_flight.load(Ordering::Relaxed) > 0;
        let stalled = self.stalled.load(Ordering::Relaxed);
        if let Some(idle) = timeouts.stream_idle {
            until(
                if stalled == 0 { now } else { stalled },
                idle,
                Closed::Stalled,
            )?;
            if busy {
                // Upstreams have their own bounds, of half of this at most. So it is the client
                // whose windows are closed (HTTP/2), or that sends no more.
                let moved = self.moved.load(Ordering::Relaxed);
                until(moved, idle.saturating_mul(2), Closed::Stalled)?;
            }
        }
        let closing = self.closing.load(Ordering::Relaxed);
        if closing != 0 && self.doing() == Doing::Starting {
            until(closing, FIRST_REQUEST, Closed::Idle)?;
        }
        let since = self.since.load(Ordering::Relaxed);
        let fresh = self.requests.load(Ordering::Relaxed) == 0;
        if busy {
            until(now, timeouts.idle.min(timeouts.head), Closed::Idle)?;
        } else if fresh || self.reading.load(Ordering::Relaxed) {
            until(since, timeouts.head, Closed::HeadTimeout)?;
        } else {
            // A head may begin at any time.
            until(now, timeouts.head, Closed::Idle)?;
            until(since, timeouts.idle, Closed::Idle)?;
        }
        Ok(Duration::from_nanos(next))
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A client's stream whose reads and writes are noted.
#[derive(Debug)]
pub(super) struct Watched<S> {
    inner: S,
    life: Arc<Life>,
}

impl<S> Watched<S> {
    pub(super) const fn new(inner: S, life: Arc<Life>) -> Self {
        Self { inner, life }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.life.has_read();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.life.has_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = write_joined(&mut self.inner, cx, bufs);
        self.life.has_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
