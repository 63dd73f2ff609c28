//! References from one resource to another, and `ReferenceGrant`, which allows them across
//! namespaces.

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::resource::{Meta, Name};

const MAX_ENTRIES: usize = 16;

/// A reference as files write it; what is not said has a default of its place.
#[derive(Debug, Deserialize)]
pub(crate) struct RawObjectRef {
    pub(crate) group: Option<At<String>>,
    pub(crate) kind: Option<At<String>>,
    pub(crate) name: At<String>,
    pub(crate) namespace: Option<At<String>>,
}

/// A resource that is referred to.
#[derive(Clone, Debug)]
pub(crate) struct ObjectRef {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: Name,
    pub(crate) mark: Mark,
}

impl RawObjectRef {
    /// The reference, from a resource in `namespace`; of the core group's `kind` unless it says so.
    pub(crate) fn lower(self, kind: &str, namespace: &str) -> ObjectRef {
        let text = |at: Option<At<String>>, default: &str| {
            at.map_or_else(|| default.to_owned(), |at| at.value)
        };
        ObjectRef {
            group: text(self.group, ""),
            kind: text(self.kind, kind),
            name: Name {
                namespace: text(self.namespace, namespace),
                name: self.name.value,
            },
            mark: self.name.mark,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct RawReferenceGrant {
    from: At<Vec<RawFrom>>,
    to: At<Vec<RawTo>>,
}

#[derive(Debug, Deserialize)]
struct RawFrom {
    group: String,
    kind: String,
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct RawTo {
    group: String,
    kind: String,
    name: Option<String>,
}

/// A ReferenceGrant: allows references into its own namespace.
#[derive(Clone, Debug)]
pub(crate) struct ReferenceGrant {
    pub(crate) meta: Meta,
    /// Group, kind and namespace.
    from: Vec<(String, String, String)>,
    /// Group, kind and, if not all of them, name.
    to: Vec<(String, String, Option<String>)>,
}

/// Checks a ReferenceGrant.
pub(crate) fn lower(
    raw: At<RawReferenceGrant>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> ReferenceGrant {
    let raw = raw.value;
    scope.at_most(&raw.from.mark, raw.from.len(), MAX_ENTRIES);
    scope.at_most(&raw.to.mark, raw.to.len(), MAX_ENTRIES);
    for (mark, empty) in [
        (&raw.from.mark, raw.from.is_empty()),
        (&raw.to.mark, raw.to.is_empty()),
    ] {
        if empty {
            scope.error(mark, "empty, so nothing is granted", "give it an entry");
        }
    }
    ReferenceGrant {
        meta,
        from: raw
            .from
            .value
            .into_iter()
            .map(|from| (from.group, from.kind, from.namespace))
            .collect(),
        to: raw
            .to
            .value
            .into_iter()
            .map(|to| (to.group, to.kind, to.name))
            .collect(),
    }
}

impl ReferenceGrant {
    /// Whether it allows resources of one kind in one namespace to refer to another resource.
    pub(crate) fn allows(
        &self,
        (group, kind, namespace): (&str, &str, &str),
        (to_group, to_kind, to_name): (&str, &str, &Name),
    ) -> bool {
        self.meta.name.namespace == to_name.namespace
            && self
                .from
                .iter()
                .any(|from| from.0 == group && from.1 == kind && from.2 == namespace)
            && self.to.iter().any(|to| {
                to.0 == to_group
                    && to.1 == to_kind
                    && to.2.as_ref().is_none_or(|name| *name == to_name.name)
            })
    }
}
