//! `HTTPRoute`: to which listeners it belongs, what it matches and where that goes.

use serde::Deserialize;

use super::{GROUP, hostname, route_match};
use crate::policy::decode::{At, Ignored, Unsupported};
use crate::policy::envoy_gateway;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Hostname, RouteMatch};
use crate::policy::resource::{Meta, Name};

const MAX_PARENTS: usize = 32;
const MAX_HOSTNAMES: usize = 16;
const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
const MAX_BACKENDS: usize = 16;
const MAX_WEIGHT: u32 = 1_000_000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawHttpRoute {
    parent_refs: Option<At<Vec<At<RawParentRef>>>>,
    hostnames: Option<At<Vec<At<String>>>>,
    rules: Option<At<Vec<At<RawRule>>>>,
    use_default_gateways: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawParentRef {
    group: Option<At<String>>,
    kind: Option<At<String>>,
    name: At<String>,
    namespace: Option<At<String>>,
    section_name: Option<At<String>>,
    port: Option<At<u16>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawRule {
    name: Option<Ignored>,
    matches: Option<At<Vec<At<route_match::RawMatch>>>>,
    backend_refs: Option<At<Vec<RawBackendRef>>>,
    filters: Option<Unsupported>,
    timeouts: Option<Unsupported>,
    retry: Option<Unsupported>,
    session_persistence: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawBackendRef {
    group: Option<At<String>>,
    kind: Option<At<String>>,
    name: At<String>,
    namespace: Option<At<String>>,
    port: Option<At<u16>>,
    weight: Option<At<u32>>,
    filters: Option<Unsupported>,
}

/// An HTTPRoute, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct HttpRoute {
    pub(crate) meta: Meta,
    pub(crate) parents: Vec<ParentRef>,
    /// Empty: those of the listener.
    pub(crate) hostnames: Vec<Hostname>,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(crate) struct ParentRef {
    pub(crate) gateway: Name,
    pub(crate) section: Option<At<String>>,
    pub(crate) port: Option<At<u16>>,
    pub(crate) mark: Mark,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<RouteMatch>,
    pub(crate) backends: Vec<BackendRef>,
}

#[derive(Clone, Debug)]
pub(crate) struct BackendRef {
    pub(crate) backend: Name,
    pub(crate) weight: u32,
    pub(crate) mark: Mark,
}

/// Checks an HTTPRoute.
pub(crate) fn lower(raw: At<RawHttpRoute>, meta: Meta, scope: &mut Scope<'_>) -> HttpRoute {
    let At { value: raw, mark } = raw;
    let parents = parents(raw.parent_refs, &meta, &mark, scope);
    let mut hostnames = Vec::new();
    if let Some(list) = raw.hostnames {
        scope.at_most(&list.mark, list.len(), MAX_HOSTNAMES);
        hostnames.extend(
            list.value
                .iter()
                .filter_map(|text| hostname::parse(text, scope)),
        );
    }
    let rules = match raw.rules {
        Some(list) => {
            scope.at_most(&list.mark, list.len(), MAX_RULES);
            if list.is_empty() {
                scope.error(
                    &list.mark,
                    "no rules, so the route leads nowhere",
                    "give it a rule with `backendRefs`",
                );
            }
            list.value
                .into_iter()
                .map(|rule| lower_rule(rule, &meta, scope))
                .collect()
        }
        None => {
            scope.error(
                &mark,
                "no rules, so the route leads nowhere",
                "give it a rule with `backendRefs`",
            );
            Vec::new()
        }
    };
    HttpRoute {
        meta,
        parents,
        hostnames,
        rules,
    }
}

fn parents(
    raw: Option<At<Vec<At<RawParentRef>>>>,
    meta: &Meta,
    spec: &Mark,
    scope: &mut Scope<'_>,
) -> Vec<ParentRef> {
    let Some(list) = raw.filter(|list| !list.is_empty()) else {
        scope.error(
            spec,
            "no `parentRefs`, so the route is attached to nothing",
            "name the Gateway it belongs to",
        );
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX_PARENTS);
    let mut parents = Vec::new();
    for At {
        value: parent,
        mark,
    } in list.value
    {
        let group = parent.group.as_ref().map_or(GROUP, |group| group.as_str());
        let kind = parent.kind.as_ref().map_or("Gateway", |kind| kind.as_str());
        if group != GROUP || kind != "Gateway" {
            let place = parent
                .kind
                .as_ref()
                .or(parent.group.as_ref())
                .map_or(&mark, |at| &at.mark);
            let message =
                format!("a route cannot be attached to a resource of the kind `{kind}` here");
            scope.error(place, message, format!("name a `Gateway` of `{GROUP}`"));
            continue;
        }
        let namespace = parent
            .namespace
            .as_ref()
            .map_or(&meta.name.namespace, |at| &at.value);
        parents.push(ParentRef {
            gateway: Name::new(namespace, &parent.name),
            section: parent.section_name,
            port: parent.port,
            mark: parent.name.mark,
        });
    }
    parents
}

fn lower_rule(raw: At<RawRule>, meta: &Meta, scope: &mut Scope<'_>) -> Rule {
    let At { value: raw, mark } = raw;
    let matches = match raw.matches.filter(|list| !list.is_empty()) {
        Some(list) => {
            scope.at_most(&list.mark, list.len(), MAX_MATCHES);
            list.value
                .into_iter()
                .filter_map(|item| route_match::lower(item.value, scope))
                .collect()
        }
        None => vec![route_match::every_request()],
    };
    let mut backends = Vec::new();
    if let Some(list) = raw.backend_refs.filter(|list| !list.is_empty()) {
        scope.at_most(&list.mark, list.len(), MAX_BACKENDS);
        let before = list.len();
        backends.extend(
            list.value
                .into_iter()
                .filter_map(|backend| lower_backend(backend, meta, scope)),
        );
        if backends.len() == before && backends.iter().all(|backend| backend.weight == 0) {
            let message = "every weight is 0, so the requests of this rule are answered with 500";
            scope.warning(&list.mark, message, "give a backend a weight above 0");
        }
    } else {
        let message = "no `backendRefs`, so the requests of this rule are answered with 500";
        scope.warning(&mark, message, "name a `Backend`");
    }
    Rule { matches, backends }
}

fn lower_backend(raw: RawBackendRef, meta: &Meta, scope: &mut Scope<'_>) -> Option<BackendRef> {
    let group = raw.group.as_ref().map_or("", |group| group.as_str());
    let kind = raw.kind.as_ref().map_or("Service", |kind| kind.as_str());
    if (group, kind) != (envoy_gateway::GROUP, "Backend") {
        let place = raw
            .kind
            .as_ref()
            .or(raw.group.as_ref())
            .map_or(&raw.name.mark, |at| &at.mark);
        let what = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{group} {kind}")
        };
        let message = format!(
            "`{}` is of the kind `{what}`, which is not supported yet",
            raw.name.value
        );
        scope.error(
            place,
            message,
            format!("use `group: {}` and `kind: Backend`", envoy_gateway::GROUP),
        );
        return None;
    }
    if let Some(namespace) = raw
        .namespace
        .as_ref()
        .filter(|at| at.value != meta.name.namespace)
    {
        let message = format!(
            "the backend is in the namespace `{}`, the route is not",
            namespace.value
        );
        scope.error(
            &namespace.mark,
            message,
            "put both into one namespace: `ReferenceGrant`, which would allow it, is not supported yet",
        );
        return None;
    }
    if let Some(port) = &raw.port {
        let message = "the port is not used: the endpoints of a `Backend` have their own";
        scope.warning(&port.mark, message, "remove it");
    }
    let weight = raw.weight.as_ref().map_or(1, |weight| weight.value);
    if let Some(at) = raw.weight.as_ref().filter(|at| at.value > MAX_WEIGHT) {
        scope.error(
            &at.mark,
            format!("{weight} is out of range"),
            format!("it may be 0 to {MAX_WEIGHT}"),
        );
    }
    Some(BackendRef {
        backend: Name::new(&meta.name.namespace, &raw.name),
        weight,
        mark: raw.name.mark,
    })
}
