//! What the kernel half and the user half of limiterd must agree on.
//!
//! The GCRA step ([`bucket`]), the layouts of the shared BPF maps ([`key`], [`policy`]) and the
//! reasons a packet can pass or be dropped ([`verdict`]). No standard library, no allocation, no
//! panic path and no division on the way of a packet.

#![no_std]
#![forbid(unsafe_code)]

pub mod bucket;
pub mod key;
pub mod policy;
pub mod verdict;

pub use bucket::{Cell, Decision, Limit, LimitError, Step};
pub use key::{PortKey, Protocol, SourceKey};
pub use policy::{PolicyName, PortPolicy, SourceBuckets};
pub use verdict::{Reason, Verdict};

/// Version of the map layouts and of their meaning. Pinned maps live under a directory that carries
/// it, so that a daemon never adopts a layout it does not know. Raise it with every change of
/// [`key`], [`policy`] or the numbering of [`Reason`].
pub const ABI_VERSION: u32 = 1;

/// Network policies that can be loaded at once; id 0 stands for "no policy".
pub const MAX_POLICIES: u32 = 256;

/// Listener ports that can be under a network policy at once.
pub const MAX_PORTS: u32 = 1024;
