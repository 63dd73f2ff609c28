//! Request smuggling: bytes that two HTTP implementations may read differently. Each is refused, or
//! reaches the upstream as exactly one request that can be read in one way only.

use std::io::Read as _;

use super::client::Client;
use super::plans::plan;
use super::stage::{Stage, address};
use super::upstream::{Seen, Upstream};

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// 4xx or no answer; nothing reaches the upstream, and the connection ends.
    Refused,
    /// One request reaches the upstream, with this body, and no other follows from these bytes.
    One(&'static str),
}
use Fate::{One, Refused};

/// What would follow, were it smuggled.
const EVIL: &str = "GET /evil HTTP/1.1\r\nhost: evil\r\n\r\n";

#[rustfmt::skip]
const VECTORS: &[(&str, &str, Fate)] = &[
    ("plain", "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", One("ok")),
    // Two lengths.
    ("CL.TE", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG", One("")),
    ("TE.CL", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n2\r\nok\r\n0\r\n\r\n", One("ok")),
    ("two lengths", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\ncontent-length: 44\r\n\r\n", Refused),
    ("a list of lengths", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0, 44\r\n\r\n", Refused),
    ("the same twice", "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", One("ok")),
    ("a sign", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: +2\r\n\r\nok", Refused),
    ("a negative length", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n", Refused),
    ("hexadecimal", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0x2\r\n\r\nok", Refused),
    ("an overflowing length", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 18446744073709551618\r\n\r\nok", Refused),
    ("an empty length", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: \r\n\r\n", Refused),
    ("a length with a space within", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1 2\r\n\r\n", Refused),
    // Transfer codings.
    ("TE twice", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", Refused),
    ("TE twice, chunked last", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE list", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE chunked, chunked", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE xchunked", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE quoted", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused),
    ("TE identity", "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\ntransfer-encoding: identity\r\n\r\nok", Refused),
    ("TE with a vertical tab", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE with tabs around", "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding:\tchunked\t\r\n\r\n2\r\nok\r\n0\r\n\r\n", One("ok")),
    ("TE in capitals", "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nTRANSFER-ENCODING: ChUnKeD\r\n\r\n2\r\nok\r\n0\r\n\r\n", One("ok")),
    ("TE with a space before the colon", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE with a NUL", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\0\r\n\r\n0\r\n\r\n", Refused),
    ("TE in HTTP/1.0", "POST / HTTP/1.0\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE folded", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused),
    // Lines.
    ("folded header", "GET / HTTP/1.1\r\nhost: h\r\nx: a\r\n b\r\n\r\n", Refused),
    ("a space before the first header", "GET / HTTP/1.1\r\n host: h\r\nhost: h\r\n\r\n", Refused),
    ("a space before the colon", "GET / HTTP/1.1\r\nhost: h\r\nx : a\r\n\r\n", Refused),
    ("no colon", "GET / HTTP/1.1\r\nhost: h\r\nx\r\n\r\n", Refused),
    ("an empty name", "GET / HTTP/1.1\r\nhost: h\r\n: x\r\n\r\n", Refused),
    ("a NUL in a name", "GET / HTTP/1.1\r\nhost: h\r\nx\0y: a\r\n\r\n", Refused),
    ("a NUL in a value", "GET / HTTP/1.1\r\nhost: h\r\nx: a\0b\r\n\r\n", Refused),
    ("a CR in a value", "GET / HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n", Refused),
    ("a CR as the end of a line", "GET / HTTP/1.1\r\nhost: h\r\nx: a\rcontent-length: 5\r\n\r\n", Refused),
    ("bare LF", "GET / HTTP/1.1\nhost: h\nconnection: close\n\n", One("")),
    ("LF in the target", "GET /\n HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    ("a tab in the request line", "GET\t/ HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    ("two spaces in the request line", "GET  / HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    ("no version", "GET /\r\nhost: h\r\n\r\n", Refused),
    ("HTTP/0.9", "GET /\r\n\r\n", Refused),
    ("another version", "GET / HTTP/1.2\r\nhost: h\r\n\r\n", Refused),
    ("HTTP/2.0 as text", "GET / HTTP/2.0\r\nhost: h\r\n\r\n", Refused),
    ("a bad method", "G@T / HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    // Chunks.
    ("an overflowing chunk", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", Refused),
    ("a chunk without digits", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n\r\nok\r\n0\r\n\r\n", Refused),
    ("a chunk with a sign", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n", Refused),
    ("a chunk with 0x", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", Refused),
    ("an underscore in a chunk size", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n0_2\r\nok\r\n0\r\n\r\n", Refused),
    ("a chunk ended by LF", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", Refused),
    ("an extension with LF", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2;x\nok\r\n0\r\n\r\n", Refused),
    ("an extension", "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2;x=\"y\"\r\nok\r\n0\r\n\r\n", One("ok")),
    ("too much in a chunk", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", Refused),
    ("no CRLF behind a chunk", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n", Refused),
    ("a length in trailers", "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ncontent-length: 50\r\n\r\n", One("ok")),
    ("a bad trailer", "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx : y\r\n\r\n", Refused),
    // Hosts.
    ("no host", "GET / HTTP/1.1\r\n\r\n", Refused),
    ("two hosts", "GET / HTTP/1.1\r\nhost: h\r\nhost: evil\r\n\r\n", Refused),
    ("the same host twice", "GET / HTTP/1.1\r\nhost: h\r\nhost: h\r\n\r\n", Refused),
    ("a list of hosts", "GET / HTTP/1.1\r\nhost: h, evil\r\n\r\n", Refused),
    ("a user in the host", "GET / HTTP/1.1\r\nhost: h@evil\r\n\r\n", Refused),
    ("a path in the host", "GET / HTTP/1.1\r\nhost: h/evil\r\n\r\n", Refused),
    ("a space in the host", "GET / HTTP/1.1\r\nhost: h evil\r\n\r\n", Refused),
    ("an absolute target with another host", "GET http://h/ HTTP/1.1\r\nhost: evil\r\nconnection: close\r\n\r\n", One("")),
    ("an absolute target with a user", "GET http://evil@h/ HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    ("another scheme", "GET ftp://h/ HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    ("a target without a slash", "GET evil HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    ("an authority as the target", "GET h:80 HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    ("CONNECT", "CONNECT h:80 HTTP/1.1\r\nhost: h\r\n\r\n", Refused),
    // Connection options must not take away what framing and hosts rest on.
    ("Connection names Content-Length", "POST / HTTP/1.1\r\nhost: h\r\nconnection: close, content-length\r\ncontent-length: 2\r\n\r\nok", One("ok")),
    ("Connection names Host", "GET / HTTP/1.1\r\nhost: h\r\nconnection: close, host\r\n\r\n", One("")),
    ("h2c", "GET / HTTP/1.1\r\nhost: h\r\nconnection: close, upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n", One("")),
];

#[test]
fn nothing_is_smuggled() {
    let (bind, upstream) = (address(), Upstream::echo());
    let _stage = Stage::new(&plan(bind, upstream.address));
    let mut wrong = Vec::new();
    for (name, bytes, fate) in VECTORS {
        let before = upstream.seen().len();
        let mut client = Client::connect(bind);
        client.try_send(bytes);
        client.try_send(EVIL);
        let _gone = client.stream.get_mut().shutdown(std::net::Shutdown::Write);
        let mut answers = Vec::new();
        let _reset = client.stream.read_to_end(&mut answers);
        let answers = String::from_utf8_lossy(&answers).into_owned();
        let seen = upstream.seen().split_off(before);
        if let Err(why) = judge(*fate, &answers, &seen) {
            wrong.push(format!("{name}: {why}\n{answers}\n{seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
}

fn judge(fate: Fate, answers: &str, seen: &[Seen]) -> Result<(), &'static str> {
    let statuses = answers.matches("HTTP/1.1 ").count();
    match fate {
        Refused => {
            if !seen.is_empty() {
                // A request whose body turns out to be malformed may have been begun, never ended.
                return Err("something reached the upstream");
            }
            let refused = answers.is_empty()
                || ["HTTP/1.1 4", "HTTP/1.1 5", "HTTP/1.0 4"]
                    .iter()
                    .any(|s| answers.starts_with(s));
            if !refused || statuses > 1 {
                return Err("not refused");
            }
        }
        One(body) => {
            let [only] = seen else {
                return Err("not exactly one request");
            };
            if only.body != body.as_bytes() || only.header("host") != "h" {
                return Err("another request");
            }
            let lengths = only.header("content-length");
            let codings = only.header("transfer-encoding");
            if lengths.contains('|') || !lengths.is_empty() && !codings.is_empty() {
                return Err("ambiguous");
            }
            // hyper's echo of the head is in the answer's body, so count status lines at its start.
            if !answers.starts_with("HTTP/1.1 200") {
                return Err("not answered");
            }
        }
    }
    Ok(())
}
