//! `HTTPRoute` and `GRPCRoute`: to which listeners a route belongs, what it matches and where that
//! goes. They differ in their matches.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::filters::{self, LoweredFilters, RawFilter};
use super::parents::{self, ParentRef, RawParentRef};
use super::references::RawObjectRef;
use super::retry::{self, RawRetry};
use super::{grpc_match, hostname, route_match};
use crate::policy::core;
use crate::policy::decode::{At, Unsupported};
use crate::policy::envoy_gateway;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Hostname, Retry, RouteKind, RouteMatch, Timeouts};
use crate::policy::resource::{Meta, Name, check_name};
use crate::policy::units;

const MAX_HOSTNAMES: usize = 16;
const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
const MAX_BACKENDS: usize = 16;
const MAX_WEIGHT: u32 = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawRoute<R> {
    parent_refs: Option<At<Vec<At<RawParentRef>>>>,
    hostnames: Option<At<Vec<At<String>>>>,
    rules: Option<At<Vec<At<R>>>>,
    use_default_gateways: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawHttpRule {
    name: Option<At<String>>,
    matches: Option<At<Vec<At<route_match::RawMatch>>>>,
    backend_refs: Option<At<Vec<RawBackendRef>>>,
    filters: Option<At<Vec<At<RawFilter>>>>,
    timeouts: Option<RawTimeouts>,
    retry: Option<At<RawRetry>>,
    session_persistence: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawGrpcRule {
    name: Option<At<String>>,
    matches: Option<At<Vec<At<grpc_match::RawMatch>>>>,
    backend_refs: Option<At<Vec<RawBackendRef>>>,
    filters: Option<At<Vec<At<RawFilter>>>>,
    session_persistence: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTimeouts {
    request: Option<At<String>>,
    backend_request: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawBackendRef {
    group: Option<At<String>>,
    kind: Option<At<String>>,
    name: At<String>,
    namespace: Option<At<String>>,
    port: Option<At<u16>>,
    weight: Option<At<u32>>,
    filters: Option<At<Vec<At<RawFilter>>>>,
}

/// A route, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) kind: RouteKind,
    pub(crate) meta: Meta,
    pub(crate) parents: Vec<ParentRef>,
    /// Empty: those of the listener.
    pub(crate) hostnames: Vec<Hostname>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: Option<String>,
    pub(crate) matches: Vec<RouteMatch>,
    pub(crate) filters: LoweredFilters,
    pub(crate) timeouts: Timeouts,
    /// Its `timeouts` has `request`, if only to say that there is no bound.
    pub(crate) says_request_timeout: bool,
    /// `None`: it says nothing of it; `Some(None)`: nothing is retried.
    pub(crate) retry: Option<Option<Retry>>,
    pub(crate) backends: Vec<BackendRef>,
}

#[derive(Clone, Debug)]
pub(crate) struct BackendRef {
    pub(crate) backend: Destination,
    pub(crate) weight: u32,
    /// `None`: no filters of its own.
    pub(crate) filters: Option<Arc<LoweredFilters>>,
}

/// Where a reference leads.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) to: BackendName,
    pub(crate) mark: Mark,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BackendName {
    /// A `Backend`.
    Backend(Name),
    /// A `Service`, and its port.
    Service(Name, u16),
}

impl BackendName {
    pub(crate) const fn name(&self) -> &Name {
        match self {
            Self::Backend(name) | Self::Service(name, _) => name,
        }
    }
}

/// Checks an HTTPRoute.
pub(crate) fn lower_http(
    raw: At<RawRoute<RawHttpRule>>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> Route {
    lower(raw, RouteKind::Http, meta, scope, |raw, meta, scope| {
        let At { value: raw, mark } = raw;
        let matches = matches(raw.matches, scope, route_match::lower);
        let says_request_timeout = raw
            .timeouts
            .as_ref()
            .is_some_and(|timeouts| timeouts.request.is_some());
        let timeouts = raw
            .timeouts
            .map(|timeouts| lower_timeouts(timeouts, scope))
            .unwrap_or_default();
        let filters = filters::lower(raw.filters, RouteKind::Http, meta, scope);
        Rule {
            name: rule_name(raw.name, scope),
            matches,
            backends: backends(
                raw.backend_refs,
                RouteKind::Http,
                &filters,
                meta,
                &mark,
                scope,
            ),
            filters,
            timeouts,
            says_request_timeout,
            retry: raw.retry.map(|raw| retry::lower(raw, scope)),
        }
    })
}

/// Checks a GRPCRoute.
pub(crate) fn lower_grpc(
    raw: At<RawRoute<RawGrpcRule>>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> Route {
    lower(raw, RouteKind::Grpc, meta, scope, |raw, meta, scope| {
        let At { value: raw, mark } = raw;
        let matches = matches(raw.matches, scope, grpc_match::lower);
        let filters = filters::lower(raw.filters, RouteKind::Grpc, meta, scope);
        Rule {
            name: rule_name(raw.name, scope),
            matches,
            backends: backends(
                raw.backend_refs,
                RouteKind::Grpc,
                &filters,
                meta,
                &mark,
                scope,
            ),
            filters,
            timeouts: Timeouts::default(),
            says_request_timeout: false,
            retry: None,
        }
    })
}

fn lower<R>(
    raw: At<RawRoute<R>>,
    kind: RouteKind,
    meta: Meta,
    scope: &mut Scope<'_>,
    mut rule: impl FnMut(At<R>, &Meta, &mut Scope<'_>) -> Rule,
) -> Route {
    let At { value: raw, mark } = raw;
    let parents = parents::lower(raw.parent_refs, &meta, &mark, scope);
    let mut hostnames = Vec::new();
    if let Some(list) = raw.hostnames {
        scope.at_most(&list.mark, list.len(), MAX_HOSTNAMES);
        hostnames.extend(
            list.value
                .iter()
                .filter_map(|text| hostname::parse(text, scope)),
        );
    }
    let mut rules: Vec<Rule> = Vec::new();
    let place = raw.rules.as_ref().map_or(&mark, |list| &list.mark);
    if raw.rules.as_ref().is_none_or(|list| list.is_empty()) {
        scope.error(
            place,
            "no rules, so the route leads nowhere",
            "give it a rule with `backendRefs`",
        );
    }
    if let Some(list) = raw.rules {
        scope.at_most(&list.mark, list.len(), MAX_RULES);
        for raw in list.value {
            let mark = raw.mark.clone();
            let lowered = rule(raw, &meta, scope);
            let twice =
                lowered.name.is_some() && rules.iter().any(|other| other.name == lowered.name);
            if twice {
                scope.error(
                    &mark,
                    "another rule has this name",
                    "give each a name of its own",
                );
            }
            rules.push(lowered);
        }
    }
    Route {
        kind,
        meta,
        parents,
        hostnames,
        rules,
    }
}

fn rule_name(raw: Option<At<String>>, scope: &mut Scope<'_>) -> Option<String> {
    let raw = raw?;
    check_name(&raw, scope);
    Some(raw.value)
}

fn matches<M>(
    raw: Option<At<Vec<At<M>>>>,
    scope: &mut Scope<'_>,
    lower: impl Fn(M, &mut Scope<'_>) -> Option<RouteMatch>,
) -> Vec<RouteMatch> {
    match raw.filter(|list| !list.is_empty()) {
        Some(list) => {
            scope.at_most(&list.mark, list.len(), MAX_MATCHES);
            list.value
                .into_iter()
                .filter_map(|item| lower(item.value, scope))
                .collect()
        }
        None => vec![route_match::every_request()],
    }
}

fn lower_timeouts(raw: RawTimeouts, scope: &mut Scope<'_>) -> Timeouts {
    let bound = |text: Option<&At<String>>, scope: &mut Scope<'_>| -> Option<Duration> {
        text.and_then(|text| units::bound(text, scope)).flatten()
    };
    let timeouts = Timeouts {
        request: bound(raw.request.as_ref(), scope),
        backend_request: bound(raw.backend_request.as_ref(), scope),
    };
    if let (Some(whole), Some(one), Some(at)) = (
        timeouts.request,
        timeouts.backend_request,
        &raw.backend_request,
    ) && one > whole
    {
        scope.error(
            &at.mark,
            "one attempt may take longer than the whole request",
            "write at most what `request` says",
        );
    }
    timeouts
}

fn backends(
    raw: Option<At<Vec<RawBackendRef>>>,
    kind: RouteKind,
    filters: &LoweredFilters,
    meta: &Meta,
    mark: &Mark,
    scope: &mut Scope<'_>,
) -> Vec<BackendRef> {
    let mut backends = Vec::new();
    if let Some(list) = raw.filter(|list| !list.is_empty()) {
        scope.at_most(&list.mark, list.len(), MAX_BACKENDS);
        let before = list.len();
        backends.extend(
            list.value
                .into_iter()
                .filter_map(|backend| lower_backend(backend, kind, meta, scope)),
        );
        if backends.len() == before && backends.iter().all(|backend| backend.weight == 0) {
            let message = "every weight is 0, so the requests of this rule are answered with 500";
            scope.warning(&list.mark, message, "give a backend a weight above 0");
        }
    } else if filters.plan.redirect.is_none() {
        let message = "no `backendRefs`, so the requests of this rule are answered with 500";
        scope.warning(mark, message, "name a `Backend` or a `Service`");
    }
    backends
}

fn lower_backend(
    raw: RawBackendRef,
    kind: RouteKind,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Option<BackendRef> {
    let weight = raw.weight.as_ref().map_or(1, |weight| weight.value);
    if let Some(at) = raw.weight.as_ref().filter(|at| at.value > MAX_WEIGHT) {
        scope.error(
            &at.mark,
            format!("{weight} is out of range"),
            format!("it may be 0 to {MAX_WEIGHT}"),
        );
    }
    let filters = raw
        .filters
        .filter(|list| !list.is_empty())
        .map(|list| Arc::new(filters::lower_of_backend(list, kind, meta, scope)));
    let reference = RawObjectRef {
        group: raw.group,
        kind: raw.kind,
        name: raw.name,
        namespace: raw.namespace,
    };
    Some(BackendRef {
        backend: destination(reference, raw.port, meta, scope)?,
        weight,
        filters,
    })
}

/// Checks a reference to a Backend, or to a Service with its port.
pub(super) fn destination(
    raw: RawObjectRef,
    port: Option<At<u16>>,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Option<Destination> {
    let place = raw
        .kind
        .as_ref()
        .or(raw.group.as_ref())
        .map_or(&raw.name.mark, |at| &at.mark)
        .clone();
    let reference = raw.lower("Service", &meta.name.namespace);
    let mark = reference.mark;
    let to = match (reference.group.as_str(), reference.kind.as_str()) {
        (envoy_gateway::GROUP, "Backend") => {
            if let Some(port) = &port {
                let message = "the port is not used: the endpoints of a `Backend` have their own";
                scope.warning(&port.mark, message, "remove it");
            }
            BackendName::Backend(reference.name)
        }
        (core::GROUP, "Service") => match port.filter(|port| port.value > 0) {
            Some(port) => BackendName::Service(reference.name, port.value),
            None => {
                scope.error(
                    &mark,
                    "a Service needs a `port`",
                    "give it one of the Service's",
                );
                return None;
            }
        },
        (group, kind) => {
            let what = if group.is_empty() {
                kind.to_owned()
            } else {
                format!("{group} {kind}")
            };
            scope.error(
                &place,
                format!(
                    "`{}` is of the kind `{what}`, to which no requests can go",
                    reference.name.name
                ),
                format!(
                    "name a `Service`, or a `Backend` of the group `{}`",
                    envoy_gateway::GROUP
                ),
            );
            return None;
        }
    };
    Some(Destination { to, mark })
}
