//! Which BackendTrafficPolicy is in force on what.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::envoy_gateway::backend_traffic_policy::{Target, TargetKind, TrafficPolicy};
use crate::policy::findings::Findings;
use crate::policy::kinds::Kind;
use crate::policy::plan::{Listener, PolicyLimits};
use crate::policy::resource::Name;
use crate::policy::resources::Resources;

use super::missing;

/// The policy in force on each target that has one.
#[derive(Debug, Default)]
pub(super) struct Policies<'a> {
    by_target: BTreeMap<(TargetKind, &'a Name), (&'a TrafficPolicy, &'a Target)>,
}

impl<'a> Policies<'a> {
    /// The limits of a route on a Gateway: a policy of its own replaces the Gateway's as a whole.
    pub(super) fn limits(&self, route: &'a Name, gateway: &'a Name) -> Option<&'a PolicyLimits> {
        self.by_target
            .get(&(TargetKind::HttpRoute, route))
            .or_else(|| self.by_target.get(&(TargetKind::Gateway, gateway)))
            .and_then(|(policy, _)| policy.limits.as_ref())
    }
}

/// Resolves all targets. Of two policies on one target the older wins, then the first by name.
pub(super) fn attach<'a>(resources: &'a Resources, findings: &mut Findings) -> Policies<'a> {
    let mut policies = Policies::default();
    let mut ordered: Vec<&TrafficPolicy> = resources.traffic.values().collect();
    ordered.sort_by_key(|policy| policy.meta.precedence());
    for policy in ordered {
        let mut named = BTreeSet::new();
        for target in &policy.targets {
            let mut scope = findings.at(&policy.meta.origin);
            let kind = target.kind.kind();
            if !named.insert((target.kind, &target.name)) {
                scope.error(
                    &target.mark,
                    format!("the {kind} is named twice"),
                    "keep one of them",
                );
                continue;
            }
            let key = match target.kind {
                TargetKind::Gateway => Kind::Gateway,
                TargetKind::HttpRoute => Kind::HttpRoute,
            };
            missing(resources, key, &target.name, &target.mark, &mut scope);
            let place = (target.kind, &target.name);
            match policies.by_target.get(&place) {
                Some((winner, _)) => {
                    let message = format!(
                        "not enforced on {kind} `{}` (Conflicted): `{}` is older or comes first by name",
                        target.name, winner.meta.name
                    );
                    scope.warning(&target.mark, message, "join the two, or remove one");
                }
                None => {
                    policies.by_target.insert(place, (policy, target));
                }
            }
        }
    }
    policies
}

/// Warns of limits on a Gateway that no route is under; of no use beside errors, which may be the reason.
pub(super) fn warn_unused(
    policies: &Policies<'_>,
    listeners: &[Listener],
    findings: &mut Findings,
) {
    if findings.has_errors() {
        return;
    }
    for ((kind, name), (policy, target)) in &policies.by_target {
        let Some(limits) = policy
            .limits
            .as_ref()
            .filter(|_| *kind == TargetKind::Gateway)
        else {
            continue;
        };
        let prefix = format!("{name}/");
        let used = listeners
            .iter()
            .filter(|listener| listener.name.starts_with(&prefix))
            .flat_map(|listener| &listener.routes)
            .flat_map(|route| &route.rules)
            .flat_map(|rule| &rule.limits.local)
            .any(|own| own.policy == limits.policy);
        if !used {
            findings.at(&policy.meta.origin).warning(
                &target.mark,
                format!("no route of Gateway `{name}` is under this policy, so it limits nothing there"),
                "a route's own policy replaces its Gateway's: remove one, or add a route without a policy",
            );
        }
    }
}
