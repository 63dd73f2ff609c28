//! Which listener, route, rule and limits a request meets, and why it does not meet the others.
//!
//! It reads the plan, not what was compiled from it: the answer is the same for files as for a
//! running daemon, which adds the state of the buckets ([`Look`]). Nothing is charged.

mod holds;
mod look;
mod routing;
mod tcp;
mod treatment;
mod words;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use limiter_common::Protocol;
use serde::{Deserialize, Serialize};

pub use holds::{Subject, Why, holds};
pub(crate) use treatment::{settings as backend_settings, traffic};
pub(super) use words::secret;
pub(crate) use words::{
    clean, condition, endpoint, filters, hostname, per_window, protocol, quota, response_cost,
    route_match, written,
};

use super::ask;
use super::descriptors::Seen;
use super::request::RequestView;
use super::state::Reach;
use super::time::Now;
use crate::policy::plan::{
    AskedService, ClientSettings, LimitRule, Listener, Plan, PolicyLimits, Quota, RouteRule,
    WeightedBackend,
};
use routing::Taken;

/// A request that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `None`: whichever the listener speaks.
    pub tls: Option<bool>,
    /// Of the `Host` header or the URL; empty: none.
    pub host: &'a str,
    /// That the URL names.
    pub port: Option<u16>,
    pub request: RequestView<'a>,
}

/// Looks at the bucket that a request would draw from, and takes nothing.
pub trait Look {
    /// `None`: there is no bucket to look at.
    fn look(&self, at: &Place<'_>, request: &RequestView<'_>, now: Now) -> Option<BucketState>;
}

/// A limit rule where it is in force.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub reach: Reach,
    pub policy: &'a PolicyLimits,
    pub rule: &'a LimitRule,
    /// `namespace/name`.
    pub route: &'a str,
}

/// For files, which have no buckets.
#[derive(Clone, Copy, Debug)]
pub struct NoBuckets;

impl Look for NoBuckets {
    fn look(&self, _: &Place<'_>, _: &RequestView<'_>, _: Now) -> Option<BucketState> {
        None
    }
}

/// What becomes of a request, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What becomes of it, in a sentence.
    pub answer: String,
    pub method: String,
    pub host: String,
    pub path: String,
    /// The address that it is attributed to.
    pub client: String,
    /// `namespace/gateway/listener`.
    pub listener: Option<String>,
    pub other_listeners: Vec<Passed>,
    pub route: Option<RouteSaid>,
    /// Rules of routes on the listener that do not take it.
    pub other_routes: Vec<Passed>,
    /// The kernel's limits on the port of its connection, and where they are written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<String>,
    /// In the order in which they are asked.
    pub policies: Vec<PolicySaid>,
    /// Who is asked about it after that, and with which descriptors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<String>,
    pub filters: Vec<String>,
    pub timeouts: Vec<String>,
    /// What is done to it besides: retries, faults, overrides and the like.
    pub traffic: Vec<String>,
    pub backends: Vec<BackendSaid>,
}

/// Something that does not take the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    pub name: String,
    pub why: String,
}

/// The rule of a route that takes the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSaid {
    /// `namespace/name`.
    pub name: String,
    pub rule: usize,
    pub rule_name: Option<String>,
    /// What matched, in words.
    pub matched: String,
}

/// The limits of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySaid {
    /// `namespace/name`.
    pub name: String,
    /// `local` or `global`.
    pub kind: String,
    pub rules: Vec<RuleSaid>,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSaid {
    /// `namespace/name/rule/index`.
    pub name: String,
    /// Whether the request meets it.
    pub matches: bool,
    /// Why not: the first condition that does not hold.
    pub why_not: Option<String>,
    pub conditions: Vec<String>,
    /// How much it admits, in words.
    pub quota: String,
    /// Tokens that the request takes.
    pub cost: u64,
    /// What the response takes, in words.
    pub response_cost: Option<String>,
    /// It admits nothing, whatever its bucket holds.
    pub blocked: bool,
    /// Only counts what it would deny.
    pub shadow: bool,
    /// Where it is written: `file:line (resource)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// Which bucket it draws from, in words; only if it matches.
    pub bucket: Option<String>,
    /// Only of a running daemon, and only if it matches.
    pub state: Option<BucketState>,
}

/// A bucket now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketState {
    /// Whole tokens left.
    pub remaining: u64,
    /// Milliseconds until it is full again, rounded up.
    pub reset_ms: u64,
    /// Whether it has what the request costs.
    pub admits: bool,
    /// Milliseconds after which it has, rounded up; 0 if it has.
    pub wait_ms: u64,
}

/// A backend that the request may go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendSaid {
    /// `namespace/name`; `None`: the reference leads nowhere, and its share is answered with 500.
    pub name: Option<String>,
    pub weight: u32,
    /// Percent of the requests, rounded down.
    pub percent: u64,
    pub protocol: Option<String>,
    pub endpoints: Vec<String>,
    pub filters: Vec<String>,
    /// `namespace/name` of the policies that say how it is treated, joined with `+`; empty: none.
    pub policy: String,
    /// How it is treated.
    pub settings: Vec<String>,
}

/// The settings of the listener that takes a request, which say whom it is attributed to.
#[must_use]
pub fn settings<'a>(plan: &'a Plan, asked: &Asked<'_>) -> Option<&'a ClientSettings> {
    let (listener, _) = routing::listener(plan, asked);
    Some(&plan.listeners.get(listener?)?.client)
}

/// Explains what becomes of a request at `now`.
#[must_use]
pub fn explain(plan: &Plan, asked: &Asked<'_>, look: &dyn Look, now: Now) -> Explanation {
    let request = &asked.request;
    let (listener, other_listeners) = routing::listener(plan, asked);
    let mut said = Explanation {
        answer: String::new(),
        method: request.method.to_string(),
        host: clean(asked.host),
        path: clean(request.path),
        client: request.client.to_string(),
        listener: None,
        other_listeners,
        route: None,
        other_routes: Vec::new(),
        network: Vec::new(),
        policies: Vec::new(),
        asks: Vec::new(),
        filters: Vec::new(),
        timeouts: Vec::new(),
        traffic: Vec::new(),
        backends: Vec::new(),
    };
    if let Some(proxy) = tcp::proxy(plan, asked) {
        said.other_listeners
            .retain(|other| other.name != proxy.name);
        said.pass_on(plan, proxy, asked);
        return said;
    }
    let Some(listener) = listener.map(|index| &plan.listeners[index]) else {
        said.answer =
            "no listener takes it: the connection is refused, or answered with 404".into();
        return said;
    };
    said.listener = Some(listener.name.clone());
    said.network = network(plan, listener);
    said.follow(plan, listener, asked, look, now);
    said
}

impl Explanation {
    fn follow(
        &mut self,
        plan: &Plan,
        listener: &Listener,
        asked: &Asked<'_>,
        look: &dyn Look,
        now: Now,
    ) {
        let (taken, other_routes) = routing::route(listener, asked);
        self.other_routes = other_routes;
        let Some(Taken {
            route,
            index,
            rule,
            by,
        }) = taken
        else {
            self.answer = "404: no route matches this host, path, method and headers".into();
            return;
        };
        self.route = Some(RouteSaid {
            name: route.name.clone(),
            rule: index,
            rule_name: rule.name.as_deref().map(clean),
            matched: route_match(by),
        });
        let limits = &rule.limits;
        for (reach, policies) in [
            (Reach::Local, &limits.local),
            (Reach::Global, &limits.global),
        ] {
            for policy in policies {
                let identity = route.identity();
                let state = |rule: &LimitRule| {
                    let at = Place {
                        reach,
                        policy,
                        rule,
                        route: &identity,
                    };
                    look.look(&at, &asked.request, now)
                };
                let rules = rules(policy, &route.name, &asked.request, state);
                self.policies.push(PolicySaid {
                    name: policy.policy.clone(),
                    kind: reach.name().to_owned(),
                    rules,
                });
            }
        }
        self.filters = filters(&rule.filters, plan);
        let timeouts = [
            ("request", rule.timeouts.request),
            ("backend request", rule.timeouts.backend_request),
        ];
        self.timeouts = timeouts
            .iter()
            .filter_map(|(what, time)| Some(format!("{what} {:?}", (*time)?)))
            .collect();
        self.traffic = traffic(&rule.traffic);
        self.backends = backends(&rule.backends, plan);
        self.asks = self.asks(rule, (plan, listener), asked);
        self.answer = self.outcome(rule);
    }

    /// By the first backend, if there are several.
    fn asks(
        &self,
        rule: &RouteRule,
        (plan, listener): (&Plan, &Listener),
        asked: &Asked<'_>,
    ) -> Vec<String> {
        let backend = self
            .backends
            .first()
            .and_then(|backend| backend.name.as_deref());
        let mut said = Vec::new();
        for asking in rule.asks.iter() {
            said.push(ask::words::filter(asking));
            let seen = Seen {
                request: asked.request,
                tls: asked.tls.unwrap_or_else(|| listener.tls.is_some()),
                source: &asking.source,
                destination: backend.unwrap_or_default(),
            };
            let descriptors = asking.descriptors.iter();
            said.extend(descriptors.map(|rule| ask::words::of_request(rule, &seen)));
            let domain = plan.domains.iter().find(|one| one.name == asking.domain);
            if let (AskedService::Own, Some(domain)) = (&asking.filter.service, domain) {
                said.extend(ask::words::meets(asking, domain, &seen));
            }
        }
        said
    }

    fn outcome(&self, rule: &RouteRule) -> String {
        if let Some(reason) = &rule.broken {
            return format!("500: {}", clean(reason));
        }
        let met = || {
            self.policies
                .iter()
                .flat_map(|policy| &policy.rules)
                .filter(|rule| rule.matches && !rule.shadow)
        };
        let blocked = met().find(|rule| rule.blocked);
        if let Some(rule) = blocked {
            return format!("429: {} admits nothing", rule.name);
        }
        let denied = met()
            .filter_map(|rule| Some((rule, rule.state.filter(|state| !state.admits)?)))
            .max_by_key(|(_, state)| state.wait_ms);
        if let Some((rule, state)) = denied {
            let seconds = state.wait_ms.div_ceil(1_000).max(1);
            return format!("429: over the limit of {}, for {seconds} s", rule.name);
        }
        let onward = if let Some(redirect) = &rule.filters.redirect {
            format!("redirected with {}", redirect.status.as_u16())
        } else if let Some(answer) = &rule.filters.answer {
            format!("answered with {}", answer.status.as_u16())
        } else if let Some(abort) = treatment::always_aborted(&rule.traffic) {
            format!("answered with {abort} on purpose")
        } else if self.backends.iter().all(|backend| backend.weight == 0) {
            "500: the rule has no backend".to_owned()
        } else {
            let names = self.backends.iter().filter(|backend| backend.weight > 0);
            let names: Vec<_> = names
                .map(|backend| backend.name.as_deref().unwrap_or("nowhere (500)"))
                .collect();
            format!("forwarded to {}", names.join(" or "))
        };
        let limited = met().next().is_some();
        let looked = met().any(|rule| rule.state.is_some());
        match (limited, looked) {
            (false, _) => format!("{onward}; no limit applies"),
            (true, true) => format!("{onward}; its buckets have tokens"),
            (true, false) => format!("{onward}, if its buckets have tokens"),
        }
    }
}

/// The kernel's limits on the ports of a listener.
fn network(plan: &Plan, listener: &Listener) -> Vec<String> {
    let mut said = Vec::new();
    for policy in &plan.network {
        let ports = listener.binds.iter().map(SocketAddr::port);
        let of_port = ports.filter(|port| policy.ports.contains(&(Protocol::Tcp, *port)));
        for port in of_port.collect::<BTreeSet<_>>() {
            let from = policy.written.as_deref().map(written);
            let from = from.map(|at| format!(", from {at}")).unwrap_or_default();
            let name = clean(&policy.name);
            said.push(format!("{name}: port {port}{from}"));
        }
    }
    said
}

fn rules(
    policy: &PolicyLimits,
    route: &str,
    request: &RequestView<'_>,
    state: impl Fn(&LimitRule) -> Option<BucketState>,
) -> Vec<RuleSaid> {
    let say = |rule: &LimitRule, why_not: Option<String>| {
        let matches = why_not.is_none();
        RuleSaid {
            name: rule.name.clone(),
            matches,
            why_not,
            conditions: rule.conditions.iter().map(condition).collect(),
            quota: quota(rule.quota),
            cost: rule.request_cost,
            response_cost: rule.response_cost.as_ref().map(response_cost),
            blocked: matches!(rule.quota, Quota::Blocked { .. }),
            shadow: rule.shadow,
            written: rule.written.as_deref().map(written),
            bucket: matches.then(|| words::bucket(rule, route, request)),
            state: matches.then(|| state(rule)).flatten(),
        }
    };
    let mut said: Vec<RuleSaid> = policy
        .rules
        .iter()
        .map(|rule| say(rule, first_failing(rule, request)))
        .collect();
    if let Some(rule) = &policy.default {
        let met = said.iter().find(|rule| rule.matches);
        let why_not = met
            .map(|met| {
                format!(
                    "it is for requests that no other rule matches; {} does",
                    met.name
                )
            })
            .or_else(|| first_failing(rule, request));
        said.push(say(rule, why_not));
    }
    said
}

fn first_failing(rule: &LimitRule, request: &RequestView<'_>) -> Option<String> {
    rule.conditions
        .iter()
        .find_map(|condition| holds(condition, request).err())
        .map(|why| why.to_string())
}

fn backends(weighted: &[WeightedBackend], plan: &Plan) -> Vec<BackendSaid> {
    let total: u64 = weighted.iter().map(|b| u64::from(b.weight)).sum();
    weighted
        .iter()
        .map(|weighted| {
            let backend = weighted.backend.and_then(|index| plan.backends.get(index));
            let endpoints = backend.map(|b| b.endpoints.iter().map(endpoint).collect());
            let changes = weighted.filters.as_deref();
            BackendSaid {
                name: backend.map(|b| b.name.clone()),
                weight: weighted.weight,
                percent: (u64::from(weighted.weight) * 100)
                    .checked_div(total)
                    .unwrap_or(0),
                protocol: backend.map(|b| protocol(b.protocol, b.tls.is_some()).to_owned()),
                endpoints: endpoints.unwrap_or_default(),
                filters: changes.map(|f| filters(f, plan)).unwrap_or_default(),
                policy: backend.map(|b| b.policy.clone()).unwrap_or_default(),
                settings: backend
                    .map(|b| backend_settings(&b.settings))
                    .unwrap_or_default(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
