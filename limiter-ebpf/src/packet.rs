//! What the program wants to know of a packet besides its bytes, from XDP and from TC.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::limit::Load;
use crate::parse::Frame;

/// A packet on its way in.
pub(crate) trait Packet {
    /// Its first bytes, all headers among them.
    fn frame(&self) -> Frame;
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

    #[inline(always)]
    fn load(&self) -> Load {
        Load {
            packets: 1,
            bytes: length(self.data(), self.data_end()),
        }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: `ctx` is what the kernel called the program with.
        unsafe { (*self.ctx).ingress_ifindex }
    }
}

/// Bytes of headers that are made linear where the driver has left them in fragments.
const HEADERS: u32 = 128;

impl Packet for TcContext {
    #[inline(always)]
    fn frame(&self) -> Frame {
        let wanted = self.len().min(HEADERS);
        if length(self.data(), self.data_end()) < wanted {
            // If there is no memory for it, what is there is judged.
            let _no_memory = self.pull_data(wanted);
        }
        // Read again: pulling moves the data.
        Frame::new(self.data(), self.data_end())
    }

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
