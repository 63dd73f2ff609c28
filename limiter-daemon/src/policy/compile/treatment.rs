//! What policies in force together come to: limits, what is done to requests, and how backends are
//! treated. It is made once for the same policies.

use std::sync::Arc;
use std::time::Duration;

use super::overrides::Overrides;
use crate::policy::envoy_gateway::backend_traffic_policy::{Blocks, TrafficPolicy};
use crate::policy::findings::{Findings, Mark, Origin};
use crate::policy::gateway_api::route::Rule;
use crate::policy::plan::{
    Backend, BackendSettings, Endpoint, PolicyLimits, RateLimits, RouteTraffic,
};
use crate::policy::resource::Name;

/// What the rules under the same policies share.
#[derive(Debug)]
pub(super) struct Treatment<'a> {
    pub(super) limits: Arc<RateLimits>,
    traffic: Arc<RouteTraffic>,
    /// For rules that say nothing of it themselves.
    pub(super) request_timeout: Option<Duration>,
    pub(super) upstream: Upstream<'a>,
}

/// How backends are treated.
#[derive(Clone, Debug, Default)]
pub(super) struct Upstream<'a> {
    /// Those that say so, the closest first.
    pub(super) policies: Vec<Name>,
    pub(super) settings: Arc<BackendSettings>,
    /// Where it says how many endpoints may be ejected.
    ejection: Option<(&'a Origin, &'a Mark)>,
}

/// The blocks of all `policies`, of which the first is the closest.
fn joined(policies: &[&TrafficPolicy]) -> Blocks {
    policies
        .iter()
        .rev()
        .fold(Blocks::default(), |parent, policy| {
            policy.blocks.clone().joined(&parent)
        })
}

fn label(policies: &[Name]) -> String {
    let names: Vec<String> = policies.iter().map(ToString::to_string).collect();
    names.join("+")
}

impl<'a> Treatment<'a> {
    pub(super) fn new(
        policies: &[&'a TrafficPolicy],
        overrides: &Overrides,
        upstream: Upstream<'a>,
    ) -> Self {
        let of = |limits: fn(&TrafficPolicy) -> Option<&PolicyLimits>| {
            policies
                .iter()
                .filter_map(|policy| limits(policy).cloned())
                .collect()
        };
        let blocks = joined(policies);
        let names: Vec<Name> = policies
            .iter()
            .map(|policy| policy.meta.name.clone())
            .collect();
        Self {
            limits: Arc::new(RateLimits {
                local: of(|policy| policy.limits.local.as_ref()),
                global: of(|policy| policy.limits.global.as_ref()),
            }),
            traffic: Arc::new(RouteTraffic {
                overrides: overrides.of(policies),
                ..blocks.route_traffic(label(&names))
            }),
            request_timeout: blocks.request_timeout().and_then(|bound| bound.0),
            upstream,
        }
    }

    /// What is done to the requests of a rule, whose own `retry` goes before the policies'.
    pub(super) fn traffic_of(&self, rule: &Rule) -> Arc<RouteTraffic> {
        match &rule.retry {
            None => Arc::clone(&self.traffic),
            Some(own) => Arc::new(RouteTraffic {
                retry: own.clone(),
                ..RouteTraffic::clone(&self.traffic)
            }),
        }
    }
}

impl<'a> Upstream<'a> {
    pub(super) fn new(policies: &[&'a TrafficPolicy]) -> Self {
        let ejection = policies.iter().find_map(|policy| {
            let mark = policy.blocks.ejection_mark()?;
            Some((&policy.meta.origin, mark))
        });
        Self {
            policies: policies
                .iter()
                .map(|policy| policy.meta.name.clone())
                .collect(),
            settings: Arc::new(joined(policies).backend_settings()),
            ejection,
        }
    }

    /// As [`Backend::policy`] has it.
    pub(super) fn label(&self) -> String {
        label(&self.policies)
    }

    /// Warns if so few endpoints as `backend` has are never ejected.
    pub(super) fn warn_of_ejection(&self, backend: &Backend, findings: &mut Findings) {
        let (Some((origin, mark)), Some(outliers)) =
            (self.ejection, &self.settings.outlier_detection)
        else {
            return;
        };
        let count = backend.endpoints.len();
        // A name may stand for any number of them.
        let known = !backend
            .endpoints
            .iter()
            .any(|endpoint| matches!(endpoint, Endpoint::Fqdn(..)));
        let percent = usize::try_from(outliers.max_ejection_percent).unwrap_or(100);
        if !known || count == 0 || outliers.always_eject_one || count * percent >= 100 {
            return;
        }
        let of = if count == 1 {
            "its one endpoint".to_owned()
        } else {
            format!("its {count} endpoints")
        };
        findings.at(origin).warning(
            mark,
            format!(
                "`{}` never has an endpoint ejected: {percent} % of {of} is none",
                backend.name
            ),
            format!(
                "write at least `maxEjectionPercent: {}`, or `alwaysEjectOneEndpoint: true`",
                100_usize.div_ceil(count)
            ),
        );
    }
}
