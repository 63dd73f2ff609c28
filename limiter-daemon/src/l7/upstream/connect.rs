//! New connections: TCP or Unix, TLS, and which HTTP is spoken.

use std::io;
use std::sync::Arc;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::cluster::Waiting;
use super::exchange::Http1;
use super::life::Life;
use super::pool::Http2;
use super::target::{Target, TargetTls, shown};
use crate::engine::upstream::Slot;
use crate::l7::body::RequestBody;
use crate::l7::clock::Clock;
use crate::l7::io::{Raw, UpstreamIo};
use crate::l7::respond::Cause;
use crate::l7::tls;
use crate::names;
use crate::policy::plan::{BackendSettings, Endpoint, TcpKeepalive, UpstreamProtocol};

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

/// What TLS with an endpoint offers to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::l7) enum Offer {
    /// HTTP/2, and HTTP/1.1 where the backend takes both.
    Http2,
    /// HTTP/1.1 alone.
    Http1,
    /// Nothing: what is spoken is the client's business.
    Nothing,
}

impl Offer {
    pub(in crate::l7) const fn http(http2: bool) -> Self {
        if http2 { Self::Http2 } else { Self::Http1 }
    }
}

/// Connects to `target` on `slot`. Without `http2`, TLS does not offer it.
///
/// # Errors
/// Why there is no connection; also that it took too long.
pub(super) async fn connect(
    target: &Arc<Target>,
    settings: &BackendSettings,
    slot: Slot<Waiting>,
    http2: bool,
    clock: Clock,
) -> Result<Connection, Cause> {
    let connecting = async {
        let (io, http2) = open(target, settings.tcp_keepalive.as_ref(), Offer::http(http2)).await?;
        shake_hands(io, http2).await
    };
    let connected = match tokio::time::timeout(settings.connect_timeout, connecting).await {
        Ok(connected) => connected,
        Err(elapsed) => Err(elapsed.into()),
    };
    slot.connected(connected.is_err());
    let life = Life::new(settings, clock.now());
    Ok(match connected? {
        Shaken::Http1(sender, connection) => {
            let connection = Http1::new(sender, *connection, target, life, slot);
            Connection::Http1(Box::new(connection))
        }
        Shaken::Http2(sender, connection) => {
            // It ends when the last sender is dropped or the endpoint closes.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "HTTP/2 connection to an upstream ended");
                }
                drop(slot);
            });
            Connection::Http2(Http2::new(sender, target, life))
        }
    })
}

/// A connection to `target`, and whether it is to speak HTTP/2.
///
/// # Errors
/// The endpoint cannot be reached, or TLS is not agreed on. It takes as long as it takes.
pub(in crate::l7) async fn open(
    target: &Target,
    keepalive: Option<&TcpKeepalive>,
    offer: Offer,
) -> io::Result<(UpstreamIo, bool)> {
    let raw = dial(&shown(&target.endpoint, target.address), keepalive).await?;
    let (io, speaks_http2) = match &target.tls {
        None => (UpstreamIo::Plain(raw), None),
        Some(tls) => secure(tls, raw, offer).await?,
    };
    let http2 = speaks_http2.unwrap_or(target.protocol == UpstreamProtocol::Http2);
    Ok((io, http2))
}

async fn dial(endpoint: &Endpoint, keepalive: Option<&TcpKeepalive>) -> io::Result<Raw> {
    let tcp = match endpoint {
        Endpoint::Ip(ip, port) => TcpStream::connect((*ip, *port)).await?,
        Endpoint::Fqdn(name, port) => names::connect(name, *port).await?,
        Endpoint::Unix(path) => return Ok(Raw::Unix(UnixStream::connect(path).await?)),
    };
    tcp.set_nodelay(true)?;
    if let Some(keepalive) = keepalive {
        SockRef::from(&tcp).set_tcp_keepalive(&probes(keepalive))?;
    }
    Ok(Raw::Tcp(tcp))
}

const fn probes(keepalive: &TcpKeepalive) -> socket2::TcpKeepalive {
    let mut probes = socket2::TcpKeepalive::new();
    if let Some(idle) = keepalive.idle {
        probes = probes.with_time(idle);
    }
    if let Some(interval) = keepalive.interval {
        probes = probes.with_interval(interval);
    }
    if let Some(count) = keepalive.probes {
        probes = probes.with_retries(count);
    }
    probes
}

/// The stream, and whether HTTP/2 was agreed on, if anything was.
async fn secure(tls: &TargetTls, raw: Raw, offer: Offer) -> io::Result<(UpstreamIo, Option<bool>)> {
    let config = match offer {
        Offer::Http2 => Arc::clone(&tls.config),
        Offer::Http1 => tls::offering(&tls.config, &["http/1.1"]),
        Offer::Nothing => tls::offering(&tls.config, &[]),
    };
    let connector = TlsConnector::from(config);
    let stream = connector.connect(tls.name.clone(), raw).await?;
    let agreed = stream.get_ref().1.alpn_protocol().map(|p| p == b"h2");
    Ok((UpstreamIo::Tls(Box::new(stream)), agreed))
}

/// A connection that speaks HTTP.
enum Shaken {
    Http1(
        http1::SendRequest<RequestBody>,
        Box<http1::Connection<TokioIo<UpstreamIo>, RequestBody>>,
    ),
    Http2(
        http2::SendRequest<RequestBody>,
        http2::Connection<TokioIo<UpstreamIo>, RequestBody, TokioExecutor>,
    ),
}

async fn shake_hands(io: UpstreamIo, http2: bool) -> Result<Shaken, Cause> {
    let io = TokioIo::new(io);
    if !http2 {
        let mut builder = http1::Builder::new();
        // Most requests are a head alone: one buffer and one `send` cost less than a queue of
        // pieces and `writev`.
        builder.max_buf_size(MAX_HEAD).writev(false);
        let (sender, connection) = builder.handshake(io).await?;
        return Ok(Shaken::Http1(sender, Box::new(connection)));
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL);
    let (sender, connection) = builder.handshake(io).await?;
    Ok(Shaken::Http2(sender, connection))
}
