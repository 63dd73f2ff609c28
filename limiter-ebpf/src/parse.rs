//! From a frame to what the policies ask about: source, destination port, connection attempt.
//!
//! Reads headers only, and only those on the way to the port. What cannot be parsed passes, since
//! the network stack refuses it, and is counted as such.
//!
//! Fragments: only the first carries ports. The later ones pass; without the first they come to
//! nothing. A first fragment that ends before the TCP flags would hide a SYN from the connections
//! bucket, for the stack puts it together again: it counts as a connection attempt. The stack
//! refuses overlapping fragments, so flags that were seen here cannot be replaced by a later one.
//!
//! Tunnels (IP in IP, GRE, VXLAN) are judged by their outer header: its source, and for VXLAN its
//! UDP port.

mod frame;
mod icmp;
mod ip;
mod link;
mod transport;

use limiter_common::event::OTHER_PROTOCOL;
use limiter_common::{Address, Protocol, Reason};

pub(crate) use self::frame::Frame;
pub(crate) use self::ip::vary;

/// Ethernet, IPv4 without options, TCP up to and with its flags.
const USUAL: usize = 14 + 20 + transport::TCP_FLAGS_END;

/// An IP packet on its way in.
pub(crate) struct Segment {
    pub(crate) source: Address,
    pub(crate) destination: Destination,
    /// Asks for a new TCP connection: SYN set and ACK not, whatever other flags say (SYN+FIN and
    /// SYN+RST are attempts, too). Retransmissions count.
    pub(crate) attempt: bool,
}

/// What a packet's policy is looked up by.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    /// [`Protocol`] as its number, or [`OTHER_PROTOCOL`].
    pub(crate) protocol: u8,
    /// 0 where there are none.
    pub(crate) port: u16,
}

impl Destination {
    /// That of a protocol without ports that anybody could look up.
    pub(crate) const OTHER: Self = Self {
        protocol: OTHER_PROTOCOL,
        port: 0,
    };

    #[inline(always)]
    const fn new(protocol: Protocol, port: u16) -> Self {
        Self {
            protocol: protocol as u8,
            port,
        }
    }

    #[inline(always)]
    pub(crate) const fn to_raw(self) -> u32 {
        (self.protocol as u32) << 16 | self.port as u32
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what `to_raw` has put together"
    )]
    pub(crate) const fn from_raw(raw: u32) -> Self {
        Self {
            protocol: (raw >> 16) as u8,
            port: raw as u16,
        }
    }
}

/// The segment in the frame, or why there is none to limit.
#[inline(always)]
pub(crate) fn segment(frame: &Frame) -> Result<Segment, Reason> {
    let (ethertype, network) = link::network_layer(frame)?;
    let packet = match ethertype {
        link::IPV4 => ip::v4(frame, network)?,
        link::IPV6 => ip::v6(frame, network)?,
        _ => return Err(Reason::NotIp),
    };
    transport::segment(frame, packet)
}

/// Whether it is an IPv6 packet with extension headers, and may so have headers of any length.
#[inline(always)]
pub(crate) fn has_extensions(frame: &Frame) -> bool {
    match link::network_layer(frame) {
        Ok((link::IPV6, network)) => ip::has_extensions(frame, network),
        _ => false,
    }
}

/// What most packets are: no VLAN tag, IPv4 without options, no fragment, TCP or UDP, and room for
/// either header (a shorter UDP packet is none of these). One look at the frame's end settles it.
/// Says of them what [`segment`] says.
#[inline(always)]
pub(crate) fn usual(frame: &Frame) -> Option<Segment> {
    let head: &[u8; USUAL] = frame.read(0).ok()?;
    let plain = u16::from_be_bytes([head[12], head[13]]) == link::IPV4
        && head[14] == 0x45
        // Neither more fragments to come, nor a place among them.
        && u16::from_be_bytes([head[20], head[21]]) & 0x3fff == 0;
    if !plain {
        return None;
    }
    let (protocol, attempt) = match head[23] {
        transport::TCP => (Protocol::Tcp, transport::is_attempt(head[47])),
        transport::UDP => (Protocol::Udp, false),
        _ => return None,
    };
    Some(Segment {
        source: Address::v4(vary([head[26], head[27], head[28], head[29]])),
        destination: Destination::new(protocol, u16::from_be_bytes([head[36], head[37]])),
        attempt,
    })
}
