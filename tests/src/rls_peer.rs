//! A rate limit service that answers what a test says.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use limiter_daemon::rls::proto::{
    Code, DescriptorStatus, RateLimit, RateLimitRequest, RateLimitResponse, SHOULD_RATE_LIMIT, Unit,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::netns::Netns;

/// Bytes before a message: a flag, and the length.
const PREFIX: usize = 5;

/// What is said to a question.
#[derive(Clone, Debug)]
pub enum Said {
    Answer(RateLimitResponse),
    /// A gRPC status.
    Refuse(u8),
    /// Nothing, ever.
    Nothing,
}

impl Said {
    /// That the request is over a limit, or not; without statuses.
    #[must_use]
    pub fn plainly(code: Code) -> Self {
        Self::Answer(RateLimitResponse {
            overall_code: code.into(),
            ..RateLimitResponse::default()
        })
    }
}

/// The status of a descriptor that meets a limit of so many a minute.
#[must_use]
pub fn status(code: Code, requests_per_unit: u32, remaining: u32) -> DescriptorStatus {
    DescriptorStatus {
        code: code.into(),
        current_limit: Some(RateLimit {
            requests_per_unit,
            unit: Unit::Minute.into(),
            name: String::new(),
        }),
        limit_remaining: remaining,
        duration_until_reset: None,
    }
}

/// A service; it ends when dropped, with all its connections.
#[derive(Debug)]
pub struct RlsPeer {
    heard: Arc<Mutex<Vec<Bytes>>>,
    _stop: oneshot::Sender<()>,
}

type Script = dyn Fn(&RateLimitRequest) -> Said + Send + Sync;

impl RlsPeer {
    /// Listens on `address` in `netns`, and answers by `script`.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(
        netns: &Netns,
        address: &str,
        script: impl Fn(&RateLimitRequest) -> Said + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = netns.enter(|| Ok(std::net::TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let heard = Arc::default();
        let (keep, script): (_, Arc<Script>) = (Arc::clone(&heard), Arc::new(script));
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _gone = stopped => Ok(()),
                    failed = accept(listener, keep, script) => failed,
                }
            })
        });
        Ok(Self { heard, _stop: stop })
    }

    /// The messages so far, as they came.
    #[must_use]
    pub fn messages(&self) -> Vec<Bytes> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.clone()
    }

    /// The questions so far.
    ///
    /// # Errors
    /// When one is none.
    pub fn questions(&self) -> Result<Vec<RateLimitRequest>> {
        let messages = self.messages().into_iter();
        messages
            .map(|message| Ok(RateLimitRequest::decode(message)?))
            .collect()
    }
}

async fn accept(
    listener: std::net::TcpListener,
    heard: Arc<Mutex<Vec<Bytes>>>,
    script: Arc<Script>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let stream = listener.accept().await.context("no connection")?.0;
        let (heard, script) = (Arc::clone(&heard), Arc::clone(&script));
        let service = service_fn(move |request| {
            let (heard, script) = (Arc::clone(&heard), Arc::clone(&script));
            answer(request, heard, script)
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    heard: Arc<Mutex<Vec<Bytes>>>,
    script: Arc<Script>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>> {
    anyhow::ensure!(
        request.uri().path() == SHOULD_RATE_LIMIT,
        "{}",
        request.uri()
    );
    let body = request.into_body().collect().await?.to_bytes();
    let message = body.slice(PREFIX..);
    let question = RateLimitRequest::decode(message.clone())?;
    heard
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(message);
    let (body, status) = match script(&question) {
        Said::Answer(answer) => (framed(&answer)?, 0),
        Said::Refuse(status) => (Bytes::new(), status),
        Said::Nothing => std::future::pending().await,
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    let trailers = std::future::ready(Some(Ok(trailers)));
    let mut response = Response::new(Full::new(body).with_trailers(trailers));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    Ok(response)
}

fn framed(answer: &RateLimitResponse) -> Result<Bytes> {
    let message = answer.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.put_slice(&message);
    Ok(framed.freeze())
}
