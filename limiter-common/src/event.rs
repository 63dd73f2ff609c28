//! Samples of dropped packets, from the program to the daemon.

use crate::key::Address;

/// One dropped packet (or one that would be, in shadow mode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DropEvent {
    /// When, by the kernel's monotonic clock (coarse).
    pub at: u64,
    pub source: Address,
    /// Id of the policy.
    pub policy: u32,
    /// [`Reason`](crate::Reason) as its number.
    pub reason: u32,
    /// Level that decided.
    pub level: u32,
    /// Length of the packet in bytes.
    pub length: u32,
    /// Interface that it came in on.
    pub ifindex: u32,
    /// Destination port; 0 for ICMP.
    pub port: u16,
    /// [`Protocol`](crate::Protocol) as its number, or [`OTHER_PROTOCOL`].
    pub protocol: u8,
    /// 1: shadow mode.
    pub shadow: u8,
}

/// [`DropEvent::protocol`] of what has no ports to look up.
pub const OTHER_PROTOCOL: u8 = 3;

/// Samples a CPU may send at once, and a second.
pub const SAMPLE_BURST: u64 = 64;
/// Emission interval of samples on one CPU, in nanoseconds.
pub const SAMPLE_INTERVAL: u64 = 1_000_000;

const _: () = assert!(size_of::<DropEvent>() == 48);
