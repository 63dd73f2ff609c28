//! A client's body that can be sent again: what has passed is kept, up to a bound.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::request::{Fault, Upstreaming};

/// Bytes of a body that are kept. A longer one is sent once.
pub(in crate::l7) const MAX_KEPT: usize = 64 << 10;

/// A client's body, of which attempts are made one after the other.
#[derive(Debug)]
pub(in crate::l7) struct Replay {
    source: Arc<Mutex<Source>>,
    /// As it was before anything had come.
    hint: SizeHint,
}

#[derive(Debug)]
struct Source {
    body: Box<Upstreaming>,
    /// `None`: it was too much.
    kept: Option<Vec<Piece>>,
    bytes: usize,
    ended: bool,
    /// The attempt that is being made; others get nothing any more.
    attempt: u32,
}

#[derive(Clone, Debug)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// The body of one attempt.
#[derive(Debug)]
pub(in crate::l7) struct Reader {
    source: Arc<Mutex<Source>>,
    hint: SizeHint,
    attempt: u32,
    /// Pieces that it had.
    had: usize,
}

impl Replay {
    pub(in crate::l7) fn new(body: Box<Upstreaming>) -> Self {
        let hint = body.size_hint();
        let long = hint.lower() > MAX_KEPT as u64;
        Self {
            source: Arc::new(Mutex::new(Source {
                body,
                kept: (!long).then(Vec::new),
                bytes: 0,
                ended: false,
                attempt: 0,
            })),
            hint,
        }
    }

    /// The body for another attempt; the one before gets no more of it. `None`: too much has passed.
    pub(in crate::l7) fn attempt(&self) -> Option<Reader> {
        let mut source = lock(&self.source);
        if source.attempt > 0 && source.kept.is_none() {
            return None;
        }
        source.attempt += 1;
        Some(Reader {
            attempt: source.attempt,
            source: Arc::clone(&self.source),
            hint: self.hint,
            had: 0,
        })
    }

    /// Whether there can be another attempt.
    pub(in crate::l7) fn is_whole(&self) -> bool {
        lock(&self.source).kept.is_some()
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(trailers)) => Piece::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.bytes += frame.data_ref().map_or(0, Bytes::len);
        if self.bytes > MAX_KEPT {
            self.kept = None;
        } else {
            kept.push(piece);
        }
    }
}

impl Reader {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut source = lock(&self.source);
        if source.attempt != self.attempt {
            return Poll::Ready(Some(Err(Fault::Copy)));
        }
        let kept = source.kept.as_ref().and_then(|kept| kept.get(self.had));
        if let Some(piece) = kept {
            self.had += 1;
            return Poll::Ready(Some(Ok(match piece.clone() {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if source.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut *source.body).poll(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                source.keep(frame);
                self.had += 1;
            }
            Poll::Ready(None) => source.ended = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let source = lock(&self.source);
        let more = source.kept.as_ref().map_or(0, Vec::len);
        self.had >= more && (source.ended || source.body.is_end_stream())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        if self.had == 0 {
            self.hint
        } else {
            SizeHint::default()
        }
    }
}
