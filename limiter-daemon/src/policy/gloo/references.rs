//! References between Gloo's resources.

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::kinds::Kind;
use crate::policy::resource::Name;
use crate::policy::suggest;

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
    pub(crate) mark: Mark,
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
    if let Some(section) = &raw.section_name {
        scope.error(
            &section.mark,
            "`sectionName` is for listeners of Gateway API's Gateways, which is not supported yet",
            "remove it",
        );
        return None;
    }
    let names = || kinds.iter().map(|kind| kind.name());
    let Some(kind) = kinds.iter().find(|kind| kind.name() == raw.kind.value) else {
        let remedy = suggest::remedy(&raw.kind, names().collect::<Vec<_>>(), "it may be");
        let message = format!("this is not for a `{}`", raw.kind.value);
        scope.error(&raw.kind.mark, message, remedy);
        return None;
    };
    if let Some(group) = raw.group.filter(|group| group.value != kind.group()) {
        scope.error(
            &group.mark,
            format!(
                "a target of `{}` is not supported yet: limiterd would not apply this to it",
                group.value
            ),
            format!("name a {} of `{}`", kind.name(), kind.group()),
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
        mark: raw.name.mark,
    })
}
