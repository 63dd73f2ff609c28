//! Conditions, limits, filters and backends in words.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};
use limiter_common::Limit;

use super::holds::{Subject, header_value, query_value};
use crate::engine::request::RequestView;
use crate::policy::plan::{
    Algorithm, Condition, Endpoint, Filters, HeaderChanges, Hostname, LimitRule, PathMatch,
    PathRewrite, Plan, Quota, Redirect, ResponseCost, RouteMatch, SourcePrefixes, UpstreamProtocol,
    ValueMatch, ValueTest, Written,
};

/// Headers whose values are secrets, or may well be.
const SECRET: [&str; 5] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
];
/// Characters of a value that are shown.
const SHOWN: usize = 120;
const SECOND: u128 = 1_000_000_000;

/// Without control characters, and not longer than one can read: what a client or a file says must
/// not steer the terminal it is shown on.
pub(crate) fn clean(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).map(visible).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

fn visible(c: char) -> char {
    if c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// Where something is written, in full: paths are as long as the operator made them.
pub(crate) fn written(at: &Written) -> String {
    at.to_string().chars().map(visible).collect()
}

fn bytes(value: &[u8]) -> String {
    format!("`{}`", clean(&String::from_utf8_lossy(value)))
}

pub(in crate::engine) fn secret(name: &HeaderName) -> bool {
    SECRET.contains(&name.as_str())
}

/// The value of a header as it may be shown.
pub(crate) fn header(name: &HeaderName, value: &HeaderValue) -> String {
    if secret(name) || value.is_sensitive() {
        "(redacted)".to_owned()
    } else {
        bytes(value.as_bytes())
    }
}

/// What a test compares with.
pub(super) fn value(subject: Subject<'_>, test: &ValueTest) -> String {
    if let Subject::Header(name) = subject
        && secret(name)
    {
        return "(redacted)".to_owned();
    }
    match test {
        ValueTest::Is(value) | ValueTest::IsNot(value) => bytes(value.as_bytes()),
        ValueTest::Matches(regex) | ValueTest::MatchesNot(regex) => {
            format!("`{}`", clean(regex.as_str()))
        }
        ValueTest::Each => "any value".to_owned(),
        ValueTest::EachSingle => "one value".to_owned(),
        ValueTest::Absent => "absent".to_owned(),
    }
}

/// A condition, as `header x-user-id is present, a bucket for each value`.
pub(crate) fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Header { name, test } => tested(Subject::Header(name), test),
        Condition::Query { name, test } => tested(Subject::Query(name), test),
        Condition::Method(any) => {
            let one = |(method, invert): &(http::Method, bool)| {
                format!("{}{method}", if *invert { "not " } else { "" })
            };
            let any: Vec<_> = any.iter().map(one).collect();
            format!("method {}", any.join(" or "))
        }
        Condition::Path {
            path: wanted,
            invert,
        } => {
            let not = if *invert { "not " } else { "" };
            format!("{not}{}", path(wanted))
        }
        Condition::Source { nets, invert, each } => {
            let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
            let mut text = match (nets.is_empty(), invert) {
                (true, _) => "client is any".to_owned(),
                (false, false) => format!("client in {}", nets.join(", ")),
                (false, true) => format!("client not in {}", nets.join(", ")),
            };
            if let Some(SourcePrefixes { v4, v6 }) = each {
                text += &format!(", a bucket for each /{v4} (IPv6: /{v6})");
            }
            text
        }
    }
}

fn tested(subject: Subject<'_>, test: &ValueTest) -> String {
    let value = value(subject, test);
    match test {
        ValueTest::Is(_) => format!("{subject} is {value}"),
        ValueTest::IsNot(_) => format!("{subject} is not {value}"),
        ValueTest::Matches(_) => format!("{subject} matches {value}"),
        ValueTest::MatchesNot(_) => format!("{subject} does not match {value}"),
        ValueTest::Each => format!("{subject} is present, a bucket for each value"),
        ValueTest::EachSingle => format!("{subject} has {value}, a bucket for each"),
        ValueTest::Absent => format!("{subject} is absent"),
    }
}

/// Why a condition on the method, the path or the client does not hold.
pub(super) fn denial(one: &Condition) -> String {
    match one {
        Condition::Path {
            path: wanted,
            invert,
        } => {
            if *invert {
                path(wanted)
            } else {
                path_denial(wanted)
            }
        }
        Condition::Source { nets, invert, .. } => {
            let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
            let not = if *invert { "" } else { "not " };
            format!("client is {not}in {}", nets.join(", "))
        }
        Condition::Method(any) if any.iter().all(|(_, invert)| !invert) => {
            let any: Vec<_> = any.iter().map(|(method, _)| method.as_str()).collect();
            format!("method is not {}", any.join(" or "))
        }
        _ => format!("not so: {}", condition(one)),
    }
}

/// Why a path condition does not hold.
pub(super) fn path_denial(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(exact) => format!("path is not `{}`", clean(exact)),
        PathMatch::Prefix(prefix) => format!("path does not begin with `{}`", clean(prefix)),
        PathMatch::StartsWith(text) => format!("path does not begin with `{}`", clean(text)),
        PathMatch::Regex(regex) => format!("path does not match `{}`", clean(regex.as_str())),
    }
}

/// A path condition.
pub(crate) fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(exact) => format!("path is `{}`", clean(exact)),
        PathMatch::Prefix(prefix) if prefix.is_empty() => "any path".to_owned(),
        PathMatch::Prefix(prefix) => format!("path begins with `{}`", clean(prefix)),
        PathMatch::StartsWith(text) => format!("path begins with `{}`", clean(text)),
        PathMatch::Regex(regex) => format!("path matches `{}`", clean(regex.as_str())),
    }
}

/// A match of a route.
pub(crate) fn route_match(one: &RouteMatch) -> String {
    let mut parts = vec![path(&one.path)];
    parts.extend(one.method.iter().map(|method| format!("method {method}")));
    let value = |value: &ValueMatch, secret: bool| match value {
        ValueMatch::Present => "is there".to_owned(),
        _ if secret => "is (redacted)".to_owned(),
        ValueMatch::Exact(value) => format!("is {}", bytes(value.as_bytes())),
        ValueMatch::Regex(regex) => format!("matches `{}`", clean(regex.as_str())),
    };
    parts.extend(one.headers.iter().map(|header| {
        let secret = secret(&header.name);
        let not = if header.invert { "not: " } else { "" };
        let said = value(&header.value, secret);
        format!("{not}header {} {said}", header.name)
    }));
    parts.extend(one.query.iter().map(|query| {
        let name = clean(&query.name);
        format!("query parameter {name} {}", value(&query.value, false))
    }));
    parts.join(", ")
}

/// A host pattern.
pub(crate) fn hostname(hostname: &Hostname) -> String {
    match hostname {
        Hostname::Any => "any host".to_owned(),
        Hostname::Exact(host) => host.clone(),
        Hostname::Wildcard(suffix) => format!("*{suffix}"),
    }
}

/// How much a rule admits, as `100 a minute`.
pub(crate) fn quota(quota: Quota) -> String {
    let (limit, algorithm, window) = match quota {
        Quota::Blocked { .. } => return "nothing".to_owned(),
        Quota::Unlimited => return "everything".to_owned(),
        Quota::Limited {
            limit,
            algorithm,
            window,
        } => (limit, algorithm, window),
    };
    let unit = match window {
        1 => "a second".to_owned(),
        60 => "a minute".to_owned(),
        3_600 => "an hour".to_owned(),
        86_400 => "a day".to_owned(),
        604_800 => "a week".to_owned(),
        2_592_000 => "a month (30 days)".to_owned(),
        31_536_000 => "a year (365 days)".to_owned(),
        seconds => format!("in {seconds} s"),
    };
    let refilled = per_window(limit, window);
    let text = if refilled == u128::from(limit.capacity) {
        format!("{} {unit}", limit.capacity)
    } else {
        format!("{} at once, then {refilled} {unit}", limit.capacity)
    };
    match algorithm {
        Algorithm::TokenBucket => text,
        Algorithm::FixedWindow => format!("{text}, in fixed windows"),
        Algorithm::SlidingWindow => format!("{text}, in a sliding window"),
    }
}

/// Tokens refilled in `window` seconds; the interval is rounded up, so this is rounded to the
/// nearest.
pub(crate) fn per_window(limit: Limit, window: u64) -> u128 {
    let interval = u128::from(limit.interval).max(1);
    let scaled = (u128::from(window) * SECOND) << limit.shift.min(40);
    (scaled + interval / 2) / interval
}

/// Which bucket a request draws from.
pub(super) fn bucket(rule: &LimitRule, route: &str, request: &RequestView<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for condition in rule.conditions.iter().filter(|one| one.is_distinct()) {
        match condition {
            Condition::Header { name, .. } => {
                let value = header_value(request.headers, name).unwrap_or_default();
                let value = if secret(name) {
                    "(redacted)".to_owned()
                } else {
                    bytes(&value)
                };
                parts.push(format!("header {name} {value}"));
            }
            Condition::Query { name, .. } => {
                let value = query_value(request.query, name).unwrap_or_default();
                parts.push(format!("query parameter {} {}", clean(name), bytes(&value)));
            }
            Condition::Source {
                each: Some(each), ..
            } => {
                let prefix = if request.client.is_ipv4() {
                    each.v4
                } else {
                    each.v6
                };
                let net = ipnet::IpNet::new(request.client, prefix);
                let net = net.map_or_else(
                    |_too_long| request.client.to_string(),
                    |net| net.trunc().to_string(),
                );
                parts.push(format!("client {net}"));
            }
            _ => {}
        }
    }
    let whose = if parts.is_empty() {
        if rule.per_connection {
            "each connection".to_owned()
        } else {
            "all its requests".to_owned()
        }
    } else {
        parts.join(", ")
    };
    if rule.shared {
        format!("{whose}, on all routes of the policy")
    } else {
        format!("{whose}, on route {route}")
    }
}

/// What a rule does to requests and responses besides forwarding them.
pub(crate) fn filters(filters: &Filters, plan: &Plan) -> Vec<String> {
    let mut said = Vec::new();
    header_changes("request", &filters.request_headers, &mut said);
    header_changes("response", &filters.response_headers, &mut said);
    said.extend(filters.redirect.as_ref().map(redirect));
    let answer = filters.answer.as_ref();
    said.extend(answer.map(|answer| format!("answer with {}", answer.status.as_u16())));
    if let Some(change) = &filters.rewrite {
        said.extend(
            change
                .hostname
                .iter()
                .map(|host| format!("host becomes {}", bytes(host.as_bytes()))),
        );
        said.extend(change.path.iter().map(rewrite));
    }
    for mirror in &filters.mirrors {
        let name = plan
            .backends
            .get(mirror.backend)
            .map_or("?", |backend| backend.name.as_str());
        let (numerator, denominator) = (mirror.numerator, mirror.denominator);
        said.push(format!("copies {numerator} of {denominator} to {name}"));
    }
    said
}

/// Where a redirect leads.
pub(super) fn redirect(to: &Redirect) -> String {
    let mut text = format!("redirect with {}", to.status.as_u16());
    text.extend(to.scheme.iter().map(|scheme| format!(", to {scheme}")));
    text.extend(
        to.hostname
            .iter()
            .map(|host| format!(", host {}", clean(host))),
    );
    text.extend(to.port.iter().map(|port| format!(", port {port}")));
    text.extend(to.path.iter().map(|to| format!(", {}", rewrite(to))));
    text
}

/// Each change of a header of a request or response.
pub(super) fn header_changes(of: &str, changes: &HeaderChanges, said: &mut Vec<String>) {
    for (name, value) in &changes.set {
        said.push(format!("{of} header {name} set to {}", header(name, value)));
    }
    for (name, value) in &changes.add {
        said.push(format!("{of} header {name}: {} added", header(name, value)));
    }
    for name in &changes.remove {
        said.push(format!("{of} header {name} removed"));
    }
}

fn rewrite(rewrite: &PathRewrite) -> String {
    match rewrite {
        PathRewrite::Full(path) => format!("path becomes `{}`", clean(path)),
        PathRewrite::Prefix(prefix) => {
            format!("the path's matched prefix becomes `{}`", clean(prefix))
        }
    }
}

/// What a response costs, in words.
pub(crate) fn response_cost(cost: &ResponseCost) -> String {
    match cost {
        ResponseCost::Number(number) => number.to_string(),
        ResponseCost::Header(name) => format!("the number in header {name}"),
        ResponseCost::JsonField { path, .. } => {
            format!(
                "the number at `{}` of the JSON body",
                clean(&path.join("."))
            )
        }
    }
}

/// An endpoint, as it would be written.
pub(crate) fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Ip(ip, port) => SocketAddr::new(*ip, *port).to_string(),
        Endpoint::Fqdn(name, port) => format!("{name}:{port}"),
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// What is spoken to a backend.
pub(crate) fn protocol(protocol: UpstreamProtocol, tls: bool) -> &'static str {
    match (protocol, tls) {
        (UpstreamProtocol::Http1, false) => "HTTP/1.1",
        (UpstreamProtocol::Http1, true) => "HTTP/1.1 or HTTP/2 over TLS",
        (UpstreamProtocol::Http2, false) => "HTTP/2",
        (UpstreamProtocol::Http2, true) => "HTTP/2 over TLS",
    }
}
