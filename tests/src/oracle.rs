//! What the kernel half should make of a frame, written down a second time and plainly: slices, no
//! thought of a verifier or of speed. For `fuzz_parser`, which compares the two.
//!
//! The rules: Ethernet with up to two VLAN tags; IPv4 with options; IPv6 with up to eight extension
//! headers; TCP, UDP and ICMP by port. What is cut short or inconsistent is unparsable, and a
//! fragment but the first has no port.

use limiter_common::Reason;

/// A source: IPv4 addresses lie mapped in IPv6.
pub type Source = [u8; 16];

/// What is in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing that a policy could be asked about, for this reason.
    Nothing(Reason),
    /// A packet of a protocol without ports.
    Portless,
    Packet {
        source: Source,
        protocol: Protocol,
        /// Destination; 0 for ICMP.
        port: u16,
        /// Asks for a connection.
        attempt: bool,
    },
}

/// What policies tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Icmp,
}

/// IP's account of its payload.
struct Ip {
    source: Source,
    next: u8,
    /// Where the payload is in the frame.
    payload: usize,
    /// Where it ends by the header's account.
    end: usize,
    /// More fragments follow this first one.
    more: bool,
}

/// Reads a frame.
#[must_use]
pub fn look(frame: &[u8]) -> Seen {
    match ip(frame).and_then(|ip| transport(frame, &ip)) {
        Ok(seen) => seen,
        Err(reason) => Seen::Nothing(reason),
    }
}

fn ip(frame: &[u8]) -> Result<Ip, Reason> {
    let mut at = 12;
    let mut tags = 0;
    while matches!(word(frame, at)?, 0x8100 | 0x88a8) && tags < 2 {
        // The tag has to be there in full, with the type behind it.
        word(frame, at + 4)?;
        at += 4;
        tags += 1;
    }
    match word(frame, at)? {
        0x0800 => ipv4(frame, at + 2),
        0x86dd => ipv6(frame, at + 2),
        _ => Err(Reason::NotIp),
    }
}

fn ipv4(frame: &[u8], start: usize) -> Result<Ip, Reason> {
    let header = bytes(frame, start, 20)?;
    let words = usize::from(header[0] % 16);
    if header[0] / 16 != 4 || words < 5 {
        return Err(Reason::Unparsable);
    }
    let fragment = word(header, 6)?;
    if fragment % 0x2000 > 0 {
        return Err(Reason::Fragment);
    }
    let mut source = [0; 16];
    source[10..12].fill(0xff);
    source[12..].copy_from_slice(&header[12..16]);
    Ok(Ip {
        source,
        next: header[9],
        payload: start + 4 * words,
        end: start + usize::from(word(header, 2)?),
        more: fragment & 0x2000 > 0,
    })
}

fn ipv6(frame: &[u8], start: usize) -> Result<Ip, Reason> {
    let header = bytes(frame, start, 40)?;
    if header[0] / 16 != 6 {
        return Err(Reason::Unparsable);
    }
    let mut source = [0; 16];
    source.copy_from_slice(&header[8..24]);
    if source.starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]) {
        return Err(Reason::Unparsable);
    }
    let mut ip = Ip {
        source,
        next: header[6],
        payload: start + 40,
        end: start + 40 + usize::from(word(header, 4)?),
        more: false,
    };
    for _ in 0..8 {
        if !extension(frame, &mut ip)? {
            return Ok(ip);
        }
    }
    if matches!(ip.next, 0 | 43 | 44 | 51 | 60 | 135) {
        return Err(Reason::HeaderChain);
    }
    Ok(ip)
}

/// Goes past an extension header; whether there was one.
fn extension(frame: &[u8], ip: &mut Ip) -> Result<bool, Reason> {
    let length = |header: &[u8]| usize::from(header[1]);
    let skipped = match ip.next {
        0 | 43 | 60 | 135 => 8 * (1 + length(bytes(frame, ip.payload, 8)?)),
        51 => 4 * (2 + length(bytes(frame, ip.payload, 8)?)),
        44 => {
            let header = bytes(frame, ip.payload, 8)?;
            let field = word(header, 2)?;
            if field / 8 > 0 {
                return Err(Reason::Fragment);
            }
            ip.more |= field % 2 == 1;
            8
        }
        _ => return Ok(false),
    };
    ip.next = bytes(frame, ip.payload, 8)?[0];
    ip.payload += skipped;
    Ok(true)
}

fn transport(frame: &[u8], ip: &Ip) -> Result<Seen, Reason> {
    let is_v4 = ip
        .source
        .starts_with(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let packet = |protocol, port, attempt| Seen::Packet {
        source: ip.source,
        protocol,
        port,
        attempt,
    };
    match (ip.next, is_v4) {
        (6, _) if ip.more && ip.end < ip.payload + 14 => {
            // A SYN may hide in the next fragment.
            bytes(frame, ip.payload, 4)?;
            Ok(packet(Protocol::Tcp, word(frame, ip.payload + 2)?, true))
        }
        (6, _) => {
            let header = bytes(frame, ip.payload, 14)?;
            let (syn, ack) = (header[13] & 0x02 > 0, header[13] & 0x10 > 0);
            Ok(packet(Protocol::Tcp, word(header, 2)?, syn && !ack))
        }
        (17, _) => {
            let header = bytes(frame, ip.payload, 8)?;
            Ok(packet(Protocol::Udp, word(header, 2)?, false))
        }
        (1, true) => match bytes(frame, ip.payload, 8)?[0] {
            3 | 11 | 12 => Err(Reason::Vital),
            _ => Ok(packet(Protocol::Icmp, 0, false)),
        },
        (58, false) => match bytes(frame, ip.payload, 8)?[0] {
            1..=4 | 130..=137 | 143 => Err(Reason::Vital),
            _ => Ok(packet(Protocol::Icmp, 0, false)),
        },
        _ => Ok(Seen::Portless),
    }
}

/// So many bytes.
fn bytes(of: &[u8], at: usize, length: usize) -> Result<&[u8], Reason> {
    of.get(at..at + length).ok_or(Reason::Unparsable)
}

/// Two bytes as a number.
fn word(of: &[u8], at: usize) -> Result<u16, Reason> {
    let pair = bytes(of, at, 2)?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}
