//! Routes on their listeners.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::traffic::Policies;
use super::{listeners, missing};
use crate::policy::findings::Findings;
use crate::policy::gateway_api::gateway::{self, Gateway};
use crate::policy::gateway_api::hostname;
use crate::policy::gateway_api::http_route::{HttpRoute, ParentRef, Rule};
use crate::policy::kinds::Kind;
use crate::policy::plan::{Listener, RateLimits, Route, RouteKind, RouteRule, WeightedBackend};
use crate::policy::resource::Name;
use crate::policy::resources::Resources;
use crate::policy::suggest;

/// Every listener with the routes attached to it.
pub(super) fn compile(
    resources: &Resources,
    backends: &BTreeMap<&Name, usize>,
    policies: &Policies<'_>,
    findings: &mut Findings,
) -> Vec<Listener> {
    let mut plan: Vec<Listener> = Vec::new();
    let mut places: BTreeMap<(&Name, &str), usize> = BTreeMap::new();
    for (name, gateway) in &resources.gateways {
        for listener in &gateway.listeners {
            places.insert((name, &listener.name), plan.len());
            plan.push(Listener {
                name: listeners::name(gateway, listener),
                binds: listeners::binds(gateway, listener),
                hostname: listener.hostname.clone(),
                tls: None,
                client: Arc::default(),
                routes: Vec::new(),
            });
        }
    }
    let mut ordered: Vec<&HttpRoute> = resources.routes.values().collect();
    ordered.sort_by_key(|route| route.meta.precedence());
    for route in ordered {
        let rules = rules(route, resources, backends, findings);
        for parent in &route.parents {
            let Some(gateway) = resources.gateways.get(&parent.gateway) else {
                let mut scope = findings.at(&route.meta.origin);
                missing(
                    resources,
                    Kind::Gateway,
                    &parent.gateway,
                    &parent.mark,
                    &mut scope,
                );
                continue;
            };
            for (listener, hostnames) in attach(route, parent, gateway, findings) {
                let place = places.get(&(&gateway.meta.name, listener.name.as_str()));
                let Some(entry) = place.and_then(|&place| plan.get_mut(place)) else {
                    continue;
                };
                let name = route.meta.name.to_string();
                // Two parent references may lead to the same listener.
                if entry.routes.iter().all(|other| other.name != name) {
                    let limits = policies.limits(&route.meta.name, &gateway.meta.name);
                    let limits = Arc::new(RateLimits {
                        local: limits.into_iter().cloned().collect(),
                        global: Vec::new(),
                    });
                    let limited = |rule: &RouteRule| RouteRule {
                        limits: Arc::clone(&limits),
                        ..rule.clone()
                    };
                    entry.routes.push(Route {
                        name,
                        kind: RouteKind::Http,
                        hostnames,
                        rules: rules.iter().map(limited).collect(),
                    });
                }
            }
        }
    }
    plan
}

/// The listeners that a parent reference attaches the route to, with the hostnames it has there.
fn attach<'a>(
    route: &HttpRoute,
    parent: &ParentRef,
    gateway: &'a Gateway,
    findings: &mut Findings,
) -> Vec<(&'a gateway::Listener, Vec<crate::policy::plan::Hostname>)> {
    let mut scope = findings.at(&route.meta.origin);
    let listeners = || gateway.listeners.iter();
    let mut chosen: Vec<&gateway::Listener> = listeners().collect();
    if let Some(section) = &parent.section {
        chosen.retain(|listener| listener.name == section.value);
        if chosen.is_empty() {
            let message = format!(
                "the Gateway `{}` has no listener `{}`",
                parent.gateway, section.value
            );
            let names = listeners().map(|listener| listener.name.as_str());
            scope.error(
                &section.mark,
                message,
                suggest::remedy(section, names, "its listeners are"),
            );
            return Vec::new();
        }
    }
    if let Some(port) = &parent.port {
        chosen.retain(|listener| listener.port == port.value);
        if chosen.is_empty() {
            let message = format!(
                "the Gateway `{}` has no such listener on port {}",
                parent.gateway, port.value
            );
            scope.error(
                &port.mark,
                message,
                "remove `port`, or write that of a listener",
            );
            return Vec::new();
        }
    }
    // A Gateway without listeners has an error of its own.
    let any = !chosen.is_empty();
    let at_home = route.meta.name.namespace == gateway.meta.name.namespace;
    chosen.retain(|listener| listener.open || at_home);
    if any && chosen.is_empty() {
        let message = format!(
            "the Gateway `{}` takes no routes of other namespaces",
            parent.gateway
        );
        let remedy = "put both into one namespace, or give the listener `allowedRoutes.namespaces.from: All`";
        scope.error(&parent.mark, message, remedy);
        return Vec::new();
    }
    let attached: Vec<_> = chosen
        .iter()
        .map(|listener| {
            (
                *listener,
                hostname::intersect(&listener.hostname, &route.hostnames),
            )
        })
        .filter(|(_, hostnames)| !hostnames.is_empty())
        .collect();
    if !chosen.is_empty() && attached.is_empty() {
        let message = format!(
            "no hostname of the route fits a listener of `{}`",
            parent.gateway
        );
        scope.error(
            &parent.mark,
            message,
            "write hostnames within those of the listener",
        );
    }
    attached
}

fn rules(
    route: &HttpRoute,
    resources: &Resources,
    backends: &BTreeMap<&Name, usize>,
    findings: &mut Findings,
) -> Vec<RouteRule> {
    let mut scope = findings.at(&route.meta.origin);
    let mut lower = |rule: &Rule| {
        let mut weighted = Vec::new();
        for reference in &rule.backends {
            match backends.get(&reference.backend) {
                Some(&backend) => weighted.push(WeightedBackend {
                    backend: Some(backend),
                    weight: reference.weight,
                    filters: None,
                }),
                None => missing(
                    resources,
                    Kind::Backend,
                    &reference.backend,
                    &reference.mark,
                    &mut scope,
                ),
            }
        }
        RouteRule {
            matches: rule.matches.clone(),
            backends: weighted,
            ..RouteRule::default()
        }
    };
    route.rules.iter().map(&mut lower).collect()
}
