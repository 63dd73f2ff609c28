//! A request as a line, and a connection that was passed on.
//!
//! What a client sends is escaped: no request can forge a line, or steer the terminal that the log is
//! read on. What is long is cut.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Version};
use serde::Serialize;

use crate::engine::tcp::Lost;
use crate::l7::record::{Record, TcpEnd, TcpRecord};
use crate::policy::plan::LogFormat;

/// Characters of a field.
const MAX_FIELD: usize = 2048;

/// Names are those of Envoy Gateway's default, where it has one.
#[derive(Debug, Serialize)]
struct Line<'a> {
    start_time: String,
    /// `None`, as most of what follows: of a connection.
    method: Option<&'a str>,
    #[serde(rename = "x-envoy-origin-path")]
    path: Option<Cow<'a, str>>,
    protocol: Option<&'static str>,
    /// 0: of a connection.
    response_code: u16,
    response_flags: &'static str,
    response_code_details: &'a str,
    bytes_received: u64,
    bytes_sent: u64,
    /// Milliseconds.
    duration: u64,
    /// Milliseconds until the upstream's response head.
    #[serde(rename = "x-envoy-upstream-service-time")]
    upstream_time: Option<u64>,
    client: String,
    #[serde(rename = "user-agent")]
    user_agent: Option<Cow<'a, str>>,
    #[serde(rename = "x-request-id")]
    request_id: Option<Cow<'a, str>>,
    traceparent: Option<Cow<'a, str>>,
    #[serde(rename = ":authority")]
    authority: Option<Cow<'a, str>>,
    tls: bool,
    /// Of a connection that was passed on: the name that its client asked for by TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_server_name: Option<&'a str>,
    upstream_host: Option<String>,
    upstream_cluster: Option<&'a str>,
    downstream_local_address: String,
    downstream_remote_address: String,
    route_name: Option<String>,
    rate_limit: Option<RateLimit<'a>>,
}

/// The decision on the limits.
#[derive(Debug, Serialize)]
struct RateLimit<'a> {
    /// `ok` or `over_limit`.
    decision: &'static str,
    /// The rule that denied it, or the one with the fewest tokens left.
    rule: &'a str,
    /// The values that the rule has a bucket of its own for, as `name=value`.
    descriptor: Cow<'a, str>,
    /// Whole tokens left.
    remaining: u64,
}

/// The line for `record`, whose response was over at `now`, with its end.
pub(super) fn line(format: LogFormat, record: &Record, now: SystemTime) -> String {
    Line::new(record, now).write(format)
}

/// The same for `record` of a connection that was over at `now`.
pub(super) fn passed_on(format: LogFormat, record: &TcpRecord, now: SystemTime) -> String {
    Line::passed_on(record, now).write(format)
}

fn start(took: u64, now: SystemTime) -> String {
    let start = now.checked_sub(Duration::from_nanos(took)).unwrap_or(now);
    humantime::format_rfc3339_millis(start).to_string()
}

const fn milliseconds(ns: u64) -> u64 {
    ns / 1_000_000
}

impl<'a> Line<'a> {
    fn new(record: &'a Record, now: SystemTime) -> Self {
        let took = record.ended.saturating_sub(record.began);
        let header =
            |value: &'a Option<HeaderValue>| value.as_ref().map(|v| cut_bytes(v.as_bytes()));
        Self {
            start_time: start(took, now),
            method: Some(record.method.as_str()),
            path: Some(cut(&record.target)),
            protocol: Some(protocol(record.version)),
            response_code: record.status.as_u16(),
            response_flags: record.flags(),
            response_code_details: record.refused.unwrap_or("via_upstream"),
            bytes_received: record.received,
            bytes_sent: record.sent,
            duration: milliseconds(took),
            upstream_time: record
                .responded
                .map(|at| milliseconds(at.saturating_sub(record.began))),
            client: record.client.to_string(),
            user_agent: header(&record.user_agent),
            request_id: header(&record.request_id),
            traceparent: header(&record.traceparent),
            authority: Some(cut(&record.host)),
            tls: record.tls,
            requested_server_name: None,
            upstream_host: record.upstream.as_ref().map(ToString::to_string),
            upstream_cluster: record.upstream.as_ref().map(|upstream| upstream.backend()),
            downstream_local_address: record.bind.to_string(),
            downstream_remote_address: record.peer.to_string(),
            route_name: record.route_name(),
            rate_limit: record.limit.as_ref().map(|limit| RateLimit {
                decision: limit.name(),
                rule: limit.decisive.rule.name(),
                descriptor: cut(&limit.descriptor),
                remaining: limit.decisive.remaining,
            }),
        }
    }

    /// Without what only requests have, as Envoy writes it of connections.
    fn passed_on(record: &'a TcpRecord, now: SystemTime) -> Self {
        let took = record.ended.saturating_sub(record.began);
        let host = record.host.as_ref();
        Self {
            start_time: start(took, now),
            method: None,
            path: None,
            protocol: None,
            response_code: 0,
            response_flags: connection_flags(record.end),
            response_code_details: record.end.name(),
            bytes_received: record.received,
            bytes_sent: record.sent,
            duration: milliseconds(took),
            upstream_time: None,
            client: record.peer.ip().to_canonical().to_string(),
            user_agent: None,
            request_id: None,
            traceparent: None,
            authority: None,
            tls: record.tls,
            requested_server_name: Some(&*record.name).filter(|name| !name.is_empty()),
            upstream_host: record.upstream.as_ref().map(ToString::to_string),
            upstream_cluster: record.upstream.as_ref().map(|upstream| upstream.backend()),
            downstream_local_address: record.bind.to_string(),
            downstream_remote_address: record.peer.to_string(),
            route_name: host.map(|host| format!("{}/host/{host}", record.stats.name)),
            rate_limit: None,
        }
    }

    fn write(&self, format: LogFormat) -> String {
        match format {
            // The view has no map with other keys than text and no number that JSON has not.
            LogFormat::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
            LogFormat::Text => self.text(),
        }
    }

    /// In the order of Envoy's default format, then the decision on the limits.
    fn text(&self) -> String {
        let mut text = String::with_capacity(256);
        let Self {
            start_time,
            response_code,
            response_flags,
            bytes_received,
            bytes_sent,
            duration,
            client,
            ..
        } = self;
        // Writing to a String does not fail.
        let _infallible = write!(text, "[{start_time}] \"{} ", self.method.unwrap_or("-"));
        escape(self.path.as_deref().unwrap_or("-"), &mut text);
        let protocol = self.protocol.unwrap_or("-");
        let _infallible = write!(
            text,
            " {protocol}\" {response_code} {response_flags} {bytes_received} {bytes_sent} {duration} "
        );
        match self.upstream_time {
            Some(time) => {
                let _infallible = write!(text, "{time}");
            }
            None => text.push('-'),
        }
        let _infallible = write!(text, " \"{client}\"");
        quoted(self.user_agent.as_deref(), &mut text);
        quoted(self.request_id.as_deref(), &mut text);
        quoted(self.authority.as_deref(), &mut text);
        quoted(self.upstream_host.as_deref(), &mut text);
        match &self.rate_limit {
            Some(limit) => {
                let RateLimit {
                    decision,
                    rule,
                    remaining,
                    ..
                } = limit;
                let _infallible = write!(text, " {decision} {rule}");
                quoted(Some(&limit.descriptor), &mut text);
                let _infallible = write!(text, " {remaining}");
            }
            None => text.push_str(" - - - -"),
        }
        text.push('\n');
        text
    }
}

fn quoted(field: Option<&str>, text: &mut String) {
    text.push_str(" \"");
    match field {
        Some(field) if !field.is_empty() => escape(field, text),
        _ => text.push('-'),
    }
    text.push('"');
}

/// Quotes, backslashes, what is not printed and what turns the direction of writing.
fn escape(field: &str, text: &mut String) {
    for c in field.chars() {
        let turns = matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        match c {
            '"' | '\\' => {
                text.push('\\');
                text.push(c);
            }
            c if c.is_control() || turns => {
                // Writing to a String does not fail.
                let _infallible = write!(text, "\\u{{{:x}}}", u32::from(c));
            }
            c => text.push(c),
        }
    }
}

/// At most [`MAX_FIELD`] characters of a field.
fn cut(field: &str) -> Cow<'_, str> {
    match field.char_indices().nth(MAX_FIELD) {
        Some((end, _)) => Cow::Owned(format!("{}…", &field[..end])),
        None => Cow::Borrowed(field),
    }
}

fn cut_bytes(field: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(field) {
        Cow::Borrowed(field) => cut(field),
        Cow::Owned(field) => Cow::Owned(cut(&field).into_owned()),
    }
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Envoy's, of connections.
const fn connection_flags(end: TcpEnd) -> &'static str {
    match end {
        // Which of the sides broke off is not known.
        TcpEnd::Complete | TcpEnd::Handshake | TcpEnd::Broken => "-",
        TcpEnd::Idle => "SI",
        TcpEnd::NoRoute => "NR",
        TcpEnd::Lost(Lost::NoEndpoint) => "UH",
        TcpEnd::Lost(Lost::Overflow) => "UO",
        TcpEnd::Lost(Lost::Unreachable) => "UF",
        TcpEnd::Cancelled => "DC",
    }
}
