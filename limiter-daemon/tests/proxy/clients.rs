//! Who asks: addresses, PROXY protocol, and what upstreams are told.

use std::time::Duration;

use limiter_daemon::l7::metrics::Closed;
use limiter_daemon::policy::plan::{ClientAddress, ProxyProtocol, RequestIdPolicy};

use super::client::{Client, get};
use super::plans::{plan, with_settings};
use super::stage::{Stage, address, eventually};
use super::upstream::Upstream;

#[test]
fn what_strangers_say_of_others_is_not_passed_on() {
    let (bind, upstream) = (address(), Upstream::echo());
    let _stage = Stage::new(&plan(bind, upstream.address));
    let lies = "x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\n\
        forwarded: for=9.9.9.9\r\nx-envoy-internal: true\r\nx-envoy-retry-on: 5xx\r\n\
        x-request-id: mine\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
        tracestate: a=1\r\n";
    get(bind, "/", lies);
    let seen = upstream.last();
    for (name, wanted) in [
        ("x-forwarded-for", "9.9.9.9, 127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "h"),
        ("forwarded", ""),
        ("x-envoy-internal", ""),
        ("x-envoy-retry-on", ""),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("tracestate", "a=1"),
        ("host", "h"),
    ] {
        assert_eq!(seen.header(name), wanted, "{name}");
    }
    let id = seen.header("x-request-id");
    assert!(id.len() == 36 && id != "mine", "{id}");
}

#[test]
fn the_word_of_trusted_proxies_counts() {
    let (bind, upstream) = (address(), Upstream::echo());
    let trusted = vec![
        "127.0.0.0/8".parse().unwrap(),
        "10.0.0.0/8".parse().unwrap(),
    ];
    let stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
        settings.client_address = ClientAddress::TrustedCidrs(trusted);
        settings.request_id = RequestIdPolicy::Preserve;
    }));
    let said = "x-forwarded-for: 6.6.6.6, 192.0.2.7, 10.1.1.1\r\nx-forwarded-proto: https\r\n\
        x-forwarded-host: outer\r\nforwarded: for=192.0.2.7\r\nx-request-id: theirs\r\n";
    get(bind, "/", said);
    let seen = upstream.last();
    for (name, wanted) in [
        ("x-forwarded-for", "6.6.6.6, 192.0.2.7, 10.1.1.1, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "outer"),
        (
            "forwarded",
            "for=192.0.2.7, for=127.0.0.1;proto=http;host=\"h\"",
        ),
        ("x-request-id", "theirs"),
    ] {
        assert_eq!(seen.header(name), wanted, "{name}");
    }
    assert_eq!(stage.log.lines(1)[0].client, "192.0.2.7");
}

#[test]
fn a_required_header_states_the_address() {
    let (bind, upstream) = (address(), Upstream::echo());
    let stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
        settings.client_address = ClientAddress::Header {
            name: "x-real-ip".parse().unwrap(),
            required: true,
        };
    }));
    assert_eq!(get(bind, "/", "").status, 403);
    assert_eq!(get(bind, "/", "x-real-ip: me\r\n").status, 403);
    assert_eq!(get(bind, "/", "x-real-ip: 2001:db8::1\r\n").status, 200);
    let clients: Vec<_> = stage
        .log
        .lines(3)
        .into_iter()
        .map(|line| line.client)
        .collect();
    assert_eq!(clients[2], "2001:db8::1");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn proxies_state_their_clients() {
    let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 5000 80\r\n".to_vec();
    let v2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[192, 0, 2, 1, 198, 51, 100, 1, 19, 136, 0, 80],
    ]
    .concat();
    for (mode, bare) in [
        (ProxyProtocol::Required, None),
        (ProxyProtocol::Optional, Some("127.0.0.1")),
    ] {
        let (bind, upstream) = (address(), Upstream::echo());
        let stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
            settings.proxy_protocol = mode;
            settings.timeouts.handshake = Duration::from_millis(200);
        }));
        for (header, wanted) in [
            (v1.as_slice(), Some("192.0.2.1")),
            (&v2, Some("192.0.2.1")),
            (b"", bare),
        ] {
            let mut client = Client::connect(bind);
            client.try_send([header, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n".as_slice()].concat());
            let answer = client.answer().map(|answer| answer.status);
            assert_eq!(answer, wanted.map(|_| 200));
            if let Some(wanted) = wanted {
                assert_eq!(upstream.last().header("x-forwarded-for"), wanted);
            }
        }
        // Not a byte comes, or not enough of them.
        let mut slow = Client::connect(bind);
        slow.send(&v1[..10]);
        assert!(slow.is_closed());
        let wanted = if bare.is_some() { 1 } else { 2 };
        eventually(|| (stage.counters.closed(Closed::ProxyProtocol) == wanted).then_some(()));
    }
    let (bind, upstream) = (address(), Upstream::echo());
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut client = Client::connect(bind);
    client.try_send([v1.as_slice(), b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"].concat());
    assert_eq!(client.answer().map(|answer| answer.status), Some(400));
}
