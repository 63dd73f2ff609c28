//! Answers in place of others, with the bodies that ConfigMaps hold.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::missing;
use crate::policy::envoy_gateway::backend_traffic_policy::TrafficPolicy;
use crate::policy::envoy_gateway::backend_traffic_policy::response_override::{
    self as raw, Body, MAX_BODY, Override,
};
use crate::policy::findings::{Findings, Mark, Scope};
use crate::policy::kinds::Kind;
use crate::policy::plan::{Replacement, ResponseOverride};
use crate::policy::resource::Name;
use crate::policy::resources::Resources;
use crate::policy::status::{Condition, Statuses};

const PROBLEM: &str = "the body of a response override cannot be found";

/// The overrides of all policies that have some; `None`: a body cannot be found.
#[derive(Debug)]
pub(super) struct Overrides(BTreeMap<Name, Option<Vec<ResponseOverride>>>);

impl Overrides {
    pub(super) fn new(
        resources: &Resources,
        statuses: &mut Statuses,
        findings: &mut Findings,
    ) -> Self {
        let mut all = BTreeMap::new();
        for policy in resources.traffic.values() {
            let Some(overrides) = policy.blocks.overrides() else {
                continue;
            };
            let mut scope = findings.at(&policy.meta.origin);
            let resolved: Vec<Option<ResponseOverride>> = overrides
                .iter()
                .map(|one| resolve(one, resources, &mut scope))
                .collect();
            let resolved: Option<Vec<ResponseOverride>> = resolved.into_iter().collect();
            if resolved.is_none() {
                refuse(policy, statuses);
            }
            all.insert(policy.meta.name.clone(), resolved);
        }
        Self(all)
    }

    fn closest(&self, policies: &[&TrafficPolicy]) -> Option<&Option<Vec<ResponseOverride>>> {
        policies
            .iter()
            .find_map(|policy| self.0.get(&policy.meta.name))
    }

    /// Those of the closest policy that has some.
    pub(super) fn of(&self, policies: &[&TrafficPolicy]) -> Vec<ResponseOverride> {
        self.closest(policies)
            .and_then(Clone::clone)
            .unwrap_or_default()
    }

    /// Why they cannot be applied.
    pub(super) fn problem(&self, policies: &[&TrafficPolicy]) -> Option<String> {
        self.closest(policies)
            .is_some_and(Option::is_none)
            .then(|| PROBLEM.to_owned())
    }
}

fn resolve(
    one: &Override,
    resources: &Resources,
    scope: &mut Scope<'_>,
) -> Option<ResponseOverride> {
    let with = match &one.with {
        raw::Replacement::Redirect(redirect) => Replacement::Redirect(redirect.clone()),
        raw::Replacement::Response(response) => Replacement::Response {
            status: response.status,
            content_type: response.content_type.clone(),
            body: match &response.body {
                None => None,
                Some(Body::Inline(bytes)) => Some(bytes.clone()),
                Some(Body::ConfigMap(name, mark)) => Some(body(name, mark, resources, scope)?),
            },
            headers: response.headers.clone(),
        },
    };
    Some(ResponseOverride {
        statuses: one.statuses.clone(),
        source: one.source,
        with,
    })
}

fn body(name: &Name, mark: &Mark, resources: &Resources, scope: &mut Scope<'_>) -> Option<Bytes> {
    let Some(found) = resources.config_maps.get(name) else {
        missing(resources, Kind::ConfigMap, name, mark, scope);
        return None;
    };
    match &found.body {
        Some(text) if text.len() > MAX_BODY => {
            let message = format!("the ConfigMap `{name}` has {} bytes there", text.len());
            scope.error(mark, message, format!("at most {MAX_BODY} are allowed"));
            None
        }
        Some(text) => Some(Bytes::from(text.clone())),
        None => {
            let message = format!("the ConfigMap `{name}` has no `data`");
            scope.error(mark, message, "give it `data` with `response.body`");
            None
        }
    }
}

fn refuse(policy: &TrafficPolicy, statuses: &mut Statuses) {
    let name = &policy.meta.name;
    let status = statuses.of(
        Kind::BackendTrafficPolicy.name(),
        &name.namespace,
        &name.name,
    );
    let message = "ResponseOverride: the body of a response cannot be found.";
    status.add_for_all(&Condition::not_accepted("Invalid", message));
}
