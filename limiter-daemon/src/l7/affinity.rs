//! Which endpoint a request belongs to, where a backend is chosen by consistent hash.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::request_id::Random;
use crate::engine::request::RequestView;
use crate::engine::upstream;
use crate::policy::plan::{BackendSettings, Balancing, HashBy};

/// What a consistent hash makes of a request.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    /// `None`: it may go anywhere.
    pub(super) hash: Option<u64>,
    /// The cookie that the client is given, so that it comes back to the same endpoint.
    pub(super) cookie: Option<Box<HeaderValue>>,
}

/// What the backend's settings make of `request`.
pub(super) fn affinity(
    settings: &BackendSettings,
    request: &RequestView<'_>,
    random: &Random,
) -> Affinity {
    let Balancing::ConsistentHash { by, .. } = &settings.load_balancer.algorithm else {
        return Affinity::default();
    };
    let hash = match by {
        HashBy::SourceIp => match request.client.to_canonical() {
            IpAddr::V4(ip) => hash([&ip.octets()[..]]),
            IpAddr::V6(ip) => hash([&ip.octets()[..]]),
        },
        HashBy::Headers(names) => {
            let values = names.iter().filter_map(|name| request.headers.get(name));
            hash(values.map(HeaderValue::as_bytes))
        }
        HashBy::QueryParams(names) => {
            let parameter = |name: &String| request.parameter(name);
            hash(names.iter().filter_map(parameter))
        }
        HashBy::Cookie {
            name,
            ttl,
            attributes,
        } => {
            if let Some(value) = cookie(request.headers, name) {
                hash([value])
            } else if let Some(ttl) = ttl {
                let value = format!("{:016x}", random.next());
                return Affinity {
                    hash: hash([value.as_bytes()]),
                    cookie: set_cookie(name, &value, *ttl, attributes).map(Box::new),
                };
            } else {
                None
            }
        }
    };
    Affinity { hash, cookie: None }
}

/// `None`: there is no value.
fn hash<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<u64> {
    let mut values = values.into_iter().peekable();
    values.peek()?;
    Some(upstream::hash(values))
}

/// The value of a cookie (RFC 6265 section 5.4).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })
}

fn set_cookie(
    name: &str,
    value: &str,
    ttl: Duration,
    attributes: &[(String, String)],
) -> Option<HeaderValue> {
    let mut text = format!("{name}={value}");
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    for (name, value) in attributes {
        text.push_str("; ");
        text.push_str(name);
        if !value.is_empty() {
            text.push('=');
            text.push_str(value);
        }
    }
    let http_only = |(name, _): &(String, String)| name.eq_ignore_ascii_case("HttpOnly");
    if !attributes.iter().any(http_only) {
        text.push_str("; HttpOnly");
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let headers = HeaderMap::from_iter([
            (header::COOKIE, "xid=1; id=two; id=3".parse().unwrap()),
            (header::COOKIE, " late = no;last=4 ".parse().unwrap()),
        ]);
        assert_eq!(cookie(&headers, "id"), Some(&b"two"[..]));
        assert_eq!(cookie(&headers, "last"), Some(&b"4"[..]));
        assert_eq!(cookie(&headers, "i"), None);
    }

    #[test]
    fn a_given_cookie_has_its_attributes() {
        let attributes = [
            ("SameSite".to_owned(), "Strict".to_owned()),
            ("Secure".to_owned(), String::new()),
        ];
        let given = set_cookie("lb", "0f", Duration::from_secs(60), &attributes).unwrap();
        assert_eq!(
            given,
            "lb=0f; Max-Age=60; SameSite=Strict; Secure; HttpOnly"
        );
        let given = set_cookie("lb", "0f", Duration::ZERO, &[]).unwrap();
        assert_eq!(given, "lb=0f; HttpOnly");
    }

    #[test]
    fn what_has_no_value_has_no_hash() {
        assert_eq!(hash([]), None);
        assert_eq!(hash([&b"a"[..]]), hash([&b"a"[..]]));
        assert_ne!(hash([&b"a"[..], b"b"]), hash([&b"ab"[..]]));
    }
}
