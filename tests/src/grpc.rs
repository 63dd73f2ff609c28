//! HTTP/2 with trailers: a client, and an upstream that answers as gRPC services do.

use std::convert::Infallible;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::netns::Netns;
use crate::raw::tcp;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// An answer over HTTP/2.
#[derive(Clone, Debug)]
pub struct H2Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl H2Answer {
    /// A header as text; empty if it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    /// A trailer as text; empty if it is absent.
    #[must_use]
    pub fn trailer(&self, name: &str) -> &str {
        text(&self.trailers, name)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A client on one connection.
#[derive(Debug)]
pub struct H2Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl H2Client {
    /// Connects from `netns`, with prior knowledge.
    ///
    /// # Errors
    /// When the other side does not speak HTTP/2.
    pub fn connect(netns: &Netns, address: &str) -> Result<Self> {
        let runtime = runtime()?;
        let stream = nonblocking(netns, address)?;
        let sender = runtime.block_on(async { shake_hands(TcpStream::from_std(stream)?).await })?;
        Ok(Self { runtime, sender })
    }

    /// Connects by TLS, and agrees on HTTP/2 by ALPN.
    ///
    /// # Errors
    /// When they do not agree.
    pub fn over_tls(
        netns: &Netns,
        address: &str,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Self> {
        let runtime = runtime()?;
        let stream = nonblocking(netns, address)?;
        let name = ServerName::try_from(host.to_owned())?;
        let sender = runtime.block_on(async {
            let stream = TcpStream::from_std(stream)?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            let agreed = stream.get_ref().1.alpn_protocol();
            ensure!(agreed == Some(b"h2"), "agreed on {agreed:?}");
            shake_hands(stream).await
        })?;
        Ok(Self { runtime, sender })
    }

    /// Sends a request and reads its answer to the end.
    ///
    /// # Errors
    /// When there is none.
    pub fn send(
        &mut self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Result<H2Answer> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = self.sender.send_request(request.body(Full::from(body))?);
        self.runtime.block_on(async {
            let (head, body) = sent.await?.into_parts();
            let body = body.collect().await?;
            Ok(H2Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                trailers: body.trailers().cloned().unwrap_or_default(),
                body: body.to_bytes(),
            })
        })
    }
}

fn nonblocking(netns: &Netns, address: &str) -> Result<std::net::TcpStream> {
    let stream = tcp(netns, address)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

async fn shake_hands<S>(stream: S) -> Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// An upstream that speaks HTTP/2 only. It answers with the request's body, its target in the header
/// `x-target`, and in the trailers the `grpc-status` that the header `x-status` of the request asks
/// for (0 without it). It ends when dropped.
#[derive(Debug)]
pub struct H2Upstream {
    _stop: oneshot::Sender<()>,
}

impl H2Upstream {
    /// Listens on `address` in `netns`.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(netns: &Netns, address: &str) -> Result<Self> {
        let listener = netns.enter(|| Ok(std::net::TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let runtime = runtime()?;
        let (stop, stopped) = oneshot::channel();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _gone = stopped => Ok(()),
                    failed = accept(listener) => failed,
                }
            })
        });
        Ok(Self { _stop: stop })
    }
}

async fn accept(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let stream = listener.accept().await.context("no connection")?.0;
        let service = service_fn(echo);
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
    }
}

async fn echo(
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut trailers = HeaderMap::new();
    let status = head.headers.get("x-status").cloned();
    trailers.insert(
        GRPC_STATUS,
        status.unwrap_or_else(|| HeaderValue::from_static("0")),
    );
    let trailers = std::future::ready(Some(Ok(trailers)));
    let mut response = Response::new(Full::new(body).with_trailers(trailers));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    if let Ok(target) = HeaderValue::try_from(head.uri.to_string()) {
        headers.insert("x-target", target);
    }
    Ok(response)
}
