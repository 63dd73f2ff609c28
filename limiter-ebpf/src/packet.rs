//! What the program wants to know of a packet besides its bytes, from XDP and from TC.

use core::hint::black_box;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::limit::Load;
use crate::parse::{Frame, has_extensions};

/// A packet on its way in.
pub(crate) trait Packet: Facts {
    /// Its first bytes, all headers among them.
    fn frame(&self) -> Frame;
}

/// What is known of a packet besides its bytes. Asked for only where it matters: each costs.
pub(crate) trait Facts {
    /// Whether the packet is judged in one piece with its parsing ([`crate::judge`]): then the usual
    /// limits are, too.
    const IN_ONE_PIECE: bool;
    /// What it counts as, from the link layer header on.
    fn load(&self) -> Load;
    /// The interface that it came in on.
    fn ifindex(&self) -> u32;
}

impl Packet for XdpContext {
    #[inline(always)]
    fn frame(&self) -> Frame {
        Frame::new(self.data(), self.data_end())
    }
}

impl Facts for XdpContext {
    const IN_ONE_PIECE: bool = true;

    #[inline(always)]
    fn load(&self) -> Load {
        // SAFETY: `ctx` is what the kernel called the program with. Volatile, that is read anew: of
        // a pointer that is read once the compiler keeps the low half for this, and the verifier
        // takes that for a pointer no more.
        let (start, end) = unsafe {
            let (start, end) = (&raw const (*self.ctx).data, &raw const (*self.ctx).data_end);
            (start.read_volatile(), end.read_volatile())
        };
        Load {
            packets: 1,
            bytes: black_box(end.wrapping_sub(start)),
        }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: `ctx` is what the kernel called the program with.
        unsafe { (*self.ctx).ingress_ifindex }
    }
}

/// An XDP packet that may lie in several buffers. All headers are in the first: drivers see to that,
/// and what is not there is not parsed.
pub(crate) struct InBuffers(pub(crate) XdpContext);

impl Packet for InBuffers {
    #[inline(always)]
    fn frame(&self) -> Frame {
        self.0.frame()
    }
}

impl Facts for InBuffers {
    const IN_ONE_PIECE: bool = true;

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "no packet is that long")]
    fn load(&self) -> Load {
        Load {
            packets: 1,
            // SAFETY: `ctx` is what the kernel called the program with.
            bytes: unsafe { bpf_xdp_get_buff_len(self.0.ctx) } as u32,
        }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ifindex()
    }
}

/// Bytes of headers that are made linear where the driver has left them in fragments: more than any
/// headers take without IPv6 extensions.
const HEADERS: u32 = 128;

/// The same where there are extensions: all of a jumbo frame, so that nobody hides behind long ones.
const LONG_HEADERS: u32 = 9216;

impl Packet for TcContext {
    #[inline(always)]
    fn frame(&self) -> Frame {
        let frame = linear(self, HEADERS);
        let long = self.len().min(LONG_HEADERS);
        if length(self.data(), self.data_end()) < long && has_extensions(&frame) {
            return linear(self, LONG_HEADERS);
        }
        frame
    }
}

/// The first bytes of a packet, with so many of them linear, or all there are.
#[inline(always)]
fn linear(context: &TcContext, bytes: u32) -> Frame {
    let wanted = context.len().min(bytes);
    if length(context.data(), context.data_end()) < wanted {
        // If there is no memory for it, what is there is judged.
        let _no_memory = context.pull_data(wanted);
    }
    // Read again: pulling moves the data.
    Frame::new(context.data(), context.data_end())
}

impl Facts for TcContext {
    const IN_ONE_PIECE: bool = true;

    #[inline(always)]
    fn load(&self) -> Load {
        let skb = self.as_ptr().cast::<__sk_buff>();
        // SAFETY: `skb` is what the kernel called the program with.
        let (wire, length, segments) = unsafe { ((*skb).wire_len, (*skb).len, (*skb).gso_segs) };
        Load {
            packets: segments.max(1),
            bytes: if wire > 0 { wire } else { length },
        }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        let skb = self.as_ptr().cast::<__sk_buff>();
        // SAFETY: `skb` is what the kernel called the program with.
        unsafe { (*skb).ifindex }
    }
}

/// Bytes between two ends of a packet.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "no packet is that long")]
const fn length(start: usize, end: usize) -> u32 {
    (end - start) as u32
}
