//! Headers that a proxy must take away, and must add.

use std::io::Write as _;
use std::net::IpAddr;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};
use smallvec::SmallVec;

use super::connection::Conn;

pub(super) const FORWARDED: HeaderName = header::FORWARDED;
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Fields that concern one connection only (RFC 9110 section 7.6.1), beside those that `Connection`
/// names; and `TE`, which may stay.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "transfer-encoding"
            | "upgrade"
            | "te"
    )
}

/// Whether a rate limit service may add it to a request or an answer: what says how a message is framed
/// and whom it is for is not its to say.
pub(super) fn may_be_added(name: &HeaderName) -> bool {
    !is_hop_by_hop(name) && *name != header::CONTENT_LENGTH && *name != header::HOST
}

/// Envoy's own words to Envoy: never a client's.
fn is_internal(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-envoy-")
}

/// Removes what an upstream must not see of a request. `TE` stays as `trailers` if it said so (gRPC
/// needs it).
pub(super) fn strip_request(headers: &mut HeaderMap) {
    strip(headers, |name| is_hop_by_hop(name) || is_internal(name));
}

/// Removes what a client must not see of a response.
pub(super) fn strip_response(headers: &mut HeaderMap) {
    strip(headers, is_hop_by_hop);
}

fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let found: SmallVec<[HeaderName; 4]> =
        headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in found {
        if name == header::CONNECTION {
            strip_named(headers);
        }
        let removed = headers.remove(&name);
        if name == header::TE
            && removed.is_some_and(|te| {
                let mut codings = te.as_bytes().split(|byte| *byte == b',');
                codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
            })
        {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Removes what `Connection` names.
fn strip_named(headers: &mut HeaderMap) {
    let named: SmallVec<[HeaderName; 4]> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        // The usual options are no names of fields that are left.
        .filter(|name| {
            !name.eq_ignore_ascii_case(b"keep-alive") && !name.eq_ignore_ascii_case(b"close")
        })
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Fields that a `Connection` header cannot remove: a client must not be able to take away what
/// routing, limits or the upstream rely on.
fn is_end_to_end(name: &HeaderName) -> bool {
    [
        header::HOST,
        header::CONTENT_LENGTH,
        header::COOKIE,
        header::AUTHORIZATION,
        header::TE,
        FORWARDED,
    ]
    .contains(name)
        || name.as_str().starts_with("x-")
}

/// The protocol that a request asks to switch to, if it may: HTTP/1.1 only, and not to HTTP/2, which
/// would go past everything that is decided here.
pub(super) fn upgrade(
    version: Version,
    method: &Method,
    headers: &HeaderMap,
) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let asks = headers.get_all(header::CONNECTION).iter().any(|value| {
        let value = value.as_bytes();
        value
            .split(|byte| *byte == b',')
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let http = protocol.as_bytes().split(|byte| *byte == b',').any(|name| {
        let name = name.trim_ascii();
        name.len() >= 2 && name[..2].eq_ignore_ascii_case(b"h2")
            || name.len() >= 4 && name[..4].eq_ignore_ascii_case(b"http")
    });
    (asks && !http && version == Version::HTTP_11 && *method != Method::CONNECT)
        .then(|| protocol.clone())
}

/// Puts back what is stripped of an upgrade.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Says who asks, for what, and how. What proxies before said is kept only if they are `trusted`,
/// but for `X-Forwarded-For`, where each adds itself.
pub(super) fn forward(headers: &mut HeaderMap, conn: &Conn, trusted: bool) {
    let proto = if conn.sni.is_some() { "https" } else { "http" };
    forwarded(headers, conn, proto, trusted);
    if headers.contains_key(X_FORWARDED_FOR) {
        let mut chain = BytesMut::with_capacity(96);
        for value in headers.get_all(X_FORWARDED_FOR) {
            chain.put_slice(value.as_bytes());
            chain.put_slice(b", ");
        }
        chain.put_slice(conn.peer_text.as_bytes());
        insert(headers, X_FORWARDED_FOR, chain.freeze());
    } else {
        headers.insert(X_FORWARDED_FOR, conn.peer_text.clone());
    }
    if !trusted || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    }
    if !trusted || !headers.contains_key(X_FORWARDED_HOST) {
        match headers.get(header::HOST).cloned() {
            Some(host) => headers.insert(X_FORWARDED_HOST, host),
            None => headers.remove(X_FORWARDED_HOST),
        };
    }
}

/// RFC 7239: what trusted proxies began is continued; what others say is dropped, because it would
/// contradict `X-Forwarded-*`.
fn forwarded(headers: &mut HeaderMap, conn: &Conn, proto: &str, trusted: bool) {
    if !headers.contains_key(FORWARDED) {
        return;
    }
    if !trusted {
        headers.remove(FORWARDED);
        return;
    }
    let mut chain = BytesMut::new();
    for value in headers.get_all(FORWARDED) {
        chain.put_slice(value.as_bytes());
        chain.put_slice(b", ");
    }
    // Writing to a buffer in memory does not fail.
    let _infallible = match conn.peer.ip().to_canonical() {
        IpAddr::V4(ip) => write!((&mut chain).writer(), "for={ip};proto={proto}"),
        IpAddr::V6(ip) => write!((&mut chain).writer(), "for=\"[{ip}]\";proto={proto}"),
    };
    if let Some(host) = headers.get(header::HOST) {
        chain.put_slice(b";host=\"");
        chain.put_slice(host.as_bytes());
        chain.put_u8(b'"');
    }
    insert(headers, FORWARDED, chain.freeze());
}

/// An address as the value of a header.
pub(super) fn address(ip: IpAddr) -> HeaderValue {
    let text = ip.to_canonical().to_string();
    // An address is made of characters that a header may have.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: Bytes) {
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        headers.insert(name, value);
    }
}

/// HTTP/2 may split a cookie over fields; HTTP/1.1 has one (RFC 9113 section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = BytesMut::from(first.as_bytes());
    for cookie in [second].into_iter().chain(cookies) {
        joined.put_slice(b"; ");
        joined.put_slice(cookie.as_bytes());
    }
    insert(headers, header::COOKIE, joined.freeze());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_concerns_the_connection_goes() {
        let mut map = headers(&[
            ("connection", "close, Hop"),
            ("connection", "host, x-forwarded-for"),
            ("host", "h"),
            ("hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-end", "1"),
            ("x-envoy-internal", "true"),
        ]);
        strip_request(&mut map);
        let left = headers(&[
            ("host", "h"),
            ("te", "trailers"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-end", "1"),
        ]);
        assert_eq!(map, left);
    }

    #[test]
    fn protocols_to_switch_to_are_not_http() {
        for (connection, upgrades, wanted) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, upgrade", "WebSocket", true),
            ("upgrade", "h2c", false),
            ("upgrade", "websocket, H2C", false),
            ("upgrade", "HTTP/2.0", false),
            ("close", "websocket", false),
        ] {
            let map = headers(&[("connection", connection), ("upgrade", upgrades)]);
            let found = upgrade(Version::HTTP_11, &Method::GET, &map);
            assert_eq!(found.is_some(), wanted, "{connection}: {upgrades}");
            assert_eq!(upgrade(Version::HTTP_10, &Method::GET, &map), None);
        }
    }

    #[test]
    fn cookies_become_one() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]);
        join_cookies(&mut map);
        assert_eq!(map, headers(&[("cookie", "a=1; b=2; c=3; d=4")]));
    }
}
