//! The kernel half of limiterd: one XDP program, `limiter_xdp`.
//!
//! A packet's way is `parse → select the listener → buckets → count → verdict`, and every step up to
//! the count returns a [`Verdict`]: there is one place where a packet is counted and one where its
//! verdict becomes an XDP action, so that each packet is counted exactly once and the counters sum
//! to the packets seen. No step prints, allocates or loops without a bound.
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
mod classify;
mod clock;
mod limit;
mod maps;
mod parse;
mod stats;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use limiter_common::Verdict;

/// Enforces the network policies on the packets of an interface.
#[xdp]
pub(crate) fn limiter_xdp(ctx: XdpContext) -> u32 {
    let verdict = judge(&ctx);
    stats::count(verdict);
    if verdict.reason.is_drop() {
        XDP_DROP
    } else {
        XDP_PASS
    }
}

/// Drops everything: the yardstick that `limiter_xdp` is measured against.
#[xdp]
pub(crate) fn bare_drop(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

#[inline(always)]
fn judge(ctx: &XdpContext) -> Verdict {
    let segment = match parse::segment(ctx) {
        Ok(segment) => segment,
        Err(reason) => return Verdict::new(classify::NO_POLICY, reason),
    };
    match classify::policy_of(&segment) {
        Some(policy) => Verdict::new(policy.policy, limit::apply(policy, &segment)),
        None => Verdict::new(classify::NO_POLICY, limiter_common::Reason::Untargeted),
    }
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
