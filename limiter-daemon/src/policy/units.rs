//! Durations, units of time, and the limits made of them.

use std::time::Duration;

use limiter_common::Limit;
use limiter_common::bucket::LimitError;
use serde::Deserialize;

use super::decode::At;
use super::findings::{Mark, Scope};

const SECOND: u64 = 1_000_000_000;

/// `limit.unit` of Envoy Gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    /// 30 days, as Envoy has it.
    Month,
    /// 365 days, as Envoy has it.
    Year,
}

impl Unit {
    pub(crate) const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
            Self::Year => 365 * 86_400,
        }
    }

    pub(crate) const fn nanos(self) -> u64 {
        self.seconds() * SECOND
    }
}

/// Where the three numbers of a bucket stand, so that an error names the one to change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BucketMarks<'a> {
    pub(crate) tokens: &'a Mark,
    pub(crate) fill: &'a Mark,
    pub(crate) interval: &'a Mark,
}

/// A bucket, or an error at the number that is wrong.
pub(crate) fn limit(
    max_tokens: u64,
    tokens_per_fill: u64,
    interval_ns: u64,
    marks: BucketMarks<'_>,
    scope: &mut Scope<'_>,
) -> Option<Limit> {
    let (mark, message, remedy) = match Limit::new(max_tokens, tokens_per_fill, interval_ns) {
        Ok(limit) => return Some(limit),
        Err(LimitError::NoTokens) => (
            marks.tokens,
            "0 would let nothing pass, ever",
            "write 1 or more; to block everything remove the route or the listener",
        ),
        Err(LimitError::NoFill) => (
            marks.fill,
            "0 would never refill the bucket",
            "write 1 or more",
        ),
        Err(LimitError::NoInterval) => (
            marks.interval,
            "an interval of 0 is no rate",
            "write a duration above 0, as `1s`",
        ),
        Err(LimitError::TooFast) => (
            marks.fill,
            "the rate is finer than the bucket's clock",
            "the most is 1048576 tokens a nanosecond",
        ),
        Err(LimitError::TooSlow) => (
            marks.interval,
            "the bucket would take more than 146 years to fill",
            "write a shorter interval or fewer tokens",
        ),
    };
    scope.error(mark, message, remedy);
    None
}

/// A duration in nanoseconds, or an error at it.
pub(crate) fn duration(text: &At<String>, scope: &mut Scope<'_>) -> Option<u64> {
    match parse_duration(text) {
        Ok(nanos) => Some(nanos),
        Err(problem) => {
            let message = format!("`{}` is not a duration: {problem}", text.value);
            scope.error(&text.mark, message, "write it as `10s`, `500ms` or `1h30m`");
            None
        }
    }
}

/// A duration above 0, or an error at it.
pub(crate) fn positive_duration(text: &At<String>, scope: &mut Scope<'_>) -> Option<Duration> {
    let nanos = duration(text, scope)?;
    if nanos == 0 {
        scope.error(
            &text.mark,
            format!("`{}` is no time at all", text.value),
            "write a duration above 0, as `30s`",
        );
    }
    (nanos > 0).then(|| Duration::from_nanos(nanos))
}

/// A duration that bounds something, of which 0 is no bound; `None` after an error at it.
pub(crate) fn bound(text: &At<String>, scope: &mut Scope<'_>) -> Option<Option<Duration>> {
    let nanos = duration(text, scope)?;
    Some((nanos > 0).then(|| Duration::from_nanos(nanos)))
}

/// Gateway API durations (GEP-2257), and what Go writes beyond them: fractions and units below `ms`.
fn parse_duration(text: &str) -> Result<u64, &'static str> {
    const TOO_LONG: &str = "it is longer than 292 years";
    if text.is_empty() {
        return Err("it is empty");
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() {
            return Err("a number is due before each unit, and no sign");
        }
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let nanos = unit_nanos(unit)?;
        let whole: u64 = whole.parse().map_err(|_error| TOO_LONG)?;
        let part = whole
            .checked_mul(nanos)
            .and_then(|part| part.checked_add(fraction_of(fraction, nanos)))
            .ok_or(TOO_LONG)?;
        total = total
            .checked_add(part)
            .filter(|&total| total <= i64::MAX.unsigned_abs())
            .ok_or(TOO_LONG)?;
        rest = after;
    }
    Ok(total)
}

/// The digits that a text begins with, and the rest.
pub(super) fn digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

fn unit_nanos(unit: &str) -> Result<u64, &'static str> {
    match unit {
        "h" => Ok(3_600 * SECOND),
        "m" => Ok(60 * SECOND),
        "s" => Ok(SECOND),
        "ms" => Ok(1_000_000),
        "us" | "µs" => Ok(1_000),
        "ns" => Ok(1),
        "" => Err("the unit is missing"),
        _ => Err("the units are `h`, `m`, `s`, `ms`, `us` and `ns`"),
    }
}

/// Decimals of a unit, cut off below a nanosecond.
fn fraction_of(decimals: &str, nanos: u64) -> u64 {
    let mut share = nanos;
    let mut sum = 0;
    for digit in decimals.bytes() {
        share /= 10;
        sum += u64::from(digit - b'0') * share;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{SECOND, parse_duration};

    #[test]
    fn durations() {
        let table = [
            ("10s", Ok(10 * SECOND)),
            ("500ms", Ok(SECOND / 2)),
            ("1h30m", Ok(5_400 * SECOND)),
            ("1.5h", Ok(5_400 * SECOND)),
            ("0.25s", Ok(SECOND / 4)),
            ("100us", Ok(100_000)),
            ("1ns", Ok(1)),
            ("0s", Ok(0)),
            ("", Err("it is empty")),
            ("10", Err("the unit is missing")),
            ("s", Err("a number is due before each unit, and no sign")),
            ("-1s", Err("a number is due before each unit, and no sign")),
            (
                "1 s",
                Err("the units are `h`, `m`, `s`, `ms`, `us` and `ns`"),
            ),
            (
                "1d",
                Err("the units are `h`, `m`, `s`, `ms`, `us` and `ns`"),
            ),
            ("99999999999999999999s", Err("it is longer than 292 years")),
            ("9999999999s9999999999s", Err("it is longer than 292 years")),
        ];
        for (text, expected) in table {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
