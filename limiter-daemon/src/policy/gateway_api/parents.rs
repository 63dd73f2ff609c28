//! `parentRefs` of routes: the listeners that they belong to.

use serde::Deserialize;

use super::GROUP;
use crate::policy::decode::At;
use crate::policy::envoy_gateway::targets::TargetKind;
use crate::policy::findings::{Mark, Scope};
use crate::policy::resource::{Meta, Name};

const MAX_PARENTS: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawParentRef {
    group: Option<At<String>>,
    kind: Option<At<String>>,
    name: At<String>,
    namespace: Option<At<String>>,
    section_name: Option<At<String>>,
    port: Option<At<u16>>,
}

#[derive(Clone, Debug)]
pub(crate) struct ParentRef {
    /// `Gateway` or `ListenerSet`.
    pub(crate) kind: TargetKind,
    pub(crate) name: Name,
    pub(crate) section: Option<At<String>>,
    pub(crate) port: Option<At<u16>>,
    pub(crate) mark: Mark,
}

/// Checks `parentRefs`, of which there must be one.
pub(super) fn lower(
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
        let kind = match (group, kind) {
            (GROUP, "Gateway") => TargetKind::Gateway,
            (GROUP, "ListenerSet") => TargetKind::ListenerSet,
            _ => {
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
        };
        let namespace = parent
            .namespace
            .as_ref()
            .map_or(&meta.name.namespace, |at| &at.value);
        parents.push(ParentRef {
            kind,
            name: Name::new(namespace, &parent.name),
            section: parent.section_name,
            port: parent.port,
            mark: parent.name.mark,
        });
    }
    parents
}
