//! One policy directory, and what it makes of requests: the engine that a daemon has, with buckets in
//! memory and the clock of the log.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use http::HeaderMap;
use lru::LruCache;

use super::entry::{Answered, Entry};
use super::wanted;
use crate::engine::Engine;
use crate::engine::connection::ConnectionBuckets;
use crate::engine::decide::Decision;
use crate::engine::outcome::Outcome;
use crate::engine::request::RequestView;
use crate::engine::route::{Rule as RouteRule, hostname};
use crate::engine::rule::Rule;
use crate::engine::settle::{Ending, Settlement};
use crate::engine::state::State;
use crate::engine::time::Now;
use crate::l7::preview;
use crate::policy::Plan;

/// Requests that are waited for until their response is over; of more the oldest is settled early.
const UNDER_WAY: usize = 65_536;
/// Connections whose buckets are kept.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// The limits admit it; the rule with the fewest tokens left, if it met any.
    Admitted(Option<Arc<Rule>>),
    Limited(Limited),
    /// No listener or no route takes it.
    NoRoute,
    /// Its path leads above the root.
    BadRequest,
    /// A policy about it has never been valid.
    Broken,
    /// It was refused before it came to the limits, whatever the policy.
    Refused,
}

/// A request over a limit.
#[derive(Clone, Debug)]
pub(super) struct Limited {
    pub(super) rule: Arc<Rule>,
    /// Which of its buckets: `name=value`; empty: its only one.
    pub(super) bucket: String,
}

/// A policy that is played against.
#[derive(Debug)]
pub(super) struct Player {
    engine: Engine,
    pub(super) state: State,
    /// Where listeners are, in the order of the plan.
    binds: Vec<SocketAddr>,
    /// `None`: no rule gives connections a bucket of their own.
    connections: Option<LruCache<SocketAddr, Arc<ConnectionBuckets>>>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    started: u64,
    host: String,
}

/// A request whose response is not over.
#[derive(Debug)]
struct UnderWay {
    /// When it is, and a number of its own.
    until: (u64, u64),
    settlement: Settlement,
    answer: Answered,
}

impl Player {
    /// `host`: of requests whose log does not have one.
    pub(super) fn new(plan: &Plan, host: &str) -> Self {
        let state = State::new(plan.daemon.max_buckets);
        state.runtime().follow(&plan.runtime);
        let engine = Engine::compile(plan, &state);
        let mut binds: Vec<SocketAddr> = Vec::new();
        for bind in plan.listeners.iter().flat_map(|listener| &listener.binds) {
            if !binds.contains(bind) {
                binds.push(*bind);
            }
        }
        let own = wanted::limits(plan).any(|rule| rule.per_connection);
        Self {
            engine,
            state,
            binds,
            connections: own.then(|| LruCache::new(CONNECTIONS)),
            under_way: BinaryHeap::new(),
            started: 0,
            host: host.to_owned(),
        }
    }

    /// Decides a request, in the order of their times.
    pub(super) fn play(&mut self, entry: &Entry) -> Fate {
        let now = at(entry.at);
        self.settle(entry.at);
        if entry.answer == Answered::Refused {
            return Fate::Refused;
        }
        let Some(path) = preview::path(&entry.path) else {
            return Fate::BadRequest;
        };
        let connection = match (&mut self.connections, entry.peer) {
            (Some(connections), Some(peer)) => {
                Some(Arc::clone(connections.get_or_insert(peer, Arc::default)))
            }
            _ => None,
        };
        let request = RequestView {
            method: &entry.method,
            path: &path,
            query: entry.query.as_deref(),
            headers: &entry.headers,
            client: entry.client,
            connection: connection.as_deref(),
        };
        let host = hostname(entry.host.as_deref().unwrap_or(&self.host));
        let Some(rule) = self.route(entry.local, &host, &request) else {
            return Fate::NoRoute;
        };
        if rule.broken.is_some() {
            return Fate::Broken;
        }
        let outcome = match &rule.limits {
            // Memory answers at once.
            Some(limits) => match limits.decide(&request, now) {
                Decision::Ready(outcome) => outcome,
                Decision::Pending(_) => Outcome::default(),
            },
            None => Outcome::default(),
        };
        let Outcome {
            denied,
            decisive,
            mut settlement,
            ..
        } = outcome;
        if let Some(denied) = denied {
            let bucket = denied.rule.descriptor(&request);
            return Fate::Limited(Limited {
                rule: denied.rule,
                bucket,
            });
        }
        if entry.answer == Answered::DeniedElsewhere && !rule.asks.is_empty() {
            settlement.withdraw(now);
            return Fate::Admitted(decisive.map(|decisive| decisive.rule));
        }
        settlement.confirm();
        if !settlement.is_empty() && !answered_here(&rule) {
            self.begin(settlement, entry);
        }
        Fate::Admitted(decisive.map(|decisive| decisive.rule))
    }

    /// Settles what is left when the log is over.
    pub(super) fn finish(&mut self) {
        self.settle(u64::MAX);
    }

    /// The rule that takes a request. A log that says which address it came to, and it is a listener's,
    /// is believed; else that of the first address where a route takes it.
    fn route(
        &self,
        local: Option<SocketAddr>,
        host: &str,
        request: &RequestView<'_>,
    ) -> Option<Arc<RouteRule>> {
        let find = |bind: SocketAddr| {
            let listener = self.engine.listener(bind, host)?;
            let listener = self.engine.listeners.get(listener)?;
            let matched = listener.routes.find(host, request)?;
            Some(Arc::clone(matched.rule))
        };
        let bound = |local: &SocketAddr| {
            let any =
                |bind: &&SocketAddr| bind.ip().is_unspecified() && bind.port() == local.port();
            let exact = self.binds.iter().find(|bind| *bind == local);
            exact.or_else(|| self.binds.iter().find(any)).copied()
        };
        match local.as_ref().and_then(bound) {
            Some(bind) => find(bind),
            None => self.binds.iter().find_map(|bind| find(*bind)),
        }
    }

    fn begin(&mut self, settlement: Settlement, entry: &Entry) {
        if self.under_way.len() >= UNDER_WAY {
            let oldest = self.under_way.pop();
            oldest.into_iter().for_each(|Reverse(one)| one.end());
        }
        self.started += 1;
        self.under_way.push(Reverse(UnderWay {
            until: (entry.at.saturating_add(entry.took), self.started),
            settlement,
            answer: entry.answer,
        }));
    }

    /// Settles the requests whose responses were over at `now`.
    fn settle(&mut self, now: u64) {
        while self
            .under_way
            .peek()
            .is_some_and(|Reverse(one)| one.until.0 <= now)
        {
            let due = self.under_way.pop();
            due.into_iter().for_each(|Reverse(one)| one.end());
        }
    }
}

impl UnderWay {
    fn end(mut self) {
        let now = at(self.until.0);
        match self.answer {
            Answered::Unknown | Answered::Refused | Answered::DeniedElsewhere => {
                self.settlement.finished(Ending::Abandoned, now);
            }
            Answered::Failed(failure) => self.settlement.failed(failure, now),
            Answered::Upstream { status, broken } => {
                self.settlement.answered(status, &HeaderMap::new(), now);
                let ending = if broken {
                    Ending::Broken
                } else {
                    Ending::Complete
                };
                self.settlement.finished(ending, now);
            }
        }
    }
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for UnderWay {}

impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UnderWay {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}

/// Whether no upstream is asked: nothing is refunded and nothing costs more then.
fn answered_here(rule: &RouteRule) -> bool {
    rule.filters.redirect.is_some() || rule.filters.answer.is_some()
}

/// Both clocks read what the log does.
const fn at(ns: u64) -> Now {
    Now { mono: ns, unix: ns }
}
