//! Gloo's resources: gateways to listeners, virtual services and route tables to routes, options to
//! what is in force on them.

mod asks;
mod destinations;
mod gateway_api;
mod gateways;
mod levels;
mod network;
mod options;
mod routes;
mod rules;
mod tcp;

use std::collections::BTreeSet;

use super::backends::Backends;
use super::missing;
use super::topology::Entry;
use crate::policy::findings::{Findings, Scope};
use crate::policy::gloo::references::Reference;
use crate::policy::kinds::Kind;
use crate::policy::native::network_rate_limit_policy::NetworkLimit;
use crate::policy::plan::{DaemonConfig, Listener, TcpProxy};
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::{Rejected, Resources};
use crate::policy::status::{Condition, Statuses};
use asks::Asks;
pub(super) use asks::{Domains, domains};
use destinations::Destinations;
use options::Options;
pub(super) use options::check_target;

/// Gloo's options, and what their limits ask.
pub(super) struct Gloo<'a> {
    options: Options<'a>,
    asks: Asks<'a>,
}

impl<'a> Gloo<'a> {
    pub(super) fn new(resources: &'a Resources, findings: &mut Findings) -> Self {
        Self {
            options: Options::new(resources, findings),
            asks: Asks::new(resources, findings),
        }
    }
}

/// What Gloo's resources are compiled with.
struct Context<'a, 'b> {
    resources: &'a Resources,
    options: Options<'a>,
    asks: Asks<'a>,
    destinations: Destinations<'a, 'b>,
    statuses: &'b mut Statuses,
    findings: &'b mut Findings,
    /// Virtual services that a gateway serves.
    served: BTreeSet<&'a Name>,
}

/// What Gloo's gateways come to.
pub(super) struct Compiled {
    pub(super) listeners: Vec<Listener>,
    pub(super) tcp: Vec<TcpProxy>,
    /// Domains of limiterd's own that requests are asked about.
    pub(super) asked: BTreeSet<String>,
    /// Limits on connections.
    pub(super) network: Vec<NetworkLimit>,
}

/// The listeners of all gateways, beside those that are `there` already: `entries`.
pub(super) fn compile<'a>(
    Gloo { options, asks }: Gloo<'a>,
    resources: &'a Resources,
    backends: &mut Backends<'a>,
    (daemon, there, entries): (&DaemonConfig, &[Listener], &[Entry<'_>]),
    statuses: &mut Statuses,
    findings: &mut Findings,
) -> Compiled {
    let network = network::limits(resources, &options, entries);
    let mut context = Context {
        resources,
        options,
        asks,
        destinations: Destinations::new(resources, backends),
        statuses,
        findings,
        served: BTreeSet::new(),
    };
    let listeners = gateways::listeners((daemon, there), &mut context);
    context.report();
    Compiled {
        listeners: listeners.http,
        tcp: listeners.tcp,
        asked: context.asks.into_own_domains(),
        network,
    }
}

impl Context<'_, '_> {
    /// Says of resources that were read that they are accepted, and warns of what comes to nothing.
    fn report(&mut self) {
        let resources = self.resources;
        let mut accept = |kind: Kind, meta: &Meta| {
            let name = &meta.name;
            self.statuses
                .of(kind.title(), &name.namespace, &name.name)
                .add(Condition::accepted("It is valid."));
        };
        for service in resources.virtual_services.values() {
            accept(Kind::VirtualService, &service.meta);
        }
        for table in resources.route_tables.values() {
            accept(Kind::RouteTable, &table.meta);
        }
        for upstream in resources.upstreams.values() {
            accept(Kind::Upstream, &upstream.meta);
        }
        for option in resources.listener_options.values() {
            accept(Kind::ListenerOption, &option.meta);
        }
        for option in resources.http_listener_options.values() {
            accept(Kind::HttpListenerOption, &option.meta);
        }
        for option in resources.virtual_host_options.values() {
            accept(Kind::VirtualHostOption, &option.meta);
        }
        for option in resources.route_options.values() {
            accept(Kind::RouteOption, &option.meta);
        }
        for config in resources.rate_limit_configs.values() {
            accept(Kind::RateLimitConfig, &config.meta);
        }
        for settings in resources.gloo_settings.values() {
            accept(Kind::GlooSettings, &settings.meta);
        }
        if self.findings.errors() > 0 {
            return;
        }
        self.asks.report(self.findings);
        for (name, service) in &resources.virtual_services {
            if !self.served.contains(name) {
                let remedy = if service.ssl.is_some() {
                    "add a Gateway with `ssl: true` that selects it"
                } else {
                    "add a Gateway (without `ssl: true`) that selects it"
                };
                self.findings.at(&service.meta.origin).warning(
                    &service.meta.mark,
                    "no gateway serves this",
                    remedy,
                );
            }
        }
    }
}

/// What buckets, listeners and routes are called by: no two resources have one label, in whichever
/// dialect they are.
fn label(kind: Kind, name: &Name) -> String {
    format!("{}/{name}", kind.name())
}

/// Why what refers to a resource cannot be served as it should.
fn unusable(
    resources: &Resources,
    kind: Kind,
    reference: &Reference,
    scope: &mut Scope<'_>,
) -> String {
    missing(resources, kind, &reference.name, &reference.mark, scope);
    let rejected = resources
        .rejected
        .iter()
        .find(|one| one.kind == kind.title() && one.name == reference.name);
    match rejected {
        Some(rejected) => super::in_force::reason(rejected),
        None => format!("there is no {} `{}`", kind.name(), reference.name),
    }
}

/// A resource of this kind that was never valid.
fn never_valid(resources: &Resources, kind: Kind) -> Option<&Rejected> {
    resources
        .rejected
        .iter()
        .find(|one| one.kind == kind.title() && !one.kept)
}
