//! A call of the one method, from its bytes to its answer's.
//!
//! By hand on HTTP/2's frames: a question is decided in less time than a task and a body of boxes take
//! to be made, so there is neither for a question that is there when its head is.

use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use prost::Message as _;
use tonic::Status as Failure;

use super::body;
use super::proto::{RateLimitRequest, RateLimitResponse};

/// Bytes of a question.
pub(super) const MAX_MESSAGE: usize = 256 << 10;
/// What is before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// A question that is on its way.
#[derive(Debug)]
pub(super) struct Coming {
    stream: RecvStream,
    read: Bytes,
}

/// There is nobody to answer any more.
#[derive(Debug)]
pub(super) struct Gone;

impl Coming {
    pub(super) const fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            read: Bytes::new(),
        }
    }

    /// The question, when all of it is there.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Result<RateLimitRequest, Failure>, Gone>> {
        while !self.stream.is_end_stream() {
            match ready!(body::poll_data(&mut self.stream, context)) {
                None => break,
                Some(Err(_reset)) => return Poll::Ready(Err(Gone)),
                Some(Ok(data)) => self.take(data),
            }
            if self.read.len() > MAX_MESSAGE + PREFIX {
                let why = format!("a question of more than {MAX_MESSAGE} bytes is not read");
                return Poll::Ready(Ok(Err(Failure::out_of_range(why))));
            }
        }
        Poll::Ready(Ok(decode(&self.read)))
    }

    fn take(&mut self, data: Bytes) {
        if self.read.is_empty() {
            self.read = data;
        } else if !data.is_empty() {
            let mut both = BytesMut::with_capacity(self.read.len() + data.len());
            both.extend_from_slice(&self.read);
            both.extend_from_slice(&data);
            self.read = both.freeze();
        }
    }
}

fn decode(read: &Bytes) -> Result<RateLimitRequest, Failure> {
    let (prefix, message) = read
        .split_first_chunk::<PREFIX>()
        .ok_or_else(|| Failure::internal("the question has no message"))?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        let why = "the question is compressed; send it as it is";
        return Err(Failure::unimplemented(why));
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(Failure::internal("the question is not one message"));
    }
    RateLimitRequest::decode(message)
        .map_err(|error| Failure::internal(format!("the question is not protobuf: {error}")))
}

/// Whether a call says that it is gRPC; if not, it is answered.
pub(super) fn is_grpc(headers: &HeaderMap, respond: &mut SendResponse<Bytes>) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(GRPC.as_bytes())) {
        return true;
    }
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    tell(respond.send_response(head, true).map(drop));
    false
}

/// Answers.
pub(super) fn send(respond: &mut SendResponse<Bytes>, answer: Result<RateLimitResponse, Failure>) {
    tell(match answer {
        Ok(message) => send_message(respond, &message),
        Err(failure) => respond.send_response(failure.into_http(), true).map(drop),
    });
}

fn send_message(
    respond: &mut SendResponse<Bytes>,
    message: &RateLimitResponse,
) -> Result<(), h2::Error> {
    let length = message.encoded_len();
    let Ok(prefix) = u32::try_from(length) else {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    };
    let mut data = BytesMut::with_capacity(PREFIX + length);
    data.put_u8(0);
    data.put_u32(prefix);
    message.encode_raw(&mut data);
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, GRPC);
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(data.freeze(), false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

/// Errors are those of a stream that is gone: there is nobody to be told.
fn tell(sent: Result<(), h2::Error>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "rate limit service: an answer is not sent");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use tonic::Code;

    use super::{RateLimitRequest, decode};

    fn framed(compressed: u8, length: u32, message: &[u8]) -> Bytes {
        Bytes::from([&[compressed][..], &length.to_be_bytes(), message].concat())
    }

    #[test]
    fn a_question_is_one_message_that_is_not_compressed() {
        let question = RateLimitRequest {
            domain: "shop".to_owned(),
            ..RateLimitRequest::default()
        };
        let message = question.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap();
        assert_eq!(decode(&framed(0, length, &message)).unwrap(), question);
        for (read, code) in [
            (framed(1, length, &message), Code::Unimplemented),
            (framed(0, length + 1, &message), Code::Internal),
            (framed(0, length - 1, &message), Code::Internal),
            (framed(0, 2, b"\x0a\x7f"), Code::Internal),
            (Bytes::from_static(b"\0\0\0"), Code::Internal),
            (Bytes::new(), Code::Internal),
        ] {
            assert_eq!(decode(&read).unwrap_err().code(), code, "{read:?}");
        }
    }
}
