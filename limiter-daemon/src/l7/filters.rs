//! What a route's filters do to requests and responses.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};

use super::body::Body;
use crate::engine::route::hostname;
use crate::policy::plan::{Answer, HeaderChanges, PathRewrite, Redirect, Rewrite};

/// Changes headers: set, add, remove.
pub(super) fn change(headers: &mut HeaderMap, changes: &HeaderChanges) {
    for (name, value) in &changes.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &changes.add {
        headers.append(name, value.clone());
    }
    for name in &changes.remove {
        headers.remove(name);
    }
}

/// Rewrites the target and the host; `prefix` is what the rule's prefix matched, in bytes.
pub(super) fn rewrite<B>(request: &mut Request<B>, rewrite: &Rewrite, prefix: Option<usize>) {
    if let Some(hostname) = &rewrite.hostname {
        request.headers_mut().insert(HOST, hostname.clone());
    }
    if let Some(path) = &rewrite.path {
        let path = rewritten(request.uri(), path, prefix);
        set_path(request, &path);
    }
}

/// Replaces the path and keeps the query.
pub(super) fn set_path<B>(request: &mut Request<B>, path: &str) {
    let target = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if let Ok(target) = PathAndQuery::from_maybe_shared(Bytes::from(target)) {
        *request.uri_mut() = Uri::from(target);
    }
}

fn rewritten(uri: &Uri, path: &PathRewrite, prefix: Option<usize>) -> String {
    let rewritten = match path {
        PathRewrite::Full(full) => full.clone(),
        PathRewrite::Prefix(new) => {
            let rest = uri.path().get(prefix.unwrap_or(0)..).unwrap_or("");
            let rest = if new.ends_with('/') {
                rest.trim_start_matches('/')
            } else {
                rest
            };
            format!("{new}{rest}")
        }
    };
    if rewritten.starts_with('/') {
        rewritten
    } else {
        format!("/{rewritten}")
    }
}

/// An answer of limiterd's own.
pub(super) fn answer(answer: &Answer) -> Response<Body> {
    let mut response = Response::new(Body::own(answer.body.clone()));
    *response.status_mut() = answer.status;
    if !answer.body.is_empty() {
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(CONTENT_TYPE, plain);
    }
    response
}

/// The answer of a redirect.
pub(super) fn redirect<B>(
    request: &Request<B>,
    redirect: &Redirect,
    prefix: Option<usize>,
    tls: bool,
    bind: SocketAddr,
) -> Response<Body> {
    let own = if tls { "https" } else { "http" };
    let scheme = redirect.scheme.as_deref().unwrap_or(own);
    let sent = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    let host = match &redirect.hostname {
        Some(host) => host.clone(),
        None => hostname(sent.unwrap_or("")).into_owned(),
    };
    let known = match scheme {
        "https" => 443,
        _ => 80,
    };
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => known,
        (None, None) => bind.port(),
    };
    let path = match &redirect.path {
        Some(path) => rewritten(request.uri(), path, prefix),
        None => request.uri().path().to_owned(),
    };
    let mut location = format!("{scheme}://{host}");
    if port != known {
        location = format!("{location}:{port}");
    }
    location.push_str(&path);
    if let Some(query) = request.uri().query() {
        location.push('?');
        location.push_str(query);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = redirect.status;
    if let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(location)) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn answers_have_their_status_and_text() {
        let said = |status: u16, body: &'static str| {
            let given = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                body: Bytes::from_static(body.as_bytes()),
            };
            let response = answer(&given);
            let kind = response.headers().get(CONTENT_TYPE).cloned();
            let length = http_body::Body::size_hint(response.body()).exact();
            (response.status().as_u16(), kind, length)
        };
        let plain = HeaderValue::from_static("text/plain");
        assert_eq!(said(418, "tea"), (418, Some(plain), Some(3)));
        assert_eq!(said(204, ""), (204, None, Some(0)));
    }

    #[test]
    fn prefixes_are_replaced_with_whole_segments() {
        for (target, prefix, new, wanted) in [
            ("/foo/bar", 4, "/xyz", "/xyz/bar"),
            ("/foo/bar", 4, "/xyz/", "/xyz/bar"),
            ("/foo", 4, "/xyz", "/xyz"),
            ("/foo/", 4, "/xyz", "/xyz/"),
            ("/foo/bar", 4, "/", "/bar"),
            ("/foo", 4, "/", "/"),
            ("/foo", 4, "", "/"),
            ("/bar?q=1", 0, "/xyz", "/xyz/bar?q=1"),
        ] {
            let mut request = Request::builder().uri(target).body(()).unwrap();
            let change = Rewrite {
                hostname: None,
                path: Some(PathRewrite::Prefix(new.into())),
            };
            rewrite(&mut request, &change, Some(prefix));
            assert_eq!(request.uri().to_string(), wanted, "{target} {new}");
        }
    }

    #[test]
    fn redirects_keep_what_they_do_not_name() {
        let plain = Redirect {
            scheme: None,
            hostname: None,
            path: None,
            port: None,
            status: StatusCode::FOUND,
        };
        let to = |scheme: Option<&str>, hostname: Option<&str>, port, path: Option<PathRewrite>| {
            Redirect {
                scheme: scheme.map(Into::into),
                hostname: hostname.map(Into::into),
                port,
                path,
                ..plain.clone()
            }
        };
        let full = PathRewrite::Full("/new".into());
        let prefix = PathRewrite::Prefix("/p".into());
        for (redirects, wanted) in [
            (plain.clone(), "http://h:8080/a/b?q=1"),
            (to(Some("https"), None, None, None), "https://h/a/b?q=1"),
            (
                to(Some("https"), None, Some(8443), None),
                "https://h:8443/a/b?q=1",
            ),
            (to(None, Some("x.y"), Some(80), None), "http://x.y/a/b?q=1"),
            (to(None, None, None, Some(full)), "http://h:8080/new?q=1"),
            (to(None, None, None, Some(prefix)), "http://h:8080/p/b?q=1"),
        ] {
            let request = Request::builder()
                .uri("/a/b?q=1")
                .header(HOST, "h:1")
                .body(());
            let bind = "127.0.0.1:8080".parse().unwrap();
            let response = redirect(&request.unwrap(), &redirects, Some(2), false, bind);
            assert_eq!(response.headers()[LOCATION], wanted);
            assert_eq!(response.status(), StatusCode::FOUND);
        }
    }

    #[test]
    fn headers_are_set_then_added_then_removed() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static;
        headers.append("a", value("1"));
        headers.append("b", value("1"));
        headers.append("c", value("1"));
        change(
            &mut headers,
            &HeaderChanges {
                set: vec![("a".parse().unwrap(), value("2"))],
                add: vec![
                    ("a".parse().unwrap(), value("3")),
                    ("b".parse().unwrap(), value("2")),
                ],
                remove: vec!["c".parse().unwrap()],
            },
        );
        let mut left: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()))
            .collect();
        left.sort_unstable();
        let wanted: [(&str, &[u8]); 4] = [("a", b"2"), ("a", b"3"), ("b", b"1"), ("b", b"2")];
        assert_eq!(left, wanted);
    }
}
