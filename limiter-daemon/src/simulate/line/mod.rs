//! A line of an access log as a request. Which format it is in, its first byte says:
//!
//! | begins with | format |
//! |---|---|
//! | `{` | JSON: limiterd's, Envoy's (the keys of Envoy Gateway's and Istio's defaults), nginx's with the names of its variables |
//! | `[` | Envoy's default text, and limiterd's, which is the same with the decision at its end |
//! | anything else | nginx's and Apache's `combined`, `common`, and `vhost_combined` |

mod combined;
mod escape;
mod json;
mod text;
mod time;

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::entry::{Answered, Entry, Logged};
use super::wanted::Wanted;
pub(super) use time::{Times, rfc3339};

/// Why a line is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    #[error("it is longer than {max} bytes", max = super::source::MAX_LINE)]
    TooLong,
    #[error("it is not valid JSON: {0}")]
    Json(String),
    #[error("it is in none of the formats that are read: JSON, Envoy's default text, combined")]
    Format,
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("`{value}` is no {what}")]
    Invalid { what: &'static str, value: String },
}

impl LineError {
    fn invalid(what: &'static str, value: &str) -> Self {
        let shown = value.chars().take(64).flat_map(char::escape_default);
        let value = shown.collect();
        Self::Invalid { what, value }
    }
}

/// What a line is.
#[derive(Debug)]
pub(super) enum Line {
    Request(Box<Entry>),
    /// Of a connection that was passed on.
    Connection,
    Empty,
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines {
    wanted: Wanted,
    times: Times,
    text: text::Text,
    combined: combined::Combined,
}

impl Lines {
    /// Reads lines, with the headers that are `wanted`.
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            times: Times::default(),
            text: text::Text::default(),
            combined: combined::Combined::default(),
        }
    }

    /// The request on a line without its end.
    pub(super) fn read(&mut self, line: &[u8]) -> Result<Line, LineError> {
        let line = line.trim_ascii();
        let draft = match line.first() {
            None => return Ok(Line::Empty),
            Some(b'{') => json::read(line, &self.wanted)?,
            Some(b'[') => self.text.read(line)?,
            Some(_) => self.combined.read(line)?,
        };
        match draft.finish(&self.wanted, &mut self.times)? {
            Some(entry) => Ok(Line::Request(Box::new(entry))),
            None => Ok(Line::Connection),
        }
    }
}

/// The fields of a line, before they are looked at; `None` and `-`: the line does not say.
#[derive(Debug, Default)]
struct Draft {
    time: Option<String>,
    method: Option<String>,
    target: Option<String>,
    host: Option<String>,
    /// As the log attributes it, where it says that.
    client: Option<String>,
    /// The connection's other end, perhaps with a port.
    remote: Option<String>,
    local: Option<String>,
    status: Option<u16>,
    flags: Option<String>,
    details: Option<String>,
    /// Nanoseconds.
    took: u64,
    headers: Vec<(HeaderName, String)>,
    logged: Option<Logged>,
    /// The values that limiterd's log says a bucket is for.
    descriptor: Option<String>,
    /// It says that there was no request.
    connection: bool,
}

fn said(field: Option<String>) -> Option<String> {
    field.filter(|text| !matches!(text.as_str(), "" | "-"))
}

impl Draft {
    /// Splits `METHOD target PROTOCOL`.
    fn request_line(&mut self, text: &str) {
        let Some((method, rest)) = text.split_once(' ') else {
            return;
        };
        let target = match rest.rsplit_once(' ') {
            Some((target, protocol)) if protocol.starts_with("HTTP/") || protocol == "-" => target,
            _ => rest,
        };
        self.method = Some(method.to_owned());
        self.target = Some(target.to_owned());
    }

    /// `None`: it is of a connection.
    fn finish(self, wanted: &Wanted, times: &mut Times) -> Result<Option<Entry>, LineError> {
        let method = said(self.method);
        if method.is_none() && self.connection {
            return Ok(None);
        }
        let method = method.ok_or(LineError::Missing("method"))?;
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_invalid| LineError::invalid("method", &method))?;
        let time = said(self.time).ok_or(LineError::Missing("time"))?;
        let at = times
            .read(&time)
            .ok_or_else(|| LineError::invalid("time", &time))?;
        let target = said(self.target).ok_or(LineError::Missing("path"))?;
        let remote = said(self.remote);
        let client = said(self.client);
        let client = client.as_deref().or(remote.as_deref());
        let client = client.ok_or(LineError::Missing("client address"))?;
        let client = address(client).ok_or_else(|| LineError::invalid("address", client))?;
        let host = said(self.host);
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            if let Some(value) = header_value(&value) {
                headers.append(name, value);
            }
        }
        if let (Some(host), true) = (&host, wanted.has(&http::header::HOST))
            && let Some(host) = header_value(host)
        {
            headers.insert(http::header::HOST, host);
        }
        if let Some(descriptor) = &self.descriptor {
            for (name, value) in escape::entries(descriptor, wanted) {
                if let (false, Some(value)) = (headers.contains_key(&name), header_value(&value)) {
                    headers.insert(name, value);
                }
            }
        }
        let (path, query) = split(&target);
        let details = said(self.details);
        let met = self.logged.as_ref().is_some_and(|one| one.rule.is_some());
        Ok(Some(Entry {
            at,
            took: self.took,
            client,
            peer: remote.and_then(|remote| remote.parse().ok()),
            local: said(self.local).and_then(|local| local.parse().ok()),
            method,
            path,
            query,
            host,
            headers,
            answer: Answered::new(
                self.status,
                self.flags.as_deref().unwrap_or_default(),
                details.as_deref(),
                met,
            ),
            logged: self.logged,
        }))
    }
}

/// Path and query of a target, which may be a whole URL.
fn split(target: &str) -> (String, Option<String>) {
    let local = match target.find("://") {
        Some(scheme) if !target.starts_with('/') => {
            let rest = target.get(scheme + 3..).unwrap_or_default();
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
        }
        _ => target,
    };
    let local = local.split('#').next().unwrap_or(local);
    match local.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (local.to_owned(), None),
    }
}

fn header_value(text: &str) -> Option<HeaderValue> {
    (!matches!(text, "" | "-"))
        .then(|| HeaderValue::from_bytes(text.as_bytes()).ok())
        .flatten()
}

/// An address, perhaps with a port; of a list the last one, which the proxy that wrote the log added.
fn address(text: &str) -> Option<IpAddr> {
    let last = text.rsplit(',').next().unwrap_or(text).trim();
    let ip = last.parse::<IpAddr>().ok();
    let ip = ip.or_else(|| last.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let bare = || last.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    ip.or_else(bare).map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests;
