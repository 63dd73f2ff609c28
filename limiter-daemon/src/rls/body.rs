//! The body of a request, by whichever version of HTTP it comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame};
use hyper::body::Incoming;

/// A body that is read.
#[derive(Debug)]
pub(super) enum RequestBody {
    Http1(Incoming),
    Http2(RecvStream),
}

/// Why there is no more of it.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The next piece. It need not be kept: the client may send as much again.
pub(super) fn poll_data(
    stream: &mut RecvStream,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, h2::Error>>> {
    let data = ready!(stream.poll_data(context));
    Poll::Ready(data.map(|data| {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        Ok(data)
    }))
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| Ok(frame?)))
            }
            Self::Http2(stream) => {
                let data = ready!(poll_data(stream, context));
                Poll::Ready(data.map(|data| Ok(Frame::data(data?))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }
}
