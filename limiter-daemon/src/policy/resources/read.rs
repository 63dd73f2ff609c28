//! Documents to resources.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::header::Header;
use super::{KEPT, KEPT_REMEDY, Rejected, Resources, Seen, Table};
use crate::policy::core::{config_map, endpoint_slice, namespace, secret, service};
use crate::policy::decode::{At, Ignored, decode};
use crate::policy::envoy_gateway::targets::{self, Targets};
use crate::policy::envoy_gateway::{
    backend, backend_traffic_policy, client_traffic_policy, envoy_gateway,
};
use crate::policy::findings::{Findings, Mark, Origin, Scope};
use crate::policy::gateway_api::{gateway, listener_set, references, route};
use crate::policy::gloo;
use crate::policy::kinds::{self, Kind, Refusal};
use crate::policy::native::{http_rate_limit_policy, limiter_config, network_rate_limit_policy};
use crate::policy::ratelimit_service::{self, RawDomain};
use crate::policy::resource::{self, Document, HasMetadata, Meta, Name};
use crate::policy::source;
use crate::policy::yaml::{self, Node, Value};

/// A document on its way to a resource.
struct Reading<'a> {
    node: &'a Node,
    name: Name,
    origin: &'a Origin,
}

/// Reads documents, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Reader<'a> {
    /// What is used: of what has errors, the last good version.
    pub(crate) resources: Resources,
    /// What was read, errors or not, as far as it could be: to find what else is wrong.
    drafts: Resources,
    /// What there was before.
    good: Option<&'a Resources>,
}

impl<'a> Reader<'a> {
    /// Takes what has errors from `good` instead, if it is there.
    pub(crate) fn new(good: Option<&'a Resources>) -> Self {
        Self {
            good,
            ..Self::default()
        }
    }

    /// What is used; and the drafts of it, if they are different.
    pub(crate) fn finish(mut self) -> (Resources, Option<Resources>) {
        self.drafts.seen.clone_from(&self.resources.seen);
        let different = !self.resources.rejected.is_empty();
        (self.resources, different.then_some(self.drafts))
    }

    /// Reads one document.
    pub(crate) fn read(
        &mut self,
        file: &Path,
        document: source::Document<'_>,
        findings: &mut Findings,
    ) {
        let origin = Origin::file(file);
        let before = findings.errors();
        match yaml::parse(document, &mut findings.at(&origin)) {
            Some(node) => self.read_node(&node, origin, findings),
            None if findings.errors() > before => self.resources.lose(file),
            None => {}
        }
    }

    fn read_node(&mut self, node: &Node, mut origin: Origin, findings: &mut Findings) {
        if ratelimit_service::is_domain(node) {
            self.read_domain(node, origin, findings);
            return;
        }
        let Some(header) = Header::of(node, &mut findings.at(&origin)) else {
            self.resources.lose(&origin.file);
            return;
        };
        if (header.api_version.1, header.kind.1) == ("v1", "List") {
            self.read_list(node, &origin, findings);
            return;
        }
        origin.resource = Some(header.label());
        let found = kinds::find(header.api_version.1, header.kind.1);
        let name = match &found {
            Ok(Kind::EnvoyGateway) if header.name.is_empty() => envoy_gateway::NAME,
            _ => header.name,
        };
        let reading = Reading {
            node,
            name: Name::new(header.namespace, name),
            origin: &origin,
        };
        match found {
            Ok(kind) => self.read_kind(kind, &reading, findings),
            Err(refusal) => self.refuse(&header, refusal, &reading, findings),
        }
    }

    /// A document of Envoy's rate limit service: known by its file and its domain.
    fn read_domain(&mut self, node: &Node, mut origin: Origin, findings: &mut Findings) {
        let Some(domain) = ratelimit_service::name(node, &mut findings.at(&origin)) else {
            self.resources.lose(&origin.file);
            return;
        };
        let file = origin.file.file_name().unwrap_or_default();
        let name = Name::new(&file.to_string_lossy(), domain);
        origin.resource = Some(format!("{} {domain}", Kind::Domain.name()));
        let reading = Reading {
            node,
            name,
            origin: &origin,
        };
        self.read_kind(Kind::Domain, &reading, findings);
    }

    /// The resources of a `List`, as `kubectl get -o yaml` writes them.
    fn read_list(&mut self, node: &Node, origin: &Origin, findings: &mut Findings) {
        let Some(Value::List(items)) = node.get("items").map(|items| &items.value) else {
            findings.at(origin).error(
                &mark_of(node),
                "a List has `items`",
                "give it a list of resources",
            );
            self.resources.lose(&origin.file);
            return;
        };
        for item in items {
            self.read_node(item, origin.clone(), findings);
        }
    }

    /// A document of no kind that is read. If it is a policy all the same, nobody knows what it would
    /// have done to the requests that it is about.
    fn refuse(
        &mut self,
        header: &Header<'_>,
        refusal: Refusal,
        reading: &Reading<'_>,
        findings: &mut Findings,
    ) {
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
        let mut scope = findings.at(reading.origin);
        if refusal.harmless {
            scope.warning(&mark, refusal.message, refusal.remedy);
            return;
        }
        scope.error(&mark, refusal.message.clone(), refusal.remedy);
        if refusal.unknown {
            let place = (reading.origin.file.clone(), reading.name.clone());
            self.resources.misnamed.insert(place);
        }
        let targets = targets::salvage(reading.node, &reading.name.namespace, reading.origin);
        self.resources.rejected.push(Rejected {
            kind: header.kind.1.to_owned(),
            name: reading.name.clone(),
            reason: refusal.message,
            kept: false,
            is_policy: !targets.is_empty(),
            targets,
        });
    }

    fn read_kind(&mut self, kind: Kind, reading: &Reading<'_>, findings: &mut Findings) {
        *self.resources.counts.entry(kind.title()).or_default() += 1;
        let key = (kind, reading.name.clone());
        if let Some(first) = self.resources.seen.get(&key) {
            let place = format!("{}:{}", first.file.display(), first.line);
            findings.at(reading.origin).error(
                &mark_of(reading.node),
                format!("the same resource is in {place}"),
                "keep one of them, or rename it",
            );
            return;
        }
        if !reading.name.name.is_empty() {
            let seen = Seen {
                file: reading.origin.file.clone(),
                line: reading.node.line,
            };
            self.resources.seen.insert(key, seen);
        }
        let before = findings.errors();
        self.drafts
            .lower(kind, reading, &mut findings.at(reading.origin));
        if findings.errors() > before {
            let reason = findings.error_after(before);
            self.reject(kind, reading, reason, findings);
        } else {
            self.resources.carry(kind, &reading.name, &self.drafts);
        }
    }

    /// Puts the last good version of a resource in its place, or nothing.
    fn reject(
        &mut self,
        kind: Kind,
        reading: &Reading<'_>,
        reason: String,
        findings: &mut Findings,
    ) {
        let name = &reading.name;
        let is_policy = matches!(
            kind,
            Kind::BackendTrafficPolicy | Kind::ClientTrafficPolicy | Kind::HttpRateLimitPolicy
        );
        let targets = if is_policy {
            targets::salvage(reading.node, &name.namespace, reading.origin)
        } else {
            Targets::default()
        };
        let of_gloo = matches!(
            kind,
            Kind::HttpListenerOption | Kind::VirtualHostOption | Kind::RouteOption
        );
        let (is_policy, targets) = if of_gloo {
            match gloo::references::salvage(reading.node, &name.namespace, reading.origin) {
                // What is behind Gloo's own gateways is not served without them in any case.
                Some(targets) => (!targets.is_empty(), targets),
                None => (true, Targets::default()),
            }
        } else {
            (is_policy, targets)
        };
        let kept = self
            .good
            .is_some_and(|good| self.resources.carry(kind, name, good));
        if kept {
            findings
                .at(reading.origin)
                .warning(&mark_of(reading.node), KEPT, KEPT_REMEDY);
        }
        self.resources.rejected.push(Rejected {
            kind: kind.title().to_owned(),
            name: name.clone(),
            reason,
            kept,
            is_policy,
            targets,
        });
    }
}

impl Resources {
    fn lower(&mut self, kind: Kind, reading: &Reading<'_>, scope: &mut Scope<'_>) {
        match kind {
            Kind::GatewayClass => drop(read::<Document<Ignored>>(reading, scope)),
            Kind::Gateway => spec_into(&mut self.gateways, reading, scope, gateway::lower),
            Kind::ListenerSet => {
                spec_into(&mut self.listener_sets, reading, scope, listener_set::lower);
            }
            Kind::HttpRoute => spec_into(&mut self.http_routes, reading, scope, route::lower_http),
            Kind::GrpcRoute => spec_into(&mut self.grpc_routes, reading, scope, route::lower_grpc),
            Kind::ReferenceGrant => spec_into(&mut self.grants, reading, scope, references::lower),
            Kind::Backend => spec_into(&mut self.backends, reading, scope, backend::lower),
            Kind::BackendTrafficPolicy => spec_into(
                &mut self.traffic,
                reading,
                scope,
                backend_traffic_policy::lower,
            ),
            Kind::ClientTrafficPolicy => spec_into(
                &mut self.clients,
                reading,
                scope,
                client_traffic_policy::lower,
            ),
            Kind::NetworkRateLimitPolicy => spec_into(
                &mut self.network,
                reading,
                scope,
                network_rate_limit_policy::lower,
            ),
            Kind::HttpRateLimitPolicy => {
                spec_into(
                    &mut self.asks,
                    reading,
                    scope,
                    http_rate_limit_policy::lower,
                );
            }
            Kind::LimiterConfig => {
                spec_into(&mut self.configs, reading, scope, limiter_config::lower);
            }
            Kind::EnvoyGateway => {
                if let Some(raw) = decode(reading.node, scope) {
                    let mark = mark_of(reading.node);
                    let name = &reading.name;
                    let lowered = envoy_gateway::lower(raw, name, mark, reading.origin, scope);
                    self.envoy_gateways.insert(name.clone(), lowered);
                }
            }
            Kind::Namespace => {
                if let Some((_, meta)) = read::<namespace::RawNamespace>(reading, scope) {
                    self.namespaces.insert(meta.name.name, meta.labels);
                }
            }
            Kind::Service => spec_into(&mut self.services, reading, scope, service::lower),
            Kind::EndpointSlice => {
                into(&mut self.slices, reading, scope, endpoint_slice::lower);
            }
            Kind::Secret => into(&mut self.secrets, reading, scope, |raw, meta, scope| {
                secret::lower(raw, &meta, scope)
            }),
            Kind::ConfigMap => into(
                &mut self.config_maps,
                reading,
                scope,
                |raw, _meta, scope: &mut Scope<'_>| config_map::lower(raw, scope),
            ),
            Kind::GlooGateway => {
                spec_into(
                    &mut self.gloo_gateways,
                    reading,
                    scope,
                    gloo::gateway::lower,
                );
            }
            Kind::VirtualService => {
                spec_into(
                    &mut self.virtual_services,
                    reading,
                    scope,
                    gloo::virtual_service::lower,
                );
            }
            Kind::RouteTable => {
                spec_into(
                    &mut self.route_tables,
                    reading,
                    scope,
                    gloo::route_table::lower,
                );
            }
            Kind::ListenerOption => {
                spec_into(
                    &mut self.listener_options,
                    reading,
                    scope,
                    gloo::listener_options::lower,
                );
            }
            Kind::HttpListenerOption => {
                spec_into(
                    &mut self.http_listener_options,
                    reading,
                    scope,
                    gloo::listener_options::lower_http,
                );
            }
            Kind::VirtualHostOption => {
                spec_into(
                    &mut self.virtual_host_options,
                    reading,
                    scope,
                    gloo::virtual_host_options::lower_option,
                );
            }
            Kind::RouteOption => {
                spec_into(
                    &mut self.route_options,
                    reading,
                    scope,
                    gloo::route_options::lower_option,
                );
            }
            Kind::Upstream => {
                spec_into(&mut self.upstreams, reading, scope, gloo::upstream::lower);
            }
            Kind::RateLimitConfig => {
                spec_into(
                    &mut self.rate_limit_configs,
                    reading,
                    scope,
                    gloo::rate_limit_config::lower,
                );
            }
            Kind::GlooSettings => {
                spec_into(
                    &mut self.gloo_settings,
                    reading,
                    scope,
                    gloo::settings::lower,
                );
            }
            Kind::Domain => {
                if let Some(raw) = decode::<RawDomain>(reading.node, scope) {
                    let mark = mark_of(reading.node);
                    let file = ratelimit_service::lower(raw, reading.origin, mark, scope);
                    self.domains.insert(reading.name.clone(), file);
                }
            }
        }
    }
}

fn mark_of(node: &Node) -> Mark {
    Mark {
        line: node.line,
        column: node.column,
        field: String::new(),
    }
}

fn spec_into<S: DeserializeOwned, R>(
    all: &mut Table<R>,
    reading: &Reading<'_>,
    scope: &mut Scope<'_>,
    lower: impl FnOnce(At<S>, Meta, &mut Scope<'_>) -> R,
) {
    into(all, reading, scope, |document: Document<S>, meta, scope| {
        lower(document.spec, meta, scope)
    });
}

fn into<D: DeserializeOwned + HasMetadata, R>(
    all: &mut Table<R>,
    reading: &Reading<'_>,
    scope: &mut Scope<'_>,
    lower: impl FnOnce(D, Meta, &mut Scope<'_>) -> R,
) {
    if let Some((document, meta)) = read::<D>(reading, scope) {
        all.insert(reading.name.clone(), lower(document, meta, scope));
    }
}

fn read<D: DeserializeOwned + HasMetadata>(
    reading: &Reading<'_>,
    scope: &mut Scope<'_>,
) -> Option<(D, Meta)> {
    let document: D = decode(reading.node, scope)?;
    let meta = resource::meta(document.metadata(), reading.origin, scope);
    Some((document, meta))
}
