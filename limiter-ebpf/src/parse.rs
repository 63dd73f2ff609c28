//! From a frame to what the policies ask about: source, destination port, connection attempt.
//!
//! Reads headers only, and only those on the way to the port. What cannot be parsed passes, since
//! the network stack refuses it, and is counted as such.
//!
//! Fragments: only the first carries ports. The later ones pass; without the first they come to
//! nothing. A first fragment that ends before the TCP flags would hide a SYN from the connections
//! bucket, for the stack puts it together again: it counts as a connection attempt. The stack
//! refuses overlapping fragments, so flags that were seen here cannot be replaced by a later one.

mod frame;
mod ip;
mod link;
mod transport;

use aya_ebpf::programs::XdpContext;
use limiter_common::{PortKey, Reason, SourceKey};

use self::frame::Frame;

/// A TCP segment or UDP datagram on its way in.
pub(crate) struct Segment {
    pub(crate) source: Source,
    pub(crate) destination: PortKey,
    /// Asks for a new TCP connection: SYN set and ACK not, whatever other flags say (SYN+FIN and
    /// SYN+RST are attempts, too). Retransmissions count.
    pub(crate) attempt: bool,
}

/// The source address of a packet.
pub(crate) enum Source {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Source {
    /// Under which the source's buckets lie.
    #[inline(always)]
    pub(crate) const fn key(&self, policy: u32) -> SourceKey {
        match *self {
            Self::V4(address) => SourceKey::v4(address, policy),
            Self::V6(address) => SourceKey::v6(address, policy),
        }
    }
}

/// The segment in the frame, or why there is none to limit.
#[inline(always)]
pub(crate) fn segment(ctx: &XdpContext) -> Result<Segment, Reason> {
    let frame = Frame::new(ctx);
    let (ethertype, network) = link::network_layer(&frame)?;
    let packet = match ethertype {
        link::IPV4 => ip::v4(&frame, network)?,
        link::IPV6 => ip::v6(&frame, network)?,
        _ => return Err(Reason::NotIp),
    };
    transport::segment(&frame, packet)
}
