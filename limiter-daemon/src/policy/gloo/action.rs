//! What a route does with its requests: sends them to destinations, redirects or answers them.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::references::{RawRef, Reference};
use super::traffic;
use crate::policy::decode::{At, Ignored, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{PathRewrite, Redirect};

const MAX_DESTINATIONS: usize = 64;

/// `routeAction`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRouteAction {
    single: Option<At<RawDestination>>,
    multi: Option<RawMulti>,
    upstream_group: Option<Unsupported>,
    cluster_header: Option<Unsupported>,
    dynamic_forward_proxy: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawMulti {
    destinations: At<Vec<At<RawWeighted>>>,
}

#[derive(Debug, Deserialize)]
struct RawWeighted {
    destination: At<RawDestination>,
    weight: Option<At<u32>>,
    options: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawDestination {
    upstream: Option<RawRef>,
    kube: Option<RawKube>,
    consul: Option<Unsupported>,
    destination_spec: Option<Unsupported>,
    subset: Option<Unsupported>,
}

#[derive(Debug, Deserialize)]
struct RawKube {
    #[serde(rename = "ref")]
    reference: RawRef,
    port: At<u16>,
}

/// Where a share of the requests goes.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) to: To,
    pub(crate) weight: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum To {
    Upstream(Reference),
    /// A Service, and its port.
    Service(Reference, u16),
}

/// What a route does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Forward(Vec<Destination>),
    Redirect(Redirect),
    Answer(StatusCode, Option<Bytes>),
}

/// Checks `routeAction`.
pub(super) fn forward(
    At { value: raw, mark }: At<RawRouteAction>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Action {
    let told = raw.upstream_group.is_some()
        || raw.cluster_header.is_some()
        || raw.dynamic_forward_proxy.is_some();
    let choice = (raw.single, raw.multi, told);
    Action::Forward(destinations(choice, &mark, namespace, scope))
}

/// Checks `single` and `multi`, of which there is one, unless another field was `told` of.
pub(super) fn destinations(
    (single, multi, told): (Option<At<RawDestination>>, Option<RawMulti>, bool),
    mark: &Mark,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Vec<Destination> {
    let mut destinations = Vec::new();
    match (single, multi) {
        (Some(single), None) => {
            destinations.extend(
                destination(single, namespace, scope).map(|to| Destination { to, weight: 1 }),
            );
        }
        (None, Some(multi)) => {
            let list = multi.destinations;
            scope.at_most(&list.mark, list.len(), MAX_DESTINATIONS);
            for At { value: raw, .. } in list.value {
                let _told_by_the_decoder = raw.options;
                let weight = raw.weight.map_or(0, |at| at.value);
                let to = destination(raw.destination, namespace, scope);
                destinations.extend(to.map(|to| Destination { to, weight }));
            }
            if destinations.iter().all(|one| one.weight == 0) {
                scope.error(
                    &list.mark,
                    "no destination has a weight, so requests would go nowhere",
                    "give one a `weight` of 1 or more",
                );
            }
        }
        (Some(_), Some(_)) => scope.error(
            mark,
            "both `single` and `multi` are given",
            "keep one of them",
        ),
        (None, None) if told => {}
        (None, None) => scope.error(
            mark,
            "there is no destination",
            "name an Upstream under `single.upstream`",
        ),
    }
    destinations
}

fn destination(
    At { value: raw, mark }: At<RawDestination>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<To> {
    let told = raw.consul.is_some();
    let _told_by_the_decoder = (raw.destination_spec, raw.subset);
    match (raw.upstream, raw.kube) {
        (Some(upstream), None) => Some(To::Upstream(upstream.lower(namespace))),
        (None, Some(kube)) => {
            if kube.port.value == 0 {
                scope.error(&kube.port.mark, "0 is no port", "write 1 to 65535");
                return None;
            }
            Some(To::Service(
                kube.reference.lower(namespace),
                kube.port.value,
            ))
        }
        (Some(_), Some(_)) => {
            scope.error(
                &mark,
                "both `upstream` and `kube` are given",
                "keep one of them",
            );
            None
        }
        (None, None) => {
            if !told {
                scope.error(
                    &mark,
                    "neither `upstream` nor `kube` is given",
                    "name an Upstream, or a Service and its port",
                );
            }
            None
        }
    }
}

/// `redirectAction`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawRedirect {
    host_redirect: Option<At<String>>,
    path_redirect: Option<At<String>>,
    prefix_rewrite: Option<At<String>>,
    regex_rewrite: Option<Unsupported>,
    response_code: Option<RawCode>,
    https_redirect: Option<bool>,
    strip_query: Option<At<bool>>,
    port_redirect: Option<At<u16>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum RawCode {
    MovedPermanently,
    Found,
    SeeOther,
    TemporaryRedirect,
    PermanentRedirect,
}

/// Checks `redirectAction`.
pub(super) fn redirect(raw: RawRedirect, scope: &mut Scope<'_>) -> Action {
    if let Some(at) = raw.strip_query.filter(|at| at.value) {
        scope.error(
            &at.mark,
            "`stripQuery` is not supported yet",
            "remove it: the query stays",
        );
    }
    let filled = |at: Option<At<String>>| at.filter(|text| !text.is_empty());
    let path = match (filled(raw.path_redirect), filled(raw.prefix_rewrite)) {
        (Some(path), None) => Some(PathRewrite::Full(path.value)),
        (None, Some(prefix)) => Some(PathRewrite::Prefix(prefix.value)),
        (None, None) => None,
        (Some(path), Some(_)) => {
            scope.error(
                &path.mark,
                "both `pathRedirect` and `prefixRewrite` are given",
                "keep one of them",
            );
            None
        }
    };
    Action::Redirect(Redirect {
        scheme: raw
            .https_redirect
            .unwrap_or_default()
            .then(|| "https".to_owned()),
        hostname: filled(raw.host_redirect).map(|at| at.value),
        path,
        port: raw
            .port_redirect
            .map(|at| at.value)
            .filter(|port| *port > 0),
        status: match raw.response_code.unwrap_or(RawCode::MovedPermanently) {
            RawCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
            RawCode::Found => StatusCode::FOUND,
            RawCode::SeeOther => StatusCode::SEE_OTHER,
            RawCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
            RawCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
        },
    })
}

/// `directResponseAction`.
#[derive(Debug, Deserialize)]
pub(super) struct RawAnswer {
    status: At<u16>,
    body: Option<String>,
}

/// Checks `directResponseAction`; `None` after an error.
pub(super) fn answer(raw: RawAnswer, scope: &mut Scope<'_>) -> Option<Action> {
    let status = traffic::status(&raw.status, scope)?;
    let body = raw.body.filter(|body| !body.is_empty()).map(Bytes::from);
    Some(Action::Answer(status, body))
}

/// `delegateAction`.
#[derive(Debug, Deserialize)]
pub(super) struct RawDelegate {
    #[serde(rename = "ref")]
    reference: Option<RawRef>,
    selector: Option<At<RawSelector>>,
    /// Of the first API.
    name: Option<At<String>>,
    /// Of the first API.
    namespace: Option<At<Ignored>>,
}

#[derive(Debug, Deserialize)]
struct RawSelector {
    namespaces: Option<Vec<String>>,
    labels: Option<std::collections::BTreeMap<String, String>>,
    expressions: Option<At<Vec<At<RawExpression>>>>,
}

#[derive(Debug, Deserialize)]
struct RawExpression {
    key: String,
    operator: At<Operator>,
    values: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// Which RouteTables go on with a route.
#[derive(Clone, Debug)]
pub(crate) enum Delegate {
    To(Reference),
    Selected(TableSelector, Mark),
}

/// A selector of RouteTables.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableSelector {
    /// Empty: that of who selects; `*`: all.
    namespaces: Vec<String>,
    labels: std::collections::BTreeMap<String, String>,
    expressions: Vec<(String, Operator, Vec<String>)>,
}

impl TableSelector {
    /// Whether a selector in `own` selects a resource of these labels in `namespace`.
    pub(crate) fn selects(
        &self,
        own: &str,
        namespace: &str,
        labels: &crate::policy::core::labels::Labels,
    ) -> bool {
        let there = if self.namespaces.is_empty() {
            own == namespace
        } else {
            self.namespaces
                .iter()
                .any(|one| one == "*" || one == namespace)
        };
        let holds = |(key, operator, values): &(String, Operator, Vec<String>)| {
            let label = labels.get(key);
            let is = || label.is_some_and(|label| values.contains(label));
            let number = |text: &String| text.parse::<i64>().ok();
            let compared = || Some((number(label?)?, number(values.first()?)?));
            match operator {
                Operator::Equals | Operator::DoubleEquals | Operator::In => is(),
                Operator::NotEquals | Operator::NotIn => !is(),
                Operator::Exists => label.is_some(),
                Operator::DoesNotExist => label.is_none(),
                Operator::GreaterThan => compared().is_some_and(|(label, than)| label > than),
                Operator::LessThan => compared().is_some_and(|(label, than)| label < than),
            }
        };
        there
            && self
                .labels
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(holds)
    }
}

/// Checks `delegateAction`; `None` after an error.
pub(super) fn delegate(
    At { value: raw, mark }: At<RawDelegate>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<Delegate> {
    let old = raw.name.as_ref().map(|at| &at.mark);
    if let Some(mark) = old.or_else(|| raw.namespace.as_ref().map(|at| &at.mark)) {
        scope.error(
            mark,
            "`name` and `namespace` of `delegateAction` are of an older API",
            "write `ref: {name: …, namespace: …}`",
        );
        return None;
    }
    match (raw.reference, raw.selector) {
        (Some(reference), None) => Some(Delegate::To(reference.lower(namespace))),
        (None, Some(At { value: raw, mark })) => {
            let expressions = raw.expressions.map(|list| list.value).unwrap_or_default();
            let mut checked = Vec::new();
            for At { value: raw, .. } in expressions {
                let values = raw.values.unwrap_or_default();
                let needs = !matches!(
                    raw.operator.value,
                    Operator::Exists | Operator::DoesNotExist
                );
                if needs == values.is_empty() {
                    let (message, remedy) = if needs {
                        ("the operator needs `values`", "give it one or more")
                    } else {
                        ("the operator takes no `values`", "remove them")
                    };
                    scope.error(&raw.operator.mark, message, remedy);
                }
                checked.push((raw.key, raw.operator.value, values));
            }
            let selector = TableSelector {
                namespaces: raw.namespaces.unwrap_or_default(),
                labels: raw.labels.unwrap_or_default(),
                expressions: checked,
            };
            Some(Delegate::Selected(selector, mark))
        }
        _ => {
            scope.error(
                &mark,
                "a route is delegated by `ref`, or by `selector`",
                "write one of them",
            );
            None
        }
    }
}
