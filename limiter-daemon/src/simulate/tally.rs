//! What came of the requests under one policy, or differs between two.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use super::entry::Entry;
use super::line::rfc3339;
use super::player::{Fate, Limited};
use super::report::{LimitedBucket, LimitedClient, PolicyReport, Ranking, RuleReport};
use super::series::Series;
use crate::engine::state::{ScopeName, State};
use crate::engine::top::{Seen, Top};

/// Clients and buckets that are kept.
const KEPT: usize = 50_000;

/// Counts of one policy.
#[derive(Debug, Default)]
pub(super) struct Tally {
    requests: u64,
    admitted: u64,
    limited: u64,
    no_route: u64,
    bad_request: u64,
    broken: u64,
    refused: u64,
    /// All requests, and those that were limited.
    series: Series<2>,
    /// One on each route: rules of a kind, and a rule on several routes, may share their names.
    rules: HashMap<ScopeName, OfRule>,
    who: Who,
}

#[derive(Debug, Default)]
struct OfRule {
    first: u64,
    last: u64,
    series: Series<1>,
}

/// Whom limits met.
#[derive(Debug)]
pub(super) struct Who {
    clients: Top<(IpAddr, String)>,
    buckets: Top<(String, String)>,
}

impl Default for Who {
    fn default() -> Self {
        Self {
            clients: Top::new(KEPT),
            buckets: Top::new(KEPT),
        }
    }
}

impl Who {
    pub(super) fn add(&mut self, entry: &Entry, limited: &Limited) {
        let rule = limited.rule.name();
        self.clients.add((entry.client, rule.to_owned()), entry.at);
        if !limited.bucket.is_empty() {
            let bucket = (rule.to_owned(), limited.bucket.clone());
            self.buckets.add(bucket, entry.at);
        }
    }

    /// The `number` that were limited most.
    pub(super) fn clients(&self, number: usize) -> Ranking<LimitedClient> {
        ranking(&self.clients, number, |(client, rule), seen| {
            LimitedClient {
                client: client.to_string(),
                rule,
                limited: seen.count,
                first: rfc3339(seen.first),
                last: rfc3339(seen.last),
            }
        })
    }

    fn buckets(&self, number: usize) -> Ranking<LimitedBucket> {
        ranking(&self.buckets, number, |(rule, bucket), seen| {
            LimitedBucket {
                bucket,
                rule,
                limited: seen.count,
                first: rfc3339(seen.first),
                last: rfc3339(seen.last),
            }
        })
    }
}

fn ranking<K, T>(top: &Top<K>, number: usize, tell: impl Fn(K, Seen) -> T) -> Ranking<T>
where
    K: std::hash::Hash + Eq + Ord + Clone,
{
    let most = top.most(number).into_iter();
    Ranking {
        most: most.map(|(key, seen)| tell(key, seen)).collect(),
        known: top.known(),
        missing: top.missing(),
    }
}

impl Tally {
    pub(super) fn add(&mut self, entry: &Entry, fate: &Fate) {
        self.requests += 1;
        let limited = matches!(fate, Fate::Limited(_));
        self.series.add(entry.at, [true, limited]);
        match fate {
            Fate::Admitted(_) => self.admitted += 1,
            Fate::NoRoute => self.no_route += 1,
            Fate::BadRequest => self.bad_request += 1,
            Fate::Broken => self.broken += 1,
            Fate::Refused => self.refused += 1,
            Fate::Limited(limited) => {
                self.limited += 1;
                self.who.add(entry, limited);
                let name = &limited.rule.scope.name;
                if !self.rules.contains_key(name) {
                    self.rules.insert(name.clone(), OfRule::default());
                }
                if let Some(of) = self.rules.get_mut(name) {
                    if of.first == 0 {
                        of.first = entry.at;
                    }
                    of.last = entry.at;
                    of.series.add(entry.at, [true]);
                }
            }
        }
    }

    /// What is told of it, with the `number` clients that were limited most.
    pub(super) fn report(&self, name: String, state: &State, number: usize) -> PolicyReport {
        PolicyReport {
            policy: name,
            requests: self.requests,
            admitted: self.admitted,
            limited: self.limited,
            no_route: self.no_route,
            bad_request: self.bad_request,
            broken: self.broken,
            refused: self.refused,
            rules: self.rules(state),
            clients: self.who.clients(number),
            buckets: self.who.buckets(number),
            requests_over_time: self.series.of(0),
            limited_over_time: self.series.of(1),
        }
    }

    /// Every limit of the policy, also those that limited nothing, by what the engine counted.
    fn rules(&self, state: &State) -> Vec<RuleReport> {
        let mut rules: Vec<RuleReport> = Vec::new();
        for scope in state.scopes() {
            let name = &scope.name;
            let of = self.rules.get(name);
            let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let counters = &scope.counters;
            rules.push(RuleReport {
                rule: name.rule.clone(),
                route: name.route.clone(),
                reach: name.reach.name(),
                candidate: name.candidate.clone(),
                admitted: counted(&counters.admitted),
                limited: counted(&counters.limited),
                shadow_limited: counted(&counters.shadow_limited),
                unmetered: counted(&counters.unmetered),
                first: of.map(|of| rfc3339(of.first)),
                last: of.map(|of| rfc3339(of.last)),
                over_time: of.map(|of| of.series.of(0)).unwrap_or_default(),
            });
        }
        let most = |rule: &RuleReport| std::cmp::Reverse(rule.limited.max(rule.shadow_limited));
        rules.sort_by(|a, b| most(a).cmp(&most(b)).then_with(|| a.rule.cmp(&b.rule)));
        rules
    }
}
