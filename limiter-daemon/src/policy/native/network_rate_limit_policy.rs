//! `NetworkRateLimitPolicy`: limits per source, enforced in the kernel.

use limiter_common::Limit;
use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api;
use crate::policy::resource::{Meta, Name};
use crate::policy::units::{self, BucketMarks};

const MAX_TARGETS: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawNetworkRateLimitPolicy {
    target_refs: At<Vec<At<RawTarget>>>,
    connections: Option<At<RawBucket>>,
    packets: Option<At<RawBucket>>,
}

#[derive(Debug, Deserialize)]
struct RawTarget {
    group: At<String>,
    kind: At<String>,
    name: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBucket {
    max_tokens: At<u64>,
    tokens_per_fill: Option<At<u64>>,
    fill_interval: Option<At<String>>,
}

/// A NetworkRateLimitPolicy, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct NetworkLimit {
    pub(crate) meta: Meta,
    pub(crate) targets: Vec<(Name, Mark)>,
    pub(crate) connections: Option<Limit>,
    pub(crate) packets: Option<Limit>,
    pub(crate) mark: Mark,
}

/// Checks a NetworkRateLimitPolicy.
pub(crate) fn lower(
    raw: At<RawNetworkRateLimitPolicy>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> NetworkLimit {
    let At { value: raw, mark } = raw;
    let refs = raw.target_refs;
    scope.at_most(&refs.mark, refs.len(), MAX_TARGETS);
    if refs.is_empty() {
        scope.error(
            &refs.mark,
            "no targets, so the policy applies to nothing",
            "name a Gateway",
        );
    }
    if raw.connections.is_none() && raw.packets.is_none() {
        let message = "neither `connections` nor `packets`, so nothing would be limited";
        scope.error(&mark, message, "give it at least one of them");
    }
    let targets = refs
        .value
        .into_iter()
        .filter_map(|target| lower_target(target.value, &meta, scope))
        .collect();
    let connections = raw
        .connections
        .and_then(|bucket| lower_bucket(&bucket, scope));
    let packets = raw.packets.and_then(|bucket| lower_bucket(&bucket, scope));
    NetworkLimit {
        meta,
        targets,
        connections,
        packets,
        mark,
    }
}

fn lower_target(raw: RawTarget, meta: &Meta, scope: &mut Scope<'_>) -> Option<(Name, Mark)> {
    if raw.group.value != gateway_api::GROUP {
        let message = format!("nothing of the group `{}` can be a target", raw.group.value);
        scope.error(
            &raw.group.mark,
            message,
            format!("write `{}`", gateway_api::GROUP),
        );
        return None;
    }
    if raw.kind.value != "Gateway" {
        let message = format!("`{}` cannot be a target here", raw.kind.value);
        scope.error(
            &raw.kind.mark,
            message,
            "the kernel sees ports, not requests: name a `Gateway`",
        );
        return None;
    }
    Some((Name::new(&meta.name.namespace, &raw.name), raw.name.mark))
}

/// `tokensPerFill` is 1 and `fillInterval` one second unless told.
fn lower_bucket(raw: &At<RawBucket>, scope: &mut Scope<'_>) -> Option<Limit> {
    let max = raw.max_tokens.value;
    let fill = raw.tokens_per_fill.as_ref().map_or(1, |fill| fill.value);
    let interval = match &raw.fill_interval {
        Some(text) => units::duration(text, scope)?,
        None => units::Unit::Second.nanos(),
    };
    let marks = BucketMarks {
        tokens: &raw.max_tokens.mark,
        fill: raw
            .tokens_per_fill
            .as_ref()
            .map_or(&raw.max_tokens.mark, |fill| &fill.mark),
        interval: raw
            .fill_interval
            .as_ref()
            .map_or(&raw.mark, |interval| &interval.mark),
    };
    if fill > max && max > 0 {
        let message =
            format!("a bucket of {max} cannot take {fill} tokens at once: {max} are meant");
        scope.warning(
            marks.fill,
            message,
            format!("write {max}, or a larger `maxTokens`"),
        );
    }
    units::limit(max, fill, interval, marks, scope)
}
