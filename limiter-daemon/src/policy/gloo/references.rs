//! References between Gloo's resources.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::policy::decode::{self, At};
use crate::policy::envoy_gateway::targets::{self, TargetKind};
use crate::policy::findings::{Findings, Mark, Origin, Scope};
use crate::policy::kinds::Kind;
use crate::policy::resource::Name;
use crate::policy::suggest;
use crate::policy::yaml::Node;

/// `core.solo.io.ResourceRef`.
#[derive(Debug, Deserialize)]
pub(crate) struct RawRef {
    name: At<String>,
    namespace: Option<At<String>>,
}

/// A resource that is referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) name: Name,
    pub(crate) mark: Mark,
}

impl RawRef {
    /// The reference, from a resource in `namespace`.
    pub(crate) fn lower(self, namespace: &str) -> Reference {
        let own = self.namespace.filter(|at| !at.is_empty());
        let namespace = own.map_or_else(|| namespace.to_owned(), |at| at.value);
        Reference {
            name: Name {
                namespace,
                name: self.name.value,
            },
            mark: self.name.mark,
        }
    }
}

/// `optionsConfigRefs`: options that are written elsewhere.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawOptionsRefs {
    delegate_options: Option<Vec<RawRef>>,
}

/// The references, in their order: what comes first goes before what follows.
pub(crate) fn delegates(raw: Option<RawOptionsRefs>, namespace: &str) -> Vec<Reference> {
    raw.and_then(|refs| refs.delegate_options)
        .unwrap_or_default()
        .into_iter()
        .map(|raw| raw.lower(namespace))
        .collect()
}

/// An item of `targetRefs`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawTargetRef {
    group: Option<At<String>>,
    kind: At<String>,
    name: At<String>,
    namespace: Option<At<String>>,
    section_name: Option<At<String>>,
}

/// What an option resource is for, among the kinds that it may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) name: Name,
    /// Of Gateway API's resources: a listener, or a rule of a route.
    pub(crate) section: Option<At<String>>,
    pub(crate) mark: Mark,
}

impl Target {
    /// As a policy of Envoy Gateway would name it; `None`: it is a resource of Gloo.
    pub(crate) fn of_gateway_api(&self) -> Option<targets::Target> {
        let kind = match self.kind {
            Kind::Gateway => TargetKind::Gateway,
            Kind::HttpRoute => TargetKind::HttpRoute,
            _ => return None,
        };
        Some(targets::Target {
            kind,
            name: self.name.clone(),
            section: self.section.clone(),
            mark: self.mark.clone(),
        })
    }
}

/// Checks `targetRefs`, which may be of one of `kinds`.
pub(crate) fn targets(
    raw: Option<At<Vec<At<RawTargetRef>>>>,
    kinds: &[Kind],
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Vec<Target> {
    const MAX: usize = 16;
    let Some(list) = raw else {
        return Vec::new();
    };
    scope.at_most(&list.mark, list.len(), MAX);
    let mut targets = Vec::new();
    for raw in list.value {
        targets.extend(target(raw.value, kinds, namespace, scope));
    }
    targets
}

fn target(
    raw: RawTargetRef,
    kinds: &[Kind],
    namespace: &str,
    scope: &mut Scope<'_>,
) -> Option<Target> {
    let group = raw.group.as_ref().map(|group| group.value.as_str());
    let of_name = || kinds.iter().filter(|kind| kind.name() == raw.kind.value);
    let Some(kind) = of_name().find(|kind| group.is_none_or(|group| group == kind.group())) else {
        let Some(other) = of_name().next() else {
            let names: BTreeSet<_> = kinds.iter().map(|kind| kind.name()).collect();
            let remedy = suggest::remedy(&raw.kind, names, "it may be");
            let message = format!("this is not for a `{}`", raw.kind.value);
            scope.error(&raw.kind.mark, message, remedy);
            return None;
        };
        let groups = of_name().map(|kind| kind.group());
        let mark = raw.group.as_ref().map_or(&raw.kind.mark, |at| &at.mark);
        scope.error(
            mark,
            format!(
                "this is not for a {} of `{}`",
                other.name(),
                group.unwrap_or_default()
            ),
            format!("the group is {}", suggest::listed(groups)),
        );
        return None;
    };
    let is_gloos = !matches!(kind, Kind::Gateway | Kind::HttpRoute);
    if let Some(section) = raw.section_name.as_ref().filter(|_| is_gloos) {
        scope.error(
            &section.mark,
            "`sectionName` is for listeners and rules of Gateway API's resources",
            "remove it",
        );
        return None;
    }
    let own = raw.namespace.filter(|at| !at.is_empty());
    Some(Target {
        kind: *kind,
        name: Name {
            namespace: own.map_or_else(|| namespace.to_owned(), |at| at.value),
            name: raw.name.value,
        },
        section: raw.section_name,
        mark: raw.name.mark,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTargets {
    target_refs: Option<At<Vec<At<RawTargetRef>>>>,
}

/// The resources of Gateway API that options with errors are for; `None`: nobody can tell.
pub(crate) fn salvage(node: &Node, namespace: &str, origin: &Origin) -> Option<targets::Targets> {
    let mut unheard = Findings::default();
    let mut scope = unheard.at(origin);
    let Some(spec) = node.get("spec") else {
        return Some(targets::Targets::default());
    };
    let raw: RawTargets = decode::decode(&spec.only(&["targetRefs"]), &mut scope)?;
    let kinds = [
        Kind::GlooGateway,
        Kind::Gateway,
        Kind::VirtualService,
        Kind::RouteTable,
        Kind::HttpRoute,
    ];
    let count = raw.target_refs.as_ref().map_or(0, |list| list.len());
    let found = targets(raw.target_refs, &kinds, namespace, &mut scope);
    (found.len() == count).then(|| targets::Targets {
        refs: found.iter().filter_map(Target::of_gateway_api).collect(),
        ..targets::Targets::default()
    })
}
