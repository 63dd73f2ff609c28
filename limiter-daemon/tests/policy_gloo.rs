//! Gloo's dialect: which bucket each route draws from, and what holds where parts are missing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails, fails the test"
)]

use std::collections::BTreeMap;

use limiter_common::Protocol;
use limiter_daemon::policy::plan::{Plan, Quota, RouteRule, Scope, SourceLimits};
use limiter_daemon::policy::{self, Outcome, Severity};

mod policy_support;

use policy_support::Scratch;

const UPSTREAM: &str = "
apiVersion: gloo.solo.io/v1
kind: Upstream
metadata: { name: shop }
spec: { static: { hosts: [{ addr: 127.0.0.1, port: 3000 }] } }
";

fn load(name: &str, text: &str) -> Outcome {
    let dir = Scratch::new(name);
    std::fs::write(dir.0.join("gloo.yaml"), text).unwrap();
    policy::load(&dir.0)
}

fn good(name: &str, text: &str) -> Plan {
    let outcome = load(name, text);
    assert_eq!(outcome.diagnostics, [], "{text}");
    outcome.plan.unwrap()
}

/// The name of the bucket that a rule draws from, and what it holds.
fn bucket(rule: &RouteRule) -> Option<(String, u64)> {
    let [limits] = rule.limits.local.as_slice() else {
        assert!(rule.limits.local.is_empty(), "one bucket at most");
        return None;
    };
    assert_eq!(limits.rules.len(), 0);
    let limit = limits.default.as_ref().unwrap();
    assert!(limit.shared, "one bucket for all that is under it");
    let Quota::Limited { limit: tokens, .. } = limit.quota else {
        panic!("{:?}", limit.quota);
    };
    Some((limit.name.clone(), tokens.capacity))
}

/// By virtual service and rule.
fn buckets(plan: &Plan) -> BTreeMap<String, Option<(String, u64)>> {
    let mut found = BTreeMap::new();
    for route in plan.listeners.iter().flat_map(|one| &one.routes) {
        for rule in &route.rules {
            let name = format!("{} {}", route.name, rule.name.as_deref().unwrap());
            found.insert(name, bucket(rule));
        }
    }
    found
}

/// The levels of limits, the widest first; what of the route `own` of the virtual service `a` each
/// is called, and how many tokens it has in these tests.
const LEVELS: [(&str, u64); 4] = [
    ("Gateway/default/http", 10),
    ("VirtualService/default/a", 20),
    ("VirtualService/default/a/virtualHost", 30),
    ("VirtualService/default/a/route/own", 40),
];

/// A gateway with two virtual services of two routes each, limited at the levels that are `set`: all
/// but the gateway's only on the first virtual service, and the route's only on its first route.
fn levels(set: [bool; 4]) -> String {
    let tokens = |level: usize| LEVELS[level].1;
    let at_gateway = if set[0] {
        format!("{{ defaultLimit: {{ maxTokens: {} }} }}", tokens(0))
    } else {
        "{ enableXRatelimitHeaders: false }".to_owned()
    };
    let option = |level: usize| {
        let limit = format!("localRatelimit: {{ maxTokens: {} }}", tokens(level));
        let limit = if set[level] { limit } else { String::new() };
        format!("{{ ratelimit: {{ {limit} }} }}")
    };
    let (service, host, route) = (option(1), option(2), option(3));
    format!(
        "{UPSTREAM}
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{ name: http }}
spec: {{ bindPort: 8080, httpGateway: {{ options: {{ httpLocalRatelimit: {at_gateway} }} }} }}
---
apiVersion: gateway.solo.io/v1
kind: VirtualHostOption
metadata: {{ name: of-a }}
spec:
  targetRefs: [{{ group: gateway.solo.io, kind: VirtualService, name: a }}]
  options: {service}
---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {{ name: a }}
spec:
  virtualHost:
    domains: [a.example]
    options: {host}
    routes:
      - name: own
        matchers: [{{ prefix: /own }}]
        options: {route}
        routeAction: {{ single: {{ upstream: {{ name: shop }} }} }}
      - name: other
        routeAction: {{ single: {{ upstream: {{ name: shop }} }} }}
---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {{ name: b }}
spec:
  virtualHost:
    domains: [b.example]
    routes:
      - name: own
        matchers: [{{ prefix: /own }}]
        routeAction: {{ single: {{ upstream: {{ name: shop }} }} }}
      - name: other
        routeAction: {{ single: {{ upstream: {{ name: shop }} }} }}
"
    )
}

#[test]
fn the_most_specific_of_four_levels_is_drawn_from_and_the_rest_stay_shared() {
    for bits in 0..16_u8 {
        let set = [0, 1, 2, 3].map(|level| bits & (1 << level) != 0);
        let found = buckets(&good(&format!("gloo-levels-{bits}"), &levels(set)));
        // The most specific level of the first `up_to` ones that has a limit.
        let drawn = |up_to: usize| {
            let level = (0..up_to).rev().find(|level| set[*level])?;
            let (name, tokens) = LEVELS[level];
            Some((format!("{name}/localRatelimit"), tokens))
        };
        let expected = BTreeMap::from([
            ("VirtualService/default/a own".to_owned(), drawn(4)),
            ("VirtualService/default/a other".to_owned(), drawn(3)),
            ("VirtualService/default/b own".to_owned(), drawn(1)),
            ("VirtualService/default/b other".to_owned(), drawn(1)),
        ]);
        assert_eq!(found, expected, "{set:?}");
    }
}

const DELEGATED: &str = "
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: { name: http }
spec: { bindPort: 8080, httpGateway: {} }
---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: { name: shop }
spec:
  virtualHost:
    domains: ['*']
    routes:
      - name: items
        matchers: [{ prefix: /items }]
        options: { ratelimit: { localRatelimit: { maxTokens: 5 } } }
        delegateAction: { ref: { name: items } }
---
apiVersion: gateway.solo.io/v1
kind: RouteOption
metadata: { name: slow }
spec: { options: { ratelimit: { localRatelimit: { maxTokens: 2, tokensPerFill: 1, fillInterval: 50ms } } } }
---
apiVersion: gateway.solo.io/v1
kind: RouteTable
metadata: { name: items }
spec:
  routes:
    - name: one
      matchers: [{ prefix: /items/1 }]
      routeAction: { single: { upstream: { name: shop } } }
    - name: two
      matchers: [{ prefix: /items/2 }]
      routeAction: { single: { upstream: { name: shop } } }
    - name: slow
      matchers: [{ prefix: /items/slow }]
      optionsConfigRefs: { delegateOptions: [{ name: slow }] }
      routeAction: { single: { upstream: { name: shop } } }
";

#[test]
fn delegated_routes_share_the_bucket_of_the_route_above() {
    let plan = good("gloo-delegated", &format!("{UPSTREAM}{DELEGATED}"));
    let above = "VirtualService/default/shop/route/items/localRatelimit";
    let shared = Some((above.to_owned(), 5));
    let own = "RouteOption/default/slow/RouteTable/default/items/route/slow/localRatelimit";
    let name = |route: &str| format!("VirtualService/default/shop items/default/items/{route}");
    let expected = BTreeMap::from([
        (name("one"), shared.clone()),
        (name("two"), shared),
        (name("slow"), Some((own.to_owned(), 2))),
    ]);
    assert_eq!(buckets(&plan), expected);
}

#[test]
fn options_that_were_never_valid_leave_nothing_unlimited() {
    let text = levels([true; 4]).replace("maxTokens: 20 }", "maxTokens: 0 }");
    let outcome = load("gloo-invalid-option", &text);
    assert_eq!(
        outcome.count(Severity::Error),
        1,
        "{:?}",
        outcome.diagnostics
    );
    let plan = outcome.plan.unwrap();
    let rules: Vec<&RouteRule> = plan.listeners[0]
        .routes
        .iter()
        .flat_map(|route| &route.rules)
        .collect();
    assert_eq!(rules.len(), 4);
    for rule in rules {
        let why = rule.broken.as_deref().unwrap();
        assert!(why.contains("VirtualHostOption default/of-a"), "{why}");
    }
}

#[test]
fn options_with_errors_go_on_as_they_were() {
    let dir = Scratch::new("gloo-kept-option");
    let file = dir.0.join("gloo.yaml");
    let text = levels([false, true, false, false]);
    std::fs::write(&file, &text).unwrap();
    let before = policy::load(&dir.0);
    std::fs::write(&file, text.replace("maxTokens: 20 }", "maxTokens: 0 }")).unwrap();
    let after = policy::reload(&dir.0, &before);
    assert_eq!(after.kept, ["VirtualHostOption default/of-a"]);
    let plan = after.plan.unwrap();
    assert_eq!(buckets(&plan), buckets(&before.plan.unwrap()));
    let rule = &plan.listeners[0].routes[0].rules[0];
    assert_eq!(rule.broken, None);
}

#[test]
fn options_whose_target_is_misspelt_anew_go_on_as_they_were() {
    let dir = Scratch::new("gloo-stray-option");
    let file = dir.0.join("gloo.yaml");
    let text = levels([false, true, false, false]);
    std::fs::write(&file, &text).unwrap();
    let before = policy::load(&dir.0);
    let misspelt = text.replace(
        "kind: VirtualService, name: a }",
        "kind: VirtualService, name: aa }",
    );
    assert_ne!(misspelt, text);
    std::fs::write(&file, misspelt).unwrap();
    let after = policy::reload(&dir.0, &before);
    assert_eq!(after.kept, ["VirtualHostOption default/of-a"]);
    assert_eq!(
        buckets(&after.plan.unwrap()),
        buckets(&before.plan.unwrap())
    );
}

/// Settings that cannot be read may hold any limit, so nothing begins without them.
#[test]
fn nothing_starts_with_settings_that_are_wrong() {
    let settings = "
---
apiVersion: gloo.solo.io/v1
kind: Settings
metadata: { name: default }
spec: { ratelimit: { descriptors: [{ key: '', weight: 1 }] } }
";
    let outcome = load("gloo-settings", &format!("{}{settings}", levels([true; 4])));
    assert_eq!(outcome.count(Severity::Error), 1);
    assert!(outcome.plan.is_none());
}

/// Files of all dialects in one directory; two Gateways of one name are two.
#[test]
fn dialects_lie_side_by_side() {
    let others = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: http }
spec: { listeners: [{ name: web, protocol: HTTP, port: 8090 }] }
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: { name: shop }
spec: { endpoints: [{ ip: { address: 127.0.0.1, port: 3000 } }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: a }
spec:
  parentRefs: [{ name: http }]
  rules: [{ backendRefs: [{ group: gateway.envoyproxy.io, kind: Backend, name: shop }] }]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: { name: http }
spec:
  targetRefs: [{ group: gateway.networking.k8s.io, kind: Gateway, name: http }]
  rateLimit: { local: { rules: [{ limit: { requests: 7, unit: Second } }] } }
---
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: { name: limiterd }
spec: { rls: { listen: '127.0.0.1:8081' } }
---
domain: shop
descriptors: [{ key: remote_address, rate_limit: { unit: second, requests_per_unit: 5 } }]
";
    let plan = good(
        "gloo-side-by-side",
        &format!("{}{others}", levels([true; 4])),
    );
    let names: Vec<&str> = plan.listeners.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["default/http/web", "Gateway/default/http"]);
    let rule = &plan.listeners[0].routes[0].rules[0];
    assert_eq!(rule.limits.local[0].policy, "default/http");
    assert_eq!(plan.backends.len(), 2);
    assert_eq!(plan.domains.len(), 1);
}

#[test]
fn connections_are_limited_for_all_sources_and_for_each() {
    let text = "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: { name: limiterd }
spec: { interfaces: [{ name: lo }] }
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: { name: http }
spec:
  bindPort: 8080
  httpGateway:
    options:
      networkLocalRatelimit:
        maxTokens: 100
        limiterd: { perSource: { maxTokens: 5, prefixLength: { ipv4: 24 } } }
";
    let plan = good("gloo-per-source", text);
    let [policy] = plan.network.as_slice() else {
        panic!("{:?}", plan.network);
    };
    assert_eq!(policy.name, "Gateway/default/http");
    assert_eq!(policy.ports, [(Protocol::Tcp, 8080)]);
    let SourceLimits::Levels(levels) = &policy.default else {
        panic!("{:?}", policy.default);
    };
    let found: Vec<(Scope, u64)> = levels
        .iter()
        .map(|level| (level.scope, level.connections.unwrap().capacity))
        .collect();
    let each = Scope::Source { v4: 24, v6: 64 };
    assert_eq!(found, [(each, 5), (Scope::Listener, 100)]);
}

/// A Gateway of Gateway API with two listeners and a route of two rules; which of Gloo's options are
/// `set`: on the Gateway, on its first listener, for hosts on the Gateway, for hosts on the first
/// listener, on the route, on its first rule.
fn on_gateway_api(set: [bool; 6]) -> String {
    let mut text = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: eg }
spec:
  listeners:
    - { name: web, protocol: HTTP, port: 8080 }
    - { name: other, protocol: HTTP, port: 8081 }
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: { name: shop }
spec: { endpoints: [{ ip: { address: 127.0.0.1, port: 3000 } }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: a }
spec:
  parentRefs: [{ name: eg }]
  rules:
    - name: own
      matches: [{ path: { value: /own } }]
      backendRefs: [{ group: gateway.envoyproxy.io, kind: Backend, name: shop }]
    - name: rest
      backendRefs: [{ group: gateway.envoyproxy.io, kind: Backend, name: shop }]
"
    .to_owned();
    let limit = |level: usize| format!("maxTokens: {}", (level + 1) * 10);
    for (level, _) in (0..).zip(set).filter(|(_, set)| *set) {
        let limit = limit(level);
        let (kind, options) = match level {
            0 | 1 => (
                "HttpListenerOption",
                format!("httpLocalRatelimit: {{ defaultLimit: {{ {limit} }} }}"),
            ),
            2 | 3 => (
                "VirtualHostOption",
                format!("ratelimit: {{ localRatelimit: {{ {limit} }} }}"),
            ),
            _ => (
                "RouteOption",
                format!("ratelimit: {{ localRatelimit: {{ {limit} }} }}"),
            ),
        };
        let target = match level {
            0 | 2 => "kind: Gateway, name: eg",
            1 | 3 => "kind: Gateway, name: eg, sectionName: web",
            4 => "kind: HTTPRoute, name: a",
            _ => "kind: HTTPRoute, name: a, sectionName: own",
        };
        text.push_str(&format!(
            "
---
apiVersion: gateway.solo.io/v1
kind: {kind}
metadata: {{ name: level-{level} }}
spec:
  targetRefs: [{{ group: gateway.networking.k8s.io, {target} }}]
  options: {{ {options} }}
"
        ));
    }
    text
}

#[test]
fn options_on_gateway_apis_resources_hold_as_on_gloos() {
    const NAMES: [&str; 4] = [
        "HttpListenerOption/default/level-0/Gateway/default/eg",
        "HttpListenerOption/default/level-1/Gateway/default/eg/web",
        "VirtualHostOption/default/level-2/Gateway/default/eg",
        "VirtualHostOption/default/level-3/Gateway/default/eg/web",
    ];
    for bits in 0..64_u8 {
        let set = [0, 1, 2, 3, 4, 5].map(|level| bits & (1 << level) != 0);
        let plan = good(&format!("gloo-on-gateway-api-{bits}"), &on_gateway_api(set));
        for (listener, section) in plan.listeners.iter().zip(["web", "other"]) {
            for (rule, name) in listener.routes[0].rules.iter().zip(["own", "rest"]) {
                let above = |level: usize| match level {
                    1 | 3 => section == "web",
                    5 => name == "own",
                    _ => true,
                };
                let level = (0..6).rev().find(|level| set[*level] && above(*level));
                let expected = level.map(|level| {
                    let option = format!("RouteOption/default/level-{level}");
                    let of_rule = format!("{option}/HTTPRoute/default/a/rule/{name}");
                    let label = NAMES
                        .get(level)
                        .map_or(of_rule, |label| (*label).to_owned());
                    (format!("{label}/localRatelimit"), (level as u64 + 1) * 10)
                });
                assert_eq!(bucket(rule), expected, "{set:?}: {section} {name}");
            }
        }
    }
}

#[test]
fn what_an_option_that_was_never_valid_is_for_is_not_served() {
    let text = on_gateway_api([false, false, false, false, false, true]);
    let outcome = load(
        "gloo-never-valid",
        &text.replace("maxTokens: 60", "maxTokens: 0"),
    );
    let plan = outcome.plan.unwrap();
    let broken: Vec<bool> = plan
        .listeners
        .iter()
        .flat_map(|listener| &listener.routes[0].rules)
        .map(|rule| rule.broken.is_some())
        .collect();
    assert_eq!(broken, [true, false, true, false]);
    // Nobody can tell what this one is for.
    let outcome = load("gloo-no-target", &text.replace("sectionName", "section"));
    assert_eq!(
        outcome.count(Severity::Error),
        1,
        "{:?}",
        outcome.diagnostics
    );
    assert!(outcome.plan.is_none());
}

#[test]
fn a_name_that_the_kernel_has_no_room_for_is_an_error() {
    let gateway = |namespace: usize, name: usize| {
        format!(
            "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{ name: limiterd }}
spec: {{ interfaces: [{{ name: lo }}] }}
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{ name: {}, namespace: {} }}
spec:
  bindPort: 8080
  httpGateway: {{ options: {{ networkLocalRatelimit: {{ maxTokens: 5 }} }} }}
",
            "g".repeat(name),
            "n".repeat(namespace)
        )
    };
    // `Gateway/`, and the slash between.
    let fits = good("gloo-longest-name", &gateway(253, 508 - 253 - 9));
    assert_eq!(fits.network.len(), 1);
    let outcome = load("gloo-long-name", &gateway(253, 508 - 253 - 8));
    let [found] = outcome.diagnostics.as_slice() else {
        panic!("{:?}", outcome.diagnostics);
    };
    assert!(found.message.contains("509 bytes"), "{found}");
    assert!(found.message.contains("not enforced"), "{found}");
    let field = "spec.httpGateway.options.networkLocalRatelimit";
    assert_eq!(found.field.as_deref(), Some(field), "{found}");
}
