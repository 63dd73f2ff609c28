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
use crate::policy::gloo::balancer;
use crate::policy::gloo::references::Reference;
use crate::policy::gloo::upstream::{Endpoints, Tls, Upstream};
use crate::policy::kinds::Kind;
use crate::policy::plan::{Backend, HashBy, Pem, RouteKind, UpstreamProtocol, UpstreamTls};
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::Resources;

/// Backends of the plan, made when requests first go to them.
pub(super) struct Destinations<'a, 'b> {
    resources: &'a Resources,
    backends: &'b mut Backends<'a>,
    /// As they are by themselves; `None` after an error.
    upstreams: BTreeMap<&'a Name, Option<Backend>>,
    /// Their indices in the plan, one for each hash that routes have for one that chooses by it.
    indices: BTreeMap<(&'a Name, Option<String>), usize>,
}

impl<'a, 'b> Destinations<'a, 'b> {
    pub(super) const fn new(resources: &'a Resources, backends: &'b mut Backends<'a>) -> Self {
        Self {
            resources,
            backends,
            upstreams: BTreeMap::new(),
            indices: BTreeMap::new(),
        }
    }

    /// The index in the plan of what a route of the resource `from` refers to, whose requests are
    /// hashed by `hash_by`; `None` after an error.
    pub(super) fn find(
        &mut self,
        to: &To,
        hash_by: Option<&HashBy>,
        from: &Meta,
        findings: &mut Findings,
    ) -> Option<usize> {
        match to {
            To::Upstream(reference) => {
                let Some((name, upstream)) =
                    self.resources.upstreams.get_key_value(&reference.name)
                else {
                    let mut scope = findings.at(&from.origin);
                    unusable(self.resources, Kind::Upstream, reference, &mut scope);
                    return None;
                };
                let hash_by = hash_by.filter(|_| upstream.hashes);
                let key = (name, hash_by.map(ToString::to_string));
                if let Some(index) = self.indices.get(&key) {
                    return Some(*index);
                }
                if !self.upstreams.contains_key(name) {
                    let made = self.upstream(upstream, findings);
                    self.upstreams.insert(name, made);
                }
                let plain = self.upstreams.get(name)?.clone()?;
                let index = self.backends.put(match hash_by {
                    None => plain,
                    Some(by) => hashed(plain, by),
                });
                self.indices.insert(key, index);
                Some(index)
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
            None => tls.authorities.iter().cloned().collect(),
            Some(reference) => authorities(self.resources, reference, &mut scope)?,
        };
        Some(UpstreamTls {
            server_name: tls.server_name.clone(),
            insecure: tls.takes_any(),
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

/// The same backend, with requests to its hosts hashed.
fn hashed(plain: Backend, by: &HashBy) -> Backend {
    let mut settings = (*plain.settings).clone();
    settings.load_balancer.algorithm = balancer::consistent(by.clone());
    Backend {
        policy: format!("lbHash/{by}"),
        settings: Arc::new(settings),
        ..plain
    }
}
