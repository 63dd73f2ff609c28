//! What counts against an address, and what does not.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result, ensure};
use tests::daemon::eventually;
use tests::tls::Authority;

use crate::support::{
    CLEAR, Gateway, Peer, Setup, TLS, field, for_clients, request, tls, until_closed,
};

const ALL: &str = "events: [{type: RateLimited}, {type: MalformedRequest}, \
    {type: TlsHandshakeFailed}, {type: SlowClient}, {type: UpstreamStatus, statuses: [401, 403]}], \
    threshold: {maxTokens: 2, tokensPerFill: 1, fillInterval: 1h}, blockFor: 10m, scope: Node";
/// Offences that are one too many.
const TOO_MANY: usize = 3;
/// Bounds on time that a test can wait for.
const IMPATIENT: &str =
    "  timeout: {http: {requestReceivedTimeout: 300ms, streamIdleTimeout: 400ms}}
  limiterd: {headTimeout: 300ms, handshakeTimeout: 400ms}";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

const CLOSED: &str = "limiterd_downstream_cx_closed_total";

/// Something that a client does once, on a connection of its own that is over afterwards.
type Deed = fn(&Peer<'_>) -> Result<()>;

/// Sends this, and waits until the connection is closed.
fn says(peer: &Peer<'_>, port: u16, pieces: &[&[u8]]) -> Result<()> {
    let mut stream = peer.tcp(port)?;
    for piece in pieces {
        stream.write_all(piece)?;
    }
    until_closed(&stream)
}

/// Shakes hands as a client of this authority.
fn shakes_hands(peer: &Peer<'_>, authority: &Authority) -> Result<()> {
    let mut stream = peer.tcp(TLS)?;
    let mut connection = tls(authority.client(&[])?)?;
    ensure!(
        connection.complete_io(&mut stream).is_err(),
        "it is trusted"
    );
    // The refusal itself may still have to be sent.
    while connection.wants_write() {
        connection.write_tls(&mut stream)?;
    }
    until_closed(&stream)
}

/// What an offence is called, and ways to commit it.
const OFFENCES: &[(&str, &[(&str, Deed)])] = &[
    (
        "MalformedRequest",
        &[
            ("a header without a colon", |peer| {
                says(
                    peer,
                    CLEAR,
                    &[b"GET / HTTP/1.1\r\nhost: open.test\r\nno colon\r\n\r\n"],
                )
            }),
            ("no HTTP", |peer| {
                says(peer, CLEAR, &[b"\x16\x03\x01\x00\xff\x00\r\n\r\n"])
            }),
            ("two lengths", |peer| {
                let lengths = "content-length: 1\r\ncontent-length: 2\r\nconnection: close\r\n";
                says(
                    peer,
                    CLEAR,
                    &[request("open.test", "/", lengths).as_bytes()],
                )
            }),
            ("no host", |peer| {
                says(
                    peer,
                    CLEAR,
                    &[b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n"],
                )
            }),
            ("a head too large", |peer| {
                let mut stream = peer.tcp(CLEAR)?;
                let long = request(
                    "open.test",
                    "/",
                    &format!("x: {}\r\n", "x".repeat(61 << 10)),
                );
                // It may be closed before all of it is taken.
                let _taken = stream.write_all(long.as_bytes());
                until_closed(&stream)
            }),
            ("a chunk that is none", |peer| {
                let chunked = "transfer-encoding: chunked\r\nconnection: close\r\n";
                let head = request("open.test", "/", chunked).replace("GET", "POST");
                // In one piece: a body is looked at until the upstream has answered.
                let sent = format!("{head}3\r\nabc\r\nzz\r\n\r\n");
                says(peer, CLEAR, &[sent.as_bytes()])
            }),
            ("HTTP/2 without SETTINGS", |peer| {
                says(peer, CLEAR, &[PREFACE, &[0, 0, 0, 6, 0, 0, 0, 0, 0]])
            }),
            ("half the preface of HTTP/2", |peer| {
                says(peer, CLEAR, &[b"PRI * HTTP/1.1\r\n\r\n"])
            }),
            ("SETTINGS on a stream", |peer| {
                says(
                    peer,
                    CLEAR,
                    &[PREFACE, SETTINGS, &[0, 0, 0, 4, 0, 0, 0, 0, 1]],
                )
            }),
            ("a frame too large", |peer| {
                says(
                    peer,
                    CLEAR,
                    &[PREFACE, SETTINGS, &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]],
                )
            }),
            ("a header block that is none", |peer| {
                let headers = [0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
                says(peer, CLEAR, &[PREFACE, SETTINGS, &headers])
            }),
            ("the same within TLS", |peer| {
                let mut connection = peer.secure()?;
                connection.send("GET / HTTP/1.1\r\nno colon\r\n\r\n")?;
                let answer = connection.answer()?.0;
                ensure!(answer == 400, "{answer}");
                Ok(())
            }),
        ],
    ),
    (
        "TlsHandshakeFailed",
        &[
            ("no hello", |peer| {
                says(peer, TLS, &[b"GET / HTTP/1.1\r\nhost: open.test\r\n\r\n"])
            }),
            ("a hello of nothing", |peer| {
                says(peer, TLS, &[&[22, 3, 1, 0, 4, 1, 0, 0, 0]])
            }),
            ("an alert", |peer| {
                says(peer, TLS, &[&[21, 3, 3, 0, 2, 2, 40]])
            }),
            ("the certificate refused", |peer| {
                shakes_hands(peer, &Authority::new()?)
            }),
        ],
    ),
    (
        "SlowClient",
        &[
            ("half a request line", |peer| {
                says(peer, CLEAR, &[b"GET / HT"])
            }),
            ("a letter", |peer| says(peer, CLEAR, &[b"P"])),
            ("half a head", |peer| {
                says(peer, CLEAR, &[b"GET / HTTP/1.1\r\nhost: open.test\r\n"])
            }),
            ("half of HTTP/2's preface", |peer| {
                says(peer, CLEAR, &[&PREFACE[..10]])
            }),
            ("half a hello", |peer| {
                says(peer, TLS, &[&[22, 3, 1, 2, 0, 1, 0]])
            }),
            ("half a head within TLS", |peer| {
                let mut connection = peer.secure()?;
                connection.send("GET / HTTP/1.1\r\n")?;
                ensure!(
                    connection
                        .head()?
                        .is_some_and(|head| head.contains(" 408 ")),
                    "no 408"
                );
                Ok(())
            }),
            ("half a body", |peer| {
                let mut stream = peer.tcp(CLEAR)?;
                stream.write_all(
                    b"POST / HTTP/1.1\r\nhost: open.test\r\ncontent-length: 9\r\n\r\nabc",
                )?;
                until_closed(&stream)
            }),
        ],
    ),
    (
        "UpstreamStatus",
        &[
            ("401", |peer| {
                ensure!(peer.get("open.test", "/status/401")? == 401, "no 401");
                Ok(())
            }),
            ("403 within TLS", |peer| {
                let mut connection = peer.secure()?;
                connection.send(request("open.test", "/status/403", ""))?;
                ensure!(connection.answer()?.0 == 403, "no 403");
                Ok(())
            }),
        ],
    ),
];

/// What a client may do as often as it likes.
const INNOCENT: &[(&str, Deed)] = &[
    ("comes and goes", |peer| peer.tcp(CLEAR).map(drop)),
    ("comes to TLS and goes", |peer| peer.tcp(TLS).map(drop)),
    ("goes in the middle of a head", |peer| {
        Ok(peer.tcp(CLEAR)?.write_all(b"GET / HTTP/1.1\r\n")?)
    }),
    ("goes in the middle of a hello", |peer| {
        Ok(peer.tcp(TLS)?.write_all(&[22, 3, 1, 2, 0, 1, 0])?)
    }),
    ("connects ahead of need", |peer| says(peer, CLEAR, &[])),
    ("connects to TLS ahead of need", |peer| says(peer, TLS, &[])),
    ("shakes hands ahead of need", |peer| {
        until_closed(peer.secure()?.get_ref().get_ref())
    }),
    ("keeps a connection", |peer| {
        let mut connection = peer.clear()?;
        connection.send(request("open.test", "/", ""))?;
        ensure!(connection.answer()?.0 == 200, "not served");
        Ok(())
    }),
    ("is answered with what does not count", |peer| {
        for status in [400_u16, 404, 408, 429, 500, 503] {
            let seen = peer.get("open.test", &format!("/status/{status}"))?;
            ensure!(seen == status, "{seen}");
        }
        Ok(())
    }),
    ("asks for what is not there", |peer| {
        ensure!(peer.get("nobody.test", "/")? == 404, "it is there");
        Ok(())
    }),
    ("is over a limit in shadow mode", |peer| {
        ensure!(
            peer.statuses("shadow.test", "/", 7)? == [200; 7],
            "it is not in shadow mode"
        );
        Ok(())
    }),
    ("breaks off an answer", |peer| {
        let mut stream = peer.tcp(CLEAR)?;
        stream.write_all(request("open.test", "/big", "").as_bytes())?;
        Ok(stream.read_exact(&mut [0; 100])?)
    }),
];

fn start() -> Result<Gateway> {
    Gateway::start(&Setup {
        escalation: ALL,
        more: &["clear", "tls"]
            .map(|listener| for_clients(listener, IMPATIENT))
            .concat(),
        ..Setup::default()
    })
}

#[test]
fn each_offence_gets_somebody_sentenced() -> Result<()> {
    let gateway = start()?;
    let mut last = 9;
    for (offence, ways) in OFFENCES {
        for (way, commit) in *ways {
            last += 1;
            let peer = gateway.neighbour(last)?;
            for time in 1..=TOO_MANY {
                // Each counts once.
                let blocked = gateway.blocked(peer.address)?;
                ensure!(blocked.is_none(), "{way}: too early: {blocked:?}");
                // The last time the connection may be ended before its answer.
                let committed = commit(&peer);
                ensure!(
                    time == TOO_MANY || committed.is_ok(),
                    "{way}: {committed:?}"
                );
            }
            let told = gateway
                .until_blocked(peer.address)
                .with_context(|| (*way).to_owned())?;
            let why = field(&told, "why");
            assert!(
                why.starts_with(&format!("{TOO_MANY} {offence} in ")),
                "{way}: {told}"
            );
            assert_eq!(
                (field(&told, "rule"), field(&told, "scope")),
                ("default/edge", "node")
            );
            assert!(peer.is_dropped(CLEAR)?, "{way}");
        }
    }
    // Answers that are not taken: only the daemon knows when it has had enough.
    let peer = gateway.neighbour(last + 1)?;
    let stalled =
        || Ok::<_, anyhow::Error>(gateway.metrics()?.sum(CLOSED, &[("reason", "stalled")]));
    let before = stalled()?;
    for time in 1..=TOO_MANY {
        let mut connection = peer.clear()?;
        connection.send(request("open.test", "/big", ""))?;
        eventually("the connection to be closed", || {
            let closed = stalled()? - before;
            Ok((closed == time as f64).then_some(()))
        })?;
    }
    let told = gateway.until_blocked(peer.address)?;
    assert!(
        field(&told, "why").starts_with("3 SlowClient in "),
        "{told}"
    );

    // Requests over a limit, on one connection after the other.
    let peer = gateway.first();
    let statuses = peer.statuses("limited.test", "/", 5 + TOO_MANY - 1)?;
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
    let _perhaps_cut_off = peer.get("limited.test", "/");
    let told = gateway.until_blocked(peer.address)?;
    assert!(
        field(&told, "why").starts_with("3 RateLimited in "),
        "{told}"
    );
    assert!(peer.is_dropped(TLS)?);
    Ok(())
}

#[test]
fn what_is_no_offence_does_not_count() -> Result<()> {
    let gateway = start()?;
    for (last, (what, harmless)) in (10..).zip(INNOCENT) {
        let peer = gateway.neighbour(last)?;
        for _ in 0..=TOO_MANY {
            harmless(&peer).with_context(|| (*what).to_owned())?;
        }
    }
    // Each has all that is tolerated still before it, and what is counted then is nothing else.
    for (last, (what, _)) in (10..).zip(INNOCENT) {
        let peer = gateway.known(last);
        let statuses = peer.statuses("open.test", "/status/401", TOO_MANY - 1)?;
        assert_eq!(statuses, [401; TOO_MANY - 1], "{what}");
        let _perhaps_cut_off = peer.get("open.test", "/status/401");
        let told = gateway.until_blocked(peer.address)?;
        let why = field(&told, "why");
        assert!(why.starts_with("3 UpstreamStatus in "), "{what}: {told}");
    }
    Ok(())
}
