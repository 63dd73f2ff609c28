//! HTTP/2 frames as bytes (RFC 9113 section 4), made and read by hand.

use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::client::tcp;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A setting.
pub(crate) fn setting(id: u16, value: u32) -> Vec<u8> {
    [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat()
}

/// A block of header fields, each a literal that is never indexed (RFC 7541 section 6.2.3).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            assert!(text.len() < 127, "a short literal");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The fields of a `GET` of `/`, and these.
pub(crate) fn get(more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "h"),
    ];
    block(&[&fields, more].concat())
}

/// What a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// GOAWAY with this code, or the connection was closed without a word.
    Connection(Option<u32>),
    /// RST_STREAM with this code.
    Stream(u32),
    /// An answer with this status.
    Answer(u16),
    /// A PING was answered, and nothing else happened.
    Alive,
    /// Nothing happened, for long.
    Silence,
}

/// A raw connection.
pub(crate) struct H2Raw {
    stream: TcpStream,
    /// Nothing came, for long.
    silent: bool,
}

impl H2Raw {
    /// Connects; says nothing.
    pub(crate) fn silent(address: SocketAddr) -> Self {
        let stream = tcp(address);
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self {
            stream,
            silent: false,
        }
    }

    /// Connects, and exchanges prefaces and settings.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut raw = Self::silent(address);
        raw.send(PREFACE);
        raw.send(&frame(SETTINGS, 0, 0, &[]));
        raw
    }

    /// Sends what the other side may no longer want.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _cut_off = self.stream.write_all(bytes);
    }

    /// The next frame; `None`: closed, or nothing came.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = self.stream.read_exact(&mut head);
        self.silent = read
            .as_ref()
            .is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        read.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// What becomes of the connection, when a PING asks.
    pub(crate) fn end(&mut self) -> End {
        self.send(&frame(PING, 0, 0, b"the last"));
        self.answer()
    }

    /// What becomes of the connection: the first that happens.
    pub(crate) fn answer(&mut self) -> End {
        while let Some(frame) = self.read() {
            match frame.kind {
                GOAWAY => {
                    let code = u32::from_be_bytes(frame.payload[4..8].try_into().unwrap());
                    if code != 0 {
                        return End::Connection(Some(code));
                    }
                }
                RST_STREAM => {
                    return End::Stream(u32::from_be_bytes(frame.payload[..4].try_into().unwrap()));
                }
                HEADERS => return End::Answer(status(&frame.payload)),
                PING if frame.flags & ACK != 0 && frame.payload == b"the last" => {
                    return End::Alive;
                }
                _ => {}
            }
        }
        if self.silent {
            return End::Silence;
        }
        End::Connection(None)
    }
}

/// The status of a block that begins with it: indexed, or a literal with an indexed name, plain or
/// coded by Huffman (digits only).
fn status(block: &[u8]) -> u16 {
    match block.first() {
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8a) => 206,
        Some(0x8b) => 304,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        Some(0x08 | 0x48) => literal(&block[1..]),
        _ => 0,
    }
}

fn literal(text: &[u8]) -> u16 {
    let length = usize::from(text[0] & 0x7f);
    let value = &text[1..=length];
    if text[0] & 0x80 == 0 {
        return std::str::from_utf8(value).unwrap().parse().unwrap();
    }
    // RFC 7541 appendix B: `0`, `1`, `2` have five bits, the other digits six.
    let bits: Vec<u8> = value
        .iter()
        .flat_map(|b| (0..8).rev().map(move |n| b >> n & 1))
        .collect();
    let (mut at, mut number) = (0, 0);
    let take = |at: usize, n: usize| {
        bits[at..at + n]
            .iter()
            .fold(0, |code, bit| code << 1 | u16::from(*bit))
    };
    for _ in 0..3 {
        let short = take(at, 5);
        if short < 3 {
            number = number * 10 + short;
            at += 5;
        } else {
            number = number * 10 + take(at, 6) - 0x19 + 3;
            at += 6;
        }
    }
    number
}
