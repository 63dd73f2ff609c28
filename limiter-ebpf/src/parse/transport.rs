//! TCP and UDP.

use limiter_common::{Protocol, Reason};

use super::frame::Frame;
use super::ip::Packet;
use super::{Destination, Segment, icmp};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// A TCP header up to and with its flags.
pub(super) const TCP_FLAGS_END: usize = 14;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The segment in `packet`.
#[inline(always)]
pub(crate) fn segment(frame: &Frame, packet: Packet) -> Result<Segment, Reason> {
    let (destination, attempt) = match packet.protocol {
        TCP => {
            let (port, attempt) = tcp(frame, &packet)?;
            (Destination::new(Protocol::Tcp, port), attempt)
        }
        UDP => {
            let header: &[u8; 8] = frame.read(packet.payload)?;
            let port = u16::from_be_bytes([header[2], header[3]]);
            (Destination::new(Protocol::Udp, port), false)
        }
        icmp::V4 if packet.source.is_v4() => {
            icmp::limitable_v4(frame, packet.payload)?;
            (Destination::new(Protocol::Icmp, 0), false)
        }
        icmp::V6 if !packet.source.is_v4() => {
            icmp::limitable_v6(frame, packet.payload)?;
            (Destination::new(Protocol::Icmp, 0), false)
        }
        _ => (Destination::OTHER, false),
    };
    Ok(Segment {
        source: packet.source,
        destination,
        attempt,
    })
}

/// Destination port, and whether a connection is asked for.
#[inline(always)]
fn tcp(frame: &Frame, packet: &Packet) -> Result<(u16, bool), Reason> {
    if packet.first_fragment && packet.end < packet.payload + TCP_FLAGS_END {
        // The flags are in the next fragment, whatever padding follows here.
        let ports: &[u8; 4] = frame.read(packet.payload)?;
        return Ok((u16::from_be_bytes([ports[2], ports[3]]), true));
    }
    let header: &[u8; TCP_FLAGS_END] = frame.read(packet.payload)?;
    let port = u16::from_be_bytes([header[2], header[3]]);
    Ok((port, is_attempt(header[13])))
}

/// Whether a packet with these flags asks for a connection.
#[inline(always)]
pub(super) const fn is_attempt(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}
