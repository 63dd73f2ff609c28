//! What a simulation found, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;

pub use super::series::Steps;

/// What a simulation found. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub logs: Vec<String>,
    /// Of the first and of the last request; `None`: there was none.
    pub from: Option<String>,
    pub to: Option<String>,
    pub lines: LineCounts,
    /// What limiterd's own log says was decided, beside what the policy decides now; `None`: no line
    /// says anything of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logged: Option<Agreement>,
    /// What the logs do not say of requests, or the simulation leaves out.
    pub notes: Vec<String>,
    pub policy: PolicyReport,
    /// What `--against` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<PolicyReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Packets of captures, through the kernel's program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets: Option<PacketReport>,
}

/// Lines that were read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LineCounts {
    pub read: u64,
    pub requests: u64,
    /// Of connections that were passed on.
    pub connections: u64,
    pub unreadable: u64,
    /// The first of those, as `file:line: why`.
    pub first_unreadable: Vec<String>,
    /// Requests that came too late to be put in order, and were decided late.
    pub late: u64,
}

/// Decisions of a daemon and of the simulation on the same requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Lines that say what was decided.
    pub requests: u64,
    /// The same decision by the same rule.
    pub same: u64,
    /// Limited by the log, and not here.
    pub only_log: u64,
    /// The other way round.
    pub only_simulated: u64,
    /// The same decision by another rule.
    pub other_rule: u64,
}

/// What came of the requests under one policy.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PolicyReport {
    /// The directory.
    pub policy: String,
    pub requests: u64,
    pub admitted: u64,
    pub limited: u64,
    /// Answered with 404.
    pub no_route: u64,
    /// Answered with 400.
    pub bad_request: u64,
    /// Answered with 500: a policy about them has never been valid.
    pub broken: u64,
    /// Refused before they came to the limits, as the log says: not HTTP that is taken.
    pub refused: u64,
    /// Those that limited most first.
    pub rules: Vec<RuleReport>,
    pub clients: Ranking<LimitedClient>,
    pub buckets: Ranking<LimitedBucket>,
    pub requests_over_time: Steps,
    pub limited_over_time: Steps,
}

/// One limit on one route, or on all that share it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RuleReport {
    /// `namespace/name/rule/index`.
    pub rule: String,
    /// `namespace/name`; empty: all routes share it.
    pub route: String,
    /// `local` or `global`.
    pub reach: &'static str,
    /// The limit that is tried beside the rule's; empty: the rule's own.
    pub candidate: String,
    /// Requests that met it and were admitted by all limits.
    pub admitted: u64,
    /// Denied, with this limit as the one that decided; of a candidate, what it would deny.
    pub limited: u64,
    /// Admitted although over this limit: it is in shadow mode.
    pub shadow_limited: u64,
    /// Responses whose cost the logs do not tell.
    pub unmetered: u64,
    /// When it first and last limited, on whichever route.
    pub first: Option<String>,
    pub last: Option<String>,
    pub over_time: Steps,
}

/// Those with the highest counts.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ranking<T> {
    pub most: Vec<T>,
    /// How many were counted; if `missing` is not 0, how many are known.
    pub known: usize,
    /// By how much a count may be too low.
    pub missing: u64,
}

/// A client that a rule limited.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LimitedClient {
    pub client: String,
    pub rule: String,
    pub limited: u64,
    pub first: String,
    pub last: String,
}

/// A bucket of a rule that limited.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LimitedBucket {
    /// `name=value`, joined by commas.
    pub bucket: String,
    pub rule: String,
    pub limited: u64,
    pub first: String,
    pub last: String,
}

/// What two policies differ in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    pub limited_by_both: u64,
    /// Limited by `--policy` only.
    pub only_policy: OnlyOne,
    /// Limited by `--against` only.
    pub only_against: OnlyOne,
}

/// Requests that one policy limits and the other does not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OnlyOne {
    pub requests: u64,
    pub rules: BTreeMap<String, u64>,
    pub clients: Ranking<LimitedClient>,
}

/// What the kernel's program made of the packets of captures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PacketReport {
    pub from: Option<String>,
    pub to: Option<String>,
    pub packets: u64,
    pub passed: u64,
    pub dropped: u64,
    /// Packets that a policy in shadow mode would have dropped.
    pub shadow_dropped: u64,
    /// Packets that are no Ethernet, IP or Linux cooked ones, or are too short.
    pub unreadable: u64,
    /// Packets of which the capture has less than the headers, or that are too long for a test run,
    /// and so weigh less in limits on bytes.
    pub cut: u64,
    /// Those with a reason that a policy decided for, and drops.
    pub reasons: Vec<PacketReason>,
    pub sources: Ranking<DroppedSource>,
    pub packets_over_time: Steps,
    pub dropped_over_time: Steps,
}

/// Packets with one fate.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PacketReason {
    /// `namespace/name`; `None`: no policy has a say in them.
    pub policy: Option<String>,
    pub level: u32,
    pub reason: &'static str,
    pub shadow: bool,
    pub dropped: bool,
    pub packets: u64,
}

/// A source whose packets were dropped.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DroppedSource {
    pub source: String,
    /// Destination port; 0: it has none.
    pub port: u16,
    pub dropped: u64,
    pub first: String,
    pub last: String,
}
