//! TLS towards clients and towards upstreams.

use std::sync::Arc;

use limiter_daemon::l7::metrics::Closed;
use limiter_daemon::policy::plan::{Hostname, Plan, Tls, TlsVersion, UpstreamTls};

use super::certificates::{Authority, clients_of, is_for, server, tls};
use super::client::{Client, get, tcp};
use super::http2::{H2Client, H2Upstream, request};
use super::plans::{backend, endpoint, listener, plan, route, rule};
use super::stage::{Stage, address, eventually};
use super::upstream::Upstream;

/// [`plan`] with TLS.
fn secured(bind: std::net::SocketAddr, upstream: std::net::SocketAddr, tls: Tls) -> Plan {
    let mut plan = plan(bind, upstream);
    plan.listeners[0].tls = Some(Arc::new(tls));
    plan
}

#[test]
fn each_name_gets_its_certificate() {
    let (bind, upstream, authority) = (address(), Upstream::echo(), Authority::new());
    let certificates = ["a.example", "*.b.example"].map(|name| authority.certificate(&[name]));
    let _stage = Stage::new(&secured(bind, upstream.address, tls(certificates.to_vec())));
    for name in ["a.example", "x.b.example"] {
        let mut client = authority.connect(bind, name, None).unwrap();
        assert!(is_for(&client, name));
        client.send(format!("GET / HTTP/1.1\r\nhost: {name}\r\n\r\n"));
        assert_eq!(client.answer().unwrap().status, 200);
        assert_eq!(upstream.last().header("x-forwarded-proto"), "https");
    }
    // The first of all, which this client does not take.
    assert!(authority.connect(bind, "other.example", None).is_err());
}

#[test]
fn listeners_on_one_address_are_told_apart_by_name() {
    let (bind, upstream, authority) = (address(), Upstream::echo(), Authority::new());
    let mut plan = plan(bind, upstream.address);
    plan.listeners.clear();
    for name in ["a.example", "b.example"] {
        let mut one = listener(bind);
        one.name = name.into();
        one.hostname = Hostname::Exact(name.into());
        one.tls = Some(Arc::new(tls(vec![authority.certificate(&[name])])));
        one.routes = vec![route(name, Hostname::Any, vec![rule("")])];
        plan.listeners.push(one);
    }
    let stage = Stage::new(&plan);
    let mut client = authority.connect(bind, "a.example", None).unwrap();
    for (host, status) in [
        ("a.example", 200),
        ("b.example", 421),
        ("c.example", 404),
        ("A.Example:9", 200),
    ] {
        client.send(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        assert_eq!(client.answer().unwrap().status, status, "{host}");
    }
    assert!(authority.connect(bind, "c.example", None).is_err());
    eventually(|| (stage.counters.closed(Closed::Handshake) == 1).then_some(()));
}

#[test]
fn http2_is_agreed_on_and_versions_are_bounded() {
    let (bind, upstream, authority) = (address(), Upstream::echo(), Authority::new());
    let mut old = tls(vec![authority.certificate(&["a.example"])]);
    let config = authority.client(&["h2"], None);
    let stage = Stage::new(&secured(bind, upstream.address, old.clone()));
    let mut client = H2Client::over_tls(bind, "a.example", config);
    let answer = client.send(request("GET", "https://a.example/x", &[], ""));
    assert_eq!(answer.status, 200);
    old.max_version = TlsVersion::V1_2;
    stage.reload(&secured(bind, upstream.address, old));
    let client = authority.connect(bind, "a.example", None).unwrap();
    let version = client.stream.get_ref().conn.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_2));
}

#[test]
fn certificates_change_and_connections_stay() {
    let (bind, upstream) = (address(), Upstream::echo());
    let (before, after) = (Authority::new(), Authority::new());
    let of = |authority: &Authority| tls(vec![authority.certificate(&["a.example"])]);
    let stage = Stage::new(&secured(bind, upstream.address, of(&before)));
    let mut client = before.connect(bind, "a.example", None).unwrap();
    let get = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";
    client.send(get);
    assert_eq!(client.answer().unwrap().status, 200);
    stage.reload(&secured(bind, upstream.address, of(&after)));
    client.send(get);
    assert_eq!(client.answer().unwrap().status, 200);
    assert!(before.connect(bind, "a.example", None).is_err());
    let mut client = after.connect(bind, "a.example", None).unwrap();
    client.send(get);
    assert_eq!(client.answer().unwrap().status, 200);
    // Upstreams that did not change keep their connections.
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn clients_show_certificates_where_they_must() {
    let (upstream, authority, stranger) = (Upstream::echo(), Authority::new(), Authority::new());
    let own = authority.certificate(&["me"]);
    let theirs = stranger.certificate(&["me"]);
    for optional in [false, true] {
        let bind = address();
        let mut tls = tls(vec![authority.certificate(&["a.example"])]);
        tls.client_certificates = Some(clients_of(&authority, optional));
        let _stage = Stage::new(&secured(bind, upstream.address, tls));
        for (certificate, wanted) in [(Some(&own), true), (None, optional), (Some(&theirs), false)]
        {
            // With TLS 1.3, a client learns only afterwards that it was refused.
            let served =
                authority
                    .connect(bind, "a.example", certificate)
                    .is_ok_and(|mut client| {
                        client.try_send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n");
                        client.answer().is_some_and(|answer| answer.status == 200)
                    });
            assert_eq!(served, wanted, "{optional} {}", certificate.is_some());
        }
    }
}

#[test]
fn handshakes_have_a_time() {
    let (bind, upstream, authority) = (address(), Upstream::echo(), Authority::new());
    let mut plan = secured(
        bind,
        upstream.address,
        tls(vec![authority.certificate(&["a.example"])]),
    );
    let mut settings = (*plan.listeners[0].client).clone();
    settings.timeouts.handshake = std::time::Duration::from_millis(50);
    plan.listeners[0].client = Arc::new(settings);
    let stage = Stage::new(&plan);
    let mut silent = Client::on(tcp(bind));
    assert!(silent.is_closed());
    let mut clear = Client::on(tcp(bind));
    clear.try_send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    let mut rest = Vec::new();
    let _reset = std::io::Read::read_to_end(&mut clear.stream, &mut rest);
    assert!(!rest.starts_with(b"HTTP"));
    eventually(|| (stage.counters.closed(Closed::Handshake) == 2).then_some(()));
}

#[test]
fn upstreams_are_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let certificate = authority.certificate(&["up.example"]);
    let h2 = H2Upstream::new(Some(server(&certificate, &["h2"])));
    let upstream_tls = |name: &str, authority: &Authority| UpstreamTls {
        server_name: Some(name.into()),
        authorities: vec![authority.pem()],
        insecure: false,
    };
    let mut insecure = upstream_tls("other.example", &stranger);
    insecure.insecure = true;
    for (tls, wanted) in [
        (upstream_tls("up.example", &authority), 200),
        (upstream_tls("other.example", &authority), 503),
        (upstream_tls("up.example", &stranger), 503),
        (insecure, 200),
    ] {
        let bind = address();
        let mut plan = plan(bind, h2.address);
        plan.backends = vec![backend(vec![endpoint(h2.address)])];
        plan.backends[0].tls = Some(tls.clone());
        let _stage = Stage::new(&plan);
        let answer = get(bind, "/x", "");
        assert_eq!(answer.status, wanted, "{tls:?}");
        if wanted == 200 {
            // The endpoint took HTTP/2 by ALPN.
            assert_eq!(answer.header("x-target"), "GET https://h/x");
        }
    }
}
