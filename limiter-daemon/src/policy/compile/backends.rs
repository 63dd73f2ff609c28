//! Where the requests of routes go: Services and Backends to endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::treatment::Upstream;
use super::{certificates, missing};
use crate::policy::core;
use crate::policy::core::endpoint_slice::{self, EndpointSlice};
use crate::policy::core::service::{Address, Service};
use crate::policy::envoy_gateway;
use crate::policy::findings::{Findings, Scope};
use crate::policy::gateway_api;
use crate::policy::gateway_api::route::{BackendName, Destination};
use crate::policy::kinds::Kind;
use crate::policy::plan::{Backend, Endpoint, RouteKind, UpstreamProtocol, UpstreamTls};
use crate::policy::resource::Name;
use crate::policy::resources::Resources;
use crate::policy::suggest;

/// Backends of the plan, made when requests first go to them.
pub(super) struct Backends<'a> {
    resources: &'a Resources,
    /// What routes refer to, as it is without a policy.
    known: Vec<Backend>,
    /// By what is referred to, and whether by a GRPCRoute.
    index: BTreeMap<(BackendName, bool), usize>,
    list: Vec<Backend>,
    /// By the index in `known`, and the policies that say how it is treated.
    treated: BTreeMap<(usize, Vec<Name>), usize>,
}

/// Why a reference leads nowhere, as a reason of Gateway API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unresolved {
    NotFound,
    NotPermitted,
    Invalid,
}

impl Unresolved {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "BackendNotFound",
            Self::NotPermitted => "RefNotPermitted",
            Self::Invalid => "UnsupportedValue",
        }
    }
}

impl<'a> Backends<'a> {
    pub(super) const fn new(resources: &'a Resources) -> Self {
        Self {
            resources,
            known: Vec::new(),
            index: BTreeMap::new(),
            list: Vec::new(),
            treated: BTreeMap::new(),
        }
    }

    pub(super) fn into_list(self) -> Vec<Backend> {
        self.list
    }

    /// What [`find`](Self::find) found.
    pub(super) fn known(&self, found: usize) -> Option<&Backend> {
        self.known.get(found)
    }

    /// Adds a backend that is treated as it says itself; its index in the plan.
    pub(super) fn put(&mut self, backend: Backend) -> usize {
        self.list.push(backend);
        self.list.len() - 1
    }

    /// The index in the plan of what [`find`](Self::find) found, as `upstream` treats it.
    pub(super) fn treated(
        &mut self,
        found: usize,
        upstream: &Upstream<'_>,
        findings: &mut Findings,
    ) -> Option<usize> {
        let key = (found, upstream.policies.clone());
        if let Some(&index) = self.treated.get(&key) {
            return Some(index);
        }
        let backend = Backend {
            policy: upstream.label(),
            settings: Arc::clone(&upstream.settings),
            ..self.known.get(found)?.clone()
        };
        upstream.warn_of_ejection(&backend, findings);
        self.treated.insert(key, self.list.len());
        self.list.push(backend);
        Some(self.list.len() - 1)
    }

    /// What a route in `namespace` refers to; or why there is none, with an error.
    pub(super) fn find(
        &mut self,
        destination: &Destination,
        route: RouteKind,
        namespace: &str,
        scope: &mut Scope<'_>,
    ) -> Result<usize, Unresolved> {
        self.permitted(destination, route, namespace, scope)?;
        let key = (destination.to.clone(), route == RouteKind::Grpc);
        if let Some(&index) = self.index.get(&key) {
            return Ok(index);
        }
        let mut backend = match &destination.to {
            BackendName::Backend(name) => self.backend(name, destination, scope)?,
            BackendName::Service(name, port) => self.service(name, *port, destination, scope)?,
        };
        if route == RouteKind::Grpc && backend.protocol != UpstreamProtocol::Http2 {
            backend.protocol = UpstreamProtocol::Http2;
            // Its connections are others than those of HTTPRoutes.
            backend.name.push_str(" (h2)");
        }
        self.index.insert(key, self.known.len());
        self.known.push(backend);
        Ok(self.known.len() - 1)
    }

    fn permitted(
        &self,
        destination: &Destination,
        route: RouteKind,
        namespace: &str,
        scope: &mut Scope<'_>,
    ) -> Result<(), Unresolved> {
        let from = match route {
            RouteKind::Http => Kind::HttpRoute.name(),
            RouteKind::Grpc => Kind::GrpcRoute.name(),
        };
        let (group, kind) = match destination.to {
            BackendName::Backend(_) => (envoy_gateway::GROUP, Kind::Backend.name()),
            BackendName::Service(..) => (core::GROUP, Kind::Service.name()),
        };
        let name = destination.to.name();
        if self
            .resources
            .granted((gateway_api::GROUP, from, namespace), (group, kind, name))
        {
            return Ok(());
        }
        scope.error(
            &destination.mark,
            format!(
                "the {kind} `{name}` is in another namespace, and no ReferenceGrant there allows it"
            ),
            format!(
                "put both into one namespace, or grant it to the kind `{from}` of `{namespace}`"
            ),
        );
        Err(Unresolved::NotPermitted)
    }

    fn backend(
        &self,
        name: &Name,
        destination: &Destination,
        scope: &mut Scope<'_>,
    ) -> Result<Backend, Unresolved> {
        let Some(found) = self.resources.backends.get(name) else {
            missing(
                self.resources,
                Kind::Backend,
                name,
                &destination.mark,
                scope,
            );
            return Err(Unresolved::NotFound);
        };
        let tls = match &found.tls {
            None => None,
            Some(tls) => {
                let from = (
                    envoy_gateway::GROUP,
                    Kind::Backend.name(),
                    name.namespace.as_str(),
                );
                let mut scope = scope.elsewhere(&found.meta.origin);
                let authorities =
                    certificates::authorities(self.resources, from, &tls.authorities, &mut scope)
                        .ok_or(Unresolved::Invalid)?;
                Some(UpstreamTls {
                    server_name: tls.server_name.clone(),
                    authorities,
                    insecure: tls.insecure,
                })
            }
        };
        Ok(Backend {
            name: name.to_string(),
            endpoints: found.endpoints.clone(),
            protocol: found.protocol,
            tls,
            ..Backend::default()
        })
    }

    /// A Service by its EndpointSlices, or else by its address; by its name, if it is not there at
    /// all: then it is somewhere in the cluster.
    fn service(
        &self,
        name: &Name,
        port: u16,
        destination: &Destination,
        scope: &mut Scope<'_>,
    ) -> Result<Backend, Unresolved> {
        let service = self.resources.services.get(name);
        if service.is_none() && self.resources.has(Kind::Service, name) {
            return Err(Unresolved::NotFound);
        }
        let found = service.and_then(|service| service.ports.iter().find(|one| one.port == port));
        if let (Some(service), None) = (service, found) {
            no_port(service, port, destination, scope);
            return Err(Unresolved::NotFound);
        }
        let slices: Vec<&EndpointSlice> = self
            .resources
            .slices
            .values()
            .filter(|slice| {
                slice.meta.name.namespace == name.namespace && slice.service == name.name
            })
            .collect();
        let endpoints = if slices.is_empty() {
            vec![self.by_address(name, port, service, destination, scope)]
        } else {
            of_slices(&slices, found.map(|port| port.name.as_str()), port)
        };
        Ok(Backend {
            name: format!("{name}:{port}"),
            endpoints,
            protocol: found.map(|port| port.protocol).unwrap_or_default(),
            tls: None,
            ..Backend::default()
        })
    }

    fn by_address(
        &self,
        name: &Name,
        port: u16,
        service: Option<&Service>,
        destination: &Destination,
        scope: &mut Scope<'_>,
    ) -> Endpoint {
        let dns = format!("{}.{}.svc.cluster.local", name.name, name.namespace);
        let Some(service) = service else {
            let others = self.resources.names(Kind::Service, &name.namespace);
            if !others.is_empty() {
                scope.warning(
                    &destination.mark,
                    format!("there is no Service `{name}` in these files, so `{dns}` is asked for"),
                    suggest::remedy(&name.name, others, "add it, or name one of that namespace:"),
                );
            }
            return Endpoint::Fqdn(dns, port);
        };
        match &service.address {
            Address::Ip(ip) => Endpoint::Ip(*ip, port),
            Address::External(host) => Endpoint::Fqdn(host.clone(), port),
            Address::Dns => Endpoint::Fqdn(dns, port),
            Address::Headless => {
                let target = service.ports.iter().find(|one| one.port == port);
                Endpoint::Fqdn(dns, target.map_or(port, |one| one.target))
            }
        }
    }
}

fn no_port(service: &Service, port: u16, destination: &Destination, scope: &mut Scope<'_>) {
    let ports: Vec<String> = service
        .ports
        .iter()
        .map(|port| port.port.to_string())
        .collect();
    scope.error(
        &destination.mark,
        format!("the Service `{}` has no port {port}", service.meta.name),
        if ports.is_empty() {
            "it has none for TCP at all".to_owned()
        } else {
            format!("its ports are {}", ports.join(", "))
        },
    );
}

/// The endpoints of slices, at the port of the name that the Service's has.
fn of_slices(slices: &[&EndpointSlice], name: Option<&str>, port: u16) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for slice in slices {
        let own = slice
            .ports
            .iter()
            .find(|(own, _)| name.is_none_or(|name| name == own))
            .map(|(_, port)| *port);
        // Without the Service's file the number is all there is to go by.
        let target = match (own, name) {
            (Some(own), _) => own,
            (None, Some(_)) => continue,
            (None, None) => port,
        };
        for address in &slice.addresses {
            let endpoint = match address {
                endpoint_slice::Address::Ip(ip) => Endpoint::Ip(*ip, target),
                endpoint_slice::Address::Fqdn(host) => Endpoint::Fqdn(host.clone(), target),
            };
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
    }
    endpoints
}
