//! HTTP/2 frame by frame: what RFC 9113 says an endpoint MUST do with what a peer sends.

use std::net::SocketAddr;

use limiter_daemon::policy::plan::InvalidMessage;

use super::frames::*;
use super::plans::with_settings;
use super::stage::{Stage, address};
use super::upstream::Upstream;

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What must come of it.
#[derive(Clone, Copy, Debug)]
enum Must {
    /// A connection error: GOAWAY with one of these codes, or closing.
    Goaway(&'static [u32]),
    /// A stream error with one of these codes, or anything that ends the connection.
    Reset(&'static [u32]),
    /// An answer with this status.
    Answer(u16),
    /// Nothing: the connection goes on.
    Ignore,
}
use Must::{Answer, Goaway, Ignore, Reset};

type Case = (&'static str, &'static str, Vec<u8>, Must);

fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &get(&[]))
}

fn whole(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
}

fn fields(pairs: &[(&str, &str)]) -> Vec<u8> {
    whole(1, &block(pairs))
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let max_stream = (1 << 31) - 1;
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let posted = |more: &[(&str, &str)]| block(&[&[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "h")], more].concat());
    vec![
        // Frames.
        ("4.1", "unknown types are ignored", frame(0x16, 0, 0, b"x"), Ignore),
        ("4.1", "unknown flags are ignored", frame(PING, 0xfe, 0, b"12345678"), Ignore),
        ("4.2", "DATA above the frame size", [open(1), frame(DATA, END_STREAM, 1, &[0; 16385])].concat(), Goaway(&[FRAME_SIZE_ERROR])),
        ("4.2", "HEADERS above the frame size", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0; 16385]), Goaway(&[FRAME_SIZE_ERROR])),
        ("4.3", "a block that does not decode", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Goaway(&[COMPRESSION_ERROR])),
        ("4.3", "an index of nothing", frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xc6"), Goaway(&[COMPRESSION_ERROR])),
        // Header blocks are contiguous.
        ("4.3", "a frame within a block", [frame(HEADERS, END_STREAM, 1, &get(&[])), frame(PING, 0, 0, b"12345678")].concat(), Goaway(&[PROTOCOL_ERROR])),
        ("6.2", "a block of another stream within a block", [frame(HEADERS, END_STREAM, 1, &get(&[])), open(3)].concat(), Goaway(&[PROTOCOL_ERROR])),
        ("6.10", "CONTINUATION for another stream", [frame(HEADERS, END_STREAM, 1, &get(&[])), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(), Goaway(&[PROTOCOL_ERROR])),
        ("6.10", "CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &get(&[])), Goaway(&[PROTOCOL_ERROR])),
        ("6.10", "CONTINUATION behind a whole block", [whole(1, &get(&[])), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(), Goaway(&[PROTOCOL_ERROR])),
        ("6.10", "CONTINUATION on stream 0", [frame(HEADERS, END_STREAM, 1, &get(&[])), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(), Goaway(&[PROTOCOL_ERROR])),
        ("6.10", "a block in pieces", [frame(HEADERS, END_STREAM, 1, &get(&[])[..5]), frame(CONTINUATION, 0, 1, &get(&[])[5..9]), frame(CONTINUATION, END_HEADERS, 1, &get(&[])[9..])].concat(), Answer(200)),
        // Streams.
        ("5.1", "DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x"), Goaway(&[PROTOCOL_ERROR])),
        ("5.1", "RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Goaway(&[PROTOCOL_ERROR])),
        ("5.1", "WINDOW_UPDATE on an idle stream", window(1, 1), Goaway(&[PROTOCOL_ERROR])),
        ("5.1", "DATA on a half-closed stream", [whole(1, &get(&[])), frame(DATA, END_STREAM, 1, b"x")].concat(), Reset(&[STREAM_CLOSED])),
        ("5.1", "HEADERS on a half-closed stream", [whole(1, &get(&[])), whole(1, &get(&[]))].concat(), Reset(&[STREAM_CLOSED, PROTOCOL_ERROR])),
        ("5.1.1", "an even stream", open(2), Goaway(&[PROTOCOL_ERROR])),
        ("5.1.1", "a smaller stream", [open(5), open(3)].concat(), Goaway(&[PROTOCOL_ERROR, STREAM_CLOSED])),
        ("5.1.1", "the greatest stream", whole(max_stream, &get(&[])), Answer(200)),
        ("5.3.1", "a stream that depends on itself", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), Reset(&[PROTOCOL_ERROR])),
        // DATA.
        ("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"x"), Goaway(&[PROTOCOL_ERROR])),
        ("6.1", "more padding than payload", [open(1), frame(DATA, END_STREAM | PADDED, 1, b"\x05abc")].concat(), Goaway(&[PROTOCOL_ERROR])),
        // HEADERS.
        ("6.2", "HEADERS on stream 0", open(0), Goaway(&[PROTOCOL_ERROR])),
        ("6.2", "more padding than block", frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xffabc"), Goaway(&[PROTOCOL_ERROR])),
        // PRIORITY.
        ("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 0]), Goaway(&[PROTOCOL_ERROR])),
        ("6.3", "PRIORITY of another size", frame(PRIORITY, 0, 1, &[0; 4]), Reset(&[FRAME_SIZE_ERROR])),
        // RST_STREAM.
        ("6.4", "RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), Goaway(&[PROTOCOL_ERROR])),
        ("6.4", "RST_STREAM of another size", [open(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), Goaway(&[FRAME_SIZE_ERROR])),
        // SETTINGS.
        ("6.5", "an ACK with a payload", frame(SETTINGS, ACK, 0, &setting(3, 1)), Goaway(&[FRAME_SIZE_ERROR])),
        ("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Goaway(&[PROTOCOL_ERROR])),
        ("6.5", "SETTINGS of another size", frame(SETTINGS, 0, 0, &[0; 5]), Goaway(&[FRAME_SIZE_ERROR])),
        ("6.5.2", "ENABLE_PUSH of 2", frame(SETTINGS, 0, 0, &setting(2, 2)), Goaway(&[PROTOCOL_ERROR])),
        ("6.5.2", "INITIAL_WINDOW_SIZE of 2^31", frame(SETTINGS, 0, 0, &setting(4, 1 << 31)), Goaway(&[FLOW_CONTROL_ERROR])),
        ("6.5.2", "MAX_FRAME_SIZE of 2^14 - 1", frame(SETTINGS, 0, 0, &setting(5, 16383)), Goaway(&[PROTOCOL_ERROR])),
        ("6.5.2", "MAX_FRAME_SIZE of 2^24", frame(SETTINGS, 0, 0, &setting(5, 1 << 24)), Goaway(&[PROTOCOL_ERROR])),
        ("6.5.2", "unknown settings are ignored", frame(SETTINGS, 0, 0, &setting(0xff, 1)), Ignore),
        // PUSH_PROMISE, PING, GOAWAY.
        ("8.4", "PUSH_PROMISE by a client", [open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])].concat(), Goaway(&[PROTOCOL_ERROR])),
        ("6.7", "PING on a stream", frame(PING, 0, 1, b"12345678"), Goaway(&[PROTOCOL_ERROR])),
        ("6.7", "PING of another size", frame(PING, 0, 0, b"1234567"), Goaway(&[FRAME_SIZE_ERROR])),
        ("6.7", "an ACK of no PING", frame(PING, ACK, 0, b"12345678"), Ignore),
        ("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Goaway(&[PROTOCOL_ERROR])),
        // Flow control.
        ("6.9", "an increment of 0 on the connection", window(0, 0), Goaway(&[PROTOCOL_ERROR])),
        ("6.9", "an increment of 0 on a stream", [open(1), window(1, 0)].concat(), Reset(&[PROTOCOL_ERROR])),
        ("6.9", "WINDOW_UPDATE of another size", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Goaway(&[FRAME_SIZE_ERROR])),
        ("6.9.1", "a window above 2^31 - 1 on the connection", window(0, max_stream), Goaway(&[FLOW_CONTROL_ERROR])),
        ("6.9.1", "a window above 2^31 - 1 on a stream", [open(1), window(1, max_stream)].concat(), Reset(&[FLOW_CONTROL_ERROR])),
        ("6.9.1", "DATA above the window", flooded(), Reset(&[FLOW_CONTROL_ERROR])),
        // Malformed messages.
        ("8.2", "a name in capitals", whole(1, &get(&[("X-A", "b")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.1", "LF in a value", whole(1, &get(&[("x", "a\nb: c")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.1", "CR and LF in a value", whole(1, &get(&[("x", "a\r\nhost: evil")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.1", "NUL in a value", whole(1, &get(&[("x", "a\0b")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.1", "a space in a name", whole(1, &get(&[("x y", "a")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.1", "a colon in a name", whole(1, &get(&[("x:y", "a")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.1", "LF in a name", whole(1, &get(&[("x\ny", "a")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.2", "Connection", whole(1, &get(&[("connection", "close")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.2", "Transfer-Encoding", whole(1, &get(&[("transfer-encoding", "chunked")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.2", "Keep-Alive", whole(1, &get(&[("keep-alive", "1")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.2", "Proxy-Connection", whole(1, &get(&[("proxy-connection", "1")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.2", "Upgrade", whole(1, &get(&[("upgrade", "websocket")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.2", "TE other than trailers", whole(1, &get(&[("te", "gzip")])), Reset(&[PROTOCOL_ERROR])),
        ("8.2.2", "TE: trailers", whole(1, &get(&[("te", "trailers")])), Answer(200)),
        ("8.3", "an unknown pseudo-header", whole(1, &get(&[(":x", "y")])), Reset(&[PROTOCOL_ERROR])),
        ("8.3", "a pseudo-header of responses", whole(1, &get(&[(":status", "200")])), Reset(&[PROTOCOL_ERROR])),
        ("8.3", "a pseudo-header behind a header", fields(&[(":method", "GET"), (":scheme", "http"), ("x", "y"), (":path", "/"), (":authority", "h")]), Reset(&[PROTOCOL_ERROR])),
        ("8.3.1", "no method", fields(&[(":scheme", "http"), (":path", "/"), (":authority", "h")]), Reset(&[PROTOCOL_ERROR])),
        ("8.3.1", "no scheme", fields(&[(":method", "GET"), (":path", "/"), (":authority", "h")]), Reset(&[PROTOCOL_ERROR])),
        ("8.3.1", "no path", fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "h")]), Reset(&[PROTOCOL_ERROR])),
        ("8.3.1", "an empty path", fields(&[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "h")]), Reset(&[PROTOCOL_ERROR])),
        ("8.3.1", "two methods", whole(1, &get(&[(":method", "GET")])), Reset(&[PROTOCOL_ERROR])),
        ("8.3.1", "two paths", whole(1, &get(&[(":path", "/")])), Reset(&[PROTOCOL_ERROR])),
        ("8.3.1", "another host", whole(1, &get(&[("host", "evil")])), Answer(400)),
        ("8.3.1", "the same host", whole(1, &get(&[("host", "h")])), Answer(200)),
        ("8.3.1", "no host", fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]), Answer(400)),
        ("8.3.1", "a user in the authority", fields(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "u@h")]), Answer(400)),
        ("8.1.1", "less than Content-Length", [frame(HEADERS, END_HEADERS, 1, &posted(&[("content-length", "5")])), frame(DATA, END_STREAM, 1, b"x")].concat(), Reset(&[PROTOCOL_ERROR])),
        ("8.1.1", "more than Content-Length", [frame(HEADERS, END_HEADERS, 1, &posted(&[("content-length", "1")])), frame(DATA, END_STREAM, 1, b"xyz")].concat(), Reset(&[PROTOCOL_ERROR])),
        ("8.1.1", "Content-Length without a body", whole(1, &posted(&[("content-length", "1")])), Reset(&[PROTOCOL_ERROR])),
        ("8.1.1", "Content-Length that is no number", [frame(HEADERS, END_HEADERS, 1, &posted(&[("content-length", "x")])), frame(DATA, END_STREAM, 1, b"x")].concat(), Reset(&[PROTOCOL_ERROR])),
        ("8.1", "a second block that does not end the stream", [open(1), frame(HEADERS, END_HEADERS, 1, &block(&[("x", "y")]))].concat(), Reset(&[PROTOCOL_ERROR])),
        // The h2 crate drops it instead of the stream; nothing of it goes on.
        ("8.1", "a pseudo-header in trailers", [open(1), whole(1, &block(&[(":path", "/")]))].concat(), Answer(200)),
        ("8.5", "CONNECT", fields(&[(":method", "CONNECT"), (":authority", "h:80")]), Answer(405)),
        // Floods.
        ("10.5", "CONTINUATION without end", continuations(), Goaway(&[ENHANCE_YOUR_CALM, PROTOCOL_ERROR])),
        ("10.5", "rapid reset", resets(), Goaway(&[ENHANCE_YOUR_CALM])),
    ]
}

/// More than the stream's window of 64 KiB.
fn flooded() -> Vec<u8> {
    let mut bytes = open(1);
    for _ in 0..5 {
        bytes.extend(frame(DATA, 0, 1, &[0; 16384]));
    }
    bytes
}

fn continuations() -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_STREAM, 1, &get(&[]));
    for _ in 0..10_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &block(&[("x-flood", "x-flood")])));
    }
    bytes
}

fn resets() -> Vec<u8> {
    let streams = (0..5000).map(|n| n * 2 + 1);
    streams
        .flat_map(|stream| {
            [
                open(stream),
                frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()),
            ]
            .concat()
        })
        .collect()
}

fn fits(must: Must, end: End) -> bool {
    match (must, end) {
        (Goaway(codes) | Reset(codes), End::Connection(Some(code))) => {
            // How a server words the end of a connection that it has had enough of is its own choice.
            // The h2 crate says PROTOCOL_ERROR where a more exact code is asked for.
            codes.contains(&code)
                || code == PROTOCOL_ERROR
                || matches!(must, Reset(_)) && code != NO_ERROR
        }
        (Goaway(_) | Reset(_), End::Connection(None)) => true,
        (Reset(codes), End::Stream(code)) => codes.contains(&code),
        (Answer(wanted), End::Answer(status)) => wanted == status,
        (Ignore, End::Alive) => true,
        _ => false,
    }
}

fn outcome(bind: SocketAddr, bytes: &[u8], must: Must) -> End {
    let mut raw = H2Raw::connect(bind);
    raw.send(bytes);
    match must {
        Ignore => raw.end(),
        // The answer to a request that came before must not hide what is to come.
        Goaway(_) | Reset(_) => loop {
            match raw.answer() {
                End::Answer(200) => {}
                end => return end,
            }
        },
        Answer(_) => raw.answer(),
    }
}

#[test]
fn every_must_is_met() {
    let (bind, upstream) = (address(), Upstream::echo());
    let _stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
        settings.http2.on_invalid_message = InvalidMessage::TerminateStream;
    }));
    let mut wrong = Vec::new();
    for (section, name, bytes, must) in cases() {
        let end = outcome(bind, &bytes, must);
        if !fits(must, end) {
            wrong.push(format!("{section} {name}: {must:?}, but {end:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let evil = upstream
        .seen()
        .iter()
        .any(|seen| seen.header("host") != "h");
    assert!(!evil, "a request of nobody's");
}

#[test]
fn prefaces_and_settings_come_first() {
    let (bind, upstream) = (address(), Upstream::echo());
    let _stage = Stage::new(&with_settings(bind, upstream.address, |_| {}));
    // The server's own preface is a SETTINGS frame, with the bounds that are in force.
    let mut raw = H2Raw::connect(bind);
    let first = raw.read().unwrap();
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
    let has = |id, value| first.payload.chunks(6).any(|one| one == setting(id, value));
    assert!(has(3, 100), "MAX_CONCURRENT_STREAMS");
    assert!(has(6, 60 << 10), "MAX_HEADER_LIST_SIZE");
    // Ours is acknowledged.
    while raw
        .read()
        .is_some_and(|frame| (frame.kind, frame.flags) != (SETTINGS, ACK))
    {}

    for broken in [
        [
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".as_slice(),
            &frame(SETTINGS, 0, 0, &[]),
        ]
        .concat(),
        [PREFACE, &frame(PING, 0, 0, b"12345678")].concat(),
    ] {
        let mut raw = H2Raw::silent(bind);
        raw.send(&broken);
        let end = raw.answer();
        assert!(matches!(end, End::Connection(_)), "{end:?}");
    }
}

#[test]
fn streams_beyond_the_bound_are_refused() {
    let (bind, upstream) = (
        address(),
        Upstream::new(|mut client, _| {
            let _held = client.is_closed();
        }),
    );
    let _stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
        settings.http2.max_concurrent_streams = 10;
    }));
    let mut raw = H2Raw::connect(bind);
    // Read what is in force first: before it is acknowledged, more are no offence.
    while raw
        .read()
        .is_some_and(|frame| (frame.kind, frame.flags) != (SETTINGS, ACK))
    {}
    raw.send(&frame(SETTINGS, ACK, 0, &[]));
    for stream in 0..11 {
        raw.send(&whole(stream * 2 + 1, &get(&[])));
    }
    const REFUSED_STREAM: u32 = 7;
    let end = raw.answer();
    let refused = [
        End::Stream(REFUSED_STREAM),
        End::Connection(Some(PROTOCOL_ERROR)),
    ];
    assert!(refused.contains(&end), "{end:?}");
}

#[test]
fn invalid_messages_end_the_connection_if_they_are_to() {
    for (how, ends) in [
        (InvalidMessage::TerminateConnection, true),
        (InvalidMessage::TerminateStream, false),
    ] {
        let (bind, upstream) = (address(), Upstream::echo());
        let _stage = Stage::new(&with_settings(bind, upstream.address, |settings| {
            settings.http2.on_invalid_message = how;
        }));
        let mut raw = H2Raw::connect(bind);
        for stream in 0..20 {
            raw.send(&whole(stream * 2 + 1, &get(&[("te", "gzip")])));
        }
        raw.send(&whole(41, &get(&[])));
        let end = loop {
            match raw.answer() {
                End::Stream(PROTOCOL_ERROR) => {}
                end => break end,
            }
        };
        assert_eq!(matches!(end, End::Connection(_)), ends, "{end:?}");
        assert_eq!(upstream.seen().is_empty(), ends);
    }
}
