//! Buckets by the name of their limit, for those who look after them: listed, looked at, filled
//! again.
//!
//! A limit's name is `<reach>:<rule>@<route>`, with `+<candidate>` for one that is tried beside it. The
//! table of buckets has hashes only, so a bucket of some values is found by a request that has them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::buckets::Bucket;
use super::decide::Limits;
use super::explain::{BucketState, quota};
use super::meter::{Meter, NEVER, Reading, Snapshot, Standing, Verdict, Words};
use super::request::RequestView;
use super::rule::{Measure, Rule};
use super::state::{Account, Place, Reach, Scope, ScopeName, State};
use super::time::Now;
use crate::policy::plan::{LimitRule, Plan, PolicyLimits, RateLimits, Route};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reach,
            rule,
            route,
            candidate,
        } = self;
        write!(f, "{}:{rule}@{route}", reach.name())?;
        if !candidate.is_empty() {
            write!(f, "+{candidate}")?;
        }
        Ok(())
    }
}

/// A limit, and its bucket if it has only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    pub name: String,
    /// How much it admits, in words.
    pub quota: String,
    pub buckets: Buckets,
    /// Tokens of a full bucket; `None`: it has none.
    pub capacity: Option<u64>,
    /// Of the one bucket that it has in this node's memory.
    pub state: Option<BucketState>,
}

/// How many buckets a limit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buckets {
    /// It admits everything, or nothing.
    None,
    One,
    /// One for each value that its conditions tell apart.
    PerValue,
    PerConnection,
}

impl Buckets {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::One => "one",
            Self::PerValue => "per value",
            Self::PerConnection => "per connection",
        }
    }
}

/// Why there is no bucket to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBucket {
    #[error("no limit in force is called `{0}`; `limiterd counters list` tells what there is")]
    NoSuchLimit(String),
    #[error("`{name}` admits {quota}: it has no bucket")]
    Uncounted { name: String, quota: String },
    #[error("`{0}` has a bucket for each connection, which goes with it")]
    PerConnection(String),
    #[error(
        "`{0}` has a bucket for each value: name a request that has the values, as GET http://host/path with headers"
    )]
    PerValue(String),
    #[error("the request does not meet `{0}`; `limiterd explain` tells why")]
    NotMet(String),
    #[error(
        "the bucket table is full: this value shares an aggregate bucket with others, which is not its own to reset"
    )]
    Shared,
}

/// A bucket that was found.
#[derive(Debug)]
pub enum Found {
    /// In this node's memory, and how it is.
    Here(Capacity, BucketState),
    /// In the store that nodes share, under this key.
    Stored(StoredBucket),
}

/// Tokens of a full bucket.
pub type Capacity = u64;

/// What is to be known to read a bucket of the store.
#[derive(Debug)]
pub struct StoredBucket {
    pub key: String,
    pub(super) meter: Meter,
    /// Tokens that a request takes.
    pub(super) cost: u64,
    /// Of a count by the reference's key, which is a plain number: when its window begins, in seconds.
    pub(super) begins: Option<u64>,
}

impl StoredBucket {
    #[must_use]
    pub const fn capacity(&self) -> Capacity {
        self.meter.capacity()
    }

    /// What `value` of the store comes to at `now`, by the store's clock; `None` of what is no state
    /// of this limit. No value is a full bucket.
    #[must_use]
    pub fn read(&self, value: Option<&str>, now: Now) -> Option<BucketState> {
        let now = Now {
            mono: now.unix,
            unix: now.unix,
        };
        let reading = match value {
            None => Reading::Unknown,
            Some(value) => self.reading(value)?,
        };
        let words = Snapshot::new(&self.meter, reading);
        Some(state_of(&self.meter, &words, self.cost, now))
    }

    fn reading(&self, value: &str) -> Option<Reading> {
        let Some(begins) = self.begins else {
            return reading(value);
        };
        let end = begins.checked_add(self.meter.window())?;
        Some(Reading::Counts {
            end: end.checked_mul(SECOND)?,
            count: value.parse().ok()?,
            last: 0,
        })
    }
}

/// A state as the store has it: `seconds:nanoseconds` of a TAT, or `end:count:last` of windows.
fn reading(value: &str) -> Option<Reading> {
    let numbers: Option<Vec<u64>> = value.split(':').map(|part| part.parse().ok()).collect();
    match numbers?[..] {
        [seconds, rest] => Some(Reading::Tat(
            seconds.checked_mul(SECOND)?.checked_add(rest)?,
        )),
        [end, count, last] => Some(Reading::Counts {
            end: end.checked_mul(SECOND)?,
            count,
            last,
        }),
        _ => None,
    }
}

/// The limits whose name begins with `prefix`, `most` of them by name, and how many more there are.
#[must_use]
pub fn list(
    plan: &Plan,
    state: &State,
    prefix: &str,
    most: usize,
    now: Now,
) -> (Vec<Counter>, usize) {
    let mut limits = BTreeMap::new();
    each(plan, |at| {
        for name in names(&at) {
            let text = name.to_string();
            if text.starts_with(prefix) {
                limits.entry(text).or_insert((at, name));
            }
        }
    });
    let more = limits.len().saturating_sub(most);
    let counters = limits
        .into_iter()
        .take(most)
        .map(|(text, (at, name))| counter(text, &name, &at, state, now))
        .collect();
    (counters, more)
}

/// The bucket of the limit `name`: its only one, or that of a request.
///
/// # Errors
/// Why there is none.
pub fn look(
    plan: &Plan,
    state: &State,
    name: &str,
    request: Option<&RequestView<'_>>,
    now: Now,
) -> Result<Found, NoBucket> {
    with(plan, state, name, request, |it| {
        Ok(match it.stored(state) {
            Some(stored) => Found::Stored(stored),
            None => {
                let looked = state_of(it.meter, &it.account(), it.rule.request_cost, now);
                Found::Here(it.meter.capacity(), looked)
            }
        })
    })
}

/// Makes that bucket a full one, in this node's memory; where the store counts, what to forget there is
/// told instead, and only what this node would go on with without the store is filled.
///
/// # Errors
/// Why it cannot be.
pub fn reset(
    plan: &Plan,
    state: &State,
    name: &str,
    request: Option<&RequestView<'_>>,
    now: Now,
) -> Result<Found, NoBucket> {
    with(plan, state, name, request, |it| {
        let account = it.account();
        let shared = matches!(it.place, Place::Keyed(_))
            && matches!(account.existing(0, now), Bucket::Shared(_));
        let stored = it.stored(state);
        if shared && stored.is_none() {
            return Err(NoBucket::Shared);
        }
        if !shared {
            it.meter.refill(&account, now);
        }
        Ok(match stored {
            Some(stored) => Found::Stored(stored),
            None => {
                let looked = state_of(it.meter, &account, it.rule.request_cost, now);
                Found::Here(it.meter.capacity(), looked)
            }
        })
    })
}

/// A limit where it is in force.
#[derive(Clone, Copy)]
struct At<'a> {
    reach: Reach,
    policy: &'a PolicyLimits,
    rule: &'a LimitRule,
    limits: &'a RateLimits,
    route: &'a Route,
}

/// Every limit of every rule of every route.
fn each<'a>(plan: &'a Plan, mut visit: impl FnMut(At<'a>)) {
    for route in plan.listeners.iter().flat_map(|listener| &listener.routes) {
        for limits in route.rules.iter().map(|rule| &*rule.limits) {
            for (reach, policies) in [
                (Reach::Local, &limits.local),
                (Reach::Global, &limits.global),
            ] {
                for policy in policies {
                    for rule in policy.rules.iter().chain(&policy.default) {
                        visit(At {
                            reach,
                            policy,
                            rule,
                            limits,
                            route,
                        });
                    }
                }
            }
        }
    }
}

/// The names of a limit and of what is tried beside it.
fn names(at: &At<'_>) -> Vec<ScopeName> {
    let name = |candidate: &str| ScopeName {
        reach: at.reach,
        rule: at.rule.name.clone(),
        route: if at.rule.shared {
            String::new()
        } else {
            at.route.identity()
        },
        candidate: candidate.to_owned(),
    };
    let tried = at.rule.candidates.iter().map(|tried| name(&tried.name));
    std::iter::once(name("")).chain(tried).collect()
}

/// The rule of a name, as it decides.
fn compiled(at: &At<'_>, state: &State) -> Option<Arc<Rule>> {
    let limits = Limits::compile(at.limits, &at.route.identity(), state)?;
    limits.rule(at.reach, &at.policy.policy, &at.rule.name)
}

fn counter(text: String, name: &ScopeName, at: &At<'_>, state: &State, now: Now) -> Counter {
    let rule = compiled(at, state);
    let metered = rule.as_deref().and_then(|rule| measured(rule, name));
    let buckets = match (&rule, &metered) {
        (Some(rule), Some(_)) => buckets(rule),
        _ => Buckets::None,
    };
    let state = match (&rule, metered) {
        (Some(rule), Some((scope, meter)))
            if buckets == Buckets::One
                && (at.reach == Reach::Local || state.store().counts_here()) =>
        {
            let place = &Place::Single;
            Some(state_of(
                meter,
                &Account { scope, place },
                rule.request_cost,
                now,
            ))
        }
        _ => None,
    };
    Counter {
        name: text,
        quota: quota(at.rule.quota),
        buckets,
        capacity: metered.map(|(_, meter)| meter.capacity()),
        state,
    }
}

fn buckets(rule: &Rule) -> Buckets {
    if rule.is_per_connection() {
        Buckets::PerConnection
    } else if rule.is_distinct() {
        Buckets::PerValue
    } else {
        Buckets::One
    }
}

/// What counts the rule's limit, or a candidate's.
fn measured<'a>(rule: &'a Rule, name: &ScopeName) -> Option<(&'a Scope, &'a Meter)> {
    let own = match &rule.measure {
        Measure::Metered(meter) => Some((&*rule.scope, meter)),
        Measure::Nothing | Measure::Everything => None,
    };
    if name.candidate.is_empty() {
        return own;
    }
    let mut tried = rule.candidates.iter();
    let tried = tried.find(|tried| tried.scope.name.candidate == name.candidate)?;
    Some((&*tried.scope, &tried.meter))
}

/// A bucket, and what there is to know of it.
struct It<'a> {
    rule: &'a Rule,
    scope: &'a Scope,
    meter: &'a Meter,
    place: Place,
    request: &'a RequestView<'a>,
}

impl It<'_> {
    fn account(&self) -> Account<'_> {
        Account {
            scope: self.scope,
            place: &self.place,
        }
    }

    fn stored(&self, state: &State) -> Option<StoredBucket> {
        if self.rule.reach() == Reach::Local {
            return None;
        }
        let key = state
            .store()
            .key_of(self.rule, self.scope, self.meter, self.request)?;
        Some(StoredBucket {
            key,
            meter: *self.meter,
            cost: self.rule.request_cost,
            begins: None,
        })
    }
}

fn with<T>(
    plan: &Plan,
    state: &State,
    text: &str,
    request: Option<&RequestView<'_>>,
    then: impl FnOnce(&It<'_>) -> Result<T, NoBucket>,
) -> Result<T, NoBucket> {
    let mut found = None;
    each(plan, |at| {
        if found.is_none() {
            let name = names(&at).into_iter().find(|name| name.to_string() == text);
            found = name.map(|name| (at, name));
        }
    });
    let none = || NoBucket::NoSuchLimit(text.to_owned());
    let (at, name) = found.ok_or_else(none)?;
    let rule = compiled(&at, state).ok_or_else(none)?;
    let (scope, meter) = measured(&rule, &name).ok_or_else(|| NoBucket::Uncounted {
        name: text.to_owned(),
        quota: quota(at.rule.quota),
    })?;
    // Of a limit with one bucket, any request draws from it.
    let (method, headers) = (Method::GET, HeaderMap::new());
    let any = RequestView {
        method: &method,
        path: "/",
        query: None,
        headers: &headers,
        client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        connection: None,
    };
    let request = match (buckets(&rule), request) {
        (Buckets::PerConnection, _) => return Err(NoBucket::PerConnection(text.to_owned())),
        (Buckets::PerValue, None) => return Err(NoBucket::PerValue(text.to_owned())),
        (_, Some(request)) if !rule.holds(request) => {
            return Err(NoBucket::NotMet(text.to_owned()));
        }
        (_, Some(request)) => request,
        (_, None) => &any,
    };
    then(&It {
        rule: &rule,
        scope,
        meter,
        place: rule.place(scope, meter, request),
        request,
    })
}

pub(super) fn state_of(meter: &Meter, words: &impl Words, cost: u64, now: Now) -> BucketState {
    let Standing { remaining, reset } = meter.standing(words, now);
    let wait = match meter.peek(words, cost, now) {
        Verdict::Admit { .. } => None,
        Verdict::Deny { wait } => Some(wait),
    };
    BucketState {
        remaining,
        reset_ms: reset.div_ceil(MILLISECOND),
        admits: wait.is_none(),
        wait_ms: match wait {
            None => 0,
            Some(NEVER) => u64::MAX,
            Some(wait) => wait.div_ceil(MILLISECOND),
        },
    }
}

#[cfg(test)]
mod tests;
