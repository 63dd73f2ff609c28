//! That nothing secret is told.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::*;
use crate::policy::plan::{Certificate, PathMatch, Pem, RouteMatch, UpstreamProtocol, UpstreamTls};

#[test]
fn secrets_are_not_told() {
    let secret = || Pem(b"SECRET".to_vec());
    let tls = Tls {
        certificates: vec![Certificate {
            name: "d/cert".into(),
            chain: secret(),
            key: secret(),
        }],
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        alpn: Vec::new(),
        client_certificates: None,
    };
    let mut rule = RouteRule {
        matches: vec![RouteMatch {
            path: PathMatch::Prefix(String::new()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }],
        ..RouteRule::default()
    };
    let key = (
        HeaderName::from_static("authorization"),
        HeaderValue::from_static("SECRET"),
    );
    rule.filters.request_headers.set.push(key);
    let plan = Plan {
        listeners: vec![Listener {
            tls: Some(Arc::new(tls)),
            routes: vec![Route {
                rules: vec![rule],
                ..Route::default()
            }],
            ..Listener::default()
        }],
        backends: vec![Backend {
            name: "d/b".into(),
            endpoints: Vec::new(),
            protocol: UpstreamProtocol::Http1,
            tls: Some(UpstreamTls {
                server_name: None,
                authorities: vec![secret()],
                insecure: false,
            }),
            ..Backend::default()
        }],
        ..Plan::default()
    };
    let text = serde_json::to_string(&PlanView::from(&plan)).unwrap();
    assert!(text.contains("d/cert"), "{text}");
    assert!(text.contains("authorization set to (redacted)"), "{text}");
    // Neither as text nor as bytes.
    assert!(
        !text.contains("SECRET") && !text.contains("83,69,67"),
        "{text}"
    );
}
