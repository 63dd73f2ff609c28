//! All resources of a directory, each checked by itself, by kind and name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::DeserializeOwned;

use super::decode::{At, Ignored, decode};
use super::envoy_gateway::backend::{self, Backend};
use super::envoy_gateway::backend_traffic_policy::{self, TrafficPolicy};
use super::findings::{Findings, Mark, Origin, Scope};
use super::gateway_api::gateway::{self, Gateway};
use super::gateway_api::http_route::{self, HttpRoute};
use super::kinds::{self, Kind};
use super::native::limiter_config::{self, Config};
use super::native::network_rate_limit_policy::{self, NetworkLimit};
use super::resource::{self, DEFAULT_NAMESPACE, Document, Meta, Name};
use super::source;
use super::yaml::{self, Node, Value};

/// The resources that could be read.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    pub(crate) gateways: BTreeMap<Name, Gateway>,
    pub(crate) routes: BTreeMap<Name, HttpRoute>,
    pub(crate) backends: BTreeMap<Name, Backend>,
    pub(crate) traffic: BTreeMap<Name, TrafficPolicy>,
    pub(crate) network: BTreeMap<Name, NetworkLimit>,
    pub(crate) configs: BTreeMap<Name, Config>,
    /// Where each was seen, those with errors included: they are not missing.
    seen: BTreeMap<(Kind, Name), String>,
    pub(crate) counts: BTreeMap<&'static str, usize>,
}

impl Resources {
    /// Whether a resource of this name was seen, even if it could not be read.
    pub(crate) fn has(&self, kind: Kind, name: &Name) -> bool {
        self.seen.contains_key(&(kind, name.clone()))
    }

    /// The names of a kind in one namespace.
    pub(crate) fn names(&self, kind: Kind, namespace: &str) -> BTreeSet<&str> {
        let of_kind = |(found, name): &&(Kind, Name)| *found == kind && name.namespace == namespace;
        self.seen
            .keys()
            .filter(of_kind)
            .map(|(_, name)| name.name.as_str())
            .collect()
    }

    /// A resource of this kind and name in another namespace.
    pub(crate) fn elsewhere(&self, kind: Kind, name: &Name) -> Option<&Name> {
        let same = |(found, other): &&(Kind, Name)| *found == kind && other.name == name.name;
        self.seen.keys().find(same).map(|(_, other)| other)
    }

    /// Reads one document.
    pub(crate) fn read(
        &mut self,
        file: &Path,
        document: source::Document<'_>,
        findings: &mut Findings,
    ) {
        let mut origin = Origin::file(file);
        let Some(node) = yaml::parse(document, &mut findings.at(&origin)) else {
            return;
        };
        let Some(header) = Header::of(&node, &mut findings.at(&origin)) else {
            return;
        };
        origin.resource = Some(header.label());
        match kinds::find(header.api_version.1, header.kind.1) {
            Ok(kind) => self.read_kind(kind, &node, &header, &origin, findings),
            Err(refusal) => {
                let (place, _, field) = if refusal.in_version {
                    header.api_version
                } else {
                    header.kind
                };
                let mark = Mark {
                    line: place.line,
                    column: place.column,
                    field: field.to_owned(),
                };
                findings
                    .at(&origin)
                    .error(&mark, refusal.message, refusal.remedy);
            }
        }
    }

    fn read_kind(
        &mut self,
        kind: Kind,
        node: &Node,
        header: &Header<'_>,
        origin: &Origin,
        findings: &mut Findings,
    ) {
        *self.counts.entry(kind.name()).or_default() += 1;
        let name = Name::new(header.namespace, header.name);
        let place = format!("{}:{}", origin.file.display(), node.line);
        let mut scope = findings.at(origin);
        if let Some(first) = self.seen.get(&(kind, name.clone())) {
            let mark = Mark {
                line: node.line,
                column: node.column,
                field: String::new(),
            };
            scope.error(
                &mark,
                format!("the same resource is in {first}"),
                "keep one of them, or rename it",
            );
            return;
        }
        if !header.name.is_empty() {
            self.seen.insert((kind, name.clone()), place);
        }
        let scope = &mut scope;
        match kind {
            Kind::GatewayClass => drop(read::<Ignored>(node, origin, scope)),
            Kind::Gateway => lower_into(
                &mut self.gateways,
                name,
                node,
                origin,
                scope,
                gateway::lower,
            ),
            Kind::HttpRoute => lower_into(
                &mut self.routes,
                name,
                node,
                origin,
                scope,
                http_route::lower,
            ),
            Kind::Backend => lower_into(
                &mut self.backends,
                name,
                node,
                origin,
                scope,
                backend::lower,
            ),
            Kind::BackendTrafficPolicy => {
                lower_into(
                    &mut self.traffic,
                    name,
                    node,
                    origin,
                    scope,
                    backend_traffic_policy::lower,
                );
            }
            Kind::NetworkRateLimitPolicy => {
                lower_into(
                    &mut self.network,
                    name,
                    node,
                    origin,
                    scope,
                    network_rate_limit_policy::lower,
                );
            }
            Kind::LimiterConfig => {
                lower_into(
                    &mut self.configs,
                    name,
                    node,
                    origin,
                    scope,
                    limiter_config::lower,
                );
            }
        }
    }
}

fn lower_into<S: DeserializeOwned, R>(
    all: &mut BTreeMap<Name, R>,
    name: Name,
    node: &Node,
    origin: &Origin,
    scope: &mut Scope<'_>,
    lower: impl FnOnce(At<S>, Meta, &mut Scope<'_>) -> R,
) {
    if let Some((meta, spec)) = read::<S>(node, origin, scope) {
        all.insert(name, lower(spec, meta, scope));
    }
}

fn read<S: DeserializeOwned>(
    node: &Node,
    origin: &Origin,
    scope: &mut Scope<'_>,
) -> Option<(Meta, At<S>)> {
    let document: Document<S> = decode(node, scope)?;
    Some((
        resource::meta(&document.metadata, origin, scope),
        document.spec,
    ))
}

/// A text of the header, its place, and its field.
type Part<'a> = (&'a Node, &'a str, &'static str);

/// What is needed of a document before its kind is known.
struct Header<'a> {
    api_version: Part<'a>,
    kind: Part<'a>,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Header<'a> {
    fn of(node: &'a Node, scope: &mut Scope<'_>) -> Option<Self> {
        let mark = Mark {
            line: node.line,
            column: node.column,
            field: String::new(),
        };
        if !matches!(node.value, Value::Map(_)) {
            scope.error(
                &mark,
                "this is not a resource",
                "begin it with `apiVersion`, `kind` and `metadata`",
            );
            return None;
        }
        let mut part = |field: &'static str| -> Option<Part<'a>> {
            match node.get(field) {
                None => {
                    scope.error(
                        &mark,
                        format!("the field `{field}` is missing"),
                        "every resource has it",
                    );
                    None
                }
                Some(value) => {
                    let text = value.as_str();
                    if text.is_none() {
                        let mark = Mark {
                            line: value.line,
                            column: value.column,
                            field: field.to_owned(),
                        };
                        scope.error(&mark, "expected a string", "");
                    }
                    Some((value, text?, field))
                }
            }
        };
        let (api_version, kind) = (part("apiVersion"), part("kind"));
        let metadata = |field| {
            node.get("metadata")
                .and_then(|data| data.get(field))
                .and_then(Node::as_str)
        };
        Some(Self {
            api_version: api_version?,
            kind: kind?,
            namespace: metadata("namespace").unwrap_or(DEFAULT_NAMESPACE),
            name: metadata("name").unwrap_or_default(),
        })
    }

    fn label(&self) -> String {
        let kind = self.kind.1;
        if self.name.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind} {}/{}", self.namespace, self.name)
        }
    }
}
