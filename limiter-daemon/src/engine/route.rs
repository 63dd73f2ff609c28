//! Routing: which rule of which route a request takes.
//!
//! Precedence after the Gateway API: the most specific hostname first (exact, then the longest
//! wildcard, then any host; there is no falling through to a less specific one, as with Envoy's
//! virtual hosts), then an exact path, a regular expression, the longest prefix, a method, the most
//! headers, the most query parameters, and last the order of the plan (age of the route, name, order
//! of its rules). Routes whose rules are tried as they stand go before all that: of them the first
//! rule that matches takes the request.

mod condition;
mod hosts;
mod ordered;
mod paths;

use std::sync::Arc;

pub use hosts::{Hosts, hostname};
pub(super) use paths::is_grpc;
use paths::{Entry, Paths};

use super::ask::Asking;
use super::balance::WeightedChoice;
use super::decide::Limits;
use super::request::RequestView;
use super::state::{RouteStats, State};
use super::upstream::Admission;
use crate::policy::plan::{Filters, Listener, RouteMatch, RouteRule, RouteTraffic, Timeouts};

/// The routes of one listener, by host.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: Hosts<Paths>,
}

/// A rule of a route, ready to serve.
#[derive(Debug)]
pub struct Rule {
    pub route: Arc<Route>,
    /// Its name, or else its index in the route.
    pub name: String,
    /// The path that its requests have, as it is written; `None`: there are several.
    pub path: Option<String>,
    /// `None`: nothing is limited.
    pub limits: Option<Limits>,
    /// Who is asked about its requests after that.
    pub asks: Vec<Asking>,
    /// Where its requests go.
    pub backends: WeightedChoice,
    pub filters: Filters,
    pub timeouts: Timeouts,
    pub traffic: Arc<RouteTraffic>,
    /// `None`: none of its requests is refused because others fail.
    pub admission: Option<Arc<Admission>>,
    /// Why every request is answered with 500.
    pub broken: Option<String>,
}

/// What the rules of a route share.
#[derive(Debug)]
pub struct Route {
    /// `namespace/name`.
    pub name: String,
    pub stats: Arc<RouteStats>,
}

/// A rule that takes a request.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'a> {
    pub rule: &'a Arc<Rule>,
    /// Bytes of the request's path that its prefix matched, of a rule tried in order all that
    /// matched; `None` if it is no prefix match.
    pub prefix: Option<usize>,
}

impl<'a> Matched<'a> {
    const fn new(rule: &'a Arc<Rule>, prefix: Option<usize>) -> Self {
        Self { rule, prefix }
    }
}

impl RouteTable {
    #[must_use]
    pub fn compile(listener: &Listener, state: &State) -> Self {
        let mut hosts = Hosts::<Paths>::default();
        for plan in &listener.routes {
            let identity = plan.identity();
            let route = Arc::new(Route {
                name: plan.name.clone(),
                stats: state.route_stats(&identity),
            });
            for (index, rule) in plan.rules.iter().enumerate() {
                let shared = Arc::new(Rule::compile((rule, index), &route, &identity, state));
                for condition in &rule.matches {
                    for hostname in &plan.hostnames {
                        let entry = Entry {
                            condition: condition.clone(),
                            kind: plan.kind,
                            rule: Arc::clone(&shared),
                        };
                        let paths = hosts.entry(hostname, Paths::default);
                        if plan.in_order {
                            paths.push_in_order(entry);
                        } else {
                            paths.push(entry);
                        }
                    }
                }
            }
        }
        hosts.values_mut().for_each(Paths::sort);
        Self { hosts }
    }

    /// The rule that serves `request` on `host`, which is as [`hostname`] gives it; `None`: no route
    /// matches (404).
    #[must_use]
    pub fn find(&self, host: &str, request: &RequestView<'_>) -> Option<Matched<'_>> {
        self.hosts.get(host)?.find(request)
    }
}

impl Rule {
    fn compile(
        (rule, index): (&RouteRule, usize),
        route: &Arc<Route>,
        identity: &str,
        state: &State,
    ) -> Self {
        Self {
            route: Arc::clone(route),
            name: rule.name.clone().unwrap_or_else(|| index.to_string()),
            path: path(&rule.matches),
            limits: Limits::compile(&rule.limits, identity, state)
                .map(|limits| limits.held(!rule.asks.is_empty())),
            asks: rule
                .asks
                .iter()
                .map(|asking| Asking::compile(asking, state.services(), state.runtime()))
                .collect(),
            backends: WeightedChoice::new(&rule.backends),
            filters: rule.filters.clone(),
            timeouts: rule.timeouts,
            traffic: Arc::clone(&rule.traffic),
            admission: rule.traffic.admission_control.as_ref().map(|settings| {
                let window = settings.sampling_window;
                state
                    .upstreams()
                    .admission(&rule.traffic.policy, identity, window)
            }),
            broken: rule.broken.clone(),
        }
    }
}

/// The path of all of them.
fn path(matches: &[RouteMatch]) -> Option<String> {
    let (first, others) = matches.split_first()?;
    let path = first.path.text();
    let same = others.iter().all(|other| other.path.text() == path);
    same.then(|| path.to_owned())
}

#[cfg(test)]
mod tests;
