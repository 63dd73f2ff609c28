//! TCP and UDP.

use limiter_common::{PortKey, Protocol, Reason};

use super::Segment;
use super::frame::Frame;
use super::ip::Packet;

const TCP: u8 = Protocol::Tcp as u8;
const UDP: u8 = Protocol::Udp as u8;

/// A TCP header up to and with its flags.
const TCP_FLAGS_END: usize = 14;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The segment in `packet`.
#[inline(always)]
pub(crate) fn segment(frame: &Frame, packet: Packet) -> Result<Segment, Reason> {
    let (port, attempt) = match packet.protocol {
        TCP => tcp(frame, &packet)?,
        UDP => {
            let header: &[u8; 8] = frame.read(packet.payload)?;
            (u16::from_be_bytes([header[2], header[3]]), false)
        }
        _ => return Err(Reason::Untargeted),
    };
    let destination = PortKey::new(packet.protocol, port);
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
    let attempt = header[13] & (SYN | ACK) == SYN;
    Ok((u16::from_be_bytes([header[2], header[3]]), attempt))
}
