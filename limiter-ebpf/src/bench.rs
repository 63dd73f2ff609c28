//! Programs for benchmarks only. The daemon never loads them.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

use crate::parse::vary;

/// Where an IPv4 source address lies in an untagged frame.
const SOURCE: usize = 26;

/// Drops everything: the yardstick that `limiter_xdp` is measured against. Draws a source where that
/// does, which is the benchmark's doing and no part of either's cost.
#[xdp]
pub(crate) fn bare_drop(_ctx: XdpContext) -> u32 {
    let _source = vary([0; 4]);
    XDP_DROP
}

/// Gives an IPv4 frame a source and passes it to the network stack: what other limiters, further up,
/// are measured on.
#[xdp]
pub(crate) fn bench_pass(ctx: XdpContext) -> u32 {
    let at = ctx.data() + SOURCE;
    if at + 4 > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: the frame has four bytes at `at`, as was just checked; a byte array needs no
    // alignment.
    unsafe {
        let source = at as *mut [u8; 4];
        *source = vary(*source);
    }
    XDP_PASS
}
