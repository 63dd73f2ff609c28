//! Headers that a proxy must take away and must add.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Fields that concern one connection only (RFC 9110 section 7.6.1), beside those that `Connection`
/// names.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Removes what must not be forwarded. `TE` stays as `trailers` if it said so (gRPC needs it).
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| !is_end_to_end(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(te) = headers.remove(header::TE)
        && te.to_str().is_ok_and(|te| {
            te.split(',')
                .any(|t| t.trim().eq_ignore_ascii_case("trailers"))
        })
    {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
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
    ]
    .contains(name)
        || [X_FORWARDED_FOR, X_FORWARDED_PROTO].contains(name)
}

/// Says who asks: the client's address at the end of `X-Forwarded-For`, and the scheme.
pub(super) fn add_forwarded(headers: &mut HeaderMap, client: IpAddr) {
    let address = client.to_canonical().to_string();
    let chain = headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .map(HeaderValue::as_bytes)
        .chain([address.as_bytes()])
        .collect::<Vec<_>>()
        .join(b", ".as_slice());
    if let Ok(value) = HeaderValue::from_bytes(&chain) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
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
            ("connection", "close, X-Hop"),
            ("connection", "host, x-forwarded-for"),
            ("host", "h"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-hop", "1"),
            ("x-end", "1"),
        ]);
        strip_hop_by_hop(&mut map);
        let left = headers(&[
            ("host", "h"),
            ("te", "trailers"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-end", "1"),
        ]);
        assert_eq!(map, left);
    }

    #[test]
    fn the_client_is_added_at_the_end() {
        let mut map = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
        ]);
        add_forwarded(&mut map, "::ffff:10.0.0.7".parse().unwrap());
        let wanted = headers(&[
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 10.0.0.7"),
            ("x-forwarded-proto", "http"),
        ]);
        assert_eq!(map, wanted);
    }
}
