//! Options that are written in resources of their own, by what they are for.

use std::collections::BTreeMap;

use super::super::attach::{self, Place};
use super::{label, never_valid, unusable};
use crate::policy::findings::{Findings, Scope};
use crate::policy::gloo::gateway::Gateway;
use crate::policy::gloo::listener_options::{HttpListenerOption, HttpOptions};
use crate::policy::gloo::references::{Reference, Target};
use crate::policy::gloo::route_options::{RouteOption, RouteOptions};
use crate::policy::gloo::virtual_host_options::VirtualHostOption;
use crate::policy::kinds::Kind;
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::Resources;

/// Options of one kind by what they are attached to, the oldest first.
pub(super) struct Attached<'a, T> {
    pub(super) of_gloo: BTreeMap<&'a Name, Vec<&'a T>>,
    pub(super) of_gateway_api: BTreeMap<Place, Vec<&'a T>>,
}

/// Options by what they are attached to.
pub(super) struct Options<'a> {
    resources: &'a Resources,
    pub(super) listeners: Attached<'a, HttpListenerOption>,
    pub(super) hosts: Attached<'a, VirtualHostOption>,
    pub(super) routes: Attached<'a, RouteOption>,
    /// Why limits may be missing that nobody knows of.
    unknown: Option<String>,
}

impl<'a> Options<'a> {
    pub(super) fn new(resources: &'a Resources, findings: &mut Findings) -> Self {
        let all = resources.http_listener_options.values();
        let view = |one: &'a HttpListenerOption| (&one.meta, one.targets.as_slice(), None);
        let listeners = attached(all, view, resources, findings);
        let all = resources.virtual_host_options.values();
        let view = |one: &'a VirtualHostOption| {
            (
                &one.meta,
                one.targets.as_slice(),
                one.options.beyond_limits(),
            )
        };
        let hosts = attached(all, view, resources, findings);
        let all = resources.route_options.values();
        let view = |one: &'a RouteOption| {
            (
                &one.meta,
                one.targets.as_slice(),
                one.options.beyond_limits(),
            )
        };
        let routes = attached(all, view, resources, findings);
        for option in resources.listener_options.values() {
            for target in &option.targets {
                let _named = found(target, &option.meta, resources, findings);
            }
        }
        let kinds = [
            Kind::HttpListenerOption,
            Kind::VirtualHostOption,
            Kind::RouteOption,
        ];
        let unknown = kinds
            .into_iter()
            .find_map(|kind| never_valid(resources, kind))
            .map(super::super::in_force::reason);
        Self {
            resources,
            listeners,
            hosts,
            routes,
            unknown,
        }
    }

    /// Why nothing can be served as it should: options that were never valid may be for anything.
    pub(super) fn unknown(&self) -> Option<String> {
        self.unknown.clone()
    }

    /// The options of a gateway: its own go before those that are attached, field by field.
    pub(super) fn of_gateway(&self, gateway: &Gateway, own: &HttpOptions) -> HttpOptions {
        let mut options = own.clone();
        for other in self
            .listeners
            .of_gloo
            .get(&gateway.meta.name)
            .into_iter()
            .flatten()
        {
            let other = &other.options;
            options.local = options.local.or_else(|| other.local.clone());
            options.network = options.network.or_else(|| other.network.clone());
            options.server = options.server.or_else(|| other.server.clone());
        }
        options
    }

    /// Options of a virtual service beside those in it, the first goes before what follows.
    pub(super) fn of_service(
        &self,
        name: &Name,
        delegates: &[Reference],
        scope: &mut Scope<'_>,
        broken: &mut Option<String>,
    ) -> Vec<&'a VirtualHostOption> {
        let mut options = Vec::new();
        for reference in delegates {
            match self.resources.virtual_host_options.get(&reference.name) {
                Some(option) => options.push(option),
                None => {
                    let kind = Kind::VirtualHostOption;
                    let why = unusable(self.resources, kind, reference, scope);
                    broken.get_or_insert(why);
                }
            }
        }
        options.extend(self.hosts.of_gloo.get(name).into_iter().flatten());
        options
    }

    /// Options of a route beside those in it, with what each is called; the first goes before what
    /// follows.
    pub(super) fn of_route(
        &self,
        table: Option<&Name>,
        delegates: &[Reference],
        scope: &mut Scope<'_>,
        broken: &mut Option<String>,
    ) -> Vec<(String, &'a RouteOptions)> {
        let mut options: Vec<&'a RouteOption> = Vec::new();
        for reference in delegates {
            match self.resources.route_options.get(&reference.name) {
                Some(option) => options.push(option),
                None => {
                    let why = unusable(self.resources, Kind::RouteOption, reference, scope);
                    broken.get_or_insert(why);
                }
            }
        }
        let attached = table.and_then(|table| self.routes.of_gloo.get(table));
        options.extend(attached.into_iter().flatten());
        options
            .into_iter()
            .map(|option| (label(Kind::RouteOption, &option.meta.name), &option.options))
            .collect()
    }
}

type View<'a> = (&'a Meta, &'a [Target], Option<&'static str>);

/// Attaches options, of which `view` says what they say besides limits.
fn attached<'a, T>(
    all: impl Iterator<Item = &'a T>,
    view: impl Fn(&'a T) -> View<'a>,
    resources: &Resources,
    findings: &mut Findings,
) -> Attached<'a, T> {
    let mut all: Vec<&T> = all.collect();
    all.sort_by(|one, other| view(one).0.precedence().cmp(&view(other).0.precedence()));
    let mut attached = Attached {
        of_gloo: BTreeMap::new(),
        of_gateway_api: BTreeMap::new(),
    };
    for option in all {
        let (meta, targets, beyond) = view(option);
        for target in targets {
            let there = match found(target, meta, resources, findings) {
                None => continue,
                Some(Found::Gloo(name)) => attached.of_gloo.entry(name).or_default(),
                Some(Found::GatewayApi(place)) => {
                    if let Some(field) = beyond {
                        beyond_limits(field, target, meta, findings);
                    }
                    attached.of_gateway_api.entry(place).or_default()
                }
            };
            if let Some(first) = there.first() {
                let first = &view(first).0.name;
                findings.at(&meta.origin).warning(
                    &meta.mark,
                    format!("what `{first}` says for the same target goes before this"),
                    "join the two, or take the target out of one",
                );
            }
            there.push(option);
        }
    }
    attached
}

fn beyond_limits(field: &str, target: &Target, meta: &Meta, findings: &mut Findings) {
    findings.at(&meta.origin).error(
        &target.mark,
        format!(
            "`{field}` is not supported on a {} of Gateway API: of options there only limits hold",
            target.kind.name()
        ),
        "remove it, and write it in the HTTPRoute or in a BackendTrafficPolicy",
    );
}

/// What a target names.
enum Found<'a> {
    Gloo(&'a Name),
    GatewayApi(Place),
}

/// What a target names, if that is there; or an error.
fn found<'a>(
    target: &'a Target,
    meta: &Meta,
    resources: &Resources,
    findings: &mut Findings,
) -> Option<Found<'a>> {
    if let Some(target) = target.of_gateway_api() {
        let place = attach::named(&target, meta, resources, findings);
        return place.ok().flatten().map(Found::GatewayApi);
    }
    let (kind, name) = (target.kind, &target.name);
    let mut scope = findings.at(&meta.origin);
    super::missing(resources, kind, name, &target.mark, &mut scope);
    resources.has(kind, name).then_some(Found::Gloo(name))
}

/// An error if a target is not there.
pub(in crate::policy::compile) fn check_target(
    target: &Target,
    meta: &Meta,
    resources: &Resources,
    findings: &mut Findings,
) {
    let _found = found(target, meta, resources, findings);
}
