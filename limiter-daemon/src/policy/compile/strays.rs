//! Policies that name a target which is not there, and did not name it before.
//!
//! By itself such a policy is valid, and it would limit nothing. More likely than not the target is
//! misspelt, so the version before it goes on. If the target is gone and the policy names it as ever,
//! nothing would come of that version either.

use super::{attach, gloo, missing};
use crate::policy::envoy_gateway::targets::Target as Named;
use crate::policy::findings::Findings;
use crate::policy::gloo::references::Target as OfGloo;
use crate::policy::kinds::Kind;
use crate::policy::native::network_rate_limit_policy::{NetworkLimit, Target};
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::Resources;

/// Puts the version of `good` in the place of each stray.
pub(crate) fn keep(resources: &mut Resources, good: &Resources, findings: &mut Findings) {
    let mut strays: Vec<(Kind, Meta, String)> = Vec::new();
    let traffic = resources.traffic.iter().map(|(name, policy)| {
        let before = good.traffic.get(name).map(|policy| &policy.targets);
        let targets = &policy.targets;
        (Kind::BackendTrafficPolicy, &policy.meta, targets, before)
    });
    let clients = resources.clients.iter().map(|(name, policy)| {
        let before = good.clients.get(name).map(|policy| &policy.targets);
        let targets = &policy.targets;
        (Kind::ClientTrafficPolicy, &policy.meta, targets, before)
    });
    for (kind, meta, targets, before) in traffic.chain(clients) {
        let Some(before) = before else {
            continue;
        };
        let new = |target: &&Named| !before.refs.iter().any(|old| same(old, target));
        let count = findings.errors();
        for target in targets.refs.iter().filter(new) {
            // What is found here is in the status of the version that goes on.
            let _place = attach::named(target, meta, resources, findings);
        }
        if findings.errors() > count {
            strays.push((kind, meta.clone(), findings.error_after(count)));
        }
    }
    for (name, policy) in &resources.network {
        let Some(before) = good.network.get(name) else {
            continue;
        };
        let count = findings.errors();
        for target in &policy.targets.refs {
            if !before
                .targets
                .refs
                .iter()
                .any(|old| same_gateway(old, target))
            {
                check_gateway(target, policy, resources, findings);
            }
        }
        if findings.errors() > count {
            let reason = findings.error_after(count);
            strays.push((Kind::NetworkRateLimitPolicy, policy.meta.clone(), reason));
        }
    }
    strays.extend(of_gloo(resources, good, findings));
    for (kind, meta, reason) in strays {
        resources.keep(kind, &meta, reason, good, findings);
    }
}

/// Gloo's options, of which `targetRefs` say what they are for.
fn of_gloo(
    resources: &Resources,
    good: &Resources,
    findings: &mut Findings,
) -> Vec<(Kind, Meta, String)> {
    type Options<'a> = Vec<(Kind, &'a Meta, &'a [OfGloo], Option<&'a [OfGloo]>)>;
    let mut options: Options<'_> = Vec::new();
    for (name, one) in &resources.http_listener_options {
        let before = good.http_listener_options.get(name);
        let before = before.map(|one| one.targets.as_slice());
        options.push((Kind::HttpListenerOption, &one.meta, &one.targets, before));
    }
    for (name, one) in &resources.virtual_host_options {
        let before = good.virtual_host_options.get(name);
        let before = before.map(|one| one.targets.as_slice());
        options.push((Kind::VirtualHostOption, &one.meta, &one.targets, before));
    }
    for (name, one) in &resources.route_options {
        let before = good.route_options.get(name);
        let before = before.map(|one| one.targets.as_slice());
        options.push((Kind::RouteOption, &one.meta, &one.targets, before));
    }
    let mut strays = Vec::new();
    for (kind, meta, targets, before) in options {
        let Some(before) = before else {
            continue;
        };
        let section = |target: &OfGloo| target.section.as_ref().map(|at| at.value.clone());
        let same =
            |a: &OfGloo, b: &OfGloo| (a.kind, &a.name, section(a)) == (b.kind, &b.name, section(b));
        let new = |target: &&OfGloo| !before.iter().any(|old| same(old, target));
        let count = findings.errors();
        for target in targets.iter().filter(new) {
            gloo::check_target(target, meta, resources, findings);
        }
        if findings.errors() > count {
            strays.push((kind, meta.clone(), findings.error_after(count)));
        }
    }
    strays
}

fn same(a: &Named, b: &Named) -> bool {
    let section = |target: &Named| target.section.as_ref().map(|at| at.value.clone());
    a.kind == b.kind && a.name == b.name && section(a) == section(b)
}

fn gateway(target: &Target) -> Option<(&Name, Option<&str>)> {
    match target {
        Target::Gateway { name, section, .. } => {
            Some((name, section.as_ref().map(|at| at.value.as_str())))
        }
        Target::Interface(_) => None,
    }
}

fn same_gateway(a: &Target, b: &Target) -> bool {
    gateway(a) == gateway(b)
}

/// An error if the target is a Gateway that is not there, or a listener that it does not have.
fn check_gateway(
    target: &Target,
    policy: &NetworkLimit,
    resources: &Resources,
    findings: &mut Findings,
) {
    let Target::Gateway {
        name,
        mark,
        section,
    } = target
    else {
        return;
    };
    let mut scope = findings.at(&policy.meta.origin);
    let Some(gateway) = resources.gateways.get(name) else {
        missing(resources, Kind::Gateway, name, mark, &mut scope);
        return;
    };
    if let Some(section) = section
        && gateway
            .listeners
            .iter()
            .all(|listener| listener.name != section.value)
    {
        scope.error(
            &section.mark,
            format!("the Gateway `{name}` has no listener `{}`", section.value),
            "name one of its listeners",
        );
    }
}
