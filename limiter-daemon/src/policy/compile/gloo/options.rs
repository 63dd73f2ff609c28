//! Options that are written in resources of their own, by what they are for.

use std::collections::BTreeMap;

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

/// Options by what they are attached to.
pub(super) struct Options<'a> {
    resources: &'a Resources,
    of_gateways: BTreeMap<&'a Name, Vec<&'a HttpListenerOption>>,
    of_services: BTreeMap<&'a Name, Vec<&'a VirtualHostOption>>,
    of_tables: BTreeMap<&'a Name, Vec<&'a RouteOption>>,
    /// Why limits may be missing that nobody knows of.
    unknown: Option<String>,
}

impl<'a> Options<'a> {
    pub(super) fn new(resources: &'a Resources, findings: &mut Findings) -> Self {
        let mut of_gateways: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for option in oldest_first(resources.http_listener_options.values(), |one| &one.meta) {
            for name in found(&option.targets, &option.meta, resources, findings) {
                of_gateways.entry(name).or_default().push(option);
            }
        }
        let mut of_services: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for option in oldest_first(resources.virtual_host_options.values(), |one| &one.meta) {
            for name in found(&option.targets, &option.meta, resources, findings) {
                of_services.entry(name).or_default().push(option);
            }
        }
        let mut of_tables: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for option in oldest_first(resources.route_options.values(), |one| &one.meta) {
            for name in found(&option.targets, &option.meta, resources, findings) {
                of_tables.entry(name).or_default().push(option);
            }
        }
        for option in resources.listener_options.values() {
            let _named = found(&option.targets, &option.meta, resources, findings);
        }
        warn_of_twice(&of_gateways, |one| &one.meta, findings);
        warn_of_twice(&of_services, |one| &one.meta, findings);
        warn_of_twice(&of_tables, |one| &one.meta, findings);
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
            of_gateways,
            of_services,
            of_tables,
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
            .of_gateways
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
        options.extend(self.of_services.get(name).into_iter().flatten());
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
        let attached = table.and_then(|table| self.of_tables.get(table));
        options.extend(attached.into_iter().flatten());
        options
            .into_iter()
            .map(|option| (label(Kind::RouteOption, &option.meta.name), &option.options))
            .collect()
    }
}

/// Says which of several for one thing goes before the others.
fn warn_of_twice<T>(
    all: &BTreeMap<&Name, Vec<&T>>,
    meta: impl Fn(&T) -> &Meta,
    findings: &mut Findings,
) {
    for options in all.values() {
        if let Some((first, rest)) = options.split_first() {
            for other in rest {
                let (first, other) = (&meta(first).name, meta(other));
                findings.at(&other.origin).warning(
                    &other.mark,
                    format!("what `{first}` says for the same target goes before this"),
                    "join the two, or take the target out of one",
                );
            }
        }
    }
}

fn oldest_first<'a, T>(all: impl Iterator<Item = &'a T>, meta: impl Fn(&T) -> &Meta) -> Vec<&'a T> {
    let mut all: Vec<&T> = all.collect();
    all.sort_by(|one, other| meta(one).precedence().cmp(&meta(other).precedence()));
    all
}

/// The targets that are there; or an error at those that are not.
fn found<'a>(
    targets: &'a [Target],
    meta: &Meta,
    resources: &Resources,
    findings: &mut Findings,
) -> Vec<&'a Name> {
    let mut scope = findings.at(&meta.origin);
    let mut names = Vec::new();
    for target in targets {
        super::missing(
            resources,
            target.kind,
            &target.name,
            &target.mark,
            &mut scope,
        );
        if resources.has(target.kind, &target.name) {
            names.push(&target.name);
        }
    }
    names
}
