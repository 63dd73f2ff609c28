//! Where the requests of Gloo's routes go: Upstreams and Services to backends.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::backends::Backends;
use super::super::certificates;
use super::super::treatment;
use super::{label, unusable};
use crate::policy::core;
use crate::policy::findings::{Findings, Mark, Scope};
use crate::policy::gateway_api::references::ObjectRef;
use crate::policy::gateway_api::route::{BackendName, Destination};
use crate::policy::gloo::action::To;
use crate::policy::gloo::references::Reference;
use crate::policy::gloo::upstream::{Endpoints, Tls, Upstream};
use crate::policy::kinds::Kind;
use crate::policy::plan::{Backend, Pem, RouteKind, UpstreamProtocol, UpstreamTls};
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::Resources;

/// Backends of the plan, made when requests first go to them.
pub(super) struct Destinations<'a, 'b> {
    resources: &'a Resources,
    backends: &'b mut Backends<'a>,
    upstreams: BTreeMap<&'a Name, Option<usize>>,
}

impl<'a, 'b> Destinations<'a, 'b> {
    pub(super) const fn new(resources: &'a Resources, backends: &'b mut Backends<'a>) -> Self {
        Self {
            resources,
            backends,
            upstreams: BTreeMap::new(),
        }
    }

    /// The index in the plan of what a route of the resource `from` refers to; `None` after an error.
    pub(super) fn find(&mut self, to: &To, from: &Meta, findings: &mut Findings) -> Option<usize> {
        match to {
            To::Upstream(reference) => {
                let Some((name, upstream)) =
                    self.resources.upstreams.get_key_value(&reference.name)
                else {
                    let mut scope = findings.at(&from.origin);
                    unusable(self.resources, Kind::Upstream, reference, &mut scope);
                    return None;
                };
                if let Some(found) = self.upstreams.get(name) {
                    return *found;
                }
                let made = self.upstream(upstream, findings);
                let index = made.map(|backend| self.backends.put(backend));
                self.upstreams.insert(name, index);
                index
            }
            To::Service(reference, port) => {
                let found =
                    self.service(&reference.name, *port, &reference.mark, from, findings)?;
                let plain = treatment::Upstream::default();
                self.backends.treated(found, &plain, findings)
            }
        }
    }

    fn service(
        &mut self,
        name: &Name,
        port: u16,
        mark: &Mark,
        from: &Meta,
        findings: &mut Findings,
    ) -> Option<usize> {
        let destination = Destination {
            to: BackendName::Service(name.clone(), port),
            mark: mark.clone(),
        };
        let mut scope = findings.at(&from.origin);
        // Gloo's references cross namespaces without a grant.
        self.backends
            .find(&destination, RouteKind::Http, &name.namespace, &mut scope)
            .ok()
    }

    fn upstream(&mut self, upstream: &Upstream, findings: &mut Findings) -> Option<Backend> {
        let (endpoints, protocol) = match &upstream.to {
            Endpoints::These(endpoints) => (endpoints.clone(), upstream.protocol),
            Endpoints::Service(name, port, mark) => {
                let found = self.service(name, *port, mark, &upstream.meta, findings)?;
                let backend = self.backends.known(found)?;
                let endpoints = backend.endpoints.clone();
                match upstream.protocol {
                    UpstreamProtocol::Http1 => (endpoints, backend.protocol),
                    UpstreamProtocol::Http2 => (endpoints, UpstreamProtocol::Http2),
                }
            }
        };
        let tls = match &upstream.tls {
            None => None,
            Some(tls) => Some(self.tls(tls, &upstream.meta, findings)?),
        };
        Some(Backend {
            name: label(Kind::Upstream, &upstream.meta.name),
            endpoints,
            protocol,
            tls,
            policy: String::new(),
            settings: Arc::new(upstream.settings.clone()),
        })
    }

    fn tls(&self, tls: &Tls, meta: &Meta, findings: &mut Findings) -> Option<UpstreamTls> {
        let mut scope = findings.at(&meta.origin);
        let authorities = match &tls.secret {
            None => Vec::new(),
            Some(reference) => authorities(self.resources, reference, &mut scope)?,
        };
        Some(UpstreamTls {
            server_name: tls.server_name.clone(),
            insecure: tls.secret.is_none(),
            authorities,
        })
    }
}

/// Who vouches for an Upstream, by its Secret; `None` after an error.
pub(super) fn authorities(
    resources: &Resources,
    secret: &Reference,
    scope: &mut Scope<'_>,
) -> Option<Vec<Pem>> {
    // Gloo's references cross namespaces without a grant.
    let namespace = secret.name.namespace.as_str();
    let from = (Kind::Upstream.group(), Kind::Upstream.name(), namespace);
    let reference = ObjectRef {
        group: core::GROUP.to_owned(),
        kind: Kind::Secret.name().to_owned(),
        name: secret.name.clone(),
        mark: secret.mark.clone(),
    };
    certificates::authorities(resources, from, &[reference], scope)
}
