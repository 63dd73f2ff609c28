//! Answers in place of others (`responseOverride`): of those of a rule, the first one that an answer
//! meets is applied.
//!
//! - What is met is the status, and whose answer it is. A gRPC call that limiterd refuses itself has
//!   the status that any other request would have been refused with.
//! - A body that is replaced takes its description with it (length, coding, validators); what the
//!   headers say of limits, of when to come again and of the connection stays. The answer is in plain
//!   text unless the override says otherwise.
//! - A gRPC call understands neither bodies nor redirects: another status becomes the `grpc-status`
//!   that goes with it, headers are changed, and the rest is left.
//! - Answers that have no body (to HEAD; 204 and 304) get none. Informational ones stay as they are.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::Body;
use super::clock::Clock;
use super::connection::Conn;
use super::pipeline::is_grpc;
use super::{filters, respond};
use crate::engine::route::Rule;
use crate::engine::settle::{Ending, Settlement};
use crate::policy::plan::{HeaderChanges, Redirect, Replacement, ResponseOverride, ResponseSource};

/// What describes a body that is gone.
const REPRESENTATION: [HeaderName; 12] = [
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// What an override needs to know of the request.
#[derive(Debug)]
pub(super) struct Asked {
    head: bool,
    grpc: bool,
    /// What a redirect is made of; `None`: no override of the rule redirects.
    redirect: Option<Request<()>>,
    /// What the rule's prefix matched, in bytes.
    prefix: Option<usize>,
}

impl Asked {
    /// `None`: the rule has no overrides.
    pub(super) fn new(
        request: &Request<Incoming>,
        rule: &Rule,
        prefix: Option<usize>,
    ) -> Option<Box<Self>> {
        let overrides = &rule.traffic.overrides;
        if overrides.is_empty() {
            return None;
        }
        let redirects = |one: &ResponseOverride| matches!(one.with, Replacement::Redirect(_));
        Some(Box::new(Self {
            head: *request.method() == Method::HEAD,
            grpc: is_grpc(request),
            redirect: overrides.iter().any(redirects).then(|| {
                let mut kept = Request::new(());
                *kept.uri_mut() = request.uri().clone();
                if let Some(host) = request.headers().get(header::HOST) {
                    kept.headers_mut().insert(header::HOST, host.clone());
                }
                kept
            }),
            prefix,
        }))
    }
}

/// The answer that is sent in place of `response`. `refused`: the status of a refusal of our own.
pub(super) fn apply(
    rule: &Rule,
    asked: &Asked,
    conn: &Conn,
    response: Response<Body>,
    refused: Option<StatusCode>,
    settlement: &mut Settlement,
) -> Response<Body> {
    let place = Place {
        tls: conn.sni.is_some(),
        bind: conn.bind,
    };
    let (response, gone) = replace(&rule.traffic.overrides, asked, &place, response, refused);
    if let Some(gone) = gone {
        let_go(gone, settlement, conn.pipeline.clock);
    }
    response
}

/// Where the request came in.
struct Place {
    tls: bool,
    bind: std::net::SocketAddr,
}

/// The answer, and the body that it does not have any more.
fn replace(
    overrides: &[ResponseOverride],
    asked: &Asked,
    place: &Place,
    response: Response<Body>,
    refused: Option<StatusCode>,
) -> (Response<Body>, Option<Body>) {
    let status = refused.unwrap_or_else(|| response.status());
    let source = if response.body().is_upstreams() {
        ResponseSource::Backend
    } else {
        ResponseSource::Local
    };
    let met = overrides.iter().find(|one| meets(one, status, source));
    let Some(met) = met.filter(|_| !status.is_informational()) else {
        return (response, None);
    };
    let (parts, body) = response.into_parts();
    match &met.with {
        Replacement::Redirect(redirect) => match &asked.redirect {
            Some(request) if !asked.grpc => {
                let response = redirected(parts, request, redirect, asked.prefix, place);
                (response, Some(body))
            }
            _ => (Response::from_parts(parts, body), None),
        },
        Replacement::Response {
            status, headers, ..
        } if asked.grpc => in_grpc(parts, body, *status, headers),
        Replacement::Response {
            status,
            content_type,
            body: text,
            headers,
        } => in_http(
            (parts, body),
            (*status, content_type.as_ref(), text.as_ref(), headers),
            asked.head,
        ),
    }
}

fn meets(one: &ResponseOverride, status: StatusCode, source: ResponseSource) -> bool {
    (one.source == ResponseSource::All || one.source == source)
        && one.statuses.iter().any(|s| s.contains(&status.as_u16()))
}

/// Whether an answer of this status never has a body (RFC 9110 section 6.4.1).
fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Status, content type, body, changes of headers.
type Given<'a> = (
    Option<StatusCode>,
    Option<&'a HeaderValue>,
    Option<&'a Bytes>,
    &'a HeaderChanges,
);

fn in_http(
    (mut parts, body): (Parts, Body),
    (status, content_type, text, changes): Given<'_>,
    head: bool,
) -> (Response<Body>, Option<Body>) {
    let before = parts.status;
    parts.status = status.unwrap_or(before);
    let headers = &mut parts.headers;
    if text.is_some() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, content_type.clone());
    }
    filters::change(headers, changes);
    if let Some(text) = text {
        forget_body(headers);
        let own = if is_bodiless(parts.status) {
            Body::empty()
        } else if head {
            headers.insert(header::CONTENT_LENGTH, text.len().into());
            Body::empty()
        } else {
            Body::own(text.clone())
        };
        return (Response::from_parts(parts, own), Some(body));
    }
    if parts.status != before && is_bodiless(parts.status) {
        forget_body(headers);
        return (Response::from_parts(parts, Body::empty()), Some(body));
    }
    if parts.status != before && is_bodiless(before) {
        // A 304 gives the length of what it does not bring.
        headers.remove(header::CONTENT_LENGTH);
    }
    (Response::from_parts(parts, body), None)
}

fn in_grpc(
    mut parts: Parts,
    body: Body,
    status: Option<StatusCode>,
    changes: &HeaderChanges,
) -> (Response<Body>, Option<Body>) {
    let Some(status) = status else {
        filters::change(&mut parts.headers, changes);
        return (Response::from_parts(parts, body), None);
    };
    forget_body(&mut parts.headers);
    if body.is_upstreams() {
        parts.headers.remove(respond::GRPC_MESSAGE);
    }
    parts.status = StatusCode::OK;
    respond::set_grpc_status(&mut parts.headers, respond::grpc_status(status));
    filters::change(&mut parts.headers, changes);
    (Response::from_parts(parts, Body::empty()), Some(body))
}

fn redirected(
    parts: Parts,
    request: &Request<()>,
    redirect: &Redirect,
    prefix: Option<usize>,
    place: &Place,
) -> Response<Body> {
    let mut response = filters::redirect(request, redirect, prefix, place.tls, place.bind);
    let headers = response.headers_mut();
    for (name, value) in parts.headers.iter().filter(|(name, _)| stays(name)) {
        headers.append(name, value.clone());
    }
    response
}

/// What is not about the answer that is gone.
fn stays(name: &HeaderName) -> bool {
    *name == header::RETRY_AFTER
        || *name == header::CONNECTION
        || name.as_str().starts_with("x-ratelimit-")
        || name.as_str().starts_with("x-envoy-")
}

fn forget_body(headers: &mut HeaderMap) {
    for name in &REPRESENTATION {
        headers.remove(name);
    }
}

/// What has come of an upstream's body is paid for; if that was all, its connection is free again.
fn let_go(body: Body, settlement: &mut Settlement, clock: Clock) {
    if !body.is_upstreams() {
        return;
    }
    let whole = body.let_go(|data| settlement.data(data));
    let ending = if whole {
        Ending::Complete
    } else {
        Ending::Abandoned
    };
    std::mem::take(settlement).finished(ending, clock.both());
}

#[cfg(test)]
mod tests;
