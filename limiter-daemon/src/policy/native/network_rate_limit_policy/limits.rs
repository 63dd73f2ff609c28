//! Levels of limits, in the short form (one, in place) and in the long one (`levels`).

use limiter_common::Limit;
use limiter_common::policy::MAX_LEVELS;
use serde::Deserialize;

use super::Targets;
use super::buckets::{RawBucket, RawBytes, lower_bucket, lower_bytes};
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{self, NetworkLevel};

const DEFAULT_V4: u8 = 32;
const DEFAULT_V6: u8 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum RawScope {
    Source,
    Listener,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawPrefixLength {
    ipv4: Option<At<u8>>,
    ipv6: Option<At<u8>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLevel {
    scope: Option<At<RawScope>>,
    prefix_length: Option<At<RawPrefixLength>>,
    connections: Option<At<RawBucket>>,
    packets: Option<At<RawBucket>>,
    bytes: Option<At<RawBytes>>,
}

/// Both forms, as they stand in a policy and in a rule.
#[derive(Debug)]
pub(super) struct RawLimits {
    pub(super) scope: Option<At<RawScope>>,
    pub(super) prefix_length: Option<At<RawPrefixLength>>,
    pub(super) connections: Option<At<RawBucket>>,
    pub(super) packets: Option<At<RawBucket>>,
    pub(super) bytes: Option<At<RawBytes>>,
    pub(super) levels: Option<At<Vec<At<RawLevel>>>>,
}

impl RawLimits {
    /// Whether there is anything of either form.
    pub(super) fn any(&self) -> bool {
        self.short().is_some() || self.levels.is_some()
    }

    /// Where the first limit or setting of either form stands.
    pub(super) fn mark(&self) -> Option<&Mark> {
        let levels = self.levels.as_ref().map(|levels| &levels.mark);
        self.short().or(levels)
    }

    /// Where the short form begins.
    fn short(&self) -> Option<&Mark> {
        fn mark<T>(at: &Option<At<T>>) -> Option<&Mark> {
            at.as_ref().map(|at| &at.mark)
        }
        mark(&self.connections)
            .or_else(|| mark(&self.packets))
            .or_else(|| mark(&self.bytes))
            .or_else(|| mark(&self.scope))
            .or_else(|| mark(&self.prefix_length))
    }
}

/// The levels; none if nothing is given, or only what is wrong.
pub(super) fn lower(raw: RawLimits, targets: &Targets, scope: &mut Scope<'_>) -> Vec<NetworkLevel> {
    let short = raw.short().cloned();
    let Some(levels) = raw.levels else {
        let Some(mark) = short else {
            return Vec::new();
        };
        let level = RawLevel {
            scope: raw.scope,
            prefix_length: raw.prefix_length,
            connections: raw.connections,
            packets: raw.packets,
            bytes: raw.bytes,
        };
        return lower_level(level, &mark, targets, scope)
            .into_iter()
            .collect();
    };
    if let Some(mark) = short {
        scope.error(
            &mark,
            "limits stand here and under `levels`",
            "make them a level of their own",
        );
    }
    scope.at_most(&levels.mark, levels.len(), MAX_LEVELS as usize);
    if levels.is_empty() {
        scope.error(
            &levels.mark,
            "no levels, so nothing would be limited",
            "write one, or remove `levels`",
        );
    }
    let mut lowered: Vec<NetworkLevel> = Vec::new();
    for At { value, mark } in levels.value {
        let Some(level) = lower_level(value, &mark, targets, scope) else {
            continue;
        };
        if lowered.iter().any(|other| other.scope == level.scope) {
            scope.error(
                &mark,
                "a level of the same scope and prefix lengths is there already",
                "join the two: a level may have `connections`, `packets` and `bytes`",
            );
        }
        lowered.push(level);
    }
    lowered
}

fn lower_level(
    raw: RawLevel,
    mark: &Mark,
    targets: &Targets,
    scope: &mut Scope<'_>,
) -> Option<NetworkLevel> {
    let sources = lower_scope(raw.scope.as_ref(), raw.prefix_length.as_ref(), scope);
    if raw.connections.is_none() && raw.packets.is_none() && raw.bytes.is_none() {
        scope.error(
            mark,
            "none of `connections`, `packets` and `bytes`, so nothing would be limited",
            "give it at least one of them",
        );
        return None;
    }
    if let Some(connections) = raw.connections.as_ref().filter(|_| !targets.connects) {
        scope.error(
            &connections.mark,
            "UDP and ICMP have no connections",
            "limit `packets` or `bytes` there",
        );
    }
    let connections = raw.connections.map(|bucket| lower_bucket(&bucket, scope));
    let packets = raw.packets.map(|bucket| lower_bucket(&bucket, scope));
    let bytes = raw.bytes.map(|bucket| lower_bytes(&bucket, scope));
    // One that is wrong spoils the level: it must not seem to be unlimited.
    Some(NetworkLevel {
        scope: sources?,
        connections: transposed(connections)?,
        packets: transposed(packets)?,
        bytes: transposed(bytes)?,
    })
}

/// `None` where a limit is given and wrong.
fn transposed(limit: Option<Option<Limit>>) -> Option<Option<Limit>> {
    match limit {
        None => Some(None),
        Some(limit) => limit.map(Some),
    }
}

fn lower_scope(
    sources: Option<&At<RawScope>>,
    lengths: Option<&At<RawPrefixLength>>,
    scope: &mut Scope<'_>,
) -> Option<plan::Scope> {
    if sources.is_some_and(|sources| sources.value == RawScope::Listener) {
        if let Some(lengths) = lengths {
            scope.error(
                &lengths.mark,
                "all sources of a listener share one bucket, whatever their prefix",
                "remove `prefixLength`, or write `scope: Source`",
            );
            return None;
        }
        return Some(plan::Scope::Listener);
    }
    lengths_of(
        lengths,
        Some("for one bucket that all sources share write `scope: Listener`"),
        scope,
    )
}

/// The scope of limits on each source, of prefixes of these lengths; `None` after an error.
pub(crate) fn by_source(
    lengths: Option<&At<RawPrefixLength>>,
    scope: &mut Scope<'_>,
) -> Option<plan::Scope> {
    lengths_of(lengths, None, scope)
}

/// `zero`: what whoever writes 0 may mean.
fn lengths_of(
    lengths: Option<&At<RawPrefixLength>>,
    zero: Option<&str>,
    scope: &mut Scope<'_>,
) -> Option<plan::Scope> {
    let (v4, v6) = lengths.map_or((None, None), |lengths| {
        (lengths.ipv4.as_ref(), lengths.ipv6.as_ref())
    });
    let v4 = prefix_length(v4, DEFAULT_V4, 32, zero, scope);
    let v6 = prefix_length(v6, DEFAULT_V6, 64, zero, scope);
    Some(plan::Scope::Source { v4: v4?, v6: v6? })
}

fn prefix_length(
    length: Option<&At<u8>>,
    default: u8,
    most: u8,
    zero: Option<&str>,
    scope: &mut Scope<'_>,
) -> Option<u8> {
    let Some(length) = length else {
        return Some(default);
    };
    if (1..=most).contains(&length.value) {
        return Some(length.value);
    }
    let remedy = match (length.value, zero) {
        (0, Some(zero)) => zero.to_owned(),
        _ if most == 64 => {
            format!("it may be 1 to {most}: whoever has one address of a /64 has all of them")
        }
        _ => format!("it may be 1 to {most}"),
    };
    let message = format!("{} is out of range", length.value);
    scope.error(&length.mark, message, remedy);
    None
}
