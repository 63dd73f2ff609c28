//! HTTP/2 by hyper: a client, and an upstream that echoes, with trailers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::stage::{PATIENCE, address};

/// An upstream that answers each request with its head in headers, its body as the body, and its
/// trailers, with `grpc-status: 0`. `x-fail` makes it answer with trailers only.
pub(crate) struct H2Upstream {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl H2Upstream {
    pub(crate) fn new(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = std::net::TcpListener::bind(address()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        std::thread::spawn(move || {
            let runtime = runtime();
            runtime.block_on(accept(listener, tls, counted));
        });
        Self {
            address,
            connections,
        }
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn accept(
    listener: std::net::TcpListener,
    tls: Option<Arc<ServerConfig>>,
    counted: Arc<AtomicUsize>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        counted.fetch_add(1, Ordering::SeqCst);
        match tls.clone() {
            None => {
                tokio::spawn(serve(stream));
            }
            Some(tls) => {
                tokio::spawn(async move {
                    if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                        serve(stream).await;
                    }
                });
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) {
    let service =
        hyper::service::service_fn(
            |request| async move { Ok::<_, Infallible>(echo(request).await) },
        );
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ended = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn echo(request: Request<Incoming>) -> Response<PiecesOf> {
    let (parts, body) = request.into_parts();
    let target = format!("{} {}", parts.method, parts.uri);
    let mut response = Response::new(PiecesOf(Vec::new()));
    if parts.headers.contains_key("x-fail") {
        response
            .headers_mut()
            .insert("grpc-status", HeaderValue::from_static("9"));
        return response;
    }
    let body = body.collect().await.unwrap();
    let mut trailers = body.trailers().cloned().unwrap_or_default();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let pieces = vec![Frame::trailers(trailers), Frame::data(body.to_bytes())];
    *response.body_mut() = PiecesOf(pieces);
    let headers = response.headers_mut();
    headers.insert("x-target", HeaderValue::from_str(&target).unwrap());
    for name in ["te", "content-type", "x-forwarded-for", "host"] {
        if let Some(value) = parts.headers.get(name) {
            headers.insert(
                format!("x-saw-{name}").parse::<http::HeaderName>().unwrap(),
                value.clone(),
            );
        }
    }
    response
}

/// Pieces of a body, the last one first.
pub(crate) struct PiecesOf(pub(crate) Vec<Frame<Bytes>>);

impl http_body::Body for PiecesOf {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// An answer over HTTP/2.
#[derive(Debug)]
pub(crate) struct H2Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl H2Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// A client with a runtime of its own.
pub(crate) struct H2Client {
    runtime: tokio::runtime::Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl H2Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = runtime();
        let sender = runtime
            .block_on(async { shake_hands(TcpStream::connect(address).await.unwrap()).await });
        Self { runtime, sender }
    }

    pub(crate) fn over_tls(address: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Self {
        let runtime = runtime();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let stream = TlsConnector::from(config)
                .connect(name, stream)
                .await
                .unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
            shake_hands(stream).await
        });
        Self { runtime, sender }
    }

    pub(crate) fn send(&mut self, request: Request<Full<Bytes>>) -> H2Answer {
        self.try_send(request).unwrap()
    }

    /// # Errors
    /// No answer, or not all of it.
    pub(crate) fn try_send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<H2Answer, hyper::Error> {
        let sent = self.sender.send_request(request);
        self.runtime.block_on(async {
            let answered = async {
                let (parts, body) = sent.await?.into_parts();
                let body = body.collect().await?;
                let trailers = body.trailers().cloned().unwrap_or_default();
                Ok(H2Answer {
                    status: parts.status.as_u16(),
                    headers: parts.headers,
                    body: body.to_bytes(),
                    trailers,
                })
            };
            tokio::time::timeout(PATIENCE, answered).await.unwrap()
        })
    }
}

async fn shake_hands<S>(stream: S) -> SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A request of HTTP/2.
pub(crate) fn request(
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .version(Version::HTTP_2);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}
