//! Checks by `grpc.health.v1.Health/Check`.
//!
//! A request with one string, an answer with one number: written out here, which is less than the
//! crates that would write it. Facts: gRPC's "Health Checking Protocol" and "gRPC over HTTP/2".

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::http::{absolute, over_http2};
use super::probe::Failure;
use crate::l7::upstream::{Offer, Target, open};

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Bytes of an answer; two of them are expected.
const MAX_ANSWER: usize = 1 << 10;
/// Bytes before a message: a flag, and the length.
const PREFIX: usize = 5;
const SERVING: u64 = 1;

/// Asks whether `service` serves; empty: the server as a whole.
pub(super) async fn ask(target: &Target, service: &str) -> Result<(), Failure> {
    let opened = open(target, None, Offer::Http2).await;
    let (io, speaks_http2) = opened.map_err(Failure::Unreachable)?;
    // In clear text, gRPC is HTTP/2 without asking, whatever else the endpoint speaks.
    if target.is_tls() && !speaks_http2 {
        return Err(Failure::NoHttp2);
    }
    let request = Request::post(absolute(target.scheme(), target.authority(), PATH)?)
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
        .header(
            USER_AGENT,
            HeaderValue::from_static("limiterd-health-check"),
        )
        .body(Full::new(question(service)))?;
    over_http2(io, request, look).await
}

/// A `HealthCheckRequest` behind its prefix.
fn question(service: &str) -> Bytes {
    /// Field 1, of a length that is told.
    const SERVICE: u8 = 1 << 3 | 2;
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    // Names are shorter than 4 GiB.
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(&message);
    framed.freeze()
}

fn put_varint(into: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        into.put_u8(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    into.put_u8(u8::try_from(number).unwrap_or(0));
}

async fn look(response: Response<Incoming>) -> Result<(), Failure> {
    if response.status() != http::StatusCode::OK {
        return Err(Failure::Status(response.status().as_u16()));
    }
    let (head, mut body) = response.into_parts();
    // An answer without a message has its status in the head.
    agrees(&head.headers)?;
    let mut answer = Vec::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(Failure::broken)?.into_data() {
            Ok(data) => {
                if answer.len() + data.len() > MAX_ANSWER {
                    return Err(Failure::Malformed);
                }
                answer.extend_from_slice(&data);
            }
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    if let Some(trailers) = &trailers {
        agrees(trailers)?;
    }
    match status(&answer).ok_or(Failure::Malformed)? {
        SERVING => Ok(()),
        other => Err(Failure::NotServing(other)),
    }
}

/// A gRPC status, where there is one, must be 0.
fn agrees(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.get("grpc-status") {
        Some(status) if status != "0" => {
            let status = String::from_utf8_lossy(status.as_bytes());
            Err(Failure::Grpc(status.into_owned()))
        }
        _ => Ok(()),
    }
}

/// The `status` of a `HealthCheckResponse` behind its prefix; `None`: it is none.
fn status(answer: &[u8]) -> Option<u64> {
    let (prefix, mut message) = answer.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    if prefix[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    // What is not sent is 0, UNKNOWN; of several the last one counts.
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = varint(&mut message)?,
            (_, 0) => {
                varint(&mut message)?;
            }
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn questions_name_the_service() {
        assert_eq!(&question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&question("a.B")[..], b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 308);
    }

    #[test]
    fn answers_are_read() {
        for (answer, wanted) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Some(SERVING)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            (b"\0\0\0\0\0", Some(0)),
            // Fields of later versions, of every type.
            (
                b"\0\0\0\0\x18\x12\x01a\x18\xff\x01\x21........\x2d....\x08\x01\x12\0",
                Some(SERVING),
            ),
            (b"\0\0\0\0\x02\x08\x81", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x02\x12\x09", None),
            (b"\0\0\0\0\x01\x0b", None),
            (b"\0\0\0", None),
            (b"", None),
        ] {
            assert_eq!(status(answer), wanted, "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_is_too_strange(answer in prop::collection::vec(any::<u8>(), 0..40)) {
            let framed = [&[0, 0, 0, 0, u8::try_from(answer.len()).unwrap()], &answer[..]].concat();
            let _any = (status(&answer), status(&framed));
        }
    }
}
