//! What becomes of a packet, and why: one counted reason for every packet.

use crate::policy::MAX_LEVELS;

/// Why a packet passed or was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Passed: neither IPv4 nor IPv6 (ARP, LLDP, more than two VLAN tags).
    NotIp = 0,
    /// Passed: headers cut short or inconsistent; the network stack judges it.
    Unparsable = 1,
    /// Passed: not the first fragment, so it carries no port.
    Fragment = 2,
    /// Passed: no policy targets its destination.
    Untargeted = 3,
    /// Passed: neighbour discovery or an ICMP error, without which the network does not work.
    Vital = 4,
    /// Passed: the daemon is gone and `onDaemonLost` says so.
    DaemonLost = 5,
    /// Passed: on the allow list of its policy.
    Allowed = 6,
    /// Passed: within the limits of its policy.
    Conforming = 7,
    /// Dropped: on the deny list of its policy.
    Denied = 8,
    /// Dropped: the source serves a sentence.
    Sentenced = 9,
    /// Dropped: the `connections` bucket is empty.
    OverConnections = 10,
    /// Dropped: the `packets` bucket is empty.
    OverPackets = 11,
    /// Dropped: the `bytes` bucket is empty.
    OverBytes = 12,
    /// Dropped: other CPUs kept changing the bucket; admitting uncounted would break the limit.
    Contended = 13,
    /// Dropped: more IPv6 extension headers in a row than any sender needs (RFC 8504 section 5.3 lets hosts
    /// refuse them): behind them a packet could hide from its policy.
    HeaderChain = 14,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 15] = [
        Self::NotIp,
        Self::Unparsable,
        Self::Fragment,
        Self::Untargeted,
        Self::Vital,
        Self::DaemonLost,
        Self::Allowed,
        Self::Conforming,
        Self::Denied,
        Self::Sentenced,
        Self::OverConnections,
        Self::OverPackets,
        Self::OverBytes,
        Self::Contended,
        Self::HeaderChain,
    ];

    /// Number of reasons.
    pub const COUNT: u32 = 15;

    /// Whether a packet with this reason is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(self) -> bool {
        self as u32 >= Self::Denied as u32
    }

    /// The reason as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::Unparsable => "unparsable",
            Self::Fragment => "fragment",
            Self::Untargeted => "untargeted",
            Self::Vital => "vital",
            Self::DaemonLost => "daemon_lost",
            Self::Allowed => "allowed",
            Self::Conforming => "conforming",
            Self::Denied => "denied",
            Self::Sentenced => "sentenced",
            Self::OverConnections => "over_connections",
            Self::OverPackets => "over_packets",
            Self::OverBytes => "over_bytes",
            Self::Contended => "contended",
            Self::HeaderChain => "header_chain",
        }
    }
}

/// The outcome for one packet: the reason, and what it is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Id of the policy; 0 where none was reached.
    pub policy: u32,
    /// Index of the level that decided; 0 where none did.
    pub level: u32,
    pub reason: Reason,
    /// The policy is in shadow mode: what would be dropped passes.
    pub shadow: bool,
}

/// Counters of one policy.
pub const COUNTERS_PER_POLICY: u32 = 2 * MAX_LEVELS * Reason::COUNT;

impl Verdict {
    /// A verdict that no level took part in.
    #[inline(always)]
    pub const fn new(policy: u32, reason: Reason) -> Self {
        Self {
            policy,
            level: 0,
            reason,
            shadow: false,
        }
    }

    /// Whether the packet is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn drops(self) -> bool {
        self.reason.is_drop() && !self.shadow
    }

    /// Index of the packet's counter, below `MAX_POLICIES * COUNTERS_PER_POLICY`.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> u32 {
        let shadow = self.shadow as u32;
        let row = self.policy.wrapping_mul(2).wrapping_add(shadow);
        let row = row.wrapping_mul(MAX_LEVELS).wrapping_add(self.level);
        row.wrapping_mul(Reason::COUNT)
            .wrapping_add(self.reason as u32)
    }
}

const _: () = assert!(Reason::ALL.len() == Reason::COUNT as usize);
