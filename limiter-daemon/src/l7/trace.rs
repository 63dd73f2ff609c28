//! A request as a span: what the access log says of it, by OpenTelemetry's names.
//!
//! Of what limits are by, only the names: values may be secrets. So may be the query, which is left out.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use http::uri::Authority;
use http::{HeaderValue, Method, Version};

use super::record::{Completion, Record};
use crate::traces::{Attributes, Interval, Kind, Span, Traced, server};

/// The span of `record`, whose response was over at `now`.
pub(super) fn span(record: &Record, traced: &Traced, now: SystemTime) -> Span {
    let ended = now.duration_since(UNIX_EPOCH);
    let ended = ended.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    });
    let took = record.ended.saturating_sub(record.began);
    let at = Interval {
        began: ended.saturating_sub(took),
        ended,
    };
    let mut attributes = Attributes::default();
    request(record, &mut attributes);
    ends(record, &mut attributes);
    decision(record, &mut attributes);
    upstream(record, &mut attributes);
    let kind = response(record, &mut attributes);
    server(traced, name(record), at, attributes, kind)
}

/// The method and, where the policy has one, the path of the route: few, whatever clients send.
fn name(record: &Record) -> String {
    let method = known(&record.method).unwrap_or("HTTP");
    match path(record) {
        Some(path) => format!("{method} {path}"),
        None => method.to_owned(),
    }
}

fn path(record: &Record) -> Option<&str> {
    record.rule.as_ref().and_then(|rule| rule.path.as_deref())
}

/// Those that OpenTelemetry knows (RFC 9110, and PATCH).
fn known(method: &Method) -> Option<&str> {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    known.contains(method).then_some(method.as_str())
}

fn request(record: &Record, attributes: &mut Attributes) {
    match known(&record.method) {
        Some(method) => attributes.text("http.request.method", method),
        None => {
            attributes.text("http.request.method", "_OTHER");
            attributes.text("http.request.method_original", record.method.as_str());
        }
    }
    attributes.text("url.scheme", if record.tls { "https" } else { "http" });
    let target = record.target.as_str();
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    attributes.text("url.path", path);
    attributes.text(
        "network.protocol.version",
        match record.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        },
    );
    if let Some(agent) = &record.user_agent {
        attributes.text("user_agent.original", text(agent));
    }
    if let Some(id) = &record.request_id {
        let id = text(id).into_owned();
        attributes.list("http.request.header.x-request-id", [id]);
    }
    attributes.number("http.request.body.size", record.received);
}

/// Who talked to whom.
fn ends(record: &Record, attributes: &mut Attributes) {
    if let Ok(authority) = record.host.parse::<Authority>() {
        attributes.text("server.address", authority.host());
        if let Some(port) = authority.port_u16() {
            attributes.number("server.port", port.into());
        }
    }
    attributes.text("client.address", record.client.to_string());
    attributes.text(
        "network.peer.address",
        record.peer.ip().to_canonical().to_string(),
    );
    attributes.number("network.peer.port", record.peer.port().into());
    // Which of a host's addresses it came to is not known of a listener on all of them.
    let local = record.bind.ip().to_canonical();
    if !local.is_unspecified() {
        attributes.text("network.local.address", local.to_string());
    }
    attributes.number("network.local.port", record.bind.port().into());
}

fn decision(record: &Record, attributes: &mut Attributes) {
    if let Some(route) = path(record) {
        attributes.text("http.route", route);
    }
    if let Some(route) = record.route_name() {
        attributes.text("limiterd.route", route);
    }
    let Some(limit) = &record.limit else {
        return;
    };
    let rule = &limit.decisive.rule;
    attributes.text("limiterd.decision", limit.name());
    attributes.text("limiterd.limit", rule.policy.as_str());
    attributes.text("limiterd.rule", rule.name());
    let names = rule.descriptor_names().map(str::to_owned);
    attributes.list("limiterd.descriptor", names);
    attributes.number("limiterd.remaining", limit.decisive.remaining);
}

fn upstream(record: &Record, attributes: &mut Attributes) {
    let Some(upstream) = &record.upstream else {
        return;
    };
    attributes.text("limiterd.backend", upstream.backend());
    attributes.text("limiterd.upstream.address", upstream.to_string());
    attributes.number("limiterd.retries", record.retries.into());
    if let Some(responded) = record.responded {
        let took = responded.saturating_sub(record.began);
        attributes.number("limiterd.upstream.response_ms", took / 1_000_000);
    }
}

/// What came of it. Who asks for too much has not found us failing.
fn response(record: &Record, attributes: &mut Attributes) -> Kind {
    attributes.number("http.response.status_code", record.status.as_u16().into());
    attributes.number("http.response.body.size", record.sent);
    attributes.text("limiterd.response_flags", record.flags());
    if let Some(refused) = record.refused {
        attributes.text("limiterd.refused", refused);
    }
    let failure: Option<Cow<'_, str>> = if record.status.is_server_error() {
        let why = record.refused.map(Cow::from);
        Some(why.unwrap_or_else(|| record.status.as_u16().to_string().into()))
    } else if record.completion == Completion::UpstreamBroke {
        Some("upstream_broke".into())
    } else {
        None
    };
    match failure {
        Some(failure) => {
            attributes.text("error.type", failure);
            Kind::Failed
        }
        None => Kind::Well,
    }
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

#[cfg(test)]
mod tests;
