//! Gloo's options on Gateway API's resources: their limits hold beside what the other dialects say.
//!
//! An option on a listener (`sectionName`) goes before one on its Gateway, one on a rule of a route
//! before one on the route, and of several for one target the oldest goes before the others, each
//! field by field. Of local limits the most specific holds: the route's, the virtual host's (a
//! `VirtualHostOption` on the Gateway or listener), the listener's (an `HttpListenerOption`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::attach::Place;
use super::super::in_force::places_of_entry;
use super::super::topology::Entry;
use super::asks::{Door, Levels};
use super::levels::{Local, Manner};
use super::options::{Attached, Options};
use super::{Gloo, label};
use crate::policy::envoy_gateway::targets::TargetKind;
use crate::policy::findings::Findings;
use crate::policy::gateway_api::route::{Route, Rule};
use crate::policy::gloo::listener_options::{HttpListenerOption, HttpOptions};
use crate::policy::gloo::token_bucket::NetworkBucket;
use crate::policy::gloo::virtual_host_options::Limits;
use crate::policy::kinds::Kind;
use crate::policy::plan::{RouteKind, RouteRule};
use crate::policy::resource::Meta;

/// What options say of the limits at one level.
struct Level<'a> {
    limits: Limits,
    /// What its limits are called by; of local ones, the option that has one.
    label: String,
    meta: Option<&'a Meta>,
}

impl Gloo<'_> {
    /// Adds what options say of the limits on a rule of a route, at a listener.
    pub(in crate::policy::compile) fn on_gateway_api(
        &mut self,
        (route, index, rule): (&Route, usize, &Rule),
        entry: &Entry<'_>,
        made: &mut RouteRule,
        findings: &mut Findings,
    ) {
        let options = &self.options;
        let above = places_of_entry(entry);
        let name = &route.meta.name;
        let mut own: Vec<Place> = Vec::new();
        if route.kind == RouteKind::Http {
            let section = rule.name.clone();
            own.extend(
                section.map(|name| (TargetKind::HttpRoute, route.meta.name.clone(), Some(name))),
            );
            own.push((TargetKind::HttpRoute, name.clone(), None));
        }
        let listeners = at(&options.listeners, &above);
        let of_hosts = at(&options.hosts, &above);
        let of_routes = at(&options.routes, &own);
        if listeners.is_empty() && of_hosts.is_empty() && of_routes.is_empty() {
            return;
        }
        let mut listener = HttpOptions::default();
        let mut local = Local::default();
        let mut asker: Option<&Meta> = None;
        for (option, place) in &listeners {
            let other = &option.options;
            if listener.local.is_none()
                && let Some(limits) = &other.local
            {
                listener.local = Some(limits.clone());
                let label = label_at(Kind::HttpListenerOption, &option.meta, place);
                local = local.under(&label, limits.bucket.as_ref());
            }
            if listener.server.is_none() && other.server.is_some() {
                listener.server.clone_from(&other.server);
                asker = Some(&option.meta);
            }
        }
        let of_hosts = of_hosts.into_iter().map(|(option, place)| {
            let label = label_at(Kind::VirtualHostOption, &option.meta, place);
            (label, &option.meta, &option.options.limits)
        });
        let host = Level::joined(of_hosts, &mut local);
        let rule_name = rule.name.clone().unwrap_or_else(|| index.to_string());
        let of_routes = of_routes.into_iter().map(|(option, _)| {
            let option_label = label(Kind::RouteOption, &option.meta.name);
            let label = format!("{option_label}/HTTPRoute/{name}/rule/{rule_name}");
            (label, &option.meta, &option.options.limits)
        });
        let route_level = Level::joined(of_routes, &mut local);

        let levels = Levels {
            labels: [&host.label, &route_level.label],
            metas: [&host, &route_level].map(|level| level.meta.unwrap_or(&route.meta)),
            limits: [&host.limits, &route_level.limits],
        };
        let door = Door {
            name: format!("{}/{}", Kind::Gateway.group(), entry.name),
            source: entry.gateway.meta.name.to_string(),
            meta: asker.unwrap_or(&entry.gateway.meta),
            mark: asker.map_or(&entry.listener.mark, |meta| &meta.mark),
            server: listener.server.as_ref(),
        };
        let mut limits = (*made.limits).clone();
        let manner = Manner::of(listener.local.as_ref());
        limits.local.extend(local.plan(manner));
        limits.global.extend(self.asks.basic(&levels, &door));
        made.limits = Arc::new(limits);
        let mut broken = made.broken.take();
        let asked = self.asks.on(&levels, &door, findings, &mut broken);
        made.broken = broken;
        if !asked.is_empty() {
            let mut all = (*made.asks).clone();
            all.extend(asked);
            made.asks = Arc::new(all);
        }
    }
}

impl<'a> Level<'a> {
    /// Joins options, the first goes before the others. What is their local limit takes the place of
    /// `local`.
    fn joined(
        options: impl Iterator<Item = (String, &'a Meta, &'a Limits)>,
        local: &mut Local,
    ) -> Self {
        let mut joined = Self {
            limits: Limits::default(),
            label: String::new(),
            meta: None,
        };
        let mut own = Local::default();
        for (label, meta, limits) in options {
            own = own.or(&Local::default().under(&label, limits.local.as_ref()));
            let has_first = |mine: bool, other: bool| !mine && other;
            if joined.meta.is_none()
                || has_first(joined.limits.configs.is_some(), limits.configs.is_some())
            {
                joined.meta = Some(meta);
            }
            if joined.label.is_empty()
                || has_first(joined.limits.basic.is_some(), limits.basic.is_some())
            {
                joined.label = label;
            }
            joined.limits = joined.limits.or(limits);
        }
        *local = own.or(local);
        joined
    }
}

/// Options at places, of which the closest come first, and at one the oldest.
fn at<'o, 'a, T>(attached: &'o Attached<'a, T>, places: &'o [Place]) -> Vec<(&'a T, &'o Place)> {
    let found = places.iter().filter_map(|place| {
        let there = attached.of_gateway_api.get(place)?;
        Some(there.iter().map(move |option| (*option, place)))
    });
    found.flatten().collect()
}

/// What limits of an option at a Gateway or listener are called by: there it is one bucket.
fn label_at(kind: Kind, option: &Meta, (target, name, section): &Place) -> String {
    let own = label(kind, &option.name);
    let section = section.iter().map(|section| format!("/{section}"));
    let section: String = section.collect();
    format!("{own}/{}/{name}{section}", target.name())
}

/// A limit on connections: what it is called by, the option that has it, and its ports.
pub(super) type OfPorts<'a> = (String, &'a Meta, &'a NetworkBucket, Vec<u16>);

/// Limits on the connections of Gateway API's Gateways.
pub(super) fn network<'a>(options: &Options<'a>, entries: &[Entry<'_>]) -> Vec<OfPorts<'a>> {
    let mut found: BTreeMap<String, OfPorts<'a>> = BTreeMap::new();
    for entry in entries {
        let places = places_of_entry(entry);
        let mut all = at(&options.listeners, &places).into_iter();
        let first = all.find_map(|(option, place): (&'a HttpListenerOption, _)| {
            let bucket = option.options.network.as_ref()?;
            let label = label_at(Kind::HttpListenerOption, &option.meta, place);
            Some((label, &option.meta, bucket))
        });
        let Some((label, meta, bucket)) = first else {
            continue;
        };
        let (_, _, _, ports) =
            found
                .entry(label.clone())
                .or_insert((label, meta, bucket, Vec::new()));
        if !ports.contains(&entry.listener.port) {
            ports.push(entry.listener.port);
        }
    }
    found.into_values().collect()
}
