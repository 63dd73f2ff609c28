//! Limits in the kernel.

use std::sync::Arc;

use ipnet::IpNet;
use limiter_common::{Limit, Protocol};

use super::Written;

/// Limits by source, enforced in the kernel on what they target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// `namespace/name`.
    pub name: String,
    /// Destinations, sorted, without repetition; ICMP stands at port 0.
    pub ports: Vec<(Protocol, u16)>,
    /// Interfaces targeted as a whole: everything that comes in there and that no policy targets by
    /// its port.
    pub interfaces: Vec<String>,
    /// Limits on sources that no rule names.
    pub default: SourceLimits,
    /// Limits on sources that a rule names; of several, the one with the longest prefix holds.
    pub rules: Vec<SourceRule>,
    /// Never limited, and never dropped for a sentence.
    pub allow: Vec<IpNet>,
    /// Always dropped.
    pub deny: Vec<IpNet>,
    /// Counts what would be dropped, drops nothing.
    pub shadow: bool,
    /// Where it is written, if anywhere.
    pub written: Option<Arc<Written>>,
}

/// Sources with limits of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRule {
    /// Stable over reloads: its `name`, or its index.
    pub name: String,
    /// Without host bits. No prefix stands twice in the rules and lists of a policy.
    /// An IPv6 prefix (as `::/0`) means IPv6 sources only, although IPv4 lies mapped in the kernel.
    pub cidrs: Vec<IpNet>,
    pub limits: SourceLimits,
}

/// What sources may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceLimits {
    Unlimited,
    /// All must admit a packet; one to [`MAX_LEVELS`](limiter_common::policy::MAX_LEVELS), no two
    /// with the same scope.
    Levels(Vec<NetworkLevel>),
}

/// Limits on the sources of one prefix. At least one unit is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkLevel {
    pub scope: Scope,
    pub connections: Option<Limit>,
    pub packets: Option<Limit>,
    pub bytes: Option<Limit>,
}

/// Who shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All sources (Gloo's meaning).
    Listener,
    /// The sources of one prefix.
    Source {
        /// Prefix length of IPv4 sources, 1 to 32.
        v4: u8,
        /// Prefix length of IPv6 sources, 1 to 64.
        v6: u8,
    },
}
