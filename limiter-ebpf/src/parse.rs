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

/// The source address of a packet, as the key of its buckets has it ([`SourceKey`]): in two words,
/// because a choice between two arrays of bytes compiles to a branch a byte.
pub(crate) struct Source {
    high: u64,
    low: u64,
}

impl Source {
    #[inline(always)]
    pub(crate) const fn v4(address: [u8; 4]) -> Self {
        Self::of(SourceKey::v4(address, 0))
    }

    #[inline(always)]
    pub(crate) const fn v6(address: [u8; 16]) -> Self {
        Self::of(SourceKey::v6(address, 0))
    }

    #[inline(always)]
    const fn of(key: SourceKey) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = key.address;
        Self {
            high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// Under which the source's buckets lie.
    #[inline(always)]
    pub(crate) const fn key(&self, policy: u32) -> SourceKey {
        let [a, b, c, d, e, f, g, h] = self.high.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.low.to_ne_bytes();
        SourceKey {
            address: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p],
            policy,
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
