//! A batch on its way to the collector: OTLP over gRPC, or in a POST over HTTP/1.1.
//!
//! The connection is made for the first batch, kept, and made anew when it is gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;
use tonic_prost::ProstCodec;

use super::TraceError;
use crate::names;
use crate::policy::plan::{OtlpConfig, OtlpProtocol};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A connection on which nothing comes for so long is asked whether it lives.
const PING: Duration = Duration::from_secs(20);
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const USER_AGENT: &str = concat!("limiterd/", env!("CARGO_PKG_VERSION"));

/// The way to a collector.
#[derive(Debug)]
pub(super) struct Wire {
    config: OtlpConfig,
    url: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    headers: HeaderMap,
    open: Option<Open>,
}

/// A connection.
#[derive(Debug)]
enum Open {
    Grpc(Channel),
    Http(http1::SendRequest<Full<Bytes>>),
}

impl Open {
    fn is_usable(&self) -> bool {
        match self {
            Self::Grpc(channel) => !channel.0.is_closed(),
            Self::Http(sender) => !sender.is_closed(),
        }
    }
}

/// What a collector makes of a batch that it takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Spans.
    pub(super) rejected: u64,
    /// For people; empty: nothing.
    pub(super) message: String,
}

/// A batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("no answer in {0:?}")]
    Late(Duration),
    #[error("no connection: {0}")]
    Connect(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("gRPC status {code:?}: {message}")]
    Grpc {
        code: Code,
        message: String,
        asked: Option<Duration>,
    },
    #[error("HTTP status {status}")]
    Http {
        status: StatusCode,
        asked: Option<Duration>,
    },
}

impl Failed {
    /// Whether another attempt may do better, as the protocol has it.
    pub(super) const fn is_passing(&self) -> bool {
        match self {
            Self::Late(_) | Self::Connect(_) | Self::Broken(_) => true,
            Self::Grpc { code, asked, .. } => match code {
                Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss => true,
                Code::ResourceExhausted => asked.is_some(),
                _ => false,
            },
            Self::Http { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }

    /// The pause that the collector asks for.
    pub(super) const fn asked(&self) -> Option<Duration> {
        match self {
            Self::Grpc { asked, .. } | Self::Http { asked, .. } => *asked,
            Self::Late(_) | Self::Connect(_) | Self::Broken(_) => None,
        }
    }
}

/// `google.rpc.Status`, in the details of an answer.
#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

impl Wire {
    /// # Errors
    /// The host has no name that a certificate can have.
    pub(super) fn new(
        config: &OtlpConfig,
        tls: Option<Arc<ClientConfig>>,
        headers: HeaderMap,
    ) -> Result<Self, TraceError> {
        let tls = match tls {
            None => None,
            Some(tls) => {
                let name = ServerName::try_from(config.host.clone());
                let no_name = |_invalid| TraceError::ServerName(config.host.clone());
                Some((tls, name.map_err(no_name)?))
            }
        };
        Ok(Self {
            config: config.clone(),
            url: config.url(),
            tls,
            headers,
            open: None,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Sends a batch and waits for what the collector makes of it.
    ///
    /// # Errors
    /// [`Failed`]
    pub(super) async fn send(
        &mut self,
        request: &ExportTraceServiceRequest,
    ) -> Result<Answer, Failed> {
        let within = self.config.timeout;
        let sent = timeout(within, self.try_send(request)).await;
        sent.unwrap_or(Err(Failed::Late(within)))
    }

    /// A connection that breaks, or is given up over it, is let go.
    async fn try_send(&mut self, request: &ExportTraceServiceRequest) -> Result<Answer, Failed> {
        let mut open = match self.open.take() {
            Some(open) if open.is_usable() => open,
            _ => self.connect().await?,
        };
        let sent = match &mut open {
            Open::Grpc(channel) => self.by_grpc(channel.clone(), request).await,
            Open::Http(sender) => self.by_http(sender, request).await,
        };
        if !matches!(sent, Err(Failed::Broken(_))) {
            self.open = Some(open);
        }
        sent
    }

    async fn connect(&self) -> Result<Open, Failed> {
        let failed = |error: std::io::Error| Failed::Connect(error.to_string());
        let stream = names::connect(&self.config.host, self.config.port).await;
        let stream = stream.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &self.tls {
            None => self.handshake(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await;
                self.handshake(stream.map_err(failed)?).await
            }
        }
    }

    /// The task that drives the connection ends with it, and with this thread.
    async fn handshake<S>(&self, stream: S) -> Result<Open, Failed>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |error: hyper::Error| Failed::Connect(error.to_string());
        let io = TokioIo::new(stream);
        let (open, connection): (_, Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>) =
            match self.config.protocol {
                OtlpProtocol::Grpc => {
                    let opened = http2::Builder::new(TokioExecutor::new())
                        .timer(TokioTimer::new())
                        .keep_alive_interval(PING)
                        .handshake(io)
                        .await;
                    let (sender, connection) = opened.map_err(failed)?;
                    (Open::Grpc(Channel(sender)), Box::pin(connection))
                }
                OtlpProtocol::Http => {
                    let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
                    (Open::Http(sender), Box::pin(connection))
                }
            };
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a collector ended");
            }
        });
        Ok(open)
    }

    async fn by_grpc(
        &self,
        channel: Channel,
        request: &ExportTraceServiceRequest,
    ) -> Result<Answer, Failed> {
        let origin = Uri::try_from(&self.url);
        let origin = origin.map_err(|error| Failed::Connect(error.to_string()))?;
        let mut client = Grpc::with_origin(channel, origin).max_decoding_message_size(MAX_ANSWER);
        let ready = client.ready().await;
        ready.map_err(|error| Failed::Broken(error.to_string()))?;
        let mut request = tonic::Request::new(request.clone());
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        let codec: ProstCodec<ExportTraceServiceRequest, ExportTraceServiceResponse> =
            ProstCodec::default();
        let path = PathAndQuery::from_static(EXPORT);
        match client.unary(request, path, codec).await {
            Ok(answer) => Ok(said(answer.into_inner())),
            Err(status) => Err(Failed::Grpc {
                code: status.code(),
                message: status.message().to_owned(),
                asked: retry_delay(status.details()),
            }),
        }
    }

    async fn by_http(
        &self,
        sender: &mut http1::SendRequest<Full<Bytes>>,
        request: &ExportTraceServiceRequest,
    ) -> Result<Answer, Failed> {
        let broken = |error: hyper::Error| Failed::Broken(error.to_string());
        sender.ready().await.map_err(broken)?;
        let body = Full::new(Bytes::from(request.encode_to_vec()));
        let mut post = Request::new(body);
        *post.method_mut() = http::Method::POST;
        let path: Result<Uri, _> = self.config.path.parse();
        *post.uri_mut() = path.map_err(|error| Failed::Connect(error.to_string()))?;
        let host = HeaderValue::try_from(self.config.authority());
        let host = host.map_err(|error| Failed::Connect(error.to_string()))?;
        let headers = post.headers_mut();
        let agent = HeaderValue::from_static(USER_AGENT);
        headers.insert(header::USER_AGENT, agent);
        headers.extend(self.headers.clone());
        headers.insert(header::HOST, host);
        headers.insert(header::CONTENT_TYPE, PROTOBUF);
        let response = sender.send_request(post).await.map_err(broken)?;
        let status = response.status();
        let asked = response.headers().get(header::RETRY_AFTER);
        let asked = asked.and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok());
        let asked = asked.map(Duration::from_secs);
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect();
        let body = body
            .await
            .map_err(|error| Failed::Broken(error.to_string()))?;
        if !status.is_success() {
            return Err(Failed::Http { status, asked });
        }
        // A collector that takes spans and says something else takes them nevertheless.
        let answer = ExportTraceServiceResponse::decode(body.to_bytes()).unwrap_or_default();
        Ok(said(answer))
    }
}

fn said(answer: ExportTraceServiceResponse) -> Answer {
    let partial = answer.partial_success.unwrap_or_default();
    Answer {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
        message: partial.error_message,
    }
}

/// What the details of a gRPC status say of when to come again.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let details = Details::decode(details).ok()?;
    let info = details
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    Duration::try_from(delay).ok()
}

/// A connection, as the gRPC client takes it.
#[derive(Clone, Debug)]
struct Channel(http2::SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let grpc = |code, asked| Failed::Grpc {
            code,
            message: String::new(),
            asked,
        };
        let http = |status| Failed::Http {
            status: StatusCode::from_u16(status).unwrap(),
            asked: None,
        };
        let pause = Some(Duration::from_secs(3));
        for passing in [
            grpc(Code::Unavailable, None),
            grpc(Code::ResourceExhausted, pause),
            http(429),
            http(503),
            Failed::Connect(String::new()),
            Failed::Late(Duration::ZERO),
        ] {
            assert!(passing.is_passing(), "{passing}");
        }
        for lasting in [
            grpc(Code::ResourceExhausted, None),
            grpc(Code::Unauthenticated, pause),
            grpc(Code::InvalidArgument, None),
            http(400),
            http(500),
        ] {
            assert!(!lasting.is_passing(), "{lasting}");
        }
    }

    #[test]
    fn a_collector_says_when_to_come_again() {
        let info = RetryInfo {
            retry_delay: Some(prost_types::Duration {
                seconds: 2,
                nanos: 500_000_000,
            }),
        };
        let details = Details {
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        let delay = retry_delay(&details.encode_to_vec());
        assert_eq!(delay, Some(Duration::from_millis(2500)));
        assert_eq!(retry_delay(b""), None);
        assert_eq!(retry_delay(b"\xff"), None);
    }
}
