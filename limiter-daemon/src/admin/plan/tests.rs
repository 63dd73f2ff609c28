//! That nothing secret is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::*;
use crate::policy::plan::{
    BackendSettings, Certificate, HeaderChanges, HealthCheck, PathMatch, Pem, Probe, Replacement,
    ResponseOverride, ResponseSource, RouteMatch, RouteTraffic, TcpHost, TcpProxy,
    UpstreamProtocol, UpstreamTls,
};

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
    rule.filters.request_headers.set.push(key.clone());
    rule.traffic = Arc::new(RouteTraffic {
        overrides: vec![ResponseOverride {
            statuses: vec![503..=503],
            source: ResponseSource::All,
            with: Replacement::Response {
                status: None,
                content_type: None,
                body: Some(Bytes::from_static(b"SECRET")),
                headers: HeaderChanges {
                    set: vec![key],
                    ..HeaderChanges::default()
                },
            },
        }],
        ..RouteTraffic::default()
    });
    let tls = Arc::new(tls);
    let plan = Plan {
        tcp: vec![TcpProxy {
            hosts: vec![TcpHost {
                name: "d/host".into(),
                tls: Some(Arc::clone(&tls)),
                ..TcpHost::default()
            }],
            ..TcpProxy::default()
        }],
        listeners: vec![Listener {
            tls: Some(tls),
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
            settings: Arc::new(BackendSettings {
                health_check: Some(HealthCheck {
                    timeout: Duration::from_secs(1),
                    interval: Duration::from_secs(1),
                    initial_jitter: None,
                    unhealthy_threshold: 1,
                    healthy_threshold: 1,
                    probe: Probe::Tcp {
                        send: b"SECRET".to_vec(),
                        receive: vec![b"SECRET".to_vec()],
                    },
                }),
                ..BackendSettings::default()
            }),
            ..Backend::default()
        }],
        ..Plan::default()
    };
    let text = serde_json::to_string(&PlanView::from(&plan)).unwrap();
    assert_eq!(text.matches("d/cert").count(), 2, "{text}");
    assert!(text.contains("d/host"), "{text}");
    assert!(
        text.contains("request header authorization set to (redacted)"),
        "{text}"
    );
    assert!(
        text.contains("response header authorization set to (redacted)"),
        "{text}"
    );
    assert!(text.contains("a body of 6 bytes"), "{text}");
    // Neither as text nor as bytes.
    assert!(
        !text.contains("SECRET") && !text.contains("83,69,67"),
        "{text}"
    );
}
