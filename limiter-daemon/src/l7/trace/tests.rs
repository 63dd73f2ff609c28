//! What a request is as a span.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Code;

use super::*;
use crate::traces::{Parent, TRACEPARENT};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn record() -> Record {
    Record {
        began: 1_000_000_000,
        responded: Some(1_004_500_000),
        ended: 1_012_000_000,
        method: Method::GET,
        target: "/a?token=secret".into(),
        host: "api.example:8080".into(),
        version: Version::HTTP_2,
        tls: true,
        client: [192, 0, 2, 7].into(),
        peer: ([192, 0, 2, 8], 40_000).into(),
        bind: ([192, 0, 2, 1], 8443).into(),
        user_agent: Some(HeaderValue::from_static("curl/8")),
        request_id: Some(HeaderValue::from_static("id-1")),
        traceparent: None,
        traced: None,
        rule: None,
        limit: None,
        upstream: None,
        retries: 0,
        status: StatusCode::OK,
        refused: None,
        received: 3,
        sent: 5,
        completion: Completion::Complete,
    }
}

fn traced() -> Traced {
    let parent = Parent::parse(PARENT.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, HeaderValue::from_static(PARENT));
    Traced::child(&parent, &headers, || 7)
}

fn span_of(record: &Record) -> Span {
    let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_012);
    span(record, &traced(), now)
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|one| one.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

#[test]
fn a_request_is_told_by_the_conventions() {
    let span = span_of(&record());
    assert_eq!(span.name, "GET");
    assert_eq!(span.kind(), SpanKind::Server);
    assert_eq!(span.trace_id[..2], [0x0a, 0xf7]);
    assert_eq!(span.span_id, 7_u64.to_be_bytes());
    assert_eq!(span.parent_span_id[..2], [0xb7, 0xad]);
    assert_eq!(span.start_time_unix_nano, 1_700_000_000_000_000_000);
    assert_eq!(span.end_time_unix_nano, 1_700_000_000_012_000_000);
    assert_eq!(span.status, None);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "https"),
        ("url.path", "/a"),
        ("network.protocol.version", "2"),
        ("server.address", "api.example"),
        ("server.port", "8080"),
        ("client.address", "192.0.2.7"),
        ("network.peer.address", "192.0.2.8"),
        ("network.peer.port", "40000"),
        ("network.local.port", "8443"),
        ("http.response.status_code", "200"),
        ("http.request.body.size", "3"),
        ("http.response.body.size", "5"),
    ] {
        assert_eq!(attribute(&span, key).as_deref(), Some(value), "{key}");
    }
    for absent in [
        "url.query",
        "error.type",
        "limiterd.decision",
        "limiterd.refused",
    ] {
        assert_eq!(attribute(&span, absent), None, "{absent}");
    }
    assert!(!format!("{span:?}").contains("secret"));
}

#[test]
fn what_is_our_failure_is_one_and_what_is_the_clients_is_not() {
    let told = |status: u16, refused, completion| {
        let mut record = record();
        record.status = StatusCode::from_u16(status).unwrap();
        record.refused = refused;
        record.completion = completion;
        let span = span_of(&record);
        let failed = span
            .status
            .as_ref()
            .is_some_and(|status| status.code() == Code::Error);
        (failed, attribute(&span, "error.type"))
    };
    let error = |text: &str| (true, Some(text.to_owned()));
    assert_eq!(
        told(429, Some("rate_limited"), Completion::Complete),
        (false, None)
    );
    assert_eq!(
        told(404, Some("no_route"), Completion::Complete),
        (false, None)
    );
    assert_eq!(told(200, None, Completion::Cancelled), (false, None));
    assert_eq!(
        told(503, Some("no_endpoint"), Completion::Complete),
        error("no_endpoint")
    );
    assert_eq!(told(502, None, Completion::Complete), error("502"));
    assert_eq!(
        told(200, None, Completion::UpstreamBroke),
        error("upstream_broke")
    );
}

#[test]
fn names_are_few_whatever_clients_send() {
    let mut record = record();
    record.method = Method::from_bytes(b"MADEUP").unwrap();
    record.target = "/".to_owned() + &"ä".repeat(2000);
    let span = span_of(&record);
    assert_eq!(span.name, "HTTP");
    assert_eq!(
        attribute(&span, "http.request.method").as_deref(),
        Some("_OTHER")
    );
    let original = attribute(&span, "http.request.method_original");
    assert_eq!(original.as_deref(), Some("MADEUP"));
    let path = attribute(&span, "url.path").unwrap();
    assert!(path.len() < 2_060 && path.ends_with('…'), "{}", path.len());
}
