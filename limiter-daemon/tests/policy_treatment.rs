//! How backends and requests are treated: by the closest policy, joined with its parents where it says
//! so; and by the last good one, if a new one has errors.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use limiter_daemon::policy::plan::{Backend, BackendSettings, Plan, RouteRule};
use limiter_daemon::policy::{self, Severity};
use proptest::prelude::*;

mod policy_support;

use policy_support::Scratch;

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: eg }
spec:
  listeners: [{ name: http, protocol: HTTP, port: 8080 }]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: { name: demo }
spec:
  endpoints: [{ ip: { address: 127.0.0.1, port: 3000 } }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: api }
spec:
  parentRefs: [{ name: eg }]
  rules:
    - name: orders
      matches: [{ path: { value: /orders } }]
      backendRefs: [{ group: gateway.envoyproxy.io, kind: Backend, name: demo }]
    - backendRefs: [{ group: gateway.envoyproxy.io, kind: Backend, name: demo }]
";

const GATEWAY: &str = "kind: Gateway, name: eg";
const ROUTE: &str = "kind: HTTPRoute, name: api";
const RULE: &str = "kind: HTTPRoute, name: api, sectionName: orders";

fn policy(name: &str, target: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{ name: {name} }}
spec:
  targetRefs: [{{ group: gateway.networking.k8s.io, {target} }}]
{spec}"
    )
}

fn write(dir: &Scratch, policies: &str) {
    std::fs::write(dir.0.join("all.yaml"), format!("{BASE}{policies}")).unwrap();
}

fn rules(plan: &Plan) -> &[RouteRule] {
    &plan.listeners[0].routes[0].rules
}

fn backend<'a>(plan: &'a Plan, rule: &RouteRule) -> &'a Backend {
    &plan.backends[rule.backends[0].backend.unwrap()]
}

#[test]
fn rules_under_the_same_policies_share_what_they_come_to() {
    let dir = Scratch::new("treatment-shared");
    let own = policy("own", RULE, "  loadBalancer: { type: Random }\n");
    let gateway = policy("gw", GATEWAY, "  circuitBreaker: { maxConnections: 7 }\n");
    write(&dir, &gateway);
    let plan = policy::load(&dir.0).plan.unwrap();
    let [first, second] = rules(&plan) else {
        panic!("two rules");
    };
    assert!(Arc::ptr_eq(&first.traffic, &second.traffic));
    assert!(Arc::ptr_eq(&first.limits, &second.limits));
    assert_eq!(plan.backends.len(), 1);

    write(&dir, &format!("{gateway}{own}"));
    let plan = policy::load(&dir.0).plan.unwrap();
    let policies: Vec<&str> = rules(&plan)
        .iter()
        .map(|rule| backend(&plan, rule).policy.as_str())
        .collect();
    assert_eq!(policies, ["default/own", "default/gw"]);
    let names: Vec<&str> = plan.backends.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["default/demo", "default/demo"]);
}

#[test]
fn without_a_policy_the_settings_are_the_defaults() {
    let dir = Scratch::new("treatment-default");
    let limits = "  rateLimit: { local: { rules: [{ limit: { requests: 1, unit: Hour } }] } }\n";
    for policies in [String::new(), policy("gw", GATEWAY, limits)] {
        write(&dir, &policies);
        let plan = policy::load(&dir.0).plan.unwrap();
        let only = backend(&plan, &rules(&plan)[0]);
        assert_eq!(*only.settings, BackendSettings::default());
        assert_eq!(only.policy, "");
    }
}

#[test]
fn of_a_policy_with_errors_the_last_good_version_goes_on() {
    let dir = Scratch::new("treatment-kept");
    let with = |parallel: &str| {
        let spec = format!("  circuitBreaker: {{ maxParallelRequests: {parallel} }}\n");
        policy("p", ROUTE, &spec)
    };
    let parallel = |plan: &Plan| {
        backend(plan, &rules(plan)[0])
            .settings
            .circuit_breaker
            .max_parallel_requests
    };
    write(&dir, &with("3"));
    let good = policy::load(&dir.0);
    assert_eq!(parallel(good.plan.as_ref().unwrap()), 3);

    write(&dir, &with("-1"));
    let kept = policy::reload(&dir.0, &good);
    assert_eq!(kept.count(Severity::Error), 1);
    assert_eq!(kept.kept, ["BackendTrafficPolicy default/p"]);
    assert_eq!(parallel(kept.plan.as_ref().unwrap()), 3);

    // Never valid, it breaks what it is about.
    let outcome = policy::load(&dir.0);
    let plan = outcome.plan.unwrap();
    assert!(rules(&plan).iter().all(|rule| rule.broken.is_some()));
}

/// What one policy says.
#[derive(Clone, Debug)]
struct Said {
    merges: bool,
    connections: Option<u32>,
    parallel: Option<u32>,
    retries: Option<u32>,
    /// Seconds; 0: no bound.
    request: Option<u64>,
    statuses: Option<Vec<u16>>,
}

fn said() -> impl Strategy<Value = Said> {
    (
        any::<bool>(),
        prop::option::of(1..9_u32),
        prop::option::of(1..9_u32),
        prop::option::of(1..9_u32),
        prop::option::of(0..9_u64),
        prop::option::of(prop::collection::vec(400..600_u16, 1..4)),
    )
        .prop_map(
            |(merges, connections, parallel, retries, request, statuses)| Said {
                merges,
                connections,
                parallel,
                retries,
                request,
                statuses,
            },
        )
}

fn written(level: usize, said: &Said) -> String {
    let (name, target) = [("rule", RULE), ("route", ROUTE), ("gw", GATEWAY)][level];
    let mut spec = String::new();
    if said.merges && level < 2 {
        spec.push_str("  mergeType: StrategicMerge\n");
    }
    if said.connections.is_some() || said.parallel.is_some() {
        spec.push_str("  circuitBreaker:\n");
    }
    if let Some(number) = said.connections {
        writeln!(spec, "    maxConnections: {number}").unwrap();
    }
    if let Some(number) = said.parallel {
        writeln!(spec, "    maxParallelRequests: {number}").unwrap();
    }
    if let Some(number) = said.retries {
        writeln!(spec, "  retry: {{ numRetries: {number} }}").unwrap();
    }
    if let Some(seconds) = said.request {
        writeln!(
            spec,
            "  timeout: {{ http: {{ requestTimeout: {seconds}s }} }}"
        )
        .unwrap();
    }
    if let Some(statuses) = &said.statuses {
        let codes: Vec<String> = statuses
            .iter()
            .map(|status| format!("{{ value: {status} }}"))
            .collect();
        writeln!(
            spec,
            "  responseOverride: [{{ match: {{ statusCodes: [{}] }}, response: {{ body: {{ inline: x }} }} }}]",
            codes.join(", ")
        )
        .unwrap();
    }
    policy(name, target, &spec)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_policy_does_not_say_is_as_its_parent_says_it(
        levels in prop::array::uniform3(prop::option::of(said())),
    ) {
        let dir = Scratch::new("treatment-merged");
        let texts = levels.iter().enumerate();
        let texts = texts.filter_map(|(level, said)| Some(written(level, said.as_ref()?)));
        write(&dir, &texts.collect::<String>());
        let outcome = policy::load(&dir.0);
        prop_assert_eq!(outcome.count(Severity::Error), 0);
        let plan = outcome.plan.unwrap();

        // The closest one, and those above it up to the first that does not merge.
        let mut in_force: Vec<&Said> = Vec::new();
        for said in levels.iter().flatten() {
            in_force.push(said);
            if !said.merges {
                break;
            }
        }
        let number = |of: fn(&Said) -> Option<u32>| in_force.iter().find_map(|said| of(said));
        let rule = &rules(&plan)[0];
        let settings = &backend(&plan, rule).settings;
        let breaker = settings.circuit_breaker;
        prop_assert_eq!(breaker.max_connections, number(|said| said.connections).unwrap_or(1024));
        prop_assert_eq!(
            breaker.max_parallel_requests,
            number(|said| said.parallel).unwrap_or(1024)
        );
        let retries = rule.traffic.retry.as_ref().map(|retry| retry.max_retries);
        prop_assert_eq!(retries, number(|said| said.retries));
        let request = in_force.iter().find_map(|said| said.request);
        let request = request.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        prop_assert_eq!(rule.timeouts.request, request);
        let overridden: Vec<u16> = rule
            .traffic
            .overrides
            .iter()
            .flat_map(|one| &one.statuses)
            .map(|range| *range.start())
            .collect();
        let statuses = in_force.iter().find_map(|said| said.statuses.clone());
        prop_assert_eq!(overridden, statuses.unwrap_or_default());
    }
}
