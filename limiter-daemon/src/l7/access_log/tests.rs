//! Lines as they are written, and what becomes of them when nobody takes them.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use limiter_common::Limit;

use super::format::{line, passed_on};
use super::*;
use crate::engine::decide::{Decision, Limits};
use crate::engine::outcome::Outcome;
use crate::engine::request::RequestView;
use crate::engine::state::State;
use crate::engine::tcp::{Lost, TcpStats};
use crate::engine::time::Now;
use crate::l7::record::{Completion, DecidedBy, TcpEnd};
use crate::policy::plan::{
    Condition, LimitRule, LogTarget, PolicyLimits, Quota, RateLimits, ValueTest,
};

/// Six fields of escaped characters, and what is between them.
const MAX_LINE: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is decided about the last of so many requests of one user.
fn decided(quota: u64, requests: usize) -> DecidedBy {
    let name = HeaderName::from_static("x-user-id");
    let condition = Condition::Header {
        name: name.clone(),
        test: ValueTest::Each,
    };
    let limit = Limit::new(quota, quota, 60_000_000_000).unwrap();
    let quota = Quota::bucket(limit, 60);
    let rule = LimitRule::new("d/p/rule/0".into(), vec![condition], quota);
    let local = vec![PolicyLimits {
        policy: "d/p".into(),
        rules: vec![rule],
        default: None,
    }];
    let limits = RateLimits {
        local,
        global: Vec::new(),
    };
    let limits = Limits::compile(&limits, "d/r", &State::new(16)).unwrap();
    let headers = HeaderMap::from_iter([(name, HeaderValue::from_static("alice"))]);
    let view = RequestView {
        connection: None,
        method: &Method::GET,
        path: "/",
        query: None,
        headers: &headers,
        client: [192, 0, 2, 7].into(),
    };
    let mut outcome = Outcome::default();
    for _ in 0..requests {
        outcome = match limits.decide(&view, Now::default()) {
            Decision::Ready(outcome) => outcome,
            Decision::Pending(_) => panic!("local limits are decided at once"),
        };
    }
    let decisive = outcome.decisive.unwrap();
    DecidedBy {
        descriptor: decisive.descriptor(&view),
        decisive,
        denied: outcome.denied.is_some(),
    }
}

fn record() -> Record {
    Record {
        began: 1_000_000_000,
        responded: Some(1_004_500_000),
        ended: 1_012_000_000,
        method: Method::GET,
        target: "/a?b=c".into(),
        host: "api.example".into(),
        version: Version::HTTP_11,
        tls: false,
        client: [192, 0, 2, 7].into(),
        peer: ([192, 0, 2, 7], 40_000).into(),
        bind: ([192, 0, 2, 1], 8080).into(),
        user_agent: Some(HeaderValue::from_static("curl/8")),
        request_id: Some(HeaderValue::from_static("id-1")),
        traceparent: None,
        traced: None,
        rule: None,
        limit: Some(decided(50, 1)),
        upstream: None,
        retries: 0,
        status: StatusCode::OK,
        refused: None,
        received: 3,
        sent: 5,
        completion: Completion::Complete,
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_012)
}

#[test]
fn a_request_is_a_line_of_text() {
    assert_eq!(
        line(LogFormat::Text, &record(), now()),
        "[2023-11-14T22:13:20.000Z] \"GET /a?b=c HTTP/1.1\" 200 - 3 5 12 4 \"192.0.2.7\" \"curl/8\" \
         \"id-1\" \"api.example\" \"-\" ok d/p/rule/0 \"x-user-id=alice\" 49\n"
    );
    let mut denied = record();
    denied.responded = None;
    denied.status = StatusCode::TOO_MANY_REQUESTS;
    denied.refused = Some("rate_limited");
    denied.limit = Some(decided(1, 2));
    let text = line(LogFormat::Text, &denied, now());
    assert!(text.contains("\" 429 RL 3 5 12 - \""), "{text}");
    assert!(
        text.ends_with(" over_limit d/p/rule/0 \"x-user-id=alice\" 0\n"),
        "{text}"
    );
    denied.limit = None;
    assert!(line(LogFormat::Text, &denied, now()).ends_with(" - - - -\n"));
}

#[test]
fn a_request_is_a_line_of_json() {
    let text = line(LogFormat::Json, &record(), now());
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    for (name, wanted) in [
        ("start_time", "2023-11-14T22:13:20.000Z"),
        ("method", "GET"),
        ("x-envoy-origin-path", "/a?b=c"),
        ("protocol", "HTTP/1.1"),
        ("response_flags", "-"),
        (":authority", "api.example"),
        ("downstream_remote_address", "192.0.2.7:40000"),
    ] {
        assert_eq!(value[name], wanted, "{name}");
    }
    assert_eq!(value["response_code"], 200);
    assert_eq!(value["duration"], 12);
    assert_eq!(value["rate_limit"]["decision"], "ok");
    assert_eq!(value["rate_limit"]["descriptor"], "x-user-id=alice");
    assert_eq!(value["rate_limit"]["remaining"], 49);
}

#[test]
fn a_connection_that_was_passed_on_is_a_line() {
    let mut record = TcpRecord {
        began: 1_000_000_000,
        ended: 1_012_000_000,
        stats: Arc::new(TcpStats::new("Gateway/d/db")),
        host: Some("named".into()),
        name: "db.example".into(),
        tls: false,
        peer: ([192, 0, 2, 7], 40_000).into(),
        bind: ([192, 0, 2, 1], 5432).into(),
        upstream: None,
        received: 3,
        sent: 5,
        end: TcpEnd::Complete,
    };
    assert_eq!(
        passed_on(LogFormat::Text, &record, now()),
        "[2023-11-14T22:13:20.000Z] \"- - -\" 0 - 3 5 12 - \"192.0.2.7\" \"-\" \"-\" \"-\" \"-\" - - - -\n"
    );
    let json = |record: &TcpRecord| -> serde_json::Value {
        serde_json::from_str(&passed_on(LogFormat::Json, record, now())).unwrap()
    };
    let value = json(&record);
    for (name, wanted) in [
        ("requested_server_name", "db.example"),
        ("route_name", "Gateway/d/db/host/named"),
        ("response_code_details", "complete"),
        ("downstream_remote_address", "192.0.2.7:40000"),
        ("downstream_local_address", "192.0.2.1:5432"),
    ] {
        assert_eq!(value[name], wanted, "{name}");
    }
    assert_eq!(value["bytes_received"], 3);
    assert!(value["method"].is_null());
    record.name = Box::default();
    record.host = None;
    for (end, flags, details) in [
        (TcpEnd::NoRoute, "NR", "no_route"),
        (TcpEnd::Lost(Lost::NoEndpoint), "UH", "no_endpoint"),
        (TcpEnd::Lost(Lost::Overflow), "UO", "overflow"),
        (TcpEnd::Lost(Lost::Unreachable), "UF", "unreachable"),
        (TcpEnd::Idle, "SI", "idle_timeout"),
        (TcpEnd::Handshake, "-", "tls_handshake"),
        (TcpEnd::Broken, "-", "broken"),
        (TcpEnd::Cancelled, "DC", "cancelled"),
    ] {
        record.end = end;
        let value = json(&record);
        assert_eq!(value["response_flags"], flags);
        assert_eq!(value["response_code_details"], details);
        assert!(value["route_name"].is_null());
        assert!(value.get("requested_server_name").is_none());
    }
}

#[test]
fn a_client_cannot_forge_a_line() {
    let mut evil = record();
    evil.target = "/\" 200 - \n[2023] \u{1b}[2J\u{202e}\\".into();
    evil.user_agent = Some(HeaderValue::from_bytes(b"a\"\t\xff").unwrap());
    evil.host = "h".repeat(100_000);
    let text = line(LogFormat::Text, &evil, now());
    assert_eq!(text.matches('\n').count(), 1);
    assert!(
        text.contains(r#""GET /\" 200 - \u{a}[2023] \u{1b}[2J\u{202e}\\ HTTP/1.1""#),
        "{text}"
    );
    assert!(text.contains("\"a\\\"\\u{9}\u{fffd}\""), "{text}");
    assert!(text.len() < MAX_LINE);
    let json = line(LogFormat::Json, &evil, now());
    assert_eq!(json.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["x-envoy-origin-path"], evil.target);
    assert!(json.len() < MAX_LINE);
}

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("limiterd-log-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn start(path: &std::path::Path, sample: u8) -> (Arc<AccessLog>, Owner) {
    AccessLog::start(&plan::AccessLog {
        format: LogFormat::Text,
        target: LogTarget::File(path.to_owned()),
        sample,
    })
    .unwrap()
}

fn lines(path: &std::path::Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn every_line_is_written_before_the_end() {
    let scratch = Scratch::new("end");
    let path = scratch.0.join("access.log");
    let (log, owner) = start(&path, 100);
    for _ in 0..1_000 {
        log.record(&record());
    }
    drop(log);
    let shared = owner.shared();
    assert!(owner.finish(PATIENCE));
    assert_eq!(lines(&path), 1_000);
    assert_eq!(shared.written.load(Ordering::Relaxed), 1_000);
    assert_eq!(shared.lost.load(Ordering::Relaxed), 0);
}

#[test]
fn a_share_of_the_requests_is_spread_evenly() {
    let scratch = Scratch::new("sample");
    for (percent, wanted) in [(1, 10), (30, 300), (99, 990)] {
        let path = scratch.0.join(percent.to_string());
        let (log, owner) = start(&path, percent);
        for _ in 0..1_000 {
            log.record(&record());
        }
        drop(log);
        assert!(owner.finish(PATIENCE));
        assert_eq!(lines(&path), wanted, "{percent} %");
    }
}

#[test]
fn a_file_that_was_moved_away_is_made_anew_when_told() {
    let scratch = Scratch::new("reopen");
    let [path, old] = ["access.log", "access.log.1"].map(|name| scratch.0.join(name));
    let (log, owner) = start(&path, 100);
    let written = |count| {
        // The writer is a thread of its own.
        let done = || owner.shared.written.load(Ordering::Relaxed) >= count;
        let wait = || std::thread::sleep(Duration::from_millis(1));
        assert!((0..30_000).any(|_| done() || (wait(), false).1));
    };
    log.record(&record());
    written(1);
    fs::rename(&path, &old).unwrap();
    log.record(&record());
    written(2);
    assert_eq!(lines(&old), 2);
    owner.reopen();
    log.record(&record());
    written(3);
    assert_eq!((lines(&old), lines(&path)), (2, 1));
}

#[test]
fn a_reader_that_stopped_costs_lines_and_no_time() {
    let scratch = Scratch::new("fifo");
    let path = scratch.0.join("fifo");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &path,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .unwrap();
    // Somebody who opens the pipe and never reads.
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let (log, owner) = start(&path, 100);
    let count = QUEUE as u64 * 2;
    for _ in 0..count {
        log.record(&record());
    }
    let shared = owner.shared();
    let lost = shared.lost.load(Ordering::Relaxed);
    // What the pipe and a batch hold is written or under way; the rest waits or is lost.
    assert!(lost > 0 && lost < count, "{lost}");
    drop(log);
    drop(reader);
    assert!(owner.finish(PATIENCE), "a closed pipe ends the writer");
    let written = shared.written.load(Ordering::Relaxed);
    let lost = shared.lost.load(Ordering::Relaxed);
    assert_eq!(written + lost, count);
}
