//! A collector of traces: the service of OpenTelemetry's protocol as its own crate generates it, over
//! gRPC, and the same messages in POSTs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::{Code, Status};

use crate::daemon::eventually;
use crate::netns::Netns;

/// A span, and how it came.
#[derive(Clone, Debug)]
pub struct Collected {
    pub span: Span,
    /// `service.name` of its resource.
    pub service: String,
    /// Of the call that brought it.
    pub headers: HeaderMap,
    pub by_grpc: bool,
}

/// What a collector makes of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Made {
    /// It is refused with this gRPC status, or 503.
    Refused(Code),
    /// So many of its spans are not wanted.
    Rejected(i64),
}

/// A collector; it ends when dropped, with all its connections.
#[derive(Debug)]
pub struct Collector {
    state: Arc<State>,
    _stop: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    collected: Mutex<Vec<Collected>>,
    next: Mutex<VecDeque<Made>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Collected {
    /// An attribute, as text; lists are joined by spaces; empty: there is none.
    #[must_use]
    pub fn attribute(&self, key: &str) -> String {
        find(&self.span.attributes, key)
    }

    /// Ids in hexadecimal, as `traceparent` has them: of the trace, of the span, of its parent.
    #[must_use]
    pub fn ids(&self) -> [String; 3] {
        let span = &self.span;
        [&span.trace_id, &span.span_id, &span.parent_span_id]
            .map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn find(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    found.map_or_else(String::new, |attribute| text(attribute.value.as_ref()))
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::ArrayValue(list)) => {
            let texts = list.values.iter().map(|value| text(Some(value)));
            texts.collect::<Vec<_>>().join(" ")
        }
        other => other.map_or_else(String::new, |other| format!("{other:?}")),
    }
}

impl State {
    fn take(
        &self,
        request: ExportTraceServiceRequest,
        headers: &HeaderMap,
        by_grpc: bool,
    ) -> Result<ExportTraceServiceResponse, Code> {
        let mut rejected = 0;
        match lock(&self.next).pop_front() {
            Some(Made::Refused(code)) => return Err(code),
            Some(Made::Rejected(spans)) => rejected = spans,
            None => {}
        }
        let mut collected = lock(&self.collected);
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let service = find(&resource.attributes, "service.name");
            let spans = of_resource.scope_spans.into_iter();
            collected.extend(spans.flat_map(|scope| scope.spans).map(|span| Collected {
                span,
                service: service.clone(),
                headers: headers.clone(),
                by_grpc,
            }));
        }
        let partial = ExportTracePartialSuccess {
            rejected_spans: rejected,
            error_message: "not wanted".to_owned(),
        };
        Ok(ExportTraceServiceResponse {
            partial_success: (rejected > 0).then_some(partial),
        })
    }
}

struct Grpc(Arc<State>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let taken = self.0.take(request.into_inner(), &headers, true);
        taken
            .map(tonic::Response::new)
            .map_err(|code| Status::new(code, "as the test says"))
    }
}

impl Collector {
    /// Listens on `address` in `netns`; with `tls` if that is given.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(netns: &Netns, address: &str, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let listener = netns.enter(|| Ok(std::net::TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || {
            runtime.block_on(async {
                let accepting = accept(listener, shared, tls.map(TlsAcceptor::from));
                tokio::select! {
                    failed = accepting => eprintln!("the collector ends: {failed:?}"),
                    _dropped = stopped => {}
                }
            });
        });
        Ok(Self { state, _stop: stop })
    }

    /// What is made of the next batches, one after the other; of all after that: they are taken.
    pub fn next(&self, made: &[Made]) {
        lock(&self.state.next).extend(made);
    }

    /// Spans so far.
    #[must_use]
    pub fn collected(&self) -> Vec<Collected> {
        lock(&self.state.collected).clone()
    }

    /// Waits for so many spans of a service, and gives them as they came.
    ///
    /// # Errors
    /// When they do not come.
    pub fn spans(&self, service: &str, count: usize) -> Result<Vec<Collected>> {
        let all = || {
            let mut spans = self.collected();
            spans.retain(|collected| collected.service == service);
            spans
        };
        eventually("spans", || {
            Ok(Some(all()).filter(|spans| spans.len() >= count))
        })
        .with_context(|| format!("there are {:#?}", all()))
    }
}

async fn accept(
    listener: std::net::TcpListener,
    state: Arc<State>,
    tls: Option<TlsAcceptor>,
) -> Result<Infallible> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let (state, tls) = (Arc::clone(&state), tls.clone());
        // A connection that breaks is the client's business.
        tokio::spawn(async move {
            match tls {
                None => serve(stream, state).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, state: Arc<State>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| answer(Arc::clone(&state), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let _broken = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    if request.uri().path() != "/v1/traces" {
        let served = TraceServiceServer::new(Grpc(state)).call(request).await;
        return Ok(served.unwrap_or_else(|never| match never {}));
    }
    let headers = request.headers().clone();
    let body = request.into_body().collect().await?.to_bytes();
    let taken = match ExportTraceServiceRequest::decode(body) {
        Ok(message) => state.take(message, &headers, false),
        Err(_invalid) => Err(Code::InvalidArgument),
    };
    let mut response = Response::new(Body::empty());
    match taken {
        Ok(message) => {
            *response.body_mut() = Body::new(Full::new(Bytes::from(message.encode_to_vec())))
        }
        Err(Code::InvalidArgument) => *response.status_mut() = StatusCode::BAD_REQUEST,
        Err(_passing) => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
    }
    Ok(response)
}
