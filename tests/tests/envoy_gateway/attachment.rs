//! Which policy is in force for a request; and what becomes of requests, and is said, when a policy
//! has errors.

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::daemon::{demo_backend, limiterd};
use tests::netns::Netns;
use tests::policies::{host_route, limited_host, limits};
use tests::scene::Scene;

/// A Gateway with two listeners, and a Backend.
const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners:
  - {name: http, protocol: HTTP, port: 8080}
  - {name: other, protocol: HTTP, port: 8081}
  allowedListeners: {namespaces: {from: Same}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more}
spec:
  parentRef: {name: eg}
  listeners:
  - {name: third, protocol: HTTP, port: 8082}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: demo}
spec:
  endpoints:
  - ip: {address: 127.0.0.1, port: 3000}
";
/// A route with two rules, of which one has a name.
const RULES: &str = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rules}
spec:
  parentRefs: [{name: eg}]
  hostnames: [rules.test]
  rules:
  - name: orders
    matches: [{path: {value: /orders}}]
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: demo}]
  - backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: demo}]
";

fn local(requests: u32) -> String {
    format!("local: {{rules: [{{limit: {{requests: {requests}, unit: Hour}}}}]}}")
}

/// [`limits`] with a `mergeType`, or other fields of `spec`.
fn with(fields: &str, policy: &str) -> String {
    policy.replace("\n  rateLimit:", &format!("\n  {fields}\n  rateLimit:"))
}

#[test]
fn the_closest_policy_is_in_force() -> Result<()> {
    let netns = Netns::new("attach")?;
    let _backend = demo_backend(&netns)?;
    let on = |name: &str, target: &str, requests| limits(name, target, &local(requests));
    let route = |name: &str| format!("kind: HTTPRoute, name: {name}");
    let policies = [
        on("gateway", "kind: Gateway, name: eg", 90),
        on("listener", "kind: Gateway, name: eg, sectionName: other", 80),
        on("set", "kind: ListenerSet, name: more", 85),
        on("route", &route("rules"), 70),
        on("rule", "kind: HTTPRoute, name: rules, sectionName: orders", 60),
        // Joined with the one of the listener, or the Gateway.
        with("mergeType: StrategicMerge", &on("strategic", &route("strategic"), 50)),
        with(
            "mergeType: JSONMerge",
            &limits("json", &route("json"), "global: {rules: [{limit: {requests: 50, unit: Hour}}]}"),
        ),
        with("mergeType: StrategicMerge", &on("deep", "kind: HTTPRoute, name: deep, sectionName: deep", 9)),
        with("mergeType: StrategicMerge", &on("deep-route", &route("deep"), 10)),
        // The oldest is in force, then the first by name; those without an age come last.
        on("age-a", &route("age"), 41),
        on("age-b, creationTimestamp: '2026-01-02T00:00:00Z'", &route("age"), 42),
        on("age-c, creationTimestamp: '2026-01-01T00:00:00Z'", &route("age"), 43),
        on("name-b", &route("name"), 31),
        on("name-a", &route("name"), 32),
        limits("selected", "kind: HTTPRoute, name: selected", &local(20)).replace(
            "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: selected}]",
            "targetSelectors: [{kind: HTTPRoute, matchLabels: {team: a}, matchExpressions: [{key: tier, operator: In, values: [free]}]}]",
        ),
    ];
    let routes = ["plain", "strategic", "json", "age", "name"]
        .map(host_route)
        .concat()
        + RULES
        + &RULES
            .replace("{name: rules}", "{name: deep}")
            .replace("rules.test", "deep.test")
            .replace("orders", "deep")
        + &host_route("third").replace("{name: eg}", "{name: eg}, {kind: ListenerSet, name: more}")
        + &host_route("selected").replace(
            "{name: selected}",
            "{name: selected, labels: {team: a, tier: free}}",
        );
    let files = [
        ("gateway.yaml", GATEWAY),
        ("routes.yaml", &routes),
        ("policies.yaml", &policies.concat()),
    ];
    let scene = Scene::start(netns, &files)?;
    for (port, name, path, wanted) in [
        (8080, "plain", "/", "90, 90;w=3600"),
        (8081, "plain", "/", "80, 80;w=3600"),
        (8080, "rules", "/", "70, 70;w=3600"),
        (8081, "rules", "/", "70, 70;w=3600"),
        (8080, "rules", "/orders/1", "60, 60;w=3600"),
        (8080, "strategic", "/", "50, 50;w=3600, 90;w=3600"),
        (8081, "strategic", "/", "50, 50;w=3600, 80;w=3600"),
        (8080, "third", "/", "90, 90;w=3600"),
        (8082, "third", "/", "85, 85;w=3600"),
        (8080, "deep", "/", "10, 10;w=3600, 90;w=3600"),
        (8080, "deep", "/deep", "9, 9;w=3600, 10;w=3600, 90;w=3600"),
        (8081, "deep", "/deep", "9, 9;w=3600, 10;w=3600, 80;w=3600"),
        (8080, "json", "/", "50, 90;w=3600, 50;w=3600"),
        (8080, "age", "/", "43, 43;w=3600"),
        (8080, "name", "/", "32, 32;w=3600"),
        (8080, "selected", "/", "20, 20;w=3600"),
    ] {
        let host = format!("{name}.test");
        let address = format!("127.0.0.1:{port}");
        let told = scene.ask("GET", &address, path, &[("host", &host)])?;
        let seen = (told.status.as_u16(), told.header("x-ratelimit-limit"));
        assert_eq!(seen, (200, wanted), "{port} {name}{path}");
    }
    for (name, kind, reason) in [
        ("gateway", "Overridden", "Overridden"),
        ("route", "Overridden", "Overridden"),
        ("strategic", "Merged", "Merged"),
        ("rule", "Accepted", "Accepted"),
        ("age-a", "Accepted", "Conflicted"),
        ("name-b", "Accepted", "Conflicted"),
        ("age-c", "Accepted", "Accepted"),
    ] {
        let found = conditions(&scene, name)?;
        let holds = found
            .iter()
            .any(|one| one["type"] == kind && one["reason"] == reason);
        assert!(holds, "{name}: no {kind} {reason} in {found:?}");
    }
    Ok(())
}

/// The conditions of a BackendTrafficPolicy, for all its ancestors.
fn conditions(scene: &Scene, name: &str) -> Result<Vec<Value>> {
    let status = scene.status("BackendTrafficPolicy", name)?;
    let all = status["ancestors"].as_array().context("no ancestors")?;
    let all = all.iter().filter_map(|one| one["conditions"].as_array());
    Ok(all.flatten().cloned().collect())
}

/// What `limiterd check` says of the files: its exit code, and its report.
fn check(scene: &Scene) -> Result<(Option<i32>, Value)> {
    let dir = scene.policies.path().to_str().context("not UTF-8")?;
    let output = limiterd(&["check", "--format", "json", dir])?;
    Ok((
        output.status.code(),
        serde_json::from_slice(&output.stdout)?,
    ))
}

#[test]
fn a_policy_with_errors_breaks_its_routes_only_and_its_last_good_version_goes_on() -> Result<()> {
    let netns = Netns::new("invalid")?;
    let _backend = demo_backend(&netns)?;
    let good = limits("p", "kind: HTTPRoute, name: one", &local(5));
    let bad = good.replace("requests: 5", "requests: 0");
    let routes = host_route("one")
        + &limited_host("two", &local(9))
        + RULES
        + &limits(
            "rule",
            "kind: HTTPRoute, name: rules, sectionName: orders",
            &local(0),
        );
    let files = [
        ("gateway.yaml", GATEWAY),
        ("routes.yaml", &routes),
        ("p.yaml", &bad),
    ];
    let scene = Scene::start(netns, &files)?;

    // Never valid.
    let told = scene.get("one", "/", &[])?;
    scene.expect(&told, 500, [""; 4]);
    assert_eq!(told.text(), "a policy on this route is not valid");
    let told = scene.get("two", "/", &[])?;
    scene.expect(&told, 200, ["9, 9;w=3600", "8", "400", ""]);
    assert_eq!(scene.get("rules", "/orders", &[])?.status, 500);
    assert_eq!(scene.get("rules", "/", &[])?.status, 200);
    let invalid = |told: &Value| told["status"] == "False" && told["reason"] == "Invalid";
    let accepted = |scene: &Scene| -> Result<Value> {
        let all = conditions(scene, "p")?;
        let found = all.into_iter().find(|one| one["type"] == "Accepted");
        found.context("it is not said whether it is accepted")
    };
    let said = accepted(&scene)?;
    assert!(invalid(&said), "{said}");
    let (code, report) = check(&scene)?;
    assert_eq!((code, &report["errors"]), (Some(1), &Value::from(2)));
    let about = report["findings"].as_array().context("no findings")?.iter();
    let about: Vec<_> = about
        .filter(|one| one["resource"] == "BackendTrafficPolicy default/p")
        .collect();
    assert_eq!(about.len(), 1, "{report}");
    assert_eq!(
        about[0]["field"],
        "spec.rateLimit.local.rules[0].limit.requests"
    );

    // Valid.
    scene.policies.write("p.yaml", &good)?;
    let kept =
        |config: &Value, wanted: &[&str]| config["last_load"]["kept"] == serde_json::json!(wanted);
    let in_force = |config: &Value| config["plan"].to_string().contains("default/p/rule/0");
    scene
        .daemon
        .file_change(&scene.netns, |config| in_force(config) && kept(config, &[]))?;
    for left in ["4", "3"] {
        assert_eq!(
            scene.get("one", "/", &[])?.header("x-ratelimit-remaining"),
            left
        );
    }
    assert_eq!(accepted(&scene)?["status"], "True");

    // Not any more: what was in force goes on, with its buckets.
    scene.policies.write("p.yaml", &bad)?;
    let name = "BackendTrafficPolicy default/p";
    scene
        .daemon
        .file_change(&scene.netns, |config| kept(config, &[name]))?;
    for left in ["2", "1", "0"] {
        let told = scene.get("one", "/", &[])?;
        assert_eq!(
            (told.status.as_u16(), told.header("x-ratelimit-remaining")),
            (200, left)
        );
    }
    let told = scene.get("one", "/", &[])?;
    scene.expect(&told, 429, ["5, 5;w=3600", "0", "3600", "720"]);
    let said = accepted(&scene)?;
    assert!(invalid(&said), "{said}");
    let message = said["message"].as_str().context("no message")?;
    assert!(
        message.ends_with("; its last good version goes on."),
        "{message}"
    );
    assert_eq!(check(&scene)?.0, Some(1));

    // Removed on purpose: gone.
    scene.policies.write("p.yaml", "---\n")?;
    scene
        .daemon
        .file_change(&scene.netns, |config| !in_force(config))?;
    scene.expect(&scene.get("one", "/", &[])?, 200, [""; 4]);
    Ok(())
}

#[test]
fn requests_may_pass_without_the_limits_of_a_policy_that_was_never_valid() -> Result<()> {
    const UNLIMITED: &str = "\
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {name: limiterd}
spec: {http: {onInvalidPolicy: Unlimited}}
";
    let netns = Netns::new("unlimited")?;
    let _backend = demo_backend(&netns)?;
    let routes = limited_host("one", &local(0)) + &limited_host("two", &local(1));
    let files = [
        ("gateway.yaml", GATEWAY),
        ("routes.yaml", &routes),
        ("config.yaml", UNLIMITED),
    ];
    let scene = Scene::start(netns, &files)?;
    for _ in 0..3 {
        scene.expect(&scene.get("one", "/", &[])?, 200, [""; 4]);
    }
    assert_eq!(scene.statuses("two", &[], 2)?, [200, 429]);
    Ok(())
}
