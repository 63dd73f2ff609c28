//! How the daemon tells of itself: its own log, and traces.

use std::path::PathBuf;
use std::time::Duration;

use super::LogFormat;

/// The daemon's own log, on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least that is logged.
    pub level: LogLevel,
    pub format: LogFormat,
    /// At each place in the code, and as many at once; at least 1.
    pub lines_per_second: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            lines_per_second: 20,
        }
    }
}

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// A span for some of the requests, sent to a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracingConfig {
    pub otlp: OtlpConfig,
    /// Requests of a million that are traced, of those that nobody before has decided about.
    pub sampling: u32,
    pub parent: TraceParent,
    /// `service.name` of the resource.
    pub service_name: String,
}

/// All requests, of a million.
pub const ALL_TRACED: u32 = 1_000_000;

/// What is made of the trace context (W3C) that a request brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceParent {
    /// It is gone on with: the request is traced if it says so.
    #[default]
    Follow,
    /// It is taken away: a trace begins here.
    Ignore,
}

/// Where spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    /// With the `/` at its beginning; of [`OtlpProtocol::Http`] only.
    pub path: String,
    pub protocol: OtlpProtocol,
    /// A `name: value` a line, sent with each batch; they may be secrets.
    pub headers_file: Option<PathBuf>,
    /// PEM of who vouches for the collector; `None`: the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// Of a batch.
    pub timeout: Duration,
}

/// How OTLP is spoken; the messages are in protobuf either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtlpProtocol {
    #[default]
    Grpc,
    /// A POST over HTTP/1.1.
    Http,
}

impl OtlpConfig {
    /// Host and port, as a URL has them.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    /// As a URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }
}
