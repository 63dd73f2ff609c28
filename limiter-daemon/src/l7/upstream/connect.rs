//! New connections: TCP or Unix, TLS, and which HTTP is spoken.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::CONNECT_TIMEOUT;
use super::exchange::Http1;
use super::pool::Http2;
use super::target::{Target, TargetTls};
use crate::l7::io::{Raw, UpstreamIo};
use crate::l7::respond::Refusal;
use crate::l7::tls;
use crate::policy::plan::{Endpoint, UpstreamProtocol};

/// Bytes of a response's head.
const MAX_HEAD: usize = 64 << 10;
/// Windows towards upstreams over HTTP/2, in bytes.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// HTTP/2 connections are asked this often whether they are alive.
const PING_INTERVAL: std::time::Duration = std::time::Duration::from_secs(30);

/// A new connection.
pub(super) enum Connection {
    Http1(Box<Http1>),
    Http2(Http2),
}

/// Connects to `target`. Without `http2`, TLS does not offer it.
///
/// # Errors
/// [`Refusal::Unreachable`], also when it takes too long.
pub(super) async fn connect(target: &Target, http2: bool) -> Result<Connection, Refusal> {
    let connecting = async {
        let (io, http2) = open(target, http2).await?;
        shake_hands(io, http2).await
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(Refusal::Unreachable),
        Err(elapsed) => Err(Refusal::Unreachable(elapsed.into())),
    }
}

/// A connection to `target`, and whether it is to speak HTTP/2. Without `http2`, TLS does not offer
/// it.
///
/// # Errors
/// The endpoint cannot be reached, or TLS is not agreed on. It takes as long as it takes.
pub(in crate::l7) async fn open(target: &Target, http2: bool) -> io::Result<(UpstreamIo, bool)> {
    let raw = dial(&target.endpoint).await?;
    let (io, speaks_http2) = match &target.tls {
        None => (UpstreamIo::Plain(raw), None),
        Some(tls) => secure(tls, raw, http2).await?,
    };
    let http2 = speaks_http2.unwrap_or(target.protocol == UpstreamProtocol::Http2);
    Ok((io, http2))
}

async fn dial(endpoint: &Endpoint) -> io::Result<Raw> {
    let tcp = match endpoint {
        Endpoint::Ip(ip, port) => TcpStream::connect((*ip, *port)).await?,
        Endpoint::Fqdn(name, port) => TcpStream::connect((name.as_str(), *port)).await?,
        Endpoint::Unix(path) => return Ok(Raw::Unix(UnixStream::connect(path).await?)),
    };
    tcp.set_nodelay(true)?;
    Ok(Raw::Tcp(tcp))
}

/// The stream, and whether HTTP/2 was agreed on, if anything was.
async fn secure(tls: &TargetTls, raw: Raw, http2: bool) -> io::Result<(UpstreamIo, Option<bool>)> {
    let config = if http2 {
        Arc::clone(&tls.config)
    } else {
        tls::without_http2(&tls.config)
    };
    let connector = TlsConnector::from(config);
    let stream = connector.connect(tls.name.clone(), raw).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(|p| p == b"h2");
    Ok((UpstreamIo::Tls(Box::new(stream)), agreed))
}

async fn shake_hands(
    io: UpstreamIo,
    http2: bool,
) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
    let io = TokioIo::new(io);
    if !http2 {
        let mut builder = http1::Builder::new();
        // Most requests are a head alone: one buffer and one `send` cost less than a queue of
        // pieces and `writev`.
        builder.max_buf_size(MAX_HEAD).writev(false);
        let (sender, connection) = builder.handshake(io).await?;
        return Ok(Connection::Http1(Box::new(Http1::new(sender, connection))));
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL);
    let (sender, connection) = builder.handshake(io).await?;
    // It ends when the last sender is dropped or the endpoint closes.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to an upstream ended");
        }
    });
    Ok(Connection::Http2(Http2 {
        sender,
        in_flight: Arc::new(AtomicUsize::new(0)),
    }))
}
