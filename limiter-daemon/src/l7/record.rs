//! What an access log can say of a request, handed over when its response is over; and of a
//! connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode, Version};
use hyper::body::Incoming;

use super::asking::Later;
use super::body::Upload;
use super::clock::wall;
use super::connection::Conn;
use super::request_id::X_REQUEST_ID;
pub use super::tcp::{TcpEnd, TcpRecord};
use super::trace;
use super::upstream::Target;
use crate::engine::outcome::Decisive;
use crate::engine::route::Rule;
use crate::engine::settle::{self, Settlement};
use crate::traces::{TRACEPARENT, Traced};

/// Takes the record of each request at its end. It is called on the worker's thread: it must not
/// wait.
pub trait Sink: fmt::Debug + Send + Sync {
    fn record(&self, record: &Record);

    /// Takes that of a connection that was passed on, at its end.
    fn passed_on(&self, record: &TcpRecord);
}

/// The limit that decided: the one that denied, or the one with the fewest tokens left.
#[derive(Debug)]
pub struct DecidedBy {
    pub decisive: Decisive,
    /// Which bucket of the rule, as `name=value`; empty: its only one.
    pub descriptor: String,
    pub denied: bool,
}

/// A request and what became of it. Times are in nanoseconds of the data plane's clock.
#[derive(Debug)]
pub struct Record {
    /// When its head had come.
    pub began: u64,
    /// When the upstream's response head had come; `None`: it never came.
    pub responded: Option<u64>,
    /// When the response was over.
    pub ended: u64,
    pub method: Method,
    /// Path and query as the client sent them.
    pub target: String,
    /// As the client sent it; empty: it sent none, or none that is valid.
    pub host: String,
    pub version: Version,
    /// The connection came by TLS.
    pub tls: bool,
    /// Whom the request is attributed to.
    pub client: IpAddr,
    /// The connection's other end.
    pub peer: SocketAddr,
    /// The address that the connection came to.
    pub bind: SocketAddr,
    pub user_agent: Option<HeaderValue>,
    pub request_id: Option<HeaderValue>,
    /// W3C trace context: as the client sent it, or as the upstream gets it if the request is traced.
    pub traceparent: Option<HeaderValue>,
    /// `None`: the request is not traced.
    pub traced: Option<Box<Traced>>,
    /// `None`: no rule took it.
    pub rule: Option<Arc<Rule>>,
    /// `None`: no limit was met.
    pub limit: Option<DecidedBy>,
    pub upstream: Option<Upstream>,
    /// Times that it was sent again.
    pub retries: u32,
    pub status: StatusCode,
    /// Why the answer is not an upstream's.
    pub refused: Option<&'static str>,
    /// Bytes of bodies.
    pub received: u64,
    pub sent: u64,
    pub completion: Completion,
}

impl DecidedBy {
    /// `ok` or `over_limit`.
    pub(super) const fn name(&self) -> &'static str {
        if self.denied { "over_limit" } else { "ok" }
    }
}

impl Record {
    /// `namespace/name/rule/index`; `None`: no rule took it.
    pub(super) fn route_name(&self) -> Option<String> {
        let rule = self.rule.as_ref()?;
        Some(format!("{}/rule/{}", rule.route.name, rule.name))
    }

    /// Envoy's response flags.
    pub(super) fn flags(&self) -> &'static str {
        match self.refused {
            Some("rate_limited") => "RL",
            Some("no_route") => "NR",
            Some("no_endpoint") => "UH",
            Some("no_backend") => "NC",
            Some("circuit_open" | "pending_timeout") => "UO",
            Some("fault_abort") => "FI",
            Some("upstream_unreachable") => "UF",
            Some("upstream_broke") => "UC",
            Some("upstream_timeout") => "UT",
            Some("bad_request" | "broken_body" | "head_too_large" | "connect") => "DPE",
            Some(_) => "-",
            None => match self.completion {
                Completion::Complete => "-",
                Completion::UpstreamBroke => "UC",
                Completion::Cancelled => "DC",
            },
        }
    }
}

/// The record of a request that has just come; `None`: nobody wants one.
pub(super) fn begin(conn: &Conn, request: &Request<Incoming>, now: u64) -> Option<Box<Record>> {
    let headers = request.headers();
    let pipeline = &conn.pipeline;
    let traced = match &pipeline.tracer {
        Some(tracer) => tracer.sample(headers, || pipeline.random.next()),
        None => None,
    };
    if traced.is_none() && pipeline.sink.is_none() {
        return None;
    }
    let traceparent = match &traced {
        Some(traced) => traced.header(),
        None => headers.get(TRACEPARENT).cloned(),
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let target = request.uri().path_and_query();
    Some(Box::new(Record {
        began: now,
        responded: None,
        ended: now,
        method: request.method().clone(),
        target: target.map_or_else(|| "/".into(), ToString::to_string),
        host: authority.or(host).unwrap_or("").to_owned(),
        version: request.version(),
        tls: conn.sni.is_some(),
        client: conn.peer.ip().to_canonical(),
        peer: conn.peer,
        bind: conn.bind,
        user_agent: headers.get(header::USER_AGENT).cloned(),
        request_id: headers.get(X_REQUEST_ID).cloned(),
        traceparent,
        traced,
        rule: None,
        limit: None,
        upstream: None,
        retries: 0,
        status: StatusCode::OK,
        refused: None,
        received: 0,
        sent: 0,
        completion: Completion::Cancelled,
    }))
}

/// The endpoint that a request or a connection went to.
#[derive(Clone, Debug)]
pub struct Upstream(pub(super) Arc<Target>);

impl Upstream {
    /// `namespace/name` of its backend.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.0.backend
    }
}

/// The address: `192.0.2.1:80`, `name:80` or `unix:/path`.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// All of it was handed to the client's connection.
    Complete,
    /// The upstream broke off or took too long.
    UpstreamBroke,
    /// The client went away, or the daemon stopped.
    Cancelled,
}

/// A request that is being answered, until the end of its response.
#[derive(Debug)]
pub(super) struct Ending {
    conn: Arc<Conn>,
    record: Option<Box<Record>>,
    upload: Option<Arc<Upload>>,
    /// What is left to do about the limits that admitted it.
    pub(super) settlement: Settlement,
    /// What is asked at the end.
    pub(super) later: Vec<Later>,
    /// Somebody else has taken it over.
    over: bool,
}

impl Ending {
    pub(super) fn new(conn: Arc<Conn>) -> Self {
        Self {
            conn,
            record: None,
            upload: None,
            settlement: Settlement::default(),
            later: Vec::new(),
            over: false,
        }
    }

    /// Hands `record` over when the response is over.
    pub(super) fn keep(&mut self, record: Box<Record>) {
        self.record = Some(record);
    }

    /// The rest of the request is somebody else's business: this one ends without a word.
    pub(super) fn take_over(&mut self) -> Self {
        self.over = true;
        Self {
            conn: Arc::clone(&self.conn),
            record: self.record.take(),
            upload: self.upload.take(),
            settlement: std::mem::take(&mut self.settlement),
            later: std::mem::take(&mut self.later),
            over: false,
        }
    }

    pub(super) fn record(&mut self) -> Option<&mut Record> {
        self.record.as_deref_mut()
    }

    pub(super) fn uploads(&mut self, upload: Option<Arc<Upload>>) {
        self.upload = upload;
    }

    pub(super) fn passed(&mut self, bytes: usize) {
        self.conn.life.has_moved();
        if let Some(record) = &mut self.record {
            record.sent += bytes as u64;
        }
    }

    pub(super) fn completed(&mut self) {
        self.complete(Completion::Complete);
    }

    pub(super) fn broke_off(&mut self) {
        self.complete(Completion::UpstreamBroke);
    }

    fn complete(&mut self, completion: Completion) {
        if let Some(record) = &mut self.record {
            record.completion = completion;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.conn.life.end();
        if !self.settlement.is_empty() {
            // Nobody waited for the answer, or it became a tunnel, which is over now.
            let now = self.conn.pipeline.clock.both();
            std::mem::take(&mut self.settlement).finished(settle::Ending::Abandoned, now);
        }
        for later in std::mem::take(&mut self.later) {
            later.ask(self.conn.pipeline.clock.both());
        }
        let Some(mut record) = self.record.take() else {
            return;
        };
        let pipeline = &self.conn.pipeline;
        record.ended = pipeline.clock.now();
        if let Some(upload) = &self.upload {
            record.received = upload.bytes();
        }
        if let (Some(tracer), Some(traced)) = (&pipeline.tracer, &record.traced) {
            tracer.end(|| trace::span(&record, traced, wall()));
        }
        if let Some(sink) = &pipeline.sink {
            sink.record(&record);
        }
    }
}
