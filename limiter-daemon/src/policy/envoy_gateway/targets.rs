//! What a policy is attached to: `targetRef`, `targetRefs` and `targetSelectors`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::policy::core::labels::{self, LabelSelector, RawExpression, RawLabelSelector};
use crate::policy::decode::{self, At};
use crate::policy::findings::{Findings, Mark, Origin, Scope};
use crate::policy::gateway_api;
use crate::policy::kinds::Kind;
use crate::policy::resource::{Deprecated, Name};
use crate::policy::suggest;
use crate::policy::yaml::Node;

const MAX_TARGETS: usize = 16;

/// The three fields, as all policies have them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawTargets {
    pub(crate) target_ref: Option<At<RawTarget>>,
    pub(crate) target_refs: Option<At<Vec<At<RawTarget>>>>,
    pub(crate) target_selectors: Option<At<Vec<At<RawSelector>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawTarget {
    group: At<String>,
    kind: At<String>,
    name: At<String>,
    section_name: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawSelector {
    group: Option<At<String>>,
    kind: At<String>,
    match_labels: Option<BTreeMap<String, String>>,
    match_expressions: Option<At<Vec<At<RawExpression>>>>,
    namespaces: Option<RawNamespaces>,
}

#[derive(Debug, Deserialize)]
struct RawNamespaces {
    from: Option<At<From>>,
    selector: Option<RawLabelSelector>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum From {
    Same,
    All,
    Selector,
}

/// What a policy may be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TargetKind {
    Gateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
}

impl TargetKind {
    pub(crate) const ALL: &[Self] = &[
        Self::Gateway,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::GrpcRoute,
    ];
    /// Where clients come in.
    pub(crate) const ENTRIES: &[Self] = &[Self::Gateway, Self::ListenerSet];

    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Gateway => Kind::Gateway,
            Self::ListenerSet => Kind::ListenerSet,
            Self::HttpRoute => Kind::HttpRoute,
            Self::GrpcRoute => Kind::GrpcRoute,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        self.kind().name()
    }

    pub(crate) const fn is_route(self) -> bool {
        matches!(self, Self::HttpRoute | Self::GrpcRoute)
    }
}

/// A resource that a policy names.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    pub(crate) name: Name,
    /// A listener, or a rule of a route.
    pub(crate) section: Option<At<String>>,
    pub(crate) mark: Mark,
}

/// Resources that a policy selects by their labels.
#[derive(Clone, Debug)]
pub(crate) struct TargetSelector {
    pub(crate) kind: TargetKind,
    pub(crate) labels: LabelSelector,
    pub(crate) namespaces: Namespaces,
    pub(crate) mark: Mark,
}

/// Where selected resources may be.
#[derive(Clone, Debug)]
pub(crate) enum Namespaces {
    /// In the policy's own.
    Same,
    All,
    Selected(LabelSelector),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    pub(crate) refs: Vec<Target>,
    pub(crate) selectors: Vec<TargetSelector>,
}

impl Targets {
    pub(crate) const fn is_empty(&self) -> bool {
        self.refs.is_empty() && self.selectors.is_empty()
    }

    /// Whether they are GRPCRoutes and nothing else.
    pub(crate) fn only_grpc(&self) -> bool {
        let mut kinds = self
            .refs
            .iter()
            .map(|target| target.kind)
            .chain(self.selectors.iter().map(|by| by.kind));
        !self.is_empty() && kinds.all(|kind| kind == TargetKind::GrpcRoute)
    }
}

/// Checks the targets of a policy in `namespace`, which may be of these `kinds`.
pub(crate) fn lower(
    raw: RawTargets,
    namespace: &str,
    kinds: &[TargetKind],
    spec: &Mark,
    deprecated: &mut Vec<Deprecated>,
    scope: &mut Scope<'_>,
) -> Targets {
    let mut list = Vec::new();
    let twice = raw.target_ref.is_some() && raw.target_refs.is_some();
    match (raw.target_ref, raw.target_refs) {
        (Some(one), Some(_)) => scope.error(
            &one.mark,
            "both `targetRef` and `targetRefs` are given",
            "keep `targetRefs`",
        ),
        (Some(one), None) => {
            deprecated.push(Deprecated {
                mark: one.mark.clone(),
                field: "spec.targetRef",
                instead: "spec.targetRefs",
            });
            list.push(one);
        }
        (None, Some(many)) => {
            scope.at_most(&many.mark, many.len(), MAX_TARGETS);
            list = many.value;
        }
        (None, None) => {}
    }
    let selectors = raw.target_selectors.map(|at| at.value).unwrap_or_default();
    if list.is_empty() && selectors.is_empty() && !twice {
        scope.error(
            spec,
            "no `targetRefs`, so the policy applies to nothing",
            format!("name {}", listed(kinds)),
        );
    }
    Targets {
        refs: list
            .into_iter()
            .filter_map(|raw| target(raw.value, namespace, kinds, scope))
            .collect(),
        selectors: selectors
            .into_iter()
            .filter_map(|raw| selector(raw, kinds, scope))
            .collect(),
    }
}

fn listed(kinds: &[TargetKind]) -> String {
    suggest::listed(kinds.iter().map(|kind| kind.name()))
}

fn target_kind(
    group: &str,
    kind: &At<String>,
    group_mark: &Mark,
    kinds: &[TargetKind],
    scope: &mut Scope<'_>,
) -> Option<TargetKind> {
    if group != gateway_api::GROUP {
        let message = format!("nothing of the group `{group}` can be a target");
        scope.error(
            group_mark,
            message,
            format!("write `{}`", gateway_api::GROUP),
        );
        return None;
    }
    let found = kinds
        .iter()
        .copied()
        .find(|candidate| candidate.name() == kind.as_str());
    if found.is_none() {
        let message = format!("`{}` cannot be a target here", kind.value);
        scope.error(&kind.mark, message, format!("name {}", listed(kinds)));
    }
    found
}

fn target(
    raw: RawTarget,
    namespace: &str,
    kinds: &[TargetKind],
    scope: &mut Scope<'_>,
) -> Option<Target> {
    let kind = target_kind(&raw.group, &raw.kind, &raw.group.mark, kinds, scope)?;
    Some(Target {
        kind,
        name: Name::new(namespace, &raw.name),
        section: raw.section_name,
        mark: raw.name.mark,
    })
}

fn selector(
    raw: At<RawSelector>,
    kinds: &[TargetKind],
    scope: &mut Scope<'_>,
) -> Option<TargetSelector> {
    let At { value: raw, mark } = raw;
    let (group, group_mark) = raw
        .group
        .as_ref()
        .map_or((gateway_api::GROUP, &mark), |at| (at.as_str(), &at.mark));
    let kind = target_kind(group, &raw.kind, group_mark, kinds, scope)?;
    let labels = labels::lower(
        RawLabelSelector {
            match_labels: raw.match_labels,
            match_expressions: raw.match_expressions,
        },
        scope,
    );
    let (from, by) = match raw.namespaces {
        Some(spaces) => (spaces.from, spaces.selector),
        None => (None, None),
    };
    let namespaces = match (from.as_ref().map(|from| from.value), by) {
        (None | Some(From::Same), _) => Namespaces::Same,
        (Some(From::All), _) => Namespaces::All,
        (Some(From::Selector), Some(by)) => Namespaces::Selected(labels::lower(by, scope)),
        (Some(From::Selector), None) => {
            let place = from.as_ref().map_or(&mark, |from| &from.mark);
            scope.error(
                place,
                "`Selector` needs a `selector`",
                "give it one, or write `Same` or `All`",
            );
            return None;
        }
    };
    Some(TargetSelector {
        kind,
        labels,
        namespaces,
        mark,
    })
}

/// The targets of a policy that cannot be read as a whole: nothing else of it is looked at.
pub(crate) fn salvage(node: &Node, namespace: &str, origin: &Origin) -> Targets {
    let mut unheard = Findings::default();
    let mut scope = unheard.at(origin);
    let Some(spec) = node.get("spec") else {
        return Targets::default();
    };
    let only = spec.only(&["targetRef", "targetRefs", "targetSelectors"]);
    let raw: Option<RawTargets> = decode::decode(&only, &mut scope);
    raw.map(|raw| {
        lower(
            raw,
            namespace,
            TargetKind::ALL,
            &Mark::none(),
            &mut Vec::new(),
            &mut scope,
        )
    })
    .unwrap_or_default()
}
