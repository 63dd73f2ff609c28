//! Values of the shared maps.

use crate::bucket::Limit;

/// `PortPolicy::units`: the `connections` bucket is in force.
pub const UNIT_CONNECTIONS: u32 = 1 << 0;
/// `PortPolicy::units`: the `packets` bucket is in force.
pub const UNIT_PACKETS: u32 = 1 << 1;

/// The network policy on one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PortPolicy {
    /// Id of the policy, in `1..MAX_POLICIES`.
    pub policy: u32,
    /// Which of the buckets below are in force: `UNIT_*` flags.
    pub units: u32,
    /// A token for each TCP SYN without ACK (a connection attempt, retransmissions included).
    pub connections: Limit,
    /// A token for each packet.
    pub packets: Limit,
}

/// The buckets of one source under one policy: the TAT of each, zero for a full one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SourceBuckets {
    pub connections: u64,
    pub packets: u64,
}

/// Longest policy name in bytes: a Kubernetes namespace, `/`, and a name (RFC 1123 subdomains of at most 253).
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

const _: () = assert!(size_of::<PortPolicy>() == 40);
const _: () = assert!(size_of::<SourceBuckets>() == 16);
const _: () = assert!(size_of::<PolicyName>() == 512);
