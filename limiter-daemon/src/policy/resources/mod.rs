//! All resources of a directory, each checked by itself, by kind and name.
//!
//! A resource with an error in it is not used. If it was there before without one, that version goes
//! on; so one bad resource changes nothing but itself.

pub(crate) mod fields;
mod header;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::core::config_map::ConfigMap;
use super::core::endpoint_slice::EndpointSlice;
use super::core::labels::Labels;
use super::core::secret::Secret;
use super::core::service::Service;
use super::envoy_gateway::backend::Backend;
use super::envoy_gateway::backend_traffic_policy::TrafficPolicy;
use super::envoy_gateway::client_traffic_policy::ClientPolicy;
use super::envoy_gateway::store::EnvoyGateway;
use super::envoy_gateway::targets::Targets;
use super::findings::{Findings, Mark, Origin};
use super::gateway_api::gateway::Gateway;
use super::gateway_api::listener_set::ListenerSet;
use super::gateway_api::references::ReferenceGrant;
use super::gateway_api::route::Route;
use super::gloo::gateway::Gateway as GlooGateway;
use super::gloo::listener_options::{HttpListenerOption, ListenerOption};
use super::gloo::rate_limit_config::RateLimitConfig;
use super::gloo::route_options::RouteOption;
use super::gloo::route_table::RouteTable;
use super::gloo::settings::Settings as GlooSettings;
use super::gloo::upstream::Upstream;
use super::gloo::virtual_host_options::VirtualHostOption;
use super::gloo::virtual_service::VirtualService;
use super::kinds::Kind;
use super::native::http_rate_limit_policy::AskPolicy;
use super::native::limiter_config::Config;
use super::native::network_rate_limit_policy::NetworkLimit;
use super::plan::RouteKind;
use super::ratelimit_service::DomainFile;
use super::resource::{Meta, Name};
pub(crate) use read::Reader;

type Table<R> = BTreeMap<Name, R>;

/// The resources that could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resources {
    pub(crate) gateways: Table<Gateway>,
    pub(crate) listener_sets: Table<ListenerSet>,
    pub(crate) http_routes: Table<Route>,
    pub(crate) grpc_routes: Table<Route>,
    pub(crate) grants: Table<ReferenceGrant>,
    pub(crate) backends: Table<Backend>,
    pub(crate) traffic: Table<TrafficPolicy>,
    pub(crate) clients: Table<ClientPolicy>,
    pub(crate) network: Table<NetworkLimit>,
    pub(crate) asks: Table<AskPolicy>,
    pub(crate) configs: Table<Config>,
    pub(crate) envoy_gateways: Table<EnvoyGateway>,
    /// The labels of namespaces; a Namespace is of no namespace itself.
    pub(crate) namespaces: BTreeMap<String, Labels>,
    pub(crate) services: Table<Service>,
    pub(crate) slices: Table<EndpointSlice>,
    pub(crate) secrets: Table<Secret>,
    pub(crate) config_maps: Table<ConfigMap>,
    pub(crate) gloo_gateways: Table<GlooGateway>,
    pub(crate) virtual_services: Table<VirtualService>,
    pub(crate) route_tables: Table<RouteTable>,
    pub(crate) listener_options: Table<ListenerOption>,
    pub(crate) http_listener_options: Table<HttpListenerOption>,
    pub(crate) virtual_host_options: Table<VirtualHostOption>,
    pub(crate) route_options: Table<RouteOption>,
    pub(crate) upstreams: Table<Upstream>,
    pub(crate) rate_limit_configs: Table<RateLimitConfig>,
    pub(crate) gloo_settings: Table<GlooSettings>,
    /// By file (as their namespace) and domain.
    pub(crate) domains: Table<DomainFile>,
    /// Where each was seen, those with errors included: they are not missing.
    seen: BTreeMap<(Kind, Name), Seen>,
    /// What is there and is not used as it is.
    pub(crate) rejected: Vec<Rejected>,
    /// Files of which something is not known at all.
    lost: BTreeSet<PathBuf>,
    /// Documents of no known kind, by file and name: a kind may be misspelt.
    misnamed: BTreeSet<(PathBuf, Name)>,
    pub(crate) counts: BTreeMap<&'static str, usize>,
}

#[derive(Clone, Debug)]
struct Seen {
    file: PathBuf,
    line: u64,
}

/// A resource with errors.
#[derive(Clone, Debug)]
pub(crate) struct Rejected {
    pub(crate) kind: String,
    pub(crate) name: Name,
    /// The first error.
    pub(crate) reason: String,
    /// Its last good version goes on.
    pub(crate) kept: bool,
    /// It says what happens to requests to something else.
    pub(crate) is_policy: bool,
    /// What it is about, if it is a policy.
    pub(crate) targets: Targets,
}

impl Rejected {
    /// `Kind namespace/name`.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }
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

    /// All routes, of both kinds.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.http_routes.values().chain(self.grpc_routes.values())
    }

    pub(crate) fn route(&self, kind: RouteKind, name: &Name) -> Option<&Route> {
        match kind {
            RouteKind::Http => self.http_routes.get(name),
            RouteKind::Grpc => self.grpc_routes.get(name),
        }
    }

    /// Whether resources of one kind in one namespace may refer to a resource of another one, which
    /// they may in their own.
    pub(crate) fn granted(&self, from: (&str, &str, &str), to: (&str, &str, &Name)) -> bool {
        from.2 == to.2.namespace || self.grants.values().any(|grant| grant.allows(from, to))
    }

    /// Whether something is not known that could hold a limit, and that nothing stands in for: a file
    /// that is no YAML, settings that are wrong, a policy of which not even the targets can be read.
    pub(crate) fn is_incomplete(&self) -> bool {
        let unknown = |rejected: &&Rejected| {
            !rejected.kept
                && (rejected.kind == Kind::LimiterConfig.name()
                    || rejected.kind == Kind::EnvoyGateway.name()
                    || rejected.kind == Kind::GlooSettings.title()
                    || (rejected.is_policy && rejected.targets.is_empty()))
        };
        !self.lost.is_empty() || self.rejected.iter().find(unknown).is_some()
    }

    /// What is not used as it is in the files, and goes on as it was: `Kind namespace/name`.
    pub(crate) fn kept(&self) -> Vec<String> {
        let mut kept: Vec<String> = self
            .rejected
            .iter()
            .filter(|rejected| rejected.kept)
            .map(Rejected::label)
            .collect();
        kept.sort();
        kept
    }

    /// Remembers that a file holds more than could be read of it.
    pub(crate) fn lose(&mut self, file: &Path) {
        self.lost.insert(file.to_path_buf());
    }

    /// Takes over what `good` had of the files that are lost, or of `all`; and what has the name of a
    /// document of its file that is of no known kind.
    pub(crate) fn recover(&mut self, good: &Self, all: bool, findings: &mut Findings) {
        for ((kind, name), seen) in &good.seen {
            let misnamed = self.misnamed.contains(&(seen.file.clone(), name.clone()));
            let lost = all || misnamed || self.lost.contains(&seen.file);
            if !lost || self.has(*kind, name) || !self.carry(*kind, name, good) {
                continue;
            }
            let origin = Origin {
                file: seen.file.clone(),
                resource: Some(format!("{} {name}", kind.name())),
            };
            findings
                .at(&origin)
                .warning(&Mark::none(), KEPT, KEPT_REMEDY);
            self.seen.insert((*kind, name.clone()), seen.clone());
            if misnamed {
                let same = |rejected: &&mut Rejected| rejected.name == *name;
                for rejected in self.rejected.iter_mut().filter(same) {
                    // Nothing is broken: what was meant goes on.
                    rejected.is_policy = false;
                }
            }
            self.rejected.push(Rejected {
                kind: kind.title().to_owned(),
                name: name.clone(),
                reason: "its document cannot be read".to_owned(),
                kept: true,
                is_policy: false,
                targets: Targets::default(),
            });
        }
        self.lost.clear();
    }

    /// Puts the version of `good` in the place of a resource that is valid by itself.
    pub(crate) fn keep(
        &mut self,
        kind: Kind,
        meta: &Meta,
        reason: String,
        good: &Self,
        findings: &mut Findings,
    ) {
        if !self.carry(kind, &meta.name, good) {
            return;
        }
        findings
            .at(&meta.origin)
            .warning(&meta.mark, KEPT, KEPT_REMEDY);
        self.rejected.push(Rejected {
            kind: kind.title().to_owned(),
            name: meta.name.clone(),
            reason,
            kept: true,
            is_policy: true,
            targets: Targets::default(),
        });
    }

    /// Takes one resource over from `good`; `false`: it has none.
    fn carry(&mut self, kind: Kind, name: &Name, good: &Self) -> bool {
        match kind {
            Kind::Gateway => copy(&mut self.gateways, &good.gateways, name),
            Kind::GatewayClass => true,
            Kind::ListenerSet => copy(&mut self.listener_sets, &good.listener_sets, name),
            Kind::HttpRoute => copy(&mut self.http_routes, &good.http_routes, name),
            Kind::GrpcRoute => copy(&mut self.grpc_routes, &good.grpc_routes, name),
            Kind::ReferenceGrant => copy(&mut self.grants, &good.grants, name),
            Kind::Backend => copy(&mut self.backends, &good.backends, name),
            Kind::BackendTrafficPolicy => copy(&mut self.traffic, &good.traffic, name),
            Kind::ClientTrafficPolicy => copy(&mut self.clients, &good.clients, name),
            Kind::NetworkRateLimitPolicy => copy(&mut self.network, &good.network, name),
            Kind::HttpRateLimitPolicy => copy(&mut self.asks, &good.asks, name),
            Kind::EnvoyGateway => copy(&mut self.envoy_gateways, &good.envoy_gateways, name),
            Kind::LimiterConfig => copy(&mut self.configs, &good.configs, name),
            Kind::Namespace => {
                let labels = good.namespaces.get(&name.name);
                if let Some(labels) = labels {
                    self.namespaces.insert(name.name.clone(), labels.clone());
                }
                labels.is_some()
            }
            Kind::Service => copy(&mut self.services, &good.services, name),
            Kind::EndpointSlice => copy(&mut self.slices, &good.slices, name),
            Kind::Secret => copy(&mut self.secrets, &good.secrets, name),
            Kind::ConfigMap => copy(&mut self.config_maps, &good.config_maps, name),
            Kind::GlooGateway => copy(&mut self.gloo_gateways, &good.gloo_gateways, name),
            Kind::VirtualService => copy(&mut self.virtual_services, &good.virtual_services, name),
            Kind::RouteTable => copy(&mut self.route_tables, &good.route_tables, name),
            Kind::ListenerOption => copy(&mut self.listener_options, &good.listener_options, name),
            Kind::HttpListenerOption => copy(
                &mut self.http_listener_options,
                &good.http_listener_options,
                name,
            ),
            Kind::VirtualHostOption => copy(
                &mut self.virtual_host_options,
                &good.virtual_host_options,
                name,
            ),
            Kind::RouteOption => copy(&mut self.route_options, &good.route_options, name),
            Kind::Upstream => copy(&mut self.upstreams, &good.upstreams, name),
            Kind::RateLimitConfig => {
                copy(&mut self.rate_limit_configs, &good.rate_limit_configs, name)
            }
            Kind::GlooSettings => copy(&mut self.gloo_settings, &good.gloo_settings, name),
            Kind::Domain => copy(&mut self.domains, &good.domains, name),
        }
    }
}

const KEPT: &str = "it cannot be used as it is, so its last good version goes on";
const KEPT_REMEDY: &str = "see the errors; to be rid of it, remove it";

fn copy<R: Clone>(to: &mut Table<R>, from: &Table<R>, name: &Name) -> bool {
    let found = from.get(name);
    if let Some(found) = found {
        to.insert(name.clone(), found.clone());
    }
    found.is_some()
}
