//! Checks by an HTTP request.

use std::ops::RangeInclusive;
use std::pin::pin;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::probe::Failure;
use crate::l7::io::UpstreamIo;
use crate::l7::upstream::{Offer, Target, open};

/// Bytes of a body that are looked at.
const LOOKED_AT: usize = 1 << 10;
/// Bytes of a response's head.
const MAX_HEAD: usize = 64 << 10;
const AGENT: HeaderValue = HeaderValue::from_static("limiterd-health-check");

pub(super) struct Asked<'a> {
    /// `None`: the endpoint's own.
    pub(super) host: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) method: &'a Method,
}

pub(super) struct Expected<'a> {
    pub(super) statuses: &'a [RangeInclusive<u16>],
    pub(super) body: Option<&'a [u8]>,
}

/// Sends a request over HTTP/1.1, or over HTTP/2 to hosts that speak it without asking.
pub(super) async fn ask(
    target: &Target,
    asked: &Asked<'_>,
    expected: &Expected<'_>,
) -> Result<(), Failure> {
    let opened = open(target, None, Offer::http(target.is_http2())).await;
    let (io, http2) = opened.map_err(Failure::Unreachable)?;
    let request = Request::builder()
        .method(asked.method)
        .header(USER_AGENT, AGENT);
    let look = |response| look(response, expected);
    if http2 {
        let authority = match asked.host {
            Some(host) => Authority::try_from(host).map_err(http::Error::from)?,
            None => target.authority(),
        };
        let uri = absolute(target.scheme(), authority, asked.path)?;
        let request = request.uri(uri).version(Version::HTTP_2);
        return over_http2(io, request.body(Full::default())?, look).await;
    }
    let host = match asked.host {
        Some(host) => HeaderValue::try_from(host).map_err(http::Error::from)?,
        None => HeaderValue::try_from(target.authority().as_str()).map_err(http::Error::from)?,
    };
    let request = request.uri(asked.path).header(HOST, host);
    over_http1(io, request.body(Full::default())?, look).await
}

pub(super) fn absolute(
    scheme: Scheme,
    authority: Authority,
    path: &str,
) -> Result<Uri, http::Error> {
    let uri = Uri::builder().scheme(scheme).authority(authority);
    uri.path_and_query(path).build()
}

async fn over_http1<F>(
    io: UpstreamIo,
    request: Request<Full<Bytes>>,
    look: impl FnOnce(Response<Incoming>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let shaken = builder.handshake(TokioIo::new(io)).await;
    let (mut sender, connection) = shaken.map_err(Failure::broken)?;
    let exchange = async move {
        let response = sender.send_request(request).await;
        look(response.map_err(Failure::broken)?).await
    };
    drive(exchange, connection).await
}

/// The same over HTTP/2, with `look` at the response.
pub(super) async fn over_http2<F>(
    io: UpstreamIo,
    request: Request<Full<Bytes>>,
    look: impl FnOnce(Response<Incoming>) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let builder = http2::Builder::new(TokioExecutor::new());
    let shaken = builder.handshake(TokioIo::new(io)).await;
    let (mut sender, connection) = shaken.map_err(Failure::broken)?;
    let exchange = async move {
        let response = sender.send_request(request).await;
        look(response.map_err(Failure::broken)?).await
    };
    drive(exchange, connection).await
}

/// The connection is driven for as long as the exchange needs it.
async fn drive(
    exchange: impl Future<Output = Result<(), Failure>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<(), Failure> {
    let mut exchange = pin!(exchange);
    tokio::select! {
        done = &mut exchange => return done,
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "the connection of a health check ended");
        },
    }
    // What has come is there still; the rest fails.
    exchange.await
}

async fn look(response: Response<Incoming>, expected: &Expected<'_>) -> Result<(), Failure> {
    let status = response.status().as_u16();
    if !expected
        .statuses
        .iter()
        .any(|range| range.contains(&status))
    {
        return Err(Failure::Status(status));
    }
    let Some(wanted) = expected.body else {
        return Ok(());
    };
    let mut body = response.into_body();
    let mut seen = Vec::new();
    loop {
        if contains(&seen, wanted) {
            return Ok(());
        }
        if seen.len() == LOOKED_AT {
            return Err(Failure::Body(LOOKED_AT));
        }
        match body.frame().await {
            None => return Err(Failure::Body(LOOKED_AT)),
            Some(frame) => {
                let frame = frame.map_err(Failure::broken)?;
                if let Some(data) = frame.data_ref() {
                    let room = LOOKED_AT - seen.len();
                    seen.extend_from_slice(&data[..data.len().min(room)]);
                }
            }
        }
    }
}

fn contains(seen: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || seen.windows(wanted.len()).any(|part| part == wanted)
}
