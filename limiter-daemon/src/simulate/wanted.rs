//! What policies look at in a request, and what of them no log can be asked about.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderName;

use crate::policy::Plan;
use crate::policy::plan::{ClientAddress, Condition, LimitRule, ResponseCost, RouteKind};

/// Headers that policies look at.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// With who looks at each.
    headers: BTreeMap<String, (HeaderName, BTreeSet<String>)>,
}

impl Wanted {
    /// Those that any of `plans` looks at.
    pub(super) fn new<'a>(plans: impl Iterator<Item = &'a Plan>) -> Self {
        let mut wanted = Self::default();
        for plan in plans {
            wanted.add(plan);
        }
        wanted
    }

    fn add(&mut self, plan: &Plan) {
        let routes = plan.listeners.iter().flat_map(|listener| &listener.routes);
        for route in routes {
            let of_route = || format!("route {}", route.name);
            if route.kind == RouteKind::Grpc {
                self.want(&http::header::CONTENT_TYPE, of_route());
            }
            for rule in &route.rules {
                let matches = rule.matches.iter().flat_map(|one| &one.headers);
                for header in matches {
                    self.want(&header.name, of_route());
                }
            }
        }
        for rule in limits(plan) {
            for condition in &rule.conditions {
                if let Condition::Header { name, .. } = condition {
                    self.want(name, rule.name.clone());
                }
            }
        }
    }

    fn want(&mut self, name: &HeaderName, by: String) {
        let of = self.headers.entry(name.as_str().to_owned());
        let (_, whom) = of.or_insert_with(|| (name.clone(), BTreeSet::new()));
        whom.insert(by);
    }

    /// Each of them, with who looks at it.
    pub(super) fn all(&self) -> impl Iterator<Item = (&HeaderName, &BTreeSet<String>)> {
        self.headers.values().map(|(name, by)| (name, by))
    }

    pub(super) fn has(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name.as_str())
    }

    /// The header of this name, in lower case.
    pub(super) fn named(&self, name: &str) -> Option<&HeaderName> {
        self.headers.get(name).map(|(name, _)| name)
    }

    /// The header that a field of a log is called after.
    pub(super) fn field(&self, name: &str) -> Option<&HeaderName> {
        self.named(name).or_else(|| {
            let spelled = name.to_ascii_lowercase().replace('_', "-");
            let bare = spelled.strip_prefix("http-").unwrap_or(&spelled);
            self.named(&spelled).or_else(|| self.named(bare))
        })
    }
}

/// Every rule on requests.
pub(super) fn limits(plan: &Plan) -> impl Iterator<Item = &LimitRule> {
    let routes = plan.listeners.iter().flat_map(|listener| &listener.routes);
    let rules = routes.flat_map(|route| &route.rules);
    rules.flat_map(|rule| {
        let policies = rule.limits.local.iter().chain(&rule.limits.global);
        policies.flat_map(|policy| policy.rules.iter().chain(&policy.default))
    })
}

/// What of `plan` a log of requests says nothing about, a sentence each.
pub(super) fn not_replayed(plan: &Plan) -> Vec<String> {
    let mut notes = Vec::new();
    let counted = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let mut note = |text: Option<String>| notes.extend(text);
    note(counted(
        plan.network.len(),
        "network policies limit connections and packets, of which an access log says nothing: replay a pcap",
    ));
    note(counted(
        plan.escalations.len(),
        "network policies sentence offenders: what the kernel would have dropped for that is not left out",
    ));
    note(counted(
        plan.domains.len(),
        "domains of the rate limit service are asked by others: not replayed",
    ));
    let routes = plan.listeners.iter().flat_map(|listener| &listener.routes);
    let asks = routes.flat_map(|route| &route.rules);
    let asks = asks.filter(|rule| !rule.asks.is_empty()).count();
    note(counted(
        asks,
        "rules of routes ask a rate limit service: it is taken to admit everything",
    ));
    let attributed = plan.listeners.iter().filter(|listener| {
        !matches!(
            listener.client.client_address,
            ClientAddress::Peer | ClientAddress::TrustedHops(0)
        )
    });
    note(counted(
        attributed.count(),
        "listeners take the client from a header: a request counts for the address that the log has",
    ));
    let unmetered = limits(plan).filter(|rule| {
        matches!(
            rule.response_cost,
            Some(ResponseCost::Header(_) | ResponseCost::JsonField { .. })
        )
    });
    let names: BTreeSet<&str> = unmetered.map(|rule| rule.name.as_str()).collect();
    note(counted(
        names.len(),
        "rules charge what a response says of its cost, which is in no log: not charged",
    ));
    notes
}
