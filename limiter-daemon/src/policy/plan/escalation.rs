//! Sentences: what HTTP learns of an address, the kernel enforces.

use std::time::Duration;

use limiter_common::Limit;

/// What counts against an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offence {
    /// A request over a limit that is enforced.
    RateLimited,
    /// What is no HTTP, or no request that may be forwarded.
    MalformedRequest,
    /// A TLS handshake that was begun and came to nothing.
    TlsHandshakeFailed,
    /// A handshake, a head or a body that took too long, a response that was not taken.
    SlowClient,
    /// A response of an upstream with one of the statuses that count.
    UpstreamStatus,
}

impl Offence {
    pub const ALL: [Self; 5] = [
        Self::RateLimited,
        Self::MalformedRequest,
        Self::TlsHandshakeFailed,
        Self::SlowClient,
        Self::UpstreamStatus,
    ];

    /// As policy files and metrics have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "RateLimited",
            Self::MalformedRequest => "MalformedRequest",
            Self::TlsHandshakeFailed => "TlsHandshakeFailed",
            Self::SlowClient => "SlowClient",
            Self::UpstreamStatus => "UpstreamStatus",
        }
    }
}

/// Whose kernels drop a sentenced address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    Node,
    /// All nodes that share the store; the node alone where there is none.
    Fleet,
}

/// When an address is sentenced, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    /// `namespace/name` of the policy.
    pub policy: String,
    /// TCP ports on which offences count, sorted.
    pub ports: Vec<u16>,
    /// Tokens that an offence takes, in the order of [`Offence::ALL`]; 0: it does not count. Of
    /// upstreams' statuses `statuses` has them.
    pub costs: [u32; Offence::ALL.len()],
    /// Tokens that a response with a status takes, sorted.
    pub statuses: Vec<(u16, u32)>,
    /// What an address may take; who is over it is sentenced. No cost is more than it holds.
    pub threshold: Limit,
    /// Prefix length of IPv4 addresses, 1 to 32, that offend and are sentenced as one.
    pub v4: u8,
    /// Prefix length of IPv6 addresses, 1 to 64.
    pub v6: u8,
    pub terms: Terms,
    pub reach: Reach,
    /// Counts and logs who would be sentenced; sentences nobody.
    pub shadow: bool,
}

/// How long sentences last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The first one.
    pub block_for: Duration,
    /// Each further one lasts so many times as long as the one before, in thousandths; 1000 or more.
    pub growth: u32,
    /// What none is longer than; not less than `block_for`.
    pub max_block: Duration,
    /// For each such time without a sentence, one is forgotten.
    pub decay: Duration,
}
