//! Routes on their listeners.

use std::sync::Arc;

use super::asks::Asks;
use super::backends::{Backends, Unresolved};
use super::clients::{Clients, Settings};
use super::gloo::Gloo;
use super::in_force::InForce;
use super::missing;
use super::topology::{Entry, ancestor};
use super::treatment::Upstream;
use crate::policy::findings::{Findings, Scope};
use crate::policy::gateway_api::filters::LoweredFilters;
use crate::policy::gateway_api::hostname;
use crate::policy::gateway_api::parents::ParentRef;
use crate::policy::gateway_api::route::{self, Rule};
use crate::policy::plan::{
    Filters, Hostname, Listener, Mirror, Route, RouteKind, RouteRule, WeightedBackend,
};
use crate::policy::resources::Resources;
use crate::policy::status::{Condition, Statuses};
use crate::policy::suggest;

/// What routes are compiled with.
pub(super) struct Context<'a, 'b> {
    pub(super) resources: &'a Resources,
    pub(super) gloo: &'b mut Gloo<'a>,
    pub(super) backends: &'b mut Backends<'a>,
    pub(super) in_force: &'b mut InForce<'a>,
    pub(super) asks: &'b mut Asks<'a>,
    pub(super) statuses: &'b mut Statuses,
    pub(super) findings: &'b mut Findings,
}

/// Every listener that is served, with the routes attached to it.
pub(super) fn compile<'a>(
    entries: &mut [Entry<'a>],
    settings: &Settings<'_>,
    context: &mut Context<'a, '_>,
) -> Vec<Listener> {
    let clients: Vec<Clients> = entries.iter().map(|entry| settings.of(entry)).collect();
    let mut attached: Vec<Vec<Route>> = entries.iter().map(|_| Vec::new()).collect();
    let mut ordered: Vec<&route::Route> = context.resources.routes().collect();
    ordered.sort_by_key(|route| route.meta.precedence());
    for route in ordered {
        let (rules, unresolved) = rules(route, context);
        for parent in &route.parents {
            let outcome = attach(route, parent, entries, context);
            report(route, parent, &outcome, unresolved, context.statuses);
            for (index, hostnames) in outcome.unwrap_or_default() {
                let (Some(entry), Some(clients), Some(routes)) = (
                    entries.get_mut(index),
                    clients.get(index),
                    attached.get_mut(index),
                ) else {
                    continue;
                };
                let name = route.meta.name.to_string();
                // Two parent references may lead to the same listener.
                let there = |other: &Route| other.name == name && other.kind == route.kind;
                if routes.iter().any(there) {
                    continue;
                }
                entry.attached += 1;
                let rules = route
                    .rules
                    .iter()
                    .zip(&rules)
                    .enumerate()
                    .map(|(index, (rule, base))| {
                        let mut made = limited(route, rule, base, entry, clients, context);
                        let written = (route, index, rule);
                        let findings = &mut *context.findings;
                        context
                            .gloo
                            .on_gateway_api(written, entry, &mut made, findings);
                        made
                    })
                    .collect();
                routes.push(Route {
                    name,
                    kind: route.kind,
                    hostnames,
                    in_order: false,
                    rules,
                });
            }
        }
    }
    let served = entries.iter().zip(clients).zip(attached);
    served
        .filter(|((entry, _), _)| entry.refused.is_none())
        .map(|((entry, clients), routes)| Listener {
            name: entry.name.clone(),
            binds: entry.binds.clone(),
            hostname: entry.listener.hostname.clone(),
            tls: clients.tls,
            client: clients.settings,
            routes,
        })
        .collect()
}

/// A rule with what is in force on it at one listener.
fn limited<'a>(
    route: &route::Route,
    rule: &Rule,
    base: &RouteRule,
    entry: &Entry<'a>,
    clients: &Clients,
    context: &mut Context<'a, '_>,
) -> RouteRule {
    let (treatment, broken) = context.in_force.on(route, rule, entry);
    let mut made = RouteRule {
        limits: Arc::clone(&treatment.limits),
        asks: context.asks.on(route, rule, entry),
        traffic: treatment.traffic_of(rule),
        broken: broken.or_else(|| clients.broken.clone()),
        ..base.clone()
    };
    if !rule.says_request_timeout {
        made.timeouts.request = treatment.request_timeout;
    }
    let (backends, findings) = (&mut *context.backends, &mut *context.findings);
    for weighted in &mut made.backends {
        weighted.backend = weighted
            .backend
            .and_then(|found| backends.treated(found, &treatment.upstream, findings));
    }
    // Nobody waits for the answer of a copy.
    let plain = Upstream::default();
    made.filters.mirrors.retain_mut(|mirror| {
        let index = backends.treated(mirror.backend, &plain, findings);
        mirror.backend = index.unwrap_or_default();
        index.is_some()
    });
    made
}

/// Why a parent reference attaches a route to nothing, as a reason of Gateway API.
struct NotAttached {
    reason: &'static str,
    message: String,
}

type Attachment = Result<Vec<(usize, Vec<Hostname>)>, NotAttached>;

/// The listeners that a parent reference attaches the route to, with the hostnames it has there.
fn attach(
    route: &route::Route,
    parent: &ParentRef,
    entries: &[Entry<'_>],
    context: &mut Context<'_, '_>,
) -> Attachment {
    let resources = context.resources;
    let mut scope = context.findings.at(&route.meta.origin);
    let mut chosen: Vec<(usize, &Entry<'_>)> = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| {
            let (kind, meta) = entry.owner();
            kind == parent.kind && meta.name == parent.name
        })
        .collect();
    let what = format!("the {} `{}`", parent.kind.name(), parent.name);
    if chosen.is_empty() {
        let kind = parent.kind.kind();
        missing(resources, kind, &parent.name, &parent.mark, &mut scope);
        return Err(NotAttached {
            reason: "NoMatchingParent",
            message: format!("{what} is not there, or has no valid listener."),
        });
    }
    narrow(parent, &what, &mut chosen, &mut scope)?;
    allowed(route, parent, &what, resources, &mut chosen, &mut scope)?;
    let attached: Vec<_> = chosen
        .iter()
        .map(|(index, entry)| {
            let common = hostname::intersect(&entry.listener.hostname, &route.hostnames);
            (*index, common)
        })
        .filter(|(_, hostnames)| !hostnames.is_empty())
        .collect();
    if attached.is_empty() {
        let message = format!(
            "no hostname of the route fits a listener of `{}`",
            parent.name
        );
        scope.error(
            &parent.mark,
            message.clone(),
            "write hostnames within those of the listener",
        );
        return Err(NotAttached {
            reason: "NoMatchingListenerHostname",
            message,
        });
    }
    Ok(attached)
}

/// Leaves the listener that `sectionName` and `port` name.
fn narrow(
    parent: &ParentRef,
    what: &str,
    chosen: &mut Vec<(usize, &Entry<'_>)>,
    scope: &mut Scope<'_>,
) -> Result<(), NotAttached> {
    let no_parent = |message: String| NotAttached {
        reason: "NoMatchingParent",
        message,
    };
    if let Some(section) = &parent.section {
        let names: Vec<&str> = chosen
            .iter()
            .map(|(_, entry)| entry.listener.name.as_str())
            .collect();
        chosen.retain(|(_, entry)| entry.listener.name == section.value);
        if chosen.is_empty() {
            let message = format!("{what} has no listener `{}`", section.value);
            let remedy = suggest::remedy(section, names, "its listeners are");
            scope.error(&section.mark, message.clone(), remedy);
            return Err(no_parent(message));
        }
    }
    if let Some(port) = &parent.port {
        chosen.retain(|(_, entry)| entry.listener.port == port.value);
        if chosen.is_empty() {
            let message = format!("{what} has no such listener on port {}", port.value);
            scope.error(
                &port.mark,
                message.clone(),
                "remove `port`, or write that of a listener",
            );
            return Err(no_parent(message));
        }
    }
    Ok(())
}

/// Leaves the listeners that take routes of this kind and of this namespace.
fn allowed(
    route: &route::Route,
    parent: &ParentRef,
    what: &str,
    resources: &Resources,
    chosen: &mut Vec<(usize, &Entry<'_>)>,
    scope: &mut Scope<'_>,
) -> Result<(), NotAttached> {
    let not_allowed = |message: String| NotAttached {
        reason: "NotAllowedByListeners",
        message,
    };
    chosen.retain(|(_, entry)| entry.takes(route.kind));
    if chosen.is_empty() {
        let kind = match route.kind {
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
        };
        let message = format!("{what} takes no routes of the kind `{kind}`");
        scope.error(
            &parent.mark,
            message.clone(),
            "give the listener this kind under `allowedRoutes.kinds`",
        );
        return Err(not_allowed(message));
    }
    let namespace = &route.meta.name.namespace;
    let labels = resources.namespaces.get(namespace);
    chosen.retain(|(_, entry)| {
        let (_, owner) = entry.owner();
        entry
            .listener
            .routes
            .admits(&owner.name.namespace, namespace, labels)
    });
    if chosen.is_empty() {
        let message = format!("{what} takes no routes of the namespace `{namespace}`");
        let remedy = "put both into one namespace, or give the listener `allowedRoutes.namespaces.from: All`";
        scope.error(&parent.mark, message.clone(), remedy);
        return Err(not_allowed(message));
    }
    Ok(())
}

fn report(
    route: &route::Route,
    parent: &ParentRef,
    outcome: &Attachment,
    unresolved: Option<Unresolved>,
    statuses: &mut Statuses,
) {
    let kind = match route.kind {
        RouteKind::Http => "HTTPRoute",
        RouteKind::Grpc => "GRPCRoute",
    };
    let name = &route.meta.name;
    let section = parent.section.as_ref().map(|at| at.value.as_str());
    let parent = ancestor(parent.kind, &parent.name, section);
    let status = statuses.of(kind, &name.namespace, &name.name);
    let accepted = match outcome {
        Ok(_) => Condition::accepted("Route is accepted"),
        Err(why) => Condition::not_accepted(why.reason, why.message.clone()),
    };
    status.add_for(&parent, accepted);
    let resolved = match unresolved {
        None => Condition::new(
            "ResolvedRefs",
            true,
            "ResolvedRefs",
            "Resolved all the Object references for the Route",
        ),
        Some(why) => Condition::new(
            "ResolvedRefs",
            false,
            why.reason(),
            "Some backends cannot be used; their share of the requests is answered with 500.",
        ),
    };
    status.add_for(&parent, resolved);
}

/// The rules of a route before anything is attached to it, with backends as [`Backends::find`] numbers
/// them; and what of its references is wrong.
fn rules(
    route: &route::Route,
    context: &mut Context<'_, '_>,
) -> (Vec<RouteRule>, Option<Unresolved>) {
    let mut unresolved = None;
    let mut scope = context.findings.at(&route.meta.origin);
    let namespace = &route.meta.name.namespace;
    let mut rules = Vec::new();
    for rule in &route.rules {
        let mut find = |destination: &route::Destination| {
            let found = context
                .backends
                .find(destination, route.kind, namespace, &mut scope);
            found
                .map_err(|why| unresolved = unresolved.or(Some(why)))
                .ok()
        };
        let filters = filters(&rule.filters, &mut find);
        let backends = rule
            .backends
            .iter()
            .map(|reference| WeightedBackend {
                backend: find(&reference.backend),
                weight: reference.weight,
                filters: reference
                    .filters
                    .as_ref()
                    .map(|filters| Arc::new(filters.plan.clone())),
            })
            .collect();
        rules.push(RouteRule {
            name: rule.name.clone(),
            matches: rule.matches.clone(),
            filters,
            backends,
            timeouts: rule.timeouts,
            ..RouteRule::default()
        });
    }
    (rules, unresolved)
}

fn filters(
    lowered: &LoweredFilters,
    find: &mut impl FnMut(&route::Destination) -> Option<usize>,
) -> Filters {
    Filters {
        mirrors: lowered
            .mirrors
            .iter()
            .filter_map(|mirror| {
                Some(Mirror {
                    backend: find(&mirror.to)?,
                    numerator: mirror.numerator,
                    denominator: mirror.denominator,
                })
            })
            .collect(),
        ..lowered.plan.clone()
    }
}
