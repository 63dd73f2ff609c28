//! Each format: what is read of a line, and what is said of one that cannot be.

use std::sync::Arc;

use http::StatusCode;
use ipnet::IpNet;

use super::*;
use crate::engine::settle::Failure;
use crate::policy::Plan;
use crate::policy::plan::{
    Condition, Hostname, LimitRule, Listener, PolicyLimits, Quota, RateLimits, Route, RouteRule,
    ValueTest,
};

const MS: u64 = 1_000_000;
/// 2026-11-25T22:40:19Z.
const AT: u64 = 1_795_646_419_000 * MS;

fn wanted(names: &[&str]) -> Wanted {
    let each = |name: &&str| Condition::Header {
        name: HeaderName::try_from(*name).unwrap(),
        test: ValueTest::Each,
    };
    let conditions = names.iter().map(each).collect();
    let rule = LimitRule::new("d/p/rule/0".into(), conditions, Quota::Unlimited);
    let limits = PolicyLimits {
        policy: "d/p".into(),
        rules: vec![rule],
        default: None,
    };
    let plan = Plan {
        listeners: vec![Listener {
            routes: vec![Route {
                hostnames: vec![Hostname::Any],
                rules: vec![RouteRule {
                    limits: Arc::new(RateLimits {
                        local: vec![limits],
                        global: Vec::new(),
                    }),
                    ..RouteRule::default()
                }],
                ..Route::default()
            }],
            ..Listener::default()
        }],
        ..Plan::default()
    };
    Wanted::new(std::iter::once(&plan))
}

#[track_caller]
fn request(names: &[&str], line: &str) -> Entry {
    match Lines::new(wanted(names)).read(line.as_bytes()) {
        Ok(Line::Request(entry)) => *entry,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    let read = Lines::new(wanted(&[])).read(line.as_bytes());
    read.expect_err("it cannot be read").to_string()
}

fn upstream(status: u16) -> Answered {
    Answered::Upstream {
        status: StatusCode::from_u16(status).unwrap(),
        broken: false,
    }
}

#[test]
fn limiterds_json() {
    let line = r#"{"start_time":"2026-11-25T22:40:19.250Z","method":"POST","x-envoy-origin-path":"/a//%22?q=1&r","protocol":"HTTP/2","response_code":200,"response_flags":"-","response_code_details":"via_upstream","bytes_received":0,"bytes_sent":3,"duration":15,"x-envoy-upstream-service-time":14,"client":"192.0.2.7","user-agent":"curl \"8\"","x-request-id":"u-1","traceparent":null,":authority":"Api.example:8080","tls":true,"upstream_host":"10.0.0.1:80","upstream_cluster":"d/b","downstream_local_address":"0.0.0.0:8080","downstream_remote_address":"198.51.100.1:4711","route_name":"d/r/rule/0","rate_limit":{"decision":"ok","rule":"d/p/rule/0","descriptor":"x-user-id=a\\\"b,c,x-org=(redacted),source=192.0.2.7/32","remaining":2}}"#;
    let entry = request(&["x-user-id", "x-org", "user-agent"], line);
    assert_eq!((entry.at, entry.took), (AT + 250 * MS, 15 * MS));
    assert_eq!(entry.client.to_string(), "192.0.2.7");
    assert_eq!(entry.peer, "198.51.100.1:4711".parse().ok());
    assert_eq!(entry.local, "0.0.0.0:8080".parse().ok());
    assert_eq!(entry.method, Method::POST);
    assert_eq!(
        (&*entry.path, entry.query.as_deref()),
        ("/a//%22", Some("q=1&r"))
    );
    assert_eq!(entry.host.as_deref(), Some("Api.example:8080"));
    assert_eq!(entry.headers["user-agent"], "curl \"8\"");
    assert_eq!(
        entry.headers["x-user-id"], "a\"b,c",
        "from the bucket that is named"
    );
    assert!(
        !entry.headers.contains_key("x-org"),
        "secrets are in no log"
    );
    assert_eq!(entry.headers.len(), 2);
    assert_eq!(entry.answer, upstream(200));
    let logged = entry.logged.unwrap();
    assert_eq!(
        (logged.over_limit, logged.rule.as_deref()),
        (false, Some("d/p/rule/0"))
    );

    let limited = line.replace("\"ok\"", "\"over_limit\"").replace(
        r#""response_code":200,"response_flags":"-","response_code_details":"via_upstream""#,
        r#""response_code":429,"response_flags":"RL","response_code_details":"rate_limited""#,
    );
    let entry = request(&[], &limited);
    assert!(entry.logged.unwrap().over_limit);
    assert_eq!(entry.answer, Answered::Unknown);
    let unlimited = request(
        &[],
        &line.replace("\"rate_limit\":{", "\"rate_limit\":null,\"x\":{"),
    );
    assert_eq!(unlimited.logged, Some(Logged::default()));
}

#[test]
fn limiterds_text() {
    let line = r#"[2026-11-25T22:40:19.250Z] "GET /a?q=\" HTTP/1.1" 429 RL 0 12 3 - "2001:db8::1" "-" "u-1" "h.example" "-" over_limit d/p/rule/0 "x-user-id=a\\\"\u{2028}" 0"#;
    let entry = request(&["x-user-id", "x-request-id", "user-agent"], line);
    assert_eq!((entry.at, entry.took), (AT + 250 * MS, 3 * MS));
    assert_eq!(entry.client.to_string(), "2001:db8::1");
    assert_eq!(entry.query.as_deref(), Some("q=\""));
    assert_eq!(
        entry.headers["x-user-id"].as_bytes(),
        "a\"\u{2028}".as_bytes()
    );
    assert_eq!(entry.headers["x-request-id"], "u-1");
    assert!(!entry.headers.contains_key("user-agent"));
    let logged = entry.logged.unwrap();
    assert_eq!(
        (logged.over_limit, logged.rule.as_deref()),
        (true, Some("d/p/rule/0"))
    );
    let line = r#"[2026-11-25T22:40:19.250Z] "GET / HTTP/1.1" 404 NR 0 0 0 - "192.0.2.1" "-" "-" "-" "-" - - - -"#;
    let entry = request(&[], line);
    assert_eq!(entry.logged, Some(Logged::default()));
    assert_eq!((entry.host, entry.answer), (None, Answered::Unknown));
}

#[test]
fn envoys_json_by_the_names_of_its_users() {
    let line = r#"{"bytes_sent":10,"start_time":"2026-11-25T23:40:19+01:00","path":"/v1","authority":"a.example","method":"GET","x_user_id":"alice","X-Team":"7","response_code":503,"response_flags":"UF,URX","response_code_details":"upstream_reset_before_response_started{connection_failure}","duration":"7","downstream_remote_address":"192.0.2.9:555","downstream_local_address":"10.1.1.1:10080","upstream_host":null,"requested_server_name":null,"nested":{"a":[1,{}]}}"#;
    let entry = request(&["x-user-id", "x-team"], line);
    assert_eq!((entry.at, entry.took), (AT, 7 * MS));
    assert_eq!(entry.client.to_string(), "192.0.2.9");
    assert_eq!(entry.host.as_deref(), Some("a.example"));
    assert_eq!(entry.headers["x-user-id"], "alice");
    assert_eq!(entry.headers["x-team"], "7");
    assert_eq!(entry.answer, Answered::Failed(Failure::Upstream));
    assert_eq!(entry.logged, None);
}

#[test]
fn envoys_and_istios_default_text() {
    let envoy = r#"[2026-11-25T22:40:19.001Z] "GET /v1 HTTP/1.1" 200 - 0 10 7 6 "203.0.113.1, 192.0.2.9" "agent" "id" "a.example" "10.0.0.1:80""#;
    let istio = r#"[2026-11-25T22:40:19.001Z] "GET /v1 HTTP/1.1" 200 - via_upstream - "-" 0 10 7 6 "203.0.113.1, 192.0.2.9" "agent" "id" "a.example" "10.0.0.1:80" outbound|80||b.d 10.0.0.2:1 10.0.0.3:2 192.0.2.9:3 - default"#;
    for line in [envoy, istio] {
        let entry = request(&["user-agent"], line);
        assert_eq!((entry.at, entry.took), (AT + MS, 7 * MS), "{line}");
        assert_eq!(entry.client.to_string(), "192.0.2.9");
        assert_eq!(entry.headers["user-agent"], "agent");
        assert_eq!(entry.answer, upstream(200));
        assert_eq!(entry.logged, None);
    }
}

#[test]
fn combined_common_and_with_a_host() {
    let combined = r#"192.0.2.9 - bob smith [25/Nov/2026:23:40:19 +0100] "GET /a\x22?b HTTP/1.1" 200 612 "-" "a \"b\" \x1b""#;
    let entry = request(&["user-agent"], combined);
    assert_eq!((entry.at, entry.took, entry.host.clone()), (AT, 0, None));
    assert_eq!(entry.client.to_string(), "192.0.2.9");
    assert_eq!((&*entry.path, entry.query.as_deref()), ("/a\"", Some("b")));
    // An escape is in no header that HTTP admits.
    assert!(!entry.headers.contains_key("user-agent"));
    let common =
        r#"2001:db8::9 - - [25/Nov/2026:22:40:19 +0000] "GET http://h.example/x HTTP/1.0" 304 -"#;
    let entry = request(&[], common);
    assert_eq!(
        (entry.client.to_string().as_str(), &*entry.path),
        ("2001:db8::9", "/x")
    );
    let host = r#"www.example:443 192.0.2.9 - - [25/Nov/2026:22:40:19 +0000] "GET / HTTP/2.0" 200 5 "-" "ua""#;
    let entry = request(&["user-agent"], host);
    assert_eq!(entry.host.as_deref(), Some("www.example:443"));
    assert_eq!(entry.headers["user-agent"], "ua");
}

#[test]
fn nginx_json_by_the_names_of_its_variables() {
    let line = r#"{"time_iso8601":"2026-11-25T22:40:19+00:00","remote_addr":"192.0.2.9","request_method":"GET","request_uri":"/a?b=c","status":"502","request_time":"0.250","host":"h.example","http_x_user_id":"alice"}"#;
    let entry = request(&["x-user-id"], line);
    assert_eq!((entry.at, entry.took), (AT, 250 * MS));
    assert_eq!(entry.headers["x-user-id"], "alice");
    assert_eq!(entry.answer, upstream(502));
}

#[test]
fn a_connection_is_no_request() {
    let json = r#"{"start_time":"2026-11-25T22:40:19Z","method":null,"x-envoy-origin-path":null,"client":"192.0.2.9","downstream_local_address":"0.0.0.0:443","downstream_remote_address":"192.0.2.9:1","rate_limit":null}"#;
    let text = r#"[2026-11-25T22:40:19Z] "- - -" 0 - 5 6 7 - "192.0.2.9" "-" "-" "-" "10.0.0.1:1" - - - -"#;
    for line in [json, text] {
        let read = Lines::new(Wanted::default()).read(line.as_bytes());
        assert!(matches!(read, Ok(Line::Connection)), "{read:?}");
    }
    let empty = Lines::new(Wanted::default()).read(b" \r");
    assert!(matches!(empty, Ok(Line::Empty)));
}

#[test]
fn what_cannot_be_read_says_why() {
    let json = |fields: &str| format!("{{{fields}}}");
    let whole = r#""time":"2026-11-25T22:40:19Z","method":"GET","path":"/","client":"192.0.2.1""#;
    assert!(matches!(
        Lines::new(Wanted::default()).read(json(whole).as_bytes()),
        Ok(Line::Request(_))
    ));
    for (line, wanted) in [
        ("hello".to_owned(), "it is in none of the formats"),
        ("[x] hello".to_owned(), "it is in none of the formats"),
        ("{\"a\":".to_owned(), "it is not valid JSON: EOF"),
        ("{} {}".to_owned(), "it is not valid JSON: trailing"),
        ("{}".to_owned(), "it has no method"),
        (json(&whole.replace("GET", "G T")), "`G T` is no method"),
        (json(&whole.replace("path", "patch")), "it has no path"),
        (
            json(&whole.replace("192.0.2.1", "-")),
            "it has no client address",
        ),
        (
            json(&whole.replace("192.0.2.1", "\\u001b[2J")),
            "`\\u{1b}[2J` is no address",
        ),
        (
            json(&whole.replace("T22:40:19Z", "")),
            "`2026-11-25` is no time",
        ),
    ] {
        let said = error(&line);
        assert!(said.starts_with(wanted), "{line}: {said}");
    }
}

#[test]
fn answers_are_told_by_flags_and_details() {
    let broken = Answered::Upstream {
        status: StatusCode::OK,
        broken: true,
    };
    let (upstream_failed, overload) = (Failure::Upstream, Failure::Overload);
    for (status, flags, details, met, wanted) in [
        (200, "-", None, false, upstream(200)),
        (500, "", Some("via_upstream"), false, upstream(500)),
        (429, "-", Some("via_upstream"), true, Answered::Unknown),
        (200, "UC", Some("via_upstream"), false, broken),
        (
            502,
            "UC",
            Some("upstream_broke"),
            true,
            Answered::Failed(upstream_failed),
        ),
        (
            503,
            "UH",
            Some("no_endpoint"),
            true,
            Answered::Failed(upstream_failed),
        ),
        (504, "UT", None, false, Answered::Failed(upstream_failed)),
        (503, "UO", None, false, Answered::Failed(overload)),
        (
            503,
            "-",
            Some("admission_control"),
            true,
            Answered::Failed(overload),
        ),
        (429, "-", None, false, Answered::Unknown),
        (
            429,
            "-",
            Some("request_rate_limited"),
            true,
            Answered::DeniedElsewhere,
        ),
        (404, "NR", None, false, Answered::Unknown),
        (
            403,
            "-",
            Some("no_client_address"),
            false,
            Answered::Refused,
        ),
        (400, "DPE", None, false, Answered::Refused),
        (413, "-", Some("body_too_large"), false, Answered::Refused),
        (413, "-", Some("body_too_large"), true, Answered::Unknown),
    ] {
        let told = Answered::new(Some(status), flags, details, met);
        assert_eq!(told, wanted, "{status} {flags} {details:?}");
    }
}

#[test]
fn addresses_are_of_any_spelling() {
    for (text, wanted) in [
        ("192.0.2.1", Some("192.0.2.1/32")),
        ("192.0.2.1:80", Some("192.0.2.1/32")),
        ("::ffff:192.0.2.1", Some("192.0.2.1/32")),
        ("[2001:db8::1]:80", Some("2001:db8::1/128")),
        ("[2001:db8::1]", Some("2001:db8::1/128")),
        ("203.0.113.1, 192.0.2.1", Some("192.0.2.1/32")),
        ("unix:", None),
        ("", None),
    ] {
        let read = address(text).map(|ip| IpNet::from(ip).to_string());
        assert_eq!(read.as_deref(), wanted, "{text}");
    }
}
