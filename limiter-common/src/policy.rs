//! Values of the shared maps.
//!
//! Policies, ports, classes and CIDRs exist twice, as generations 0 and 1. The program reads the
//! number of the generation in force once a packet; the daemon writes the other one and then the
//! number. So a packet sees the old set of policies or the new one, and nothing in between.

use crate::bucket::Limit;
use crate::key::{Address, Secret};

/// Units that a level can limit, as indices of [`Level::limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Unit {
    /// A TCP SYN without ACK: a connection attempt, retransmissions included.
    Connections = 0,
    /// A packet; of a super-packet (GSO), each segment.
    Packets = 1,
    /// A byte from the link layer header on.
    Bytes = 2,
}

impl Unit {
    pub const ALL: [Self; 3] = [Self::Connections, Self::Packets, Self::Bytes];

    /// Its bit in [`Level::units`] and [`Level::coarse`].
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Levels of one class at most.
pub const MAX_LEVELS: u32 = 3;
/// Policies of one generation at most; index 0 stands for none.
pub const MAX_POLICIES: u32 = 256;
/// Classes of one generation at most.
pub const MAX_CLASSES: u32 = 1024;
/// CIDRs of both generations together at most.
pub const MAX_CIDRS: u32 = 1 << 19;
/// Sentences at once at most.
pub const MAX_SENTENCES: u32 = 1 << 16;

/// [`Policy::flags`]: counts what would be dropped, drops nothing.
pub const FLAG_SHADOW: u32 = 1 << 0;
/// [`Policy::flags`]: it has CIDRs to look a source up in.
pub const FLAG_CIDRS: u32 = 1 << 1;

/// A network policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Policy {
    /// Its id, under which its packets are counted: in `1..MAX_POLICIES`, stable by name.
    pub id: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// Class of sources that no CIDR names.
    pub class: u32,
    pub reserved: u32,
}

/// What one CIDR of a policy says of the sources in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CidrAction {
    /// Never limited.
    Allow,
    /// Always dropped.
    Deny,
    /// Limited by this class.
    Class(u32),
}

impl CidrAction {
    /// As it lies in the map.
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Allow => 0,
            Self::Deny => 1,
            Self::Class(class) => class.wrapping_add(2),
        }
    }

    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            0 => Self::Allow,
            1 => Self::Deny,
            class => Self::Class(class - 2),
        }
    }
}

/// Limits for groups of sources; all levels must admit a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Class {
    pub levels: [Level; MAX_LEVELS as usize],
    /// Levels in use; 0: unlimited, which one has to write.
    pub count: u32,
    /// The one unit that the first level limits, as its number and one, where there is one level
    /// with one limit: the usual case, which the program takes a shorter way for. Else 0.
    pub sole: u32,
}

/// Limits on the sources of one prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Level {
    /// What of an IPv4 source counts; all zero: all sources share (`scope: Listener`).
    pub mask_v4: Address,
    /// What of an IPv6 source counts.
    pub mask_v6: Address,
    /// Identity of its buckets, stable by name of the policy, rule and prefix.
    pub seed: u64,
    /// Which of `limits` are in force: [`Unit::bit`].
    pub units: u32,
    /// Which of them take the coarse clock: their buckets take many of its ticks to fill.
    pub coarse: u32,
    /// By [`Unit`].
    pub limits: [Limit; 3],
}

impl Level {
    /// The seed of one unit's buckets.
    #[inline(always)]
    #[must_use]
    pub const fn unit_seed(&self, unit: Unit) -> u64 {
        self.seed
            .wrapping_add((unit as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// Settings that the program reads with every packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Of the tables.
    pub secret: Secret,
    /// Generation in force: 0 or 1.
    pub generation: u32,
    /// Not 0: there are sentences to look sources up in.
    pub sentences: u32,
    /// Mask of an index into the table of sources, in sets.
    pub set_mask: u32,
    /// Mask of an index into one row of the sketch.
    pub cell_mask: u32,
    /// Nanoseconds that a source keeps its place in the table after its bucket is full again.
    pub keep: u64,
    /// Nanoseconds without a heartbeat after which everything passes; 0: never.
    pub dead_after: u64,
    /// Not 0: there are interfaces with a policy for what no port's policy takes.
    pub interfaces: u32,
    pub reserved: u32,
}

impl Config {
    /// The generation in force and an index in it, in an array of both with `each` entries.
    #[inline(always)]
    #[must_use]
    pub const fn index(generation: u32, each: u32, index: u32) -> u32 {
        (generation & 1) * each + index
    }
}

/// Longest policy name in bytes: a Kubernetes namespace, `/`, and a name (RFC 1123 subdomains of at
/// most 253).
pub const POLICY_NAME_LEN: usize = 508;

/// Which policy an id stands for, kept in the kernel so that a restarted daemon gives every policy
/// the id under which its buckets lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PolicyName {
    /// Bytes of `name` in use; 0: the id is free.
    pub len: u32,
    /// UTF-8 `namespace/name`, zero after `len`.
    pub name: [u8; POLICY_NAME_LEN],
}

const _: () = assert!(size_of::<Policy>() == 16);
const _: () = assert!(size_of::<Level>() == 48 + 3 * 32);
const _: () = assert!(size_of::<Class>() == 3 * 144 + 8);
const _: () = assert!(size_of::<Config>() == 56);
const _: () = assert!(size_of::<PolicyName>() == 512);
