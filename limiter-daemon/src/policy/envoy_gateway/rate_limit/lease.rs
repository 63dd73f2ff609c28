//! `limiterd.lease` in a rule of `rateLimit.global`: tokens that a node takes in advance.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;

use super::rule::Store;
use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::{Lease, LimitRule, Quota};
use crate::policy::units;

const AGES: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
/// Of a lease, in tokens: the store works out what it grants in numbers that are exact up to 2^53.
const MOST: u64 = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawLease {
    size: At<u64>,
    max_age: At<String>,
}

/// Checks the lease of `rule`, which has all else; `None` after an error.
pub(super) fn lower(
    raw: At<RawLease>,
    rule: &LimitRule,
    store: Store,
    scope: &mut Scope<'_>,
) -> Option<Lease> {
    let At { value: raw, mark } = raw;
    let Some(capacity) = leasable(rule, store) else {
        let (problem, remedy) = refusal(rule, store);
        scope.error(&mark, problem, remedy);
        return None;
    };
    let least = rule.request_cost;
    let most = capacity.min(MOST);
    let size = (least..=most).contains(&raw.size.value);
    if !size {
        scope.error(
            &raw.size.mark,
            format!("a node cannot hold {} tokens of this limit", raw.size.value),
            if least <= most {
                format!("write {least} (what a request costs) to {most}")
            } else {
                "remove the lease: a request costs more than a node may hold".to_owned()
            },
        );
    }
    let max_age = Duration::from_nanos(units::duration(&raw.max_age, scope)?);
    let age = AGES.contains(&max_age);
    if !age {
        scope.error(
            &raw.max_age.mark,
            format!("tokens cannot be held for `{}`", raw.max_age.value),
            "write `10ms` to `60s`",
        );
    }
    (size && age).then_some(Lease {
        size: raw.size.value,
        max_age,
    })
}

/// What the bucket holds, of a rule that can have a lease.
fn leasable(rule: &LimitRule, store: Store) -> Option<u64> {
    let Quota::Limited { limit, .. } = rule.quota else {
        return None;
    };
    let can = store == Store::Global
        && !rule.shadow
        && rule.candidates.is_empty()
        && rule.request_cost > 0;
    can.then_some(limit.capacity)
}

/// Why a rule has no lease, and what would be right.
fn refusal(rule: &LimitRule, store: Store) -> (&'static str, &'static str) {
    if store == Store::Local {
        return (
            "a local limit is counted by this node: there is nothing to take in advance",
            "remove it, or write the rule under `global`",
        );
    }
    if rule.shadow {
        return (
            "a rule in shadow mode asks about every request, and takes nothing in advance",
            "remove `lease` or `shadowMode`",
        );
    }
    if !rule.candidates.is_empty() {
        return (
            "candidates are asked about every request, so a lease would save nothing",
            "remove `lease` or `candidates`",
        );
    }
    if rule.request_cost == 0 {
        return (
            "requests cost nothing, so there is nothing to take in advance",
            "remove `lease`, or give requests a cost",
        );
    }
    (
        "a rule that admits everything or nothing has no tokens",
        "remove `lease`",
    )
}
