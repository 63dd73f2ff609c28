//! Which policy is attached to what.

use std::collections::{BTreeMap, BTreeSet};

use super::missing;
use super::topology::ancestor;
use crate::policy::core::labels::Labels;
use crate::policy::envoy_gateway;
use crate::policy::envoy_gateway::backend_traffic_policy::TrafficPolicy;
use crate::policy::envoy_gateway::client_traffic_policy::ClientPolicy;
use crate::policy::envoy_gateway::targets::{
    Namespaces, Target, TargetKind, TargetSelector, Targets,
};
use crate::policy::findings::{Findings, Mark};
use crate::policy::gateway_api;
use crate::policy::kinds::Kind;
use crate::policy::plan::RouteKind;
use crate::policy::resource::{Deprecated, Meta, Name};
use crate::policy::resources::{Rejected, Resources};
use crate::policy::status::{Ancestor, Condition, Statuses};
use crate::policy::suggest;

/// A resource, or a section of it: a listener, or a rule of a route.
pub(super) type Place = (TargetKind, Name, Option<String>);

/// A policy that is attached to resources.
pub(super) trait Policy {
    const KIND: Kind;
    fn meta(&self) -> &Meta;
    fn targets(&self) -> &Targets;
    fn deprecated(&self) -> &[Deprecated];
}

impl Policy for TrafficPolicy {
    const KIND: Kind = Kind::BackendTrafficPolicy;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn targets(&self) -> &Targets {
        &self.targets
    }

    fn deprecated(&self) -> &[Deprecated] {
        &self.deprecated
    }
}

impl Policy for ClientPolicy {
    const KIND: Kind = Kind::ClientTrafficPolicy;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn targets(&self) -> &Targets {
        &self.targets
    }

    fn deprecated(&self) -> &[Deprecated] {
        &self.deprecated
    }
}

/// The policies of one kind, by what they are attached to.
#[derive(Debug)]
pub(super) struct Attached<'a, P> {
    by_place: BTreeMap<Place, (&'a P, Mark)>,
}

impl<'a, P: Policy> Attached<'a, P> {
    pub(super) fn at(&self, place: &Place) -> Option<&'a P> {
        self.by_place.get(place).map(|(policy, _)| *policy)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Place, &'a P, &Mark)> {
        self.by_place
            .iter()
            .map(|(place, (policy, mark))| (place, *policy, mark))
    }
}

/// Attaches the policies of a kind. Of two at one place the older wins, then the first by name.
pub(super) fn attach<'a, P: Policy>(
    table: &'a BTreeMap<Name, P>,
    resources: &'a Resources,
    statuses: &mut Statuses,
    findings: &mut Findings,
) -> Attached<'a, P> {
    let mut attached = Attached {
        by_place: BTreeMap::new(),
    };
    let mut ordered: Vec<&P> = table.values().collect();
    ordered.sort_by_key(|policy| policy.meta().precedence());
    for policy in ordered {
        let mut named = BTreeSet::new();
        let found = places(policy, resources, statuses, findings);
        for (place, mark) in found {
            if !named.insert(place.clone()) {
                findings.at(&policy.meta().origin).error(
                    &mark,
                    format!("the {} is named twice", place.0.name()),
                    "keep one of them",
                );
                continue;
            }
            attach_at(
                policy,
                place,
                mark,
                resources,
                &mut attached,
                statuses,
                findings,
            );
        }
        report_deprecated(policy, statuses, findings);
    }
    attached
}

fn attach_at<'a, P: Policy>(
    policy: &'a P,
    place: Place,
    mark: Mark,
    resources: &Resources,
    attached: &mut Attached<'a, P>,
    statuses: &mut Statuses,
    findings: &mut Findings,
) {
    let meta = policy.meta();
    let ancestors = ancestors(&place, resources);
    let status = statuses.of(P::KIND.name(), &meta.name.namespace, &meta.name.name);
    let Some((winner, _)) = attached.by_place.get(&place) else {
        for ancestor in &ancestors {
            status.add_for(ancestor, Condition::accepted("Policy has been accepted."));
        }
        attached.by_place.insert(place, (policy, mark));
        return;
    };
    let what = describe(&place);
    for ancestor in &ancestors {
        status.add_for(
            ancestor,
            Condition::not_accepted(
                "Conflicted",
                format!(
                    "Unable to target {what}, another {} has already attached to it",
                    P::KIND.name()
                ),
            ),
        );
    }
    let (kind, name, section) = &place;
    let section = match section {
        Some(section) => format!("/{section}"),
        None => String::new(),
    };
    let message = format!(
        "not enforced on {} `{name}{section}` (Conflicted): `{}` is older or comes first by name",
        kind.name(),
        winner.meta().name
    );
    findings
        .at(&meta.origin)
        .warning(&mark, message, "join the two, or remove one");
}

/// As Envoy Gateway names a target.
fn describe((kind, name, section): &Place) -> String {
    match section {
        None => format!("{} {}", kind.name(), name.name),
        Some(section) if kind.is_route() => format!("RouteRule {}/{section}", name.name),
        Some(section) => format!("Listener {}/{section}", name.name),
    }
}

/// The Gateways and ListenerSets that a place is in, or above.
pub(super) fn ancestors((kind, name, section): &Place, resources: &Resources) -> Vec<Ancestor> {
    if !kind.is_route() {
        return vec![ancestor(*kind, name, section.as_deref())];
    }
    let Some(route) = resources.route(route_kind(*kind), name) else {
        return vec![ancestor(*kind, name, section.as_deref())];
    };
    route
        .parents
        .iter()
        .map(|parent| {
            let section = parent.section.as_ref().map(|at| at.value.as_str());
            ancestor(parent.kind, &parent.name, section)
        })
        .collect()
}

pub(super) const fn route_kind(kind: TargetKind) -> RouteKind {
    match kind {
        TargetKind::GrpcRoute => RouteKind::Grpc,
        _ => RouteKind::Http,
    }
}

pub(super) const fn target_kind(kind: RouteKind) -> TargetKind {
    match kind {
        RouteKind::Http => TargetKind::HttpRoute,
        RouteKind::Grpc => TargetKind::GrpcRoute,
    }
}

/// The places that a policy names and selects, each with where the policy does.
fn places<P: Policy>(
    policy: &P,
    resources: &Resources,
    statuses: &mut Statuses,
    findings: &mut Findings,
) -> Vec<(Place, Mark)> {
    let meta = policy.meta();
    let mut places = Vec::new();
    for target in &policy.targets().refs {
        match named(target, meta, resources, findings) {
            Ok(place) => places.extend(place.map(|place| (place, target.mark.clone()))),
            Err((ancestors, message)) => {
                let status = statuses.of(P::KIND.name(), &meta.name.namespace, &meta.name.name);
                for ancestor in &ancestors {
                    let condition = Condition::not_accepted("TargetNotFound", message.clone());
                    status.add_for(ancestor, condition);
                }
            }
        }
    }
    for selector in &policy.targets().selectors {
        let (names, refused) = selected(selector, P::KIND, meta, resources, findings);
        if names.is_empty() && !refused {
            findings.at(&meta.origin).warning(
                &selector.mark,
                format!("no {} has these labels", selector.kind.name()),
                "give one these labels, or remove the selector",
            );
        }
        for name in names {
            let place = (selector.kind, name, None);
            // What is named and selected is named.
            if places.iter().all(|(other, _)| *other != place) {
                places.push((place, selector.mark.clone()));
            }
        }
    }
    places
}

pub(super) type NotFound = (Vec<Ancestor>, String);

/// The place that a target names. `Ok(None)`: it is there, and has errors of its own.
pub(super) fn named(
    target: &Target,
    meta: &Meta,
    resources: &Resources,
    findings: &mut Findings,
) -> Result<Option<Place>, NotFound> {
    let kind = target.kind;
    let mut scope = findings.at(&meta.origin);
    let Some((_, _, sections)) = lookup(kind, &target.name, resources) else {
        if resources.has(kind.kind(), &target.name) {
            return Ok(None);
        }
        missing(
            resources,
            kind.kind(),
            &target.name,
            &target.mark,
            &mut scope,
        );
        let section = target.section.as_ref().map(|at| at.value.as_str());
        let message = format!("{} {} not found", kind.name(), target.name.name);
        return Err((vec![ancestor(kind, &target.name, section)], message));
    };
    let Some(section) = &target.section else {
        return Ok(Some((kind, target.name.clone(), None)));
    };
    let place = (kind, target.name.clone(), Some(section.value.clone()));
    if sections.contains(&section.as_str()) {
        return Ok(Some(place));
    }
    let what = if kind.is_route() { "rule" } else { "listener" };
    let remedy = if sections.is_empty() {
        format!("none of its {what}s has a name")
    } else {
        suggest::remedy(
            section,
            sections.iter().copied(),
            &format!("its {what}s are"),
        )
    };
    scope.error(
        &section.mark,
        format!(
            "the {} `{}` has no {what} `{}`",
            kind.name(),
            target.name,
            section.value
        ),
        remedy,
    );
    let message = format!(
        "No section name {} found for {} {}",
        section.value,
        kind.name(),
        target.name
    );
    Err((ancestors(&place, resources), message))
}

/// A resource that may be a target: its header, and the names of its sections.
fn lookup<'a>(
    kind: TargetKind,
    name: &Name,
    resources: &'a Resources,
) -> Option<(&'a Name, &'a Labels, Vec<&'a str>)> {
    let (meta, sections): (&Meta, Vec<&str>) = match kind {
        TargetKind::Gateway => {
            let gateway = resources.gateways.get(name)?;
            let names = gateway.listeners.iter().map(|one| one.name.as_str());
            (&gateway.meta, names.collect())
        }
        TargetKind::ListenerSet => {
            let set = resources.listener_sets.get(name)?;
            let names = set.listeners.iter().map(|one| one.name.as_str());
            (&set.meta, names.collect())
        }
        TargetKind::HttpRoute | TargetKind::GrpcRoute => {
            let route = resources.route(route_kind(kind), name)?;
            let names = route.rules.iter().filter_map(|rule| rule.name.as_deref());
            (&route.meta, names.collect())
        }
    };
    Some((&meta.name, &meta.labels, sections))
}

/// The resources with the labels of a selector, where the policy may reach them; and whether there are
/// others where it may not.
fn selected(
    selector: &TargetSelector,
    policy_kind: Kind,
    meta: &Meta,
    resources: &Resources,
    findings: &mut Findings,
) -> (Vec<Name>, bool) {
    let own = &meta.name.namespace;
    let all: Vec<&Name> = match selector.kind {
        TargetKind::Gateway => resources.gateways.keys().collect(),
        TargetKind::ListenerSet => resources.listener_sets.keys().collect(),
        TargetKind::HttpRoute => resources.http_routes.keys().collect(),
        TargetKind::GrpcRoute => resources.grpc_routes.keys().collect(),
    };
    let mut found = Vec::new();
    let mut refused = false;
    for name in all {
        let in_reach = match &selector.namespaces {
            Namespaces::Same => name.namespace == *own,
            Namespaces::All => true,
            Namespaces::Selected(by) => resources
                .namespaces
                .get(&name.namespace)
                .is_some_and(|labels| by.selects(labels)),
        };
        let labelled = lookup(selector.kind, name, resources)
            .is_some_and(|(_, labels, _)| selector.labels.selects(labels));
        if !in_reach || !labelled {
            continue;
        }
        let from = (envoy_gateway::GROUP, policy_kind.name(), own.as_str());
        let to = (gateway_api::GROUP, selector.kind.name(), name);
        if resources.granted(from, to) {
            found.push(name.clone());
        } else {
            refused = true;
            findings.at(&meta.origin).warning(
                &selector.mark,
                format!(
                    "the {} `{name}` is selected, but no ReferenceGrant there allows it",
                    selector.kind.name()
                ),
                format!(
                    "grant it to the kind `{}` of `{own}`, or select from `Same`",
                    policy_kind.name()
                ),
            );
        }
    }
    (found, refused)
}

fn report_deprecated<P: Policy>(policy: &P, statuses: &mut Statuses, findings: &mut Findings) {
    let meta = policy.meta();
    for old in policy.deprecated() {
        findings.at(&meta.origin).warning(
            &old.mark,
            format!("`{}` is deprecated", old.field),
            format!("use `{}`", old.instead),
        );
        let status = statuses.of(P::KIND.name(), &meta.name.namespace, &meta.name.name);
        let ancestors: Vec<Ancestor> = status
            .ancestors
            .iter()
            .map(|status| status.ancestor.clone())
            .collect();
        for ancestor in &ancestors {
            let message = format!("{} is deprecated, use {} instead", old.field, old.instead);
            status.add_for(
                ancestor,
                Condition::new("Warning", true, "DeprecatedField", message),
            );
        }
    }
}

/// The places that a policy with errors is about, as far as they can be found.
pub(super) fn places_of_rejected(rejected: &Rejected, resources: &Resources) -> Vec<Place> {
    let mut unheard = Findings::default();
    let meta = Meta::of_rejected(&rejected.name);
    let mut places = Vec::new();
    for target in &rejected.targets.refs {
        match named(target, &meta, resources, &mut unheard) {
            Ok(place) => places.extend(place),
            // Where the section is not known, all of it may be meant.
            Err(_) => places.push((target.kind, target.name.clone(), None)),
        }
    }
    for selector in &rejected.targets.selectors {
        let kind = Kind::BackendTrafficPolicy;
        let (names, _) = selected(selector, kind, &meta, resources, &mut unheard);
        for name in names {
            places.push((selector.kind, name, None));
        }
    }
    places
}
