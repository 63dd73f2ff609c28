//! Token buckets of local limits (`local_ratelimit.options.gloo.solo.io.TokenBucket`).

use limiter_common::Limit;
use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
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
}

/// A token bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) limit: Limit,
    /// Seconds of its fill interval, rounded up.
    pub(crate) window: u64,
    pub(crate) mark: Mark,
}

/// Checks it; `None` after an error.
pub(crate) fn lower(raw: At<RawTokenBucket>, scope: &mut Scope<'_>) -> Option<Bucket> {
    let At { value: raw, mark } = raw;
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
        mark,
    })
}
