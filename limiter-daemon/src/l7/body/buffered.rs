//! A request's body that is read whole before anything of it goes on.
//!
//! In memory it takes at most its limit, and as much again for the moment in which its room grows.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::request::{Bounds, Fault, Upload};
use super::timer::{Over, Timer};

/// A body that has come.
#[derive(Clone, Debug)]
pub(in crate::l7) struct Buffered {
    /// What is left to send of it.
    data: Bytes,
    trailers: Option<HeaderMap>,
    upload: Arc<Upload>,
}

/// Reads `body` to its end. `bounds.size` is how much is held; `upload` is told what comes.
///
/// # Errors
/// [`Fault`]: more than that was declared or came, it took too long, or it broke off.
pub(in crate::l7) async fn buffer<B>(
    body: &mut B,
    bounds: Bounds,
    upload: Arc<Upload>,
) -> Result<Buffered, Fault>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let limit = bounds.size.unwrap_or(u64::MAX);
    if body.size_hint().lower() > limit {
        return Err(upload.fail(Fault::TooLarge));
    }
    let mut timer = Timer::new(bounds.idle, bounds.left);
    let mut data = Vec::new();
    let mut trailers = None;
    loop {
        let polled = poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => match timer.wait(cx) {
                Some(Over::Idle | Over::Whole) => Poll::Ready(Err(Fault::TimedOut)),
                None => Poll::Pending,
            },
        });
        let frame = match polled.await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(upload.fail(Fault::of(&*error.into()))),
            Ok(None) => break,
            Err(late) => return Err(upload.fail(late)),
        };
        timer.progress();
        match frame.into_data() {
            Ok(piece) => {
                upload.count(piece.len());
                let whole = data.len() + piece.len();
                if whole as u64 > limit {
                    return Err(upload.fail(Fault::TooLarge));
                }
                make_room(&mut data, whole, limit);
                data.extend_from_slice(&piece);
            }
            Err(frame) if bounds.trailers => trailers = frame.into_trailers().ok(),
            Err(_dropped) => {}
        }
    }
    Ok(Buffered {
        data: data.into(),
        trailers,
        upload,
    })
}

/// Room for `whole` bytes; it doubles, but is never more than `limit`.
fn make_room(data: &mut Vec<u8>, whole: usize, limit: u64) {
    if whole > data.capacity() {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let room = data.capacity().saturating_mul(2).min(limit).max(whole);
        data.reserve_exact(room - data.len());
    }
}

impl Buffered {
    /// Bytes; `None`: trailers follow, so that no length can be said.
    pub(in crate::l7) const fn length(&self) -> Option<u64> {
        match &self.trailers {
            None => Some(self.data.len() as u64),
            Some(_) => None,
        }
    }

    pub(super) fn upload(&self) -> Arc<Upload> {
        Arc::clone(&self.upload)
    }

    pub(super) fn next(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        Some(Frame::data(std::mem::take(&mut self.data)))
    }
}

impl Body for Buffered {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        Poll::Ready(self.get_mut().next().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Upload {
    fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    /// Frames that are there; then the end, or nothing more.
    #[derive(Default)]
    struct Frames {
        frames: VecDeque<Result<Frame<Bytes>, &'static str>>,
        declared: u64,
        hangs: bool,
    }

    impl Frames {
        fn of(pieces: &[&'static [u8]]) -> Self {
            let frame = |piece: &&'static [u8]| Ok(Frame::data(Bytes::from_static(piece)));
            Self {
                frames: pieces.iter().map(frame).collect(),
                ..Self::default()
            }
        }
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match self.frames.pop_front() {
                None if self.hangs => Poll::Pending,
                frame => Poll::Ready(frame),
            }
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::default();
            hint.set_lower(self.declared);
            hint
        }
    }

    fn read(mut frames: Frames, bounds: Bounds) -> (Result<Buffered, Fault>, Arc<Upload>) {
        let upload = Arc::new(Upload::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let told = Arc::clone(&upload);
        let read = runtime.block_on(buffer(&mut frames, bounds, told));
        (read, upload)
    }

    fn up_to(size: u64) -> Bounds {
        Bounds {
            size: Some(size),
            trailers: true,
            ..Bounds::default()
        }
    }

    #[test]
    fn pieces_become_one_with_a_length() {
        let (read, upload) = read(Frames::of(&[b"ab", b"", b"cde"]), up_to(5));
        let mut read = read.unwrap();
        assert_eq!((read.length(), upload.bytes()), (Some(5), 5));
        assert_eq!(read.size_hint().exact(), Some(5));
        let again = read.clone();
        assert_eq!(read.next().unwrap().into_data().unwrap(), "abcde");
        assert!(read.is_end_stream() && read.next().is_none());
        // It can be sent again.
        assert_eq!(again.length(), Some(5));
    }

    #[test]
    fn trailers_stay_where_they_are_wanted() {
        let trailers = || {
            let mut frames = Frames::of(&[b"a"]);
            let map = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                HeaderValue::from_static("7"),
            )]);
            frames.frames.push_back(Ok(Frame::trailers(map)));
            frames
        };
        let mut with = read(trailers(), up_to(9)).0.unwrap();
        assert_eq!(with.length(), None);
        assert!(with.next().unwrap().is_data());
        assert_eq!(with.next().unwrap().into_trailers().unwrap()["x-sum"], "7");
        assert!(with.is_end_stream());
        let bounds = Bounds {
            trailers: false,
            ..up_to(9)
        };
        assert_eq!(read(trailers(), bounds).0.unwrap().length(), Some(1));
    }

    #[test]
    fn too_much_too_late_and_broken_are_faults() {
        let declared = Frames {
            declared: 6,
            hangs: true,
            ..Frames::default()
        };
        let mut broken = Frames::of(&[b"ab"]);
        broken.frames.push_back(Err("broken"));
        let mut hangs = Frames::of(&[b"ab"]);
        hangs.hangs = true;
        let late = Bounds {
            idle: Some(Duration::ZERO),
            ..up_to(5)
        };
        for (frames, bounds, wanted, bytes) in [
            (declared, up_to(5), Fault::TooLarge, 0),
            (Frames::of(&[b"abc", b"def"]), up_to(5), Fault::TooLarge, 6),
            (broken, up_to(5), Fault::Broken, 2),
            (hangs, late, Fault::TimedOut, 2),
        ] {
            let (read, upload) = read(frames, bounds);
            assert_eq!(read.unwrap_err(), wanted);
            assert_eq!((upload.fault(), upload.bytes()), (Some(wanted), bytes));
        }
    }

    #[test]
    fn room_is_never_more_than_the_limit() {
        let mut data = Vec::new();
        for whole in 1..=1000_usize {
            make_room(&mut data, whole, 1000);
            data.push(0);
            assert!(data.capacity() <= 1000 && data.capacity() >= whole);
        }
    }
}
