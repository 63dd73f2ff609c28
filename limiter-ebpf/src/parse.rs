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
