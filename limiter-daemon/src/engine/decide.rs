//! Local limits: which rules a request meets, and whether it conforms to all of them.
//!
//! Envoy Gateway's semantics where its users rely on them: every rule whose selectors match is
//! charged, the strictest decides, and the rule without selectors (the default bucket) is charged
//! only if no other matched. Better where it is known to hurt: a denied request charges nothing.

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderMap, HeaderName, HeaderValue};
use limiter_common::{Decision, Limit, Step};
use smallvec::SmallVec;

use super::buckets::Bucket;
use super::request::RequestView;
use super::state::{Scope, State};
use crate::policy::plan::{Condition, LimitRule, PolicyLimits, Quota, ValueTest};

/// Rules a request usually meets at most; more of them allocate.
const INLINE: usize = 4;

/// The local limits of one route, ready to decide.
#[derive(Debug)]
pub struct LimitSet {
    rules: Vec<Rule>,
    default: Option<Rule>,
}

#[derive(Debug)]
struct Rule {
    conditions: Vec<Condition>,
    limit: Limit,
    window: u64,
    distinct: bool,
    scope: Arc<Scope>,
}

/// What the limits say of a request.
#[derive(Debug)]
pub struct Outcome {
    /// One for each rule that the request met, in the order of the rules.
    pub statuses: SmallVec<[Status; INLINE]>,
    /// Set if the request is over a limit.
    pub denied: Option<Denied>,
}

/// The state of one rule's bucket after the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Tokens of a full bucket.
    pub quota: u64,
    /// Seconds of the limit's unit.
    pub window: u64,
    /// Whole tokens left.
    pub remaining: u64,
    /// Nanoseconds until the bucket is full again.
    pub reset: u64,
}

/// A request over a limit.
#[derive(Clone, Debug)]
pub struct Denied {
    /// Nanoseconds after which it would conform.
    pub wait: u64,
    /// The rule that makes it wait longest.
    pub scope: Arc<Scope>,
}

impl LimitSet {
    #[must_use]
    pub fn compile(limits: &PolicyLimits, route: &str, state: &State) -> Self {
        let rule = |rule: &LimitRule| Rule::compile(rule, route, state);
        Self {
            rules: limits.rules.iter().filter_map(rule).collect(),
            default: limits.default.as_ref().and_then(rule),
        }
    }

    /// Charges `request` at `now` against every rule that it meets, or against
    /// none if any is over its limit.
    pub fn decide(&self, request: &RequestView<'_>, now: u64) -> Outcome {
        let mut met: SmallVec<[Met<'_>; INLINE]> = self
            .rules
            .iter()
            .filter_map(|rule| rule.meet(request.headers, now))
            .collect();
        if met.is_empty() {
            met.extend(
                self.default
                    .as_ref()
                    .and_then(|rule| rule.meet(request.headers, now)),
            );
        }
        let denied = charge_all(&met, now);
        if denied.is_none() {
            for met in &met {
                met.rule.scope.admitted.fetch_add(1, Ordering::Relaxed);
            }
        }
        Outcome {
            statuses: met.iter().map(|met| met.status(now)).collect(),
            denied,
        }
    }
}

impl LimitSet {
    /// What an access log tells of a decision: the rule that denied `request`, or the one with the
    /// fewest tokens left, and the values that it has a bucket of its own for, as `name=value`.
    #[must_use]
    pub fn decisive(
        &self,
        request: &RequestView<'_>,
        outcome: &Outcome,
        now: u64,
    ) -> Option<(String, String, u64)> {
        let met = |rule| Rule::meet(rule, request.headers, now);
        let mut all: SmallVec<[Met<'_>; INLINE]> = self.rules.iter().filter_map(met).collect();
        if all.is_empty() {
            all.extend(self.default.as_ref().and_then(met));
        }
        let denied = outcome.denied.as_ref().map(|denied| &denied.scope);
        let one = match denied {
            Some(scope) => all.iter().find(|met| Arc::ptr_eq(&met.rule.scope, scope)),
            None => all.iter().min_by_key(|met| met.status(now).remaining),
        }?;
        let values = one.rule.conditions.iter().filter_map(|condition| {
            let Condition::Header {
                name,
                test: ValueTest::Each,
            } = condition
            else {
                return None;
            };
            let lines = request.headers.get_all(name).iter();
            let lines: Vec<_> = lines.map(HeaderValue::as_bytes).collect();
            let value = lines.join(&b',');
            Some(format!("{name}={}", String::from_utf8_lossy(&value)))
        });
        let descriptor = values.collect::<Vec<_>>().join(",");
        let rule = one.rule.scope.rule.clone();
        Some((rule, descriptor, one.status(now).remaining))
    }
}

impl Rule {
    fn compile(rule: &LimitRule, route: &str, state: &State) -> Option<Self> {
        let Quota::Limited { limit, window, .. } = rule.quota else {
            return None;
        };
        let distinct = rule.conditions.iter().any(Condition::is_distinct);
        Some(Self {
            conditions: rule.conditions.clone(),
            limit,
            window,
            distinct,
            scope: state.scope(&rule.name, route, distinct),
        })
    }

    fn meet(&self, headers: &HeaderMap, now: u64) -> Option<Met<'_>> {
        if !self
            .conditions
            .iter()
            .all(|condition| matches(condition, headers))
        {
            return None;
        }
        let bucket = if self.distinct {
            let key = self
                .scope
                .key(|hasher| feed(&self.conditions, headers, hasher));
            self.scope.table().bucket(key, now, self.scope.aggregates())
        } else {
            Bucket::Shared(self.scope.single())
        };
        Some(Met { rule: self, bucket })
    }
}

/// Writes the values that have buckets of their own, each with its end marked.
pub(super) fn feed(conditions: &[Condition], headers: &HeaderMap, hasher: &mut dyn Hasher) {
    for condition in conditions {
        if let Condition::Header {
            name,
            test: ValueTest::Each,
        } = condition
        {
            for value in headers.get_all(name) {
                hasher.write(value.as_bytes());
                hasher.write_u8(b',');
            }
            hasher.write_u8(0);
        }
    }
}

fn matches(condition: &Condition, headers: &HeaderMap) -> bool {
    let Condition::Header { name, test } = condition else {
        return false;
    };
    match test {
        ValueTest::Is(wanted) => has_value(headers, name, wanted),
        ValueTest::IsNot(wanted) => !has_value(headers, name, wanted),
        ValueTest::Matches(_) | ValueTest::MatchesNot(_) => false,
        ValueTest::Each => headers.contains_key(name),
        ValueTest::Absent => !headers.contains_key(name),
    }
}

/// Whether the header has this value. Several lines of one header are one value, joined by commas
/// (RFC 9110 section 5.3): repeating a header does not get around a rule on it.
fn has_value(headers: &HeaderMap, name: &HeaderName, wanted: &HeaderValue) -> bool {
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else {
        return false;
    };
    let Some(mut rest) = wanted.as_bytes().strip_prefix(first.as_bytes()) else {
        return false;
    };
    for line in lines {
        let Some(after) = rest
            .strip_prefix(b",")
            .and_then(|r| r.strip_prefix(line.as_bytes()))
        else {
            return false;
        };
        rest = after;
    }
    rest.is_empty()
}

/// A rule that the request meets, and the bucket that it draws from.
struct Met<'a> {
    rule: &'a Rule,
    bucket: Bucket<'a>,
}

impl Met<'_> {
    fn status(&self, now: u64) -> Status {
        let tat = self.bucket.tat();
        Status {
            quota: self.rule.limit.capacity,
            window: self.rule.window,
            remaining: self.rule.limit.remaining(tat, now),
            reset: tat.saturating_sub(now).min(self.rule.limit.tolerance),
        }
    }

    fn denied(&self, wait: u64) -> Denied {
        self.rule.scope.limited.fetch_add(1, Ordering::Relaxed);
        Denied {
            wait,
            scope: Arc::clone(&self.rule.scope),
        }
    }
}

/// Takes one token from every bucket, or from none.
fn charge_all(met: &[Met<'_>], now: u64) -> Option<Denied> {
    if met.len() > 1 {
        let longest = met
            .iter()
            .filter_map(|met| match met.bucket.peek(met.rule.limit, 1, now) {
                Step::Deny { wait } => Some((wait, met)),
                Step::Admit { .. } => None,
            })
            .max_by_key(|(wait, _)| *wait);
        if let Some((wait, met)) = longest {
            return Some(met.denied(wait));
        }
    }
    for (at, one) in met.iter().enumerate() {
        let wait = match one.bucket.take(one.rule.limit, 1, now) {
            Decision::Admitted { .. } => continue,
            Decision::Denied { wait } => wait,
            Decision::Contended => one.rule.limit.interval,
        };
        // Another core took the last token between the look and the charge.
        for earlier in &met[..at] {
            earlier.bucket.give_back(earlier.rule.limit, 1);
        }
        return Some(one.denied(wait));
    }
    None
}

#[cfg(test)]
mod tests;
