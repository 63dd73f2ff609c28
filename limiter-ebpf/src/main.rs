//! The kernel half of limiterd: `limiter_xdp` (`limiter_xdp_mb` on newer kernels), and `limiter_tc` for
//! where XDP cannot attach.
//!
//! A packet's way is the same in all: `parse → policy → exempt or sentenced? → buckets → count →
//! verdict`. There is one place where a packet is counted and one for each program where its verdict
//! becomes an action, so that each packet is counted exactly once and the counters sum to the packets
//! seen. No step prints, allocates or loops without a bound.
//!
//! Dropped is silent: nothing is sent back.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(
    internal_features,
    reason = "the BPF target has no compare_exchange in core::sync::atomic; the intrinsic is the only way"
)]

mod atomic;
mod bench;
mod classify;
mod clock;
mod judge;
mod limit;
mod local;
mod maps;
mod packet;
mod parse;
mod sample;
mod sources;
mod stats;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::packet::{InBuffers, Packet};

/// On to the next program, or the stack: `TC_ACT_UNSPEC` to clsact, `TCX_NEXT` to tcx.
const TC_NEXT: i32 = -1;
/// `TC_ACT_SHOT` to clsact, `TCX_DROP` to tcx.
const TC_DROP: i32 = 2;

/// Enforces the network policies on the packets of an interface.
#[xdp]
pub(crate) fn limiter_xdp(ctx: XdpContext) -> u32 {
    if drops(&ctx) { XDP_DROP } else { XDP_PASS }
}

/// The same, for packets in several buffers (jumbo frames): from Linux 5.18 on.
#[xdp(frags)]
pub(crate) fn limiter_xdp_mb(ctx: XdpContext) -> u32 {
    if drops(&InBuffers(ctx)) {
        XDP_DROP
    } else {
        XDP_PASS
    }
}

/// The same behind the driver, where XDP cannot attach.
#[classifier]
pub(crate) fn limiter_tc(ctx: TcContext) -> i32 {
    if drops(&ctx) { TC_DROP } else { TC_NEXT }
}

/// Judges and counts a packet.
#[inline(always)]
fn drops(packet: &impl Packet) -> bool {
    let outcome = judge::judge(packet);
    stats::count(outcome.counter);
    outcome.drops
}

/// The kernel gives some helpers to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here can panic; were it otherwise, the verifier would refuse this loop.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
