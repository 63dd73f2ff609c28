//! Who may what, as a table.

use http::HeaderValue;
use http::header::HeaderName;

use super::*;
use crate::policy::plan::{AdminClient, AdminToken};

const READER: &str = "0123456789abcdef-reader";
const WRITER: &str = "0123456789abcdef-writer";

fn token(name: &str, access: Access, tokens: &[&str]) -> AdminToken {
    AdminToken {
        name: name.to_owned(),
        access,
        digests: tokens.iter().map(|token| TokenDigest::of(token)).collect(),
    }
}

fn guarded() -> AdminAccess {
    let client = |name: &str, access| AdminClient {
        subject_alt_name: name.to_owned(),
        access,
    };
    AdminAccess {
        tokens: vec![
            token("prometheus", Access::Read, &[READER]),
            token("oncall", Access::Write, &["the-one-before-it-00", WRITER]),
        ],
        clients: vec![
            client("metrics.example", Access::Read),
            client("spiffe://example/oncall", Access::Write),
        ],
        ..AdminAccess::default()
    }
}

fn tcp(of: &str, here: &str) -> Connection {
    Connection {
        peer: Peer::Address {
            of: of.parse().unwrap(),
            here: here.parse().unwrap(),
        },
        certificate: None,
    }
}

fn local() -> Connection {
    tcp("127.0.0.1:40000", "127.0.0.1:9901")
}

fn remote() -> Connection {
    tcp("192.0.2.7:40000", "192.0.2.1:9901")
}

fn with_certificate(names: &[&str]) -> Connection {
    Connection {
        certificate: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..remote()
    }
}

type Headers<'a> = &'a [(&'static str, &'a str)];

fn ask(
    rules: &AdminAccess,
    connection: &Connection,
    request: &str,
    headers: Headers<'_>,
) -> Result<Granted, Denied> {
    let (method, target) = request.split_once(' ').unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).unwrap();
        map.append(HeaderName::from_static(name), value);
    }
    let head = Head {
        method: &method.parse().unwrap(),
        uri: &target.parse().unwrap(),
        headers: &map,
    };
    decide(rules, connection, head)
}

#[track_caller]
fn granted(
    rules: &AdminAccess,
    connection: &Connection,
    request: &str,
    headers: Headers<'_>,
    who: &str,
) {
    let granted = ask(rules, connection, request, headers).unwrap();
    assert_eq!(format!("{} {}", granted.who.by(), granted.who.name()), who);
}

#[track_caller]
fn denied(
    rules: &AdminAccess,
    connection: &Connection,
    request: &str,
    headers: Headers<'_>,
    wanted: (Reason, u16, &str),
) {
    let Denied { who, reason } = ask(rules, connection, request, headers).unwrap_err();
    let who = format!("{} {}", who.by(), who.name());
    assert_eq!(
        (reason, reason.status().as_u16(), who.as_str()),
        wanted,
        "{request}"
    );
}

#[test]
fn what_changes_nothing_is_known_and_all_else_takes_the_most() {
    let of = |method: Method, path| Need::of(&method, path);
    for path in ["/", "/dashboard", "/live", "/ready"] {
        assert_eq!(of(Method::GET, path), Need::Nothing);
        assert_eq!(of(Method::POST, path), Need::Write);
    }
    for path in [
        "/metrics",
        "/config",
        "/runtime_modify",
        "/audit",
        "/no/such",
    ] {
        assert_eq!(of(Method::GET, path), Need::Read);
        assert_eq!(of(Method::PUT, path), Need::Write);
    }
    assert_eq!(of(Method::POST, "/explain"), Need::Read);
    assert_eq!(of(Method::DELETE, "/explain"), Need::Write);
    assert_eq!(of(Method::POST, "/explain/"), Need::Write);
    assert_eq!(of(Method::POST, "/drain_listeners"), Need::Write);
    assert_eq!(of(Method::DELETE, "/blocks"), Need::Write);
}

#[test]
fn without_tokens_the_place_decides() {
    let open = AdminAccess::default();
    granted(&open, &local(), "POST /blocks", &[], "address 127.0.0.1");
    let v6 = tcp("[::1]:4", "[::1]:5");
    granted(&open, &v6, "DELETE /blocks", &[], "address ::1");
    let mapped = tcp("[::ffff:127.0.0.1]:4", "[::ffff:127.0.0.1]:5");
    granted(&open, &mapped, "POST /blocks", &[], "address 127.0.0.1");
    granted(&open, &remote(), "GET /metrics", &[], "address 192.0.2.7");
    let not = (Reason::NotFromThere, 403, "address 192.0.2.7");
    denied(&open, &remote(), "POST /blocks", &[], not);
    // A token that nobody asks for does no harm.
    let bearer = [("authorization", "Bearer none")];
    granted(&open, &local(), "POST /x", &bearer, "address 127.0.0.1");

    // Whoever is on the wire may reach a loopback address, or come from one, and never both.
    let routed = tcp("192.0.2.7:4", "127.0.0.1:9901");
    denied(&open, &routed, "POST /blocks", &[], not);
    let forged = tcp("127.0.0.1:4", "192.0.2.1:9901");
    let not = (Reason::NotFromThere, 403, "address 127.0.0.1");
    denied(&open, &forged, "POST /blocks", &[], not);
}

#[test]
fn by_the_unix_socket_everything_is_allowed_but_to_pages() {
    let unix = Connection {
        peer: Peer::User(1000),
        certificate: None,
    };
    for rules in [AdminAccess::default(), guarded()] {
        let host = [("host", "anything.example")];
        granted(&rules, &unix, "POST /blocks", &host, "uid 1000");
        let page = [("origin", "http://a.example")];
        let not = (Reason::WebPage, 403, "uid 1000");
        denied(&rules, &unix, "POST /blocks", &page, not);
    }
}

#[test]
fn tokens_say_who_it_is_and_what_he_may() {
    let rules = guarded();
    let show = |token: &str| format!("Bearer {token}");
    let (reader, writer) = (show(READER), show(WRITER));
    let reader = [("authorization", reader.as_str())];
    let writer = [("authorization", writer.as_str())];
    for connection in [local(), remote()] {
        granted(
            &rules,
            &connection,
            "GET /config",
            &reader,
            "token prometheus",
        );
        let not = (Reason::ReadOnly, 403, "token prometheus");
        denied(&rules, &connection, "POST /blocks", &reader, not);
        granted(&rules, &connection, "POST /blocks", &writer, "token oncall");
    }
    let before = [("authorization", "bearer   the-one-before-it-00 ")];
    granted(&rules, &remote(), "DELETE /blocks", &before, "token oncall");
    // A token is shown by nobody's browser on its own, so the name does not matter.
    let named = [writer[0], ("host", "gateway.example")];
    granted(&rules, &remote(), "GET /config", &named, "token oncall");

    let nobody = (Reason::Unknown, 401, "address 127.0.0.1");
    denied(&rules, &local(), "GET /metrics", &[], nobody);
    denied(&rules, &local(), "POST /blocks", &[], nobody);
    let wrong = (Reason::WrongToken, 401, "address 192.0.2.7");
    for value in [
        "Bearer 0123456789abcdef-reade",
        "Bearer 0123456789abcdef-readers",
        "Bearer ",
        "Bearer",
        "Basic b25jYWxsOg==",
        "0123456789abcdef-reader",
    ] {
        let headers = [("authorization", value)];
        denied(&rules, &remote(), "GET /metrics", &headers, wrong);
    }
    let two = [reader[0], writer[0]];
    denied(&rules, &remote(), "GET /metrics", &two, wrong);
    // A wrong token is not made good by a certificate.
    let both = with_certificate(&["metrics.example"]);
    let headers = [("authorization", "Bearer none")];
    denied(&rules, &both, "GET /metrics", &headers, wrong);
}

#[test]
fn certificates_say_who_it_is_by_their_names() {
    let rules = guarded();
    let metrics = with_certificate(&["other.example", "metrics.example"]);
    let named = "certificate metrics.example";
    granted(&rules, &metrics, "GET /metrics", &[], named);
    denied(
        &rules,
        &metrics,
        "POST /blocks",
        &[],
        (Reason::ReadOnly, 403, named),
    );
    let both = with_certificate(&["metrics.example", "spiffe://example/oncall"]);
    granted(
        &rules,
        &both,
        "POST /blocks",
        &[],
        "certificate spiffe://example/oncall",
    );
    let wrong = |who| (Reason::WrongCertificate, 403, who);
    let other = with_certificate(&["sub.metrics.example"]);
    denied(
        &rules,
        &other,
        "GET /config",
        &[],
        wrong("certificate sub.metrics.example"),
    );
    denied(
        &rules,
        &with_certificate(&[]),
        "GET /config",
        &[],
        wrong("address 192.0.2.7"),
    );
}

#[test]
fn probes_and_the_page_are_for_everybody() {
    let rules = guarded();
    for path in ["GET /live", "GET /ready", "HEAD /live", "GET /"] {
        let granted = ask(&rules, &remote(), path, &[("host", "a.example")]).unwrap();
        assert!(!granted.reads, "{path}");
    }
    let open = AdminAccess::default();
    let known = ask(&open, &remote(), "GET /ready", &[]).unwrap();
    assert!(known.reads);
    // What an address behind a foreign name tells is for everybody, too.
    let foreign = ask(&open, &local(), "GET /ready", &[("host", "a.example")]).unwrap();
    assert!(!foreign.reads);
}

#[test]
fn a_host_that_a_page_could_have_is_refused() {
    let open = AdminAccess {
        hostnames: vec!["gw.example".to_owned()],
        ..AdminAccess::default()
    };
    for host in [
        "127.0.0.1:9901",
        "127.0.0.1",
        "[::1]:9901",
        "192.0.2.1:1",
        "localhost:9901",
        "LOCALHOST",
        "localhost.",
        "gw.example:9901",
        "GW.example.",
    ] {
        let headers = [("host", host)];
        granted(
            &open,
            &local(),
            "POST /blocks",
            &headers,
            "address 127.0.0.1",
        );
    }
    for host in [
        "evil.example:9901",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "gw.example.evil",
        "xgw.example",
        "a b",
        "",
    ] {
        let not = (Reason::Host, 403, "address 127.0.0.1");
        let headers = [("host", host)];
        denied(&open, &local(), "GET /config", &headers, not);
        denied(&open, &local(), "POST /blocks", &headers, not);
    }
    let not = (Reason::Host, 403, "address 127.0.0.1");
    let two = [("host", "127.0.0.1"), ("host", "evil.example")];
    denied(&open, &local(), "GET /config", &two, not);
    let absolute = "GET http://evil.example/config";
    denied(&open, &local(), absolute, &[("host", "127.0.0.1")], not);
}

#[test]
fn pages_change_nothing_whoever_looks_at_them() {
    let rules = guarded();
    let bearer = format!("Bearer {WRITER}");
    for page in [
        ("origin", "http://127.0.0.1:9901"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-origin"),
    ] {
        let not = (Reason::WebPage, 403, "address 127.0.0.1");
        let open = AdminAccess::default();
        denied(&open, &local(), "POST /blocks", &[page], not);
        granted(&open, &local(), "GET /config", &[page], "address 127.0.0.1");
        let not = (Reason::WebPage, 403, "token oncall");
        let headers = [page, ("authorization", bearer.as_str())];
        denied(&rules, &remote(), "POST /blocks", &headers, not);
    }
    let typed = [("sec-fetch-site", "none")];
    granted(
        &AdminAccess::default(),
        &local(),
        "POST /x",
        &typed,
        "address 127.0.0.1",
    );
}
