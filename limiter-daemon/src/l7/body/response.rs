//! A response's body on its way to a client.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::timer::{Over, Timer};
use crate::l7::record::Ending;
use crate::l7::upstream::Lease;

/// Bytes that are read of a body that nobody wants.
const LET_GO: usize = 64 << 10;

/// Body of an answer: the upstream's, streamed, or one of our own.
#[derive(Debug)]
pub(in crate::l7) struct Body {
    kind: Kind,
    /// Told when it is over.
    ending: Option<Ending>,
}

#[derive(Debug)]
enum Kind {
    Own(Option<Bytes>),
    Upstream(Streamed),
}

/// An upstream's body.
#[derive(Debug)]
pub(in crate::l7) struct Streamed {
    body: Incoming,
    lease: Option<Lease>,
    timer: Timer,
    trailers: bool,
}

/// Why a response breaks off.
#[derive(Debug, thiserror::Error)]
pub(in crate::l7) enum BrokenOff {
    #[error("the upstream broke off")]
    Upstream(#[source] hyper::Error),
    #[error("the upstream did not send the rest of its response in time")]
    TimedOut,
}

impl Streamed {
    /// The body that comes by `lease`; `left` is what is left of the time for the whole.
    pub(in crate::l7) fn new(
        body: Incoming,
        lease: Lease,
        idle: Option<Duration>,
        left: Option<Duration>,
        trailers: bool,
    ) -> Self {
        let mut streamed = Self {
            body,
            lease: Some(lease),
            timer: Timer::new(idle, left),
            trailers,
        };
        if streamed.body.is_end_stream() {
            streamed.release();
        }
        streamed
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        loop {
            let polled = match &mut self.lease {
                Some(lease) if lease.is_driven() => {
                    // What we drive ourselves need not wake us.
                    let quiet = &mut Context::from_waker(Waker::noop());
                    let mut polled = Pin::new(&mut self.body).poll_frame(quiet);
                    if polled.is_pending() {
                        lease.drive(cx);
                        polled = Pin::new(&mut self.body).poll_frame(quiet);
                    }
                    polled
                }
                _ => Pin::new(&mut self.body).poll_frame(cx),
            };
            match polled {
                Poll::Ready(Some(Ok(frame))) => {
                    self.timer.progress();
                    if self.body.is_end_stream() {
                        self.release();
                    } else if self.timer.is_over() {
                        self.lease = None;
                        return Poll::Ready(Some(Err(BrokenOff::TimedOut)));
                    }
                    if frame.is_data() || self.trailers {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.lease = None;
                    return Poll::Ready(Some(Err(BrokenOff::Upstream(error))));
                }
                Poll::Ready(None) => {
                    self.release();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    return match self.timer.wait(cx) {
                        Some(Over::Idle | Over::Whole) => {
                            self.lease = None;
                            Poll::Ready(Some(Err(BrokenOff::TimedOut)))
                        }
                        None => Poll::Pending,
                    };
                }
            }
        }
    }

    /// Reads what has come, if it is not too much; whether that was all.
    fn let_go(mut self, mut seen: impl FnMut(&[u8])) -> bool {
        let quiet = &mut Context::from_waker(Waker::noop());
        let mut left = LET_GO;
        while !self.body.is_end_stream() {
            match self.poll(quiet) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.data_ref().map_or(&[][..], |data| data);
                    seen(data);
                    match left.checked_sub(data.len()) {
                        Some(rest) => left = rest,
                        None => return false,
                    }
                }
                Poll::Ready(None) => return true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
            }
        }
        true
    }
}

/// Drops a body that nobody wants, as [`Body::let_go`] does.
pub(in crate::l7) fn let_go(body: Incoming, lease: Lease) {
    Streamed::new(body, lease, None, None, false).let_go(|_| {});
}

impl Body {
    pub(in crate::l7) const fn empty() -> Self {
        Self::own(Bytes::new())
    }

    pub(in crate::l7) const fn own(text: Bytes) -> Self {
        Self {
            kind: Kind::Own(Some(text)),
            ending: None,
        }
    }

    pub(in crate::l7) const fn upstream(streamed: Streamed) -> Self {
        Self {
            kind: Kind::Upstream(streamed),
            ending: None,
        }
    }

    pub(in crate::l7) const fn is_upstreams(&self) -> bool {
        matches!(self.kind, Kind::Upstream(_))
    }

    /// Drops a body that nobody reads. What has come already of an upstream's, up to 64 KiB, goes to
    /// `seen`; nothing is waited for. `true`: that was all of it, so that its connection is free
    /// again; otherwise the connection is closed.
    pub(in crate::l7) fn let_go(mut self, seen: impl FnMut(&[u8])) -> bool {
        let kind = std::mem::replace(&mut self.kind, Kind::Own(None));
        let Kind::Upstream(streamed) = kind else {
            return true;
        };
        streamed.let_go(seen)
    }

    /// Tells `ending` when the body is over, or is dropped before.
    pub(in crate::l7) fn ends(mut self, ending: Ending) -> Self {
        self.ending = Some(ending);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Own(text) => {
                let text = text.take().filter(|text| !text.is_empty());
                Poll::Ready(text.map(|text| Ok(Frame::data(text))))
            }
            Kind::Upstream(streamed) => streamed.poll(cx),
        };
        if let Some(ending) = &mut this.ending {
            match &polled {
                Poll::Ready(Some(Ok(frame))) => {
                    ending.passed(frame.data_ref().map_or(0, Bytes::len));
                }
                Poll::Ready(Some(Err(_))) => ending.broke_off(),
                Poll::Ready(None) => ending.completed(),
                Poll::Pending => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(text) => text.as_ref().is_none_or(Bytes::is_empty),
            Kind::Upstream(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Upstream(streamed) => streamed.body.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(mut ending) = self.ending.take() {
            if self.is_end_stream() {
                ending.completed();
            }
            drop(ending);
        }
    }
}
