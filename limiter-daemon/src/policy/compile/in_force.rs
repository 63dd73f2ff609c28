//! Which policies are in force on a rule of a route at a listener.
//!
//! Of the places route rule, route, listener and Gateway, the first that has a policy decides; with
//! `mergeType` it is joined with the next one's, and so on up to one without.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attach::{self, Attached, Place, target_kind};
use super::overrides::Overrides;
use super::topology::Entry;
use super::treatment::{Treatment, Upstream};
use crate::policy::envoy_gateway::backend_traffic_policy::TrafficPolicy;
use crate::policy::envoy_gateway::targets::TargetKind;
use crate::policy::findings::Findings;
use crate::policy::gateway_api::route::{Route, Rule};
use crate::policy::kinds::Kind;
use crate::policy::resource::Name;
use crate::policy::resources::{Rejected, Resources};
use crate::policy::status::{Condition, Statuses};

/// Policies that were never valid, by what they are about.
#[derive(Debug, Default)]
pub(super) struct Broken<'a> {
    by_place: BTreeMap<Place, &'a Rejected>,
}

impl<'a> Broken<'a> {
    /// Those of the kinds that `of` says.
    pub(super) fn find(resources: &'a Resources, of: impl Fn(&str) -> bool) -> Self {
        let mut by_place = BTreeMap::new();
        for rejected in &resources.rejected {
            if rejected.is_policy && !rejected.kept && of(&rejected.kind) {
                for place in attach::places_of_rejected(rejected, resources) {
                    by_place.entry(place).or_insert(rejected);
                }
            }
        }
        Self { by_place }
    }

    pub(super) fn at(&self, place: &Place) -> Option<&'a Rejected> {
        self.by_place.get(place).copied()
    }
}

/// What to tell of a rule that is answered with 500.
pub(super) fn reason(rejected: &Rejected) -> String {
    format!("the {} is invalid: {}", rejected.label(), rejected.reason)
}

/// The places whose policies may apply at a listener, the closest first.
pub(super) fn places_of_entry(entry: &Entry<'_>) -> Vec<Place> {
    let section = || Some(entry.listener.name.clone());
    let gateway = (TargetKind::Gateway, entry.gateway.meta.name.clone());
    let mut places = Vec::new();
    match entry.set {
        Some(set) => {
            let name = &set.meta.name;
            places.push((TargetKind::ListenerSet, name.clone(), section()));
            places.push((TargetKind::ListenerSet, name.clone(), None));
        }
        None => places.push((gateway.0, gateway.1.clone(), section())),
    }
    places.push((gateway.0, gateway.1, None));
    places
}

/// Finds the policies in force, and remembers which were.
pub(super) struct InForce<'a> {
    attached: &'a Attached<'a, TrafficPolicy>,
    overrides: &'a Overrides,
    unlimited_if_invalid: bool,
    broken: Broken<'a>,
    /// Every policy that says what is asked about requests, and of a kind that is not known.
    strange: Broken<'a>,
    /// Routes by the policy and place that were in force on them.
    used: BTreeMap<(Name, Place), BTreeSet<String>>,
    overridden: BTreeMap<(Name, Place), BTreeSet<String>>,
    /// By policy and place, the policies that it was joined with.
    merged: BTreeMap<(Name, Place), BTreeSet<Name>>,
    treatments: BTreeMap<Vec<Name>, Arc<Treatment<'a>>>,
    upstreams: BTreeMap<Vec<Name>, Upstream<'a>>,
}

impl<'a> InForce<'a> {
    /// With `unlimited_if_invalid`, policies that were never valid are passed over.
    pub(super) fn new(
        resources: &'a Resources,
        attached: &'a Attached<'a, TrafficPolicy>,
        overrides: &'a Overrides,
        unlimited_if_invalid: bool,
    ) -> Self {
        let own = Kind::BackendTrafficPolicy.name();
        let known = [own, Kind::ClientTrafficPolicy.name()];
        let breaks = |kind: &str| kind == own && !unlimited_if_invalid;
        let passes = |kind: &str| kind == Kind::HttpRateLimitPolicy.name() && unlimited_if_invalid;
        Self {
            attached,
            overrides,
            unlimited_if_invalid,
            broken: Broken::find(resources, breaks),
            strange: Broken::find(resources, |kind| !known.contains(&kind) && !passes(kind)),
            used: BTreeMap::new(),
            overridden: BTreeMap::new(),
            merged: BTreeMap::new(),
            treatments: BTreeMap::new(),
            upstreams: BTreeMap::new(),
        }
    }

    /// What a rule is under, and why it is broken, if it is.
    pub(super) fn on(
        &mut self,
        route: &Route,
        rule: &Rule,
        entry: &Entry<'_>,
    ) -> (Arc<Treatment<'a>>, Option<String>) {
        let kind = target_kind(route.kind);
        let mut places: Vec<Place> = Vec::new();
        if let Some(name) = &rule.name {
            places.push((kind, route.meta.name.clone(), Some(name.clone())));
        }
        places.push((kind, route.meta.name.clone(), None));
        places.extend(places_of_entry(entry));

        let label = route.meta.name.to_string();
        let mut chosen: Vec<(&'a TrafficPolicy, Place)> = Vec::new();
        let mut broken = places
            .iter()
            .find_map(|place| self.strange.at(place))
            .map(reason);
        let mut decided = false;
        for place in places {
            match (self.attached.at(&place), self.broken.at(&place)) {
                (Some(policy), _) => {
                    let key = (policy.meta.name.clone(), place.clone());
                    let chronicle = if decided {
                        &mut self.overridden
                    } else {
                        &mut self.used
                    };
                    chronicle.entry(key).or_default().insert(label.clone());
                    if !decided {
                        decided = policy.merge.is_none();
                        chosen.push((policy, place));
                    }
                }
                (None, Some(rejected)) if !decided => {
                    broken = broken.or_else(|| Some(reason(rejected)));
                    decided = true;
                }
                _ => {}
            }
        }
        if let Some(((first, place), rest)) = chosen.split_first()
            && !rest.is_empty()
        {
            let key = (first.meta.name.clone(), place.clone());
            self.merged
                .entry(key)
                .or_default()
                .extend(rest.iter().map(|(policy, _)| policy.meta.name.clone()));
        }
        let mut policies: Vec<&'a TrafficPolicy> = Vec::new();
        for (policy, _) in chosen {
            // One that is attached at two places applies once.
            if policies
                .iter()
                .all(|other| other.meta.name != policy.meta.name)
            {
                policies.push(policy);
            }
        }
        if !self.unlimited_if_invalid {
            broken = broken.or_else(|| self.overrides.problem(&policies));
        }
        (self.treatment(&policies), broken)
    }

    fn treatment(&mut self, policies: &[&'a TrafficPolicy]) -> Arc<Treatment<'a>> {
        let key: Vec<Name> = names(policies);
        if let Some(found) = self.treatments.get(&key) {
            return Arc::clone(found);
        }
        let about_backends: Vec<&TrafficPolicy> = policies
            .iter()
            .copied()
            .filter(|policy| policy.blocks.is_about_backends())
            .collect();
        // Policies that say nothing of backends leave them as they are.
        let upstream = self
            .upstreams
            .entry(names(&about_backends))
            .or_insert_with(|| Upstream::new(&about_backends))
            .clone();
        let treatment = Arc::new(Treatment::new(policies, self.overrides, upstream));
        self.treatments.insert(key, Arc::clone(&treatment));
        treatment
    }

    /// Adds to the statuses which policies were overridden and merged, and warns of those that
    /// nothing is under.
    pub(super) fn report(
        &self,
        resources: &Resources,
        statuses: &mut Statuses,
        findings: &mut Findings,
    ) {
        let quiet = findings.errors() > 0;
        for (place, policy, mark) in self.attached.all() {
            let key = (policy.meta.name.clone(), place.clone());
            let used = self.used.contains_key(&key);
            let conditions = self.conditions(&key, used);
            let name = &policy.meta.name;
            let status = statuses.of(
                Kind::BackendTrafficPolicy.name(),
                &name.namespace,
                &name.name,
            );
            for ancestor in attach::ancestors(place, resources) {
                for condition in &conditions {
                    status.add_for(&ancestor, condition.clone());
                }
            }
            let limits = &policy.limits;
            let limiting = limits.local.is_some() || limits.global.is_some();
            let nothing = !limiting && policy.blocks.is_empty();
            if used || quiet || nothing || place.0.is_route() {
                continue;
            }
            let (kind, target, section) = place;
            let section = match section {
                Some(section) => format!("/{section}"),
                None => String::new(),
            };
            findings.at(&policy.meta.origin).warning(
                mark,
                format!(
                    "no route of {} `{target}{section}` is under this policy, so it {} nothing there",
                    kind.name(),
                    if limiting { "limits" } else { "does" }
                ),
                "a route's own policy replaces its Gateway's: remove one, or add a route without a policy",
            );
        }
    }

    fn conditions(&self, key: &(Name, Place), used: bool) -> Vec<Condition> {
        let mut conditions = Vec::new();
        let listed = |routes: &BTreeSet<String>| {
            let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
            routes.join(" ")
        };
        if let Some(routes) = self.overridden.get(key) {
            let message = format!(
                "This policy is being overridden by other backendTrafficPolicies for these routes: [{}]",
                listed(routes)
            );
            conditions.push(Condition::new("Overridden", true, "Overridden", message));
        } else if !used {
            conditions.push(Condition::new(
                "Warning",
                true,
                "NoAttachedRoutes",
                "No route that this policy can be applied to is attached to its target.",
            ));
        }
        if let Some(parents) = self.merged.get(key) {
            let names: Vec<String> = parents.iter().map(ToString::to_string).collect();
            let message = format!("Merged with policy {}", names.join(", "));
            conditions.push(Condition::new("Merged", true, "Merged", message));
        }
        conditions
    }
}

fn names(policies: &[&TrafficPolicy]) -> Vec<Name> {
    policies
        .iter()
        .map(|policy| policy.meta.name.clone())
        .collect()
}
