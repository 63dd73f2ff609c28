//! What all resources share: the header that names them, and the names.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::core::labels::Labels;
use super::decode::{At, Ignored};
use super::findings::{Mark, Origin, Scope};
use super::timestamp;

/// Longest name of a Kubernetes object.
const MAX_NAME: usize = 253;

/// A document with the specification `S`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
pub(crate) struct Document<S> {
    api_version: String,
    kind: String,
    pub(crate) metadata: RawMetadata,
    pub(crate) spec: At<S>,
    status: Option<Ignored>,
}

/// A document of any shape, of which the header is known.
pub(crate) trait HasMetadata {
    fn metadata(&self) -> &RawMetadata;
}

impl<S> HasMetadata for Document<S> {
    fn metadata(&self) -> &RawMetadata {
        &self.metadata
    }
}

/// A field that is read, and that upstream would rather not see any more.
#[derive(Clone, Debug)]
pub(crate) struct Deprecated {
    pub(crate) mark: Mark,
    pub(crate) field: &'static str,
    pub(crate) instead: &'static str,
}

/// Kubernetes' `ObjectMeta`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
pub(crate) struct RawMetadata {
    name: At<String>,
    namespace: Option<At<String>>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<At<String>>,
    deletion_grace_period_seconds: Option<Ignored>,
    deletion_timestamp: Option<Ignored>,
    finalizers: Option<Ignored>,
    generate_name: Option<Ignored>,
    generation: Option<Ignored>,
    managed_fields: Option<Ignored>,
    owner_references: Option<Ignored>,
    resource_version: Option<Ignored>,
    self_link: Option<Ignored>,
    uid: Option<Ignored>,
}

/// A resource's name within its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Name {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A resource's header.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) name: Name,
    /// Seconds of the epoch; decides ties, the oldest first.
    pub(crate) created: Option<i64>,
    pub(crate) labels: Labels,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) origin: Origin,
    /// Where its name stands.
    pub(crate) mark: Mark,
}

impl Meta {
    /// The header of a resource that could not be read, of which only the name is known.
    pub(crate) fn of_rejected(name: &Name) -> Self {
        Self {
            name: name.clone(),
            created: None,
            labels: Labels::new(),
            annotations: BTreeMap::new(),
            origin: Origin::file(std::path::Path::new("")),
            mark: Mark::none(),
        }
    }

    /// What precedence is decided by: age, those without one last, then the name.
    pub(crate) fn precedence(&self) -> (bool, Option<i64>, &Name) {
        (self.created.is_none(), self.created, &self.name)
    }
}

/// Checks a header.
pub(crate) fn meta(raw: &RawMetadata, origin: &Origin, scope: &mut Scope<'_>) -> Meta {
    check_name(&raw.name, scope);
    if let Some(namespace) = &raw.namespace {
        check_name(namespace, scope);
    }
    let created = raw.creation_timestamp.as_ref().and_then(|text| {
        let seconds = timestamp::parse(text);
        if seconds.is_none() {
            let message = format!("`{}` is not a time", text.value);
            scope.error(
                &text.mark,
                message,
                "write it as `2026-01-31T12:00:00Z` (RFC 3339)",
            );
        }
        seconds
    });
    let namespace = raw
        .namespace
        .as_ref()
        .map_or(DEFAULT_NAMESPACE, |namespace| namespace.as_str());
    Meta {
        name: Name::new(namespace, &raw.name),
        created,
        labels: raw.labels.clone().unwrap_or_default(),
        annotations: raw.annotations.clone().unwrap_or_default(),
        origin: origin.clone(),
        mark: raw.name.mark.clone(),
    }
}

/// The namespace of resources that name none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// Names are Kubernetes' (RFC 1123): buckets and metrics are called by them.
pub(crate) fn check_name(name: &At<String>, scope: &mut Scope<'_>) {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let valid = edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inner);
    if !valid || name.len() > MAX_NAME {
        scope.error(
            &name.mark,
            format!("`{}` is not a name", name.value),
            format!("names are of lower-case letters, digits, `-` and `.`, at most {MAX_NAME}"),
        );
    }
}
