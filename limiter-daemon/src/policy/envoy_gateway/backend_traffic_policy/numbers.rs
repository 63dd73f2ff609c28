//! Numbers that several blocks have: within a range, shares, statuses.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::merge::Bound;
use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::Fraction;
use crate::policy::units;

pub(super) const STATUSES: RangeInclusive<u16> = 100..=599;

/// Gateway API's `Fraction`.
#[derive(Debug, Deserialize)]
pub(super) struct RawFraction {
    numerator: At<u32>,
    denominator: Option<At<u32>>,
}

fn out_of_range(
    mark: &Mark,
    value: impl Display,
    least: impl Display,
    most: impl Display,
    scope: &mut Scope<'_>,
) {
    let remedy = format!("it may be {least} to {most}");
    scope.error(mark, format!("{value} is out of range"), remedy);
}

/// A number within `range`, or an error at it.
pub(super) fn within<T: Copy + PartialOrd + Display>(
    at: &At<T>,
    range: &RangeInclusive<T>,
    scope: &mut Scope<'_>,
) -> Option<T> {
    if !range.contains(&at.value) {
        out_of_range(&at.mark, at.value, range.start(), range.end(), scope);
        return None;
    }
    Some(at.value)
}

/// 1 or more, or an error at it: 0 is no way to say that there is no bound.
pub(super) fn at_least_one(at: &At<u32>, remedy: &str, scope: &mut Scope<'_>) -> Option<u32> {
    if at.value == 0 {
        scope.error(&at.mark, "0 is not possible", remedy);
    }
    (at.value > 0).then_some(at.value)
}

/// A status of HTTP, or an error at it.
pub(super) fn status(at: &At<u16>, scope: &mut Scope<'_>) -> Option<u16> {
    within(at, &STATUSES, scope)
}

/// A list of statuses, of which there must be one; `None` after an error.
pub(super) fn statuses(list: &At<Vec<At<u16>>>, scope: &mut Scope<'_>) -> Option<BTreeSet<u16>> {
    if list.is_empty() {
        scope.error(&list.mark, "no statuses", "write at least one, as `[503]`");
        return None;
    }
    let valid: Vec<Option<u16>> = list.iter().map(|at| status(at, scope)).collect();
    valid.into_iter().collect()
}

/// Statuses as few ranges.
pub(super) fn ranges(statuses: &BTreeSet<u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for &status in statuses {
        match ranges.last_mut() {
            Some(last) if last.end() + 1 == status => *last = *last.start()..=status,
            _ => ranges.push(status..=status),
        }
    }
    ranges
}

/// A share, or an error at it.
pub(super) fn fraction(raw: At<RawFraction>, scope: &mut Scope<'_>) -> Option<Fraction> {
    let At { value: raw, mark } = raw;
    let numerator = raw.numerator.value;
    let denominator = raw.denominator.map_or(100, |at| at.value);
    if denominator == 0 || numerator > denominator {
        scope.error(
            &mark,
            format!("{numerator} of {denominator} is no share"),
            "write a numerator of at most the denominator, which is not 0",
        );
        return None;
    }
    Some(Fraction {
        numerator,
        denominator,
    })
}

/// Percent, with up to four decimals; or an error at it.
pub(super) fn percent(at: &At<f64>, scope: &mut Scope<'_>) -> Option<Fraction> {
    if !(0.0..=100.0).contains(&at.value) {
        out_of_range(&at.mark, at.value, 0, 100, scope);
        return None;
    }
    let digits: String = format!("{:.4}", at.value)
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let millionths: u32 = digits.parse().ok()?;
    if millionths == 0 && at.value > 0.0 {
        let message = format!("{} is finer than can be told apart from 0", at.value);
        scope.error(&at.mark, message, "write at least 0.0001");
        return None;
    }
    Some(if millionths.is_multiple_of(10_000) {
        Fraction::percent(millionths / 10_000)
    } else {
        Fraction {
            numerator: millionths,
            denominator: 1_000_000,
        }
    })
}

/// A time of which `0s` is no bound; `None` after an error, or if it is not given.
pub(super) fn bound(text: Option<&At<String>>, scope: &mut Scope<'_>) -> Option<Bound> {
    units::bound(text?, scope).map(Bound)
}

/// A time above 0; `None` after an error, or if it is not given.
pub(super) fn time(text: Option<&At<String>>, scope: &mut Scope<'_>) -> Option<Duration> {
    units::positive_duration(text?, scope)
}

/// A time above 0 and of at least `least`; `None` after an error, or if it is not given.
pub(super) fn time_of_at_least(
    text: Option<&At<String>>,
    least: Duration,
    scope: &mut Scope<'_>,
) -> Option<Duration> {
    let text = text?;
    let time = units::positive_duration(text, scope)?;
    if time < least {
        let message = format!("`{}` is too short", text.value);
        scope.error(&text.mark, message, format!("write at least `{least:?}`"));
        return None;
    }
    Some(time)
}
