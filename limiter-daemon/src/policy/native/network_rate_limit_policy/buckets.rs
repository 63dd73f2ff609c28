//! The buckets of a level, by unit.

use limiter_common::Limit;
use serde::Deserialize;

use crate::policy::decode::{At, NumberOrText};
use crate::policy::findings::{Mark, Scope};
use crate::policy::quantity;
use crate::policy::units::{self, BucketMarks};

/// An Ethernet frame of 1500 bytes of payload.
const FULL_FRAME: u64 = 1514;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawBucket {
    max_tokens: At<u64>,
    tokens_per_fill: Option<At<u64>>,
    fill_interval: Option<At<String>>,
}

/// A bucket of bytes: its numbers may be quantities.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawBytes {
    max_tokens: At<NumberOrText>,
    tokens_per_fill: Option<At<NumberOrText>>,
    fill_interval: Option<At<String>>,
}

pub(super) fn lower_bucket(raw: &At<RawBucket>, scope: &mut Scope<'_>) -> Option<Limit> {
    let max = (raw.max_tokens.value, &raw.max_tokens.mark);
    let fill = raw
        .tokens_per_fill
        .as_ref()
        .map(|fill| (fill.value, &fill.mark));
    bucket(max, fill, raw.fill_interval.as_ref(), &raw.mark, scope)
}

pub(super) fn lower_bytes(raw: &At<RawBytes>, scope: &mut Scope<'_>) -> Option<Limit> {
    let max = quantity::read(&raw.max_tokens, scope);
    let fill = match &raw.tokens_per_fill {
        None => Some(None),
        Some(fill) => quantity::read(fill, scope).map(|value| Some((value, &fill.mark))),
    };
    let (max, mark) = (max?, &raw.max_tokens.mark);
    if (1..FULL_FRAME).contains(&max) {
        scope.warning(
            mark,
            format!("packets of more than {max} bytes would never pass"),
            format!("a full Ethernet frame has {FULL_FRAME}"),
        );
    }
    let interval = raw.fill_interval.as_ref();
    bucket((max, mark), fill?, interval, &raw.mark, scope)
}

/// `tokensPerFill` is 1 and `fillInterval` one second unless told.
fn bucket(
    (max, tokens): (u64, &Mark),
    fill: Option<(u64, &Mark)>,
    interval: Option<&At<String>>,
    mark: &Mark,
    scope: &mut Scope<'_>,
) -> Option<Limit> {
    let nanos = match interval {
        Some(text) => units::duration(text, scope)?,
        None => units::Unit::Second.nanos(),
    };
    let (fill, fill_mark) = fill.unwrap_or((1, tokens));
    let marks = BucketMarks {
        tokens,
        fill: fill_mark,
        interval: interval.map_or(mark, |interval| &interval.mark),
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
    units::limit(max, fill, nanos, marks, scope)
}
