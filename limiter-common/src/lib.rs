//! What the kernel half and the user half of limiterd must agree on.
//!
//! The GCRA step ([`bucket`]), where the buckets of many sources lie ([`table`]), the layouts of the
//! shared BPF maps ([`key`], [`policy`], [`local`], [`event`]) and the reasons a packet can pass or be dropped
//! ([`verdict`]). No standard library, no allocation, no panic path and no division on the way of a
//! packet.

#![no_std]
#![forbid(unsafe_code)]

pub mod bucket;
pub mod event;
pub mod key;
pub mod local;
pub mod policy;
pub mod table;
pub mod verdict;

pub use bucket::{Cell, Decision, Limit, LimitError, Step};
pub use event::DropEvent;
pub use key::{Address, CidrKey, Protocol, Secret};
pub use local::Local;
pub use policy::{CidrAction, Class, Config, Level, Policy, PolicyName, Unit};
pub use verdict::{Reason, Verdict};

/// Version of the map layouts and of their meaning. Pinned maps live under a directory that carries
/// it, so that a daemon never adopts a layout it does not know. Raise it with every change of
/// [`key`], [`policy`], [`local`], [`event`] or the numbering of [`Reason`].
pub const ABI_VERSION: u32 = 3;
