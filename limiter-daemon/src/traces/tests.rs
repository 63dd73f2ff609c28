//! Who is traced, by whose word, and what is passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;
use http::header::HeaderValue;
use tokio::sync::mpsc;

use super::context::{Parent, TRACEPARENT, TRACESTATE, Traced};
use super::{Shared, Span, Tracer};
use crate::policy::plan::{OtlpConfig, OtlpProtocol, TraceParent, TracingConfig};

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn headers(parents: &[&'static str], states: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for parent in parents {
        headers.append(TRACEPARENT, HeaderValue::from_static(parent));
    }
    for state in states {
        headers.append(TRACESTATE, HeaderValue::from_static(state));
    }
    headers
}

fn tracer(sampling: u32, parent: TraceParent, queue: usize) -> (Tracer, mpsc::Receiver<Span>) {
    let (sender, spans) = mpsc::channel(queue);
    let config = TracingConfig {
        otlp: OtlpConfig {
            host: "127.0.0.1".to_owned(),
            port: 4317,
            tls: false,
            path: String::new(),
            protocol: OtlpProtocol::Grpc,
            headers_file: None,
            ca_file: None,
            timeout: std::time::Duration::from_secs(1),
        },
        sampling,
        parent,
        service_name: "limiterd".to_owned(),
    };
    (
        Tracer::new(&config, sender, Arc::new(Shared::default())),
        spans,
    )
}

#[test]
fn a_traceparent_is_read_to_the_letter() {
    for valid in [
        SAMPLED,
        UNSAMPLED,
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later",
    ] {
        assert!(Parent::parse(valid.as_bytes()).is_some(), "{valid}");
    }
    for invalid in [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
    ] {
        assert_eq!(Parent::parse(invalid.as_bytes()), None, "{invalid}");
    }
    let sampled = |text: &str| Parent::parse(text.as_bytes()).unwrap().is_sampled();
    assert!(sampled(SAMPLED));
    assert!(!sampled(UNSAMPLED));
}

#[test]
fn a_parent_decides_and_is_gone_on_with() {
    for sampling in [0, 1_000_000] {
        let (tracer, _spans) = tracer(sampling, TraceParent::Follow, 1);
        let mut headers = headers(&[SAMPLED], &["a=1", "b=2"]);
        let traced = tracer.sample(&headers, || 7).unwrap();
        assert_eq!(traced.state, "a=1,b=2");
        traced.write(&mut headers);
        let passed_on = "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01";
        assert_eq!(headers[TRACEPARENT], passed_on);
        assert_eq!(headers.get_all(TRACESTATE).iter().count(), 2);
        let not = self::headers(&[UNSAMPLED], &[]);
        assert_eq!(tracer.sample(&not, || 7), None, "{sampling}");
        assert_eq!(tracer.follow(&not), None);
        assert!(tracer.follow(&headers).is_some());
        assert_eq!(tracer.follow(&HeaderMap::new()), None, "nobody traces it");
    }
}

#[test]
fn flags_that_nobody_knows_are_not_passed_on() {
    for (came, goes) in [("ff", "03"), ("03", "03"), ("01", "01")] {
        let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{came}");
        let parent = Parent::parse(text.as_bytes()).unwrap();
        let header = Traced::child(&parent, &HeaderMap::new(), || 1)
            .header()
            .unwrap();
        assert!(
            header.to_str().unwrap().ends_with(&format!("-{goes}")),
            "{header:?}"
        );
    }
}

#[test]
fn without_a_valid_parent_a_trace_begins() {
    let (tracer, _spans) = tracer(1_000_000, TraceParent::Follow, 1);
    for parents in [&[][..], &["nonsense"], &[SAMPLED, SAMPLED]] {
        let mut headers = headers(parents, &["a=1"]);
        let next = AtomicU64::new(1);
        let random = || next.fetch_add(1, Ordering::Relaxed);
        let traced = tracer.sample(&headers, random).unwrap();
        assert_eq!(traced.parent, None);
        traced.write(&mut headers);
        let begins = "00-00000000000000010000000000000002-0000000000000003-03";
        assert_eq!(headers[TRACEPARENT], begins);
        assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
        assert!(!headers.contains_key(TRACESTATE), "it is another trace's");
    }
    // What must not be zero is not.
    let traced = tracer.sample(&HeaderMap::new(), || 0).unwrap();
    assert!(Parent::parse(traced.header().unwrap().as_bytes()).is_some());
}

#[test]
fn who_is_not_believed_decides_nothing() {
    let (tracer, _spans) = tracer(0, TraceParent::Ignore, 1);
    let mut headers = headers(&[SAMPLED], &["a=1"]);
    assert_eq!(tracer.sample(&headers, || 0), None);
    assert_eq!(tracer.follow(&headers), None);
    tracer.strip(&mut headers);
    assert!(headers.is_empty());
}

#[test]
fn as_many_are_sampled_as_was_said() {
    let (tracer, _spans) = tracer(10_000, TraceParent::Follow, 1);
    let none = HeaderMap::new();
    let sampled = (0..1_000_000_u64).filter(|number| tracer.sample(&none, || *number).is_some());
    assert_eq!(sampled.count(), 10_000);
    let unsampled = headers(&[UNSAMPLED], &[]);
    assert_eq!(tracer.sample(&unsampled, || 0), None);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (tracer, mut spans) = tracer(0, TraceParent::Follow, 3);
    let mut made = 0;
    for _ in 0..5 {
        tracer.end(|| {
            made += 1;
            Span::default()
        });
    }
    assert_eq!(made, 3, "none that there is no room for");
    assert_eq!(tracer.shared.dropped.load(Ordering::Relaxed), 2);
    drop(tracer);
    let mut left = 0;
    while spans.blocking_recv().is_some() {
        left += 1;
    }
    assert_eq!(left, 3);
}
