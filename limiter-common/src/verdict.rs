//! What becomes of a packet, and why: one counted reason for every packet.

/// Why a packet passed or was dropped. Counters are indexed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// Passed: neither IPv4 nor IPv6 (ARP, LLDP, more than two VLAN tags).
    NotIp = 0,
    /// Passed: headers cut short or inconsistent; the network stack judges it.
    Unparsable = 1,
    /// Passed: not the first fragment, so it carries no port.
    Fragment = 2,
    /// Passed: no policy targets its destination port and protocol.
    Untargeted = 3,
    /// Passed: within the limits of its policy.
    Conforming = 4,
    /// Dropped: the source's `connections` bucket is empty.
    OverConnections = 5,
    /// Dropped: the source's `packets` bucket is empty.
    OverPackets = 6,
    /// Dropped: other CPUs kept changing the bucket; admitting uncounted would break the limit.
    Contended = 7,
    /// Dropped: the table of sources took no new entry; admitting uncounted would break the limit.
    TableFull = 8,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::NotIp,
        Self::Unparsable,
        Self::Fragment,
        Self::Untargeted,
        Self::Conforming,
        Self::OverConnections,
        Self::OverPackets,
        Self::Contended,
        Self::TableFull,
    ];

    /// Number of reasons: the stride of the counters of one policy.
    pub const COUNT: u32 = 9;

    /// Whether a packet with this reason is dropped.
    #[inline(always)]
    #[must_use]
    pub const fn is_drop(self) -> bool {
        self as u32 >= Self::OverConnections as u32
    }

    /// The reason as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::Unparsable => "unparsable",
            Self::Fragment => "fragment",
            Self::Untargeted => "untargeted",
            Self::Conforming => "conforming",
            Self::OverConnections => "over_connections",
            Self::OverPackets => "over_packets",
            Self::Contended => "contended",
            Self::TableFull => "table_full",
        }
    }
}

/// The outcome for one packet: the reason, and the policy that it is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Id of the policy; 0 where none was reached.
    pub policy: u32,
    pub reason: Reason,
}

impl Verdict {
    #[inline(always)]
    pub const fn new(policy: u32, reason: Reason) -> Self {
        Self { policy, reason }
    }

    /// Index of the packet's counter; below `MAX_POLICIES * Reason::COUNT` for every id below
    /// `MAX_POLICIES`.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> u32 {
        self.policy
            .wrapping_mul(Reason::COUNT)
            .wrapping_add(self.reason as u32)
    }
}

const _: () = assert!(Reason::ALL.len() == Reason::COUNT as usize);
