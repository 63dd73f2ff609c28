//! Files of Envoy's rate limit service: a `domain` and a tree of `descriptors`.
//!
//! They have no `apiVersion` and no `kind`; a document with `domain` or `descriptors` at the top and
//! neither of those is one. Fields, and what they mean, are the reference service's. Stricter than
//! there: a limit says how many requests it admits (there, none said is none admitted), and a field
//! without effect is pointed out.

pub(crate) mod descriptor;

use serde::Deserialize;

use super::decode::At;
use super::findings::{Mark, Origin, Scope};
use super::plan::Descriptor;
use super::yaml::{Node, Value};
use descriptor::RawDescriptor;

#[derive(Debug, Deserialize)]
pub(crate) struct RawDomain {
    domain: At<String>,
    descriptors: Option<Vec<At<RawDescriptor>>>,
}

/// What one document says of a domain, checked.
#[derive(Clone, Debug)]
pub(crate) struct DomainFile {
    pub(crate) origin: Origin,
    pub(crate) mark: Mark,
    pub(crate) descriptors: Vec<Descriptor>,
    /// Where each of `descriptors` stands.
    pub(crate) marks: Vec<Mark>,
}

/// Whether a document is one of these files.
pub(crate) fn is_domain(node: &Node) -> bool {
    let has = |field| node.get(field).is_some();
    matches!(node.value, Value::Map(_))
        && (has("domain") || has("descriptors"))
        && !has("apiVersion")
        && !has("kind")
}

/// The domain of a document; `None` after an error.
pub(crate) fn name<'a>(node: &'a Node, scope: &mut Scope<'_>) -> Option<&'a str> {
    let domain = node.get("domain");
    let name = domain
        .and_then(Node::as_str)
        .filter(|name| !name.is_empty());
    if name.is_none() {
        let at = domain.unwrap_or(node);
        let mark = Mark {
            line: at.line,
            column: at.column,
            field: domain.map_or("", |_| "domain").to_owned(),
        };
        scope.error(
            &mark,
            "a file of descriptors has a `domain`",
            "write the domain that Envoy's filter names, as `domain: shop`",
        );
    }
    name
}

/// Checks a document.
pub(crate) fn lower(
    raw: RawDomain,
    origin: &Origin,
    mark: Mark,
    scope: &mut Scope<'_>,
) -> DomainFile {
    let raw_descriptors = raw.descriptors.unwrap_or_default();
    if raw_descriptors.is_empty() {
        scope.warning(
            &raw.domain.mark,
            "the domain has no descriptors, so it limits nothing",
            "",
        );
    }
    let marks = raw_descriptors.iter().map(|at| at.mark.clone()).collect();
    DomainFile {
        origin: origin.clone(),
        mark,
        descriptors: descriptor::lower(raw_descriptors, scope),
        marks,
    }
}
