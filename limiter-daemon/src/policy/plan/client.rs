//! How clients are spoken to (`ClientTrafficPolicy`).

use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

/// The settings of a listener towards its clients. The defaults are those of a listener without a
/// policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// `namespace/name` of the policy; empty: none.
    pub policy: String,
    /// `X-RateLimit-*` and `Retry-After` are sent.
    pub rate_limit_headers: bool,
    /// `x-envoy-ratelimited` and its like are sent.
    pub envoy_headers: bool,
    pub client_address: ClientAddress,
    pub request_id: RequestIdPolicy,
    pub timeouts: ClientTimeouts,
    pub connections: ConnectionLimits,
    pub http1: Http1Settings,
    pub http2: Http2Settings,
    pub proxy_protocol: ProxyProtocol,
    /// TCP keep-alive: idle time before the first probe; `None`: off.
    pub tcp_keepalive: Option<Duration>,
    /// Bytes of a request's body; more is answered with 413. `None`: no bound.
    pub max_body: Option<u64>,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            policy: String::new(),
            rate_limit_headers: true,
            envoy_headers: false,
            client_address: ClientAddress::Peer,
            request_id: RequestIdPolicy::default(),
            timeouts: ClientTimeouts::default(),
            connections: ConnectionLimits::default(),
            http1: Http1Settings::default(),
            http2: Http2Settings::default(),
            proxy_protocol: ProxyProtocol::default(),
            tcp_keepalive: None,
            max_body: None,
        }
    }
}

/// Which address a request is attributed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientAddress {
    /// The connection's (as PROXY protocol states it, if that is on).
    #[default]
    Peer,
    /// The one this many proxies back: the entry of `X-Forwarded-For` at that place from its end,
    /// counting the connection's own as place 1 and so the last entry as place 1 behind one trusted
    /// proxy. Too few entries: the connection's.
    TrustedHops(u32),
    /// The last address of `X-Forwarded-For` that is in none of these; only looked at if the
    /// connection's address is in one of them.
    TrustedCidrs(Vec<IpNet>),
    /// The address in a header of its own.
    Header {
        name: HeaderName,
        /// Requests without it, or with something else in it, are answered with 403.
        required: bool,
    },
}

/// `X-Request-Id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestIdPolicy {
    /// A new one for each request, whatever the client sent (Envoy Gateway's default).
    #[default]
    Generate,
    /// The client's, or a new one.
    PreserveOrGenerate,
    /// The client's, or none.
    Preserve,
    /// None.
    Disable,
}

/// How long clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTimeouts {
    /// For a request's head, from its first byte, and for a connection's first byte.
    pub head: Duration,
    /// For a whole request, body and all; `None`: no bound.
    pub request_received: Option<Duration>,
    /// Between requests on one connection.
    pub idle: Duration,
    /// Between two pieces of one request's body or response; `None`: no bound.
    pub stream_idle: Option<Duration>,
    /// For a TLS handshake and for a PROXY protocol header.
    pub handshake: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(60),
            request_received: None,
            idle: Duration::from_secs(3600),
            stream_idle: Some(Duration::from_secs(300)),
            handshake: Duration::from_secs(10),
        }
    }
}

/// Bounds on connections, each over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// At once on the listener; more are closed after `close_delay`. `None`: no bound but the
    /// worker's own.
    pub max: Option<u64>,
    pub close_delay: Duration,
    /// At once from one source (IPv6: a /64).
    pub max_per_source: Option<u64>,
    /// A connection's life; then it is told to close.
    pub max_duration: Option<Duration>,
    /// Requests on one connection; the last one is told so.
    pub max_requests: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http1Settings {
    /// HTTP/1.0 is taken; with this host where there is no `Host` header.
    pub http10: Option<Option<String>>,
    /// Trailers are passed on.
    pub trailers: bool,
    /// Bytes of a request's head; more is answered with 431 (Envoy: 60 KiB).
    pub max_head: u32,
    /// Headers of a request; more is answered with 431 (Envoy: 100).
    pub max_headers: u32,
}

impl Default for Http1Settings {
    fn default() -> Self {
        Self {
            http10: Some(None),
            trailers: true,
            max_head: 60 << 10,
            max_headers: 100,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    /// Bytes; 65,535 to 2^31 - 1.
    pub initial_stream_window: u32,
    /// Bytes; 65,535 to 2^31 - 1.
    pub initial_connection_window: u32,
    pub max_concurrent_streams: u32,
    pub on_invalid_message: InvalidMessage,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            initial_stream_window: 64 << 10,
            initial_connection_window: 1 << 20,
            max_concurrent_streams: 100,
            on_invalid_message: InvalidMessage::default(),
        }
    }
}

/// What an invalid HTTP/2 message ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidMessage {
    #[default]
    TerminateConnection,
    TerminateStream,
}

/// PROXY protocol (versions 1 and 2) before anything else on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    #[default]
    Off,
    /// Read where there is one.
    Optional,
    /// Connections without it are closed.
    Required,
}
