//! A request's body on its way to an upstream.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::buffered::Buffered;
use super::replay::Reader;
use super::timer::{Over, Timer};

/// What is sent to an upstream.
#[derive(Debug)]
pub(in crate::l7) enum RequestBody {
    Empty,
    Client(Box<Upstreaming>),
    /// A client's, which has come whole.
    Buffered(Box<Buffered>),
    /// A client's, which may be sent again. Boxed, so that all others do not carry its size.
    Replayed(Box<Reader>),
    /// A copy for a mirror; it breaks off if the mirror does not keep up.
    Copy(Copied),
}

/// The pieces of a client's body for a mirror.
#[derive(Debug)]
pub(in crate::l7) struct Copied {
    pieces: mpsc::Receiver<Frame<Bytes>>,
    /// All pieces were sent.
    whole: Arc<AtomicBool>,
}

/// Where the pieces of a client's body go besides.
#[derive(Debug)]
pub(in crate::l7) struct Copy {
    pieces: mpsc::Sender<Frame<Bytes>>,
    whole: Arc<AtomicBool>,
}

/// Both ends of a copy, which may lag behind by `lag` pieces.
pub(in crate::l7) fn copy(lag: usize) -> (Copy, RequestBody) {
    let (sender, pieces) = mpsc::channel(lag);
    let whole = Arc::new(AtomicBool::new(false));
    let copied = Copied {
        pieces,
        whole: Arc::clone(&whole),
    };
    let copy = Copy {
        pieces: sender,
        whole,
    };
    (copy, RequestBody::Copy(copied))
}

/// A client's body.
#[derive(Debug)]
pub(in crate::l7) struct Upstreaming {
    body: Incoming,
    upload: Arc<Upload>,
    /// Bytes that may still come.
    left: u64,
    timer: Timer,
    trailers: bool,
    copies: Vec<Copy>,
}

/// What others need to know of a body.
#[derive(Debug, Default)]
pub(in crate::l7) struct Upload {
    fault: AtomicU8,
    pub(super) bytes: AtomicU64,
}

/// What is wrong with a client's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::l7) enum Fault {
    #[error("the request's body is too large")]
    TooLarge,
    #[error("the request's body did not come in time")]
    TimedOut,
    #[error("the request's body is malformed")]
    Malformed,
    #[error("the request's body broke off")]
    Broken,
    #[error("the copy of the request's body broke off")]
    Copy,
}

impl Fault {
    /// Of a body that cannot be read on because of `error`.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput};
        let mut cause = Some(error);
        while let Some(error) = cause {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(kind, Some(InvalidData | InvalidInput)) {
                return Self::Malformed;
            }
            cause = error.source();
        }
        Self::Broken
    }
}

/// Bounds on a client's body.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::l7) struct Bounds {
    /// Bytes.
    pub(in crate::l7) size: Option<u64>,
    /// Between two pieces.
    pub(in crate::l7) idle: Option<Duration>,
    /// What is left of the time for the whole request.
    pub(in crate::l7) left: Option<Duration>,
    /// Trailers are passed on.
    pub(in crate::l7) trailers: bool,
}

impl Upload {
    pub(in crate::l7) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(in crate::l7) fn fault(&self) -> Option<Fault> {
        match self.fault.load(Ordering::Relaxed) {
            1 => Some(Fault::TooLarge),
            2 => Some(Fault::TimedOut),
            3 => Some(Fault::Broken),
            4 => Some(Fault::Malformed),
            _ => None,
        }
    }

    pub(super) fn fail(&self, fault: Fault) -> Fault {
        let code = match fault {
            Fault::TooLarge => 1,
            Fault::TimedOut => 2,
            Fault::Broken | Fault::Copy => 3,
            Fault::Malformed => 4,
        };
        self.fault.store(code, Ordering::Relaxed);
        fault
    }
}

impl RequestBody {
    /// The body of a client's request, with what is to be known of it if it is not empty.
    pub(in crate::l7) fn client(
        body: Incoming,
        bounds: Bounds,
        copies: Vec<Copy>,
    ) -> (Self, Option<Arc<Upload>>) {
        if body.is_end_stream() {
            return (Self::Empty, None);
        }
        let upload = Arc::new(Upload::default());
        let body = Upstreaming {
            body,
            upload: Arc::clone(&upload),
            left: bounds.size.unwrap_or(u64::MAX),
            timer: Timer::new(bounds.idle, bounds.left),
            trailers: bounds.trailers,
            copies,
        };
        (Self::Client(Box::new(body)), Some(upload))
    }

    /// As [`Self::client`], of a body that has come whole.
    pub(in crate::l7) fn buffered(
        body: &Buffered,
        copies: Vec<Copy>,
    ) -> (Self, Option<Arc<Upload>>) {
        copies.into_iter().for_each(|copy| copy.whole(body.clone()));
        (Self::Buffered(Box::new(body.clone())), Some(body.upload()))
    }
}

impl Copy {
    /// All of the body at once.
    fn whole(self, mut body: Buffered) {
        while let Some(frame) = body.next() {
            if self.pieces.try_send(frame).is_err() {
                return;
            }
        }
        self.whole.store(true, Ordering::Relaxed);
    }
}

impl Upstreaming {
    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    let fault = Fault::of(&error);
                    return Poll::Ready(Some(Err(self.upload.fail(fault))));
                }
                Poll::Ready(None) => {
                    self.finish_copies();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    return match self.timer.wait(cx) {
                        Some(Over::Idle | Over::Whole) => {
                            Poll::Ready(Some(Err(self.upload.fail(Fault::TimedOut))))
                        }
                        None => Poll::Pending,
                    };
                }
            };
            self.timer.progress();
            if self.timer.is_over() {
                return Poll::Ready(Some(Err(self.upload.fail(Fault::TimedOut))));
            }
            if let Some(data) = frame.data_ref() {
                let length = data.len() as u64;
                self.upload.bytes.fetch_add(length, Ordering::Relaxed);
                match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(Some(Err(self.upload.fail(Fault::TooLarge)))),
                }
            } else if !self.trailers {
                continue;
            }
            self.copy(&frame);
            if self.body.is_end_stream() {
                self.finish_copies();
            }
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    /// Nobody waits for a mirror: the copy ends if there is no room for this piece.
    fn copy(&mut self, frame: &Frame<Bytes>) {
        self.copies.retain(|copy| {
            let frame = match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => Frame::data(data.clone()),
                (None, Some(trailers)) => Frame::trailers(trailers.clone()),
                (None, None) => return true,
            };
            copy.pieces.try_send(frame).is_ok()
        });
    }

    fn finish_copies(&mut self) {
        for copy in self.copies.drain(..) {
            copy.whole.store(true, Ordering::Relaxed);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => body.poll(cx),
            Self::Buffered(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Replayed(reader) => reader.poll(cx),
            Self::Copy(copied) => Poll::Ready(match ready!(copied.pieces.poll_recv(cx)) {
                Some(piece) => Some(Ok(piece)),
                None if copied.whole.load(Ordering::Relaxed) => None,
                None => Some(Err(Fault::Copy)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.is_end_stream(),
            Self::Replayed(reader) => reader.is_end_stream(),
            Self::Buffered(body) => body.is_end_stream(),
            Self::Copy(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.size_hint(),
            Self::Replayed(reader) => reader.size_hint(),
            Self::Buffered(body) => body.size_hint(),
            Self::Copy(_) => SizeHint::default(),
        }
    }
}
