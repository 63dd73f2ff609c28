//! Token buckets of local limits (`local_ratelimit.options.gloo.solo.io.TokenBucket`).

use std::sync::Arc;

use limiter_common::Limit;
use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::native::network_rate_limit_policy::escalation::{
    self, Escalation, RawEscalation,
};
use crate::policy::native::network_rate_limit_policy::limits::{self, RawPrefixLength};
use crate::policy::plan;
use crate::policy::units::{self, BucketMarks};

/// Envoy's bound on `fillInterval`, in nanoseconds.
const MIN_INTERVAL: u64 = 50_000_000;
const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawTokenBucket {
    max_tokens: Option<At<u32>>,
    tokens_per_fill: Option<At<u32>>,
    fill_interval: Option<At<String>>,
    limiterd: Option<At<RawExtension>>,
}

/// What limiterd can do beyond Gloo: of limits on connections.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawExtension {
    per_source: Option<At<RawPerSource>>,
    escalation: Option<At<RawEscalation>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPerSource {
    max_tokens: Option<At<u32>>,
    tokens_per_fill: Option<At<u32>>,
    fill_interval: Option<At<String>>,
    prefix_length: Option<At<RawPrefixLength>>,
}

/// A limit on connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetworkBucket {
    /// That all sources share.
    pub(crate) all: Bucket,
    /// That each source has, besides.
    pub(crate) each: Option<(plan::Scope, Bucket)>,
    /// Who is sentenced at the gateway.
    pub(crate) escalation: Option<Box<Escalation>>,
}

/// A token bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) limit: Limit,
    /// Seconds of its fill interval, rounded up.
    pub(crate) window: u64,
    pub(crate) mark: Mark,
    pub(crate) written: Option<Arc<plan::Written>>,
}

/// Checks a bucket of connections; `None` after an error.
pub(crate) fn network(raw: At<RawTokenBucket>, scope: &mut Scope<'_>) -> Option<NetworkBucket> {
    let At {
        value: mut raw,
        mark,
    } = raw;
    let extension = raw.limiterd.take();
    let all = lower(At { value: raw, mark }, scope);
    let (per_source, escalation) = match extension {
        None => (None, None),
        Some(At { value: raw, mark }) => {
            if raw.per_source.is_none() && raw.escalation.is_none() {
                scope.error(
                    &mark,
                    "nothing is extended",
                    "write `perSource` or `escalation`, or remove `limiterd`",
                );
            }
            (raw.per_source, raw.escalation)
        }
    };
    let each = match per_source {
        None => None,
        Some(raw) => Some(lower_each(raw, scope)?),
    };
    let escalation = match escalation {
        None => None,
        Some(raw) => Some(Box::new(escalation::lower(raw, scope)?)),
    };
    Some(NetworkBucket {
        all: all?,
        each,
        escalation,
    })
}

/// The bucket of each source, and who shares one.
fn lower_each(raw: At<RawPerSource>, scope: &mut Scope<'_>) -> Option<(plan::Scope, Bucket)> {
    let At { value: raw, mark } = raw;
    let by = limits::by_source(raw.prefix_length.as_ref(), scope);
    let value = RawTokenBucket {
        max_tokens: raw.max_tokens,
        tokens_per_fill: raw.tokens_per_fill,
        fill_interval: raw.fill_interval,
        limiterd: None,
    };
    let bucket = lower(At { value, mark }, scope);
    Some((by?, bucket?))
}

/// Checks a bucket of requests; `None` after an error.
pub(crate) fn lower(raw: At<RawTokenBucket>, scope: &mut Scope<'_>) -> Option<Bucket> {
    let At { value: raw, mark } = raw;
    if let Some(extension) = &raw.limiterd {
        scope.error(
            &extension.mark,
            "`limiterd` is for limits on connections",
            "remove it, or limit requests of each client by `ratelimitBasic.anonymousLimits`",
        );
        return None;
    }
    let Some(tokens) = raw.max_tokens else {
        scope.error(
            &mark,
            "the bucket has no `maxTokens`",
            "write how many tokens it holds, 1 or more",
        );
        return None;
    };
    let interval = match &raw.fill_interval {
        Some(text) => units::duration(text, scope)?,
        None => SECOND,
    };
    if let Some(text) = raw
        .fill_interval
        .as_ref()
        .filter(|_| interval < MIN_INTERVAL)
    {
        scope.error(
            &text.mark,
            format!("`{}` is less than 50ms", text.value),
            "write 50ms or more, and fewer `tokensPerFill` for the same rate",
        );
        return None;
    }
    let marks = BucketMarks {
        tokens: &tokens.mark,
        fill: raw.tokens_per_fill.as_ref().map_or(&mark, |at| &at.mark),
        interval: raw.fill_interval.as_ref().map_or(&mark, |at| &at.mark),
    };
    let fill = raw.tokens_per_fill.as_ref().map_or(1, |at| at.value);
    let limit = units::limit(
        u64::from(tokens.value),
        u64::from(fill),
        interval,
        marks,
        scope,
    )?;
    Some(Bucket {
        limit,
        window: interval.div_ceil(SECOND),
        written: scope.written(&mark),
        mark,
    })
}
