//! Rules of `rateLimit`: local and global together, several at once, blocks, shadows, costs, and what
//! clients are told.

use anyhow::Result;
use tests::daemon::demo_backend;
use tests::http_client::Answer;
use tests::netns::Netns;
use tests::policies::{GATEWAY, host_route, limited_host, limits};
use tests::scene::Scene;

const A: (&str, &str) = ("x-a", "1");
const B: (&str, &str) = ("x-b", "1");

#[test]
fn local_and_global_must_both_admit() -> Result<()> {
    let netns = Netns::new("both")?;
    let _backend = demo_backend(&netns)?;
    let both = limited_host(
        "both",
        "local: {rules: [{limit: {requests: 4, unit: Hour}}]},
    global: {rules: [{clientSelectors: [{headers: [{name: x-a, value: '1'}]}], limit: {requests: 2, unit: Hour}}]}",
    );
    let first = limited_host(
        "first",
        "local: {rules: [{clientSelectors: [{headers: [{name: x-a, value: '1'}]}], limit: {requests: 2, unit: Hour}}]},
    global: {rules: [{limit: {requests: 4, unit: Hour}}]}",
    );
    let files = [
        ("gateway.yaml", GATEWAY),
        ("both.yaml", &both),
        ("first.yaml", &first),
    ];
    let scene = Scene::start(netns, &files)?;

    let told = scene.get("both", "/", &[A])?;
    scene.expect(&told, 200, ["2, 4;w=3600, 2;w=3600", "1", "1800", ""]);
    let told = scene.get("both", "/", &[A])?;
    scene.expect(&told, 200, ["2, 4;w=3600, 2;w=3600", "0", "3600", ""]);
    for _ in 0..3 {
        let told = scene.get("both", "/", &[A])?;
        scene.expect(&told, 429, ["2, 4;w=3600, 2;w=3600", "0", "3600", "1800"]);
    }
    // What the global limit denied has its local tokens back.
    let told = scene.get("both", "/", &[])?;
    scene.expect(&told, 200, ["4, 4;w=3600", "1", "2700", ""]);
    assert_eq!(scene.statuses("both", &[], 2)?, [200, 429]);

    // What the local limit denies is no request to the global one.
    assert_eq!(scene.statuses("first", &[A], 5)?, [200, 200, 429, 429, 429]);
    let told = scene.get("first", "/", &[])?;
    scene.expect(&told, 200, ["4, 4;w=3600", "1", "2700", ""]);
    assert_eq!(scene.statuses("first", &[], 2)?, [200, 429]);

    let page = scene.metrics()?;
    let decided = |name, rule, decision| {
        let labels = [("rule", rule), ("decision", decision)];
        [page.sum(name, &labels)]
    };
    for (name, rule, decision, wanted) in [
        (
            "limiterd_local_rate_limit_total",
            "default/both/rule/0",
            "ok",
            4.0,
        ),
        (
            "limiterd_local_rate_limit_total",
            "default/both/rule/0",
            "over_limit",
            1.0,
        ),
        (
            "limiterd_global_rate_limit_total",
            "default/both/rule/0",
            "ok",
            2.0,
        ),
        (
            "limiterd_global_rate_limit_total",
            "default/both/rule/0",
            "over_limit",
            3.0,
        ),
        (
            "limiterd_local_rate_limit_total",
            "default/first/rule/0",
            "over_limit",
            3.0,
        ),
        (
            "limiterd_global_rate_limit_total",
            "default/first/rule/0",
            "ok",
            4.0,
        ),
    ] {
        assert_eq!(
            decided(name, rule, decision),
            [wanted],
            "{name} {rule} {decision}"
        );
    }
    Ok(())
}

#[test]
fn all_matching_rules_are_charged_and_any_denies() -> Result<()> {
    let netns = Netns::new("many")?;
    let _backend = demo_backend(&netns)?;
    let many = limited_host(
        "many",
        "global: {rules: [
      {clientSelectors: [{headers: [{name: x-a, value: '1'}]}], limit: {requests: 3, unit: Hour}},
      {clientSelectors: [{headers: [{name: x-b, value: '1'}]}], limit: {requests: 5, unit: Hour}},
      {limit: {requests: 100, unit: Hour}}]}",
    );
    let strictest = limited_host(
        "strictest",
        "local: {rules: [
      {clientSelectors: [{headers: [{name: x-a, value: '1'}]}], limit: {requests: 3, unit: Hour}},
      {clientSelectors: [{headers: [{name: x-b, value: '1'}]}], limit: {requests: 2, unit: Hour}},
      {limit: {requests: 4, unit: Hour}}]}",
    );
    let blocked = limited_host(
        "blocked",
        "global: {rules: [
      {clientSelectors: [{headers: [{name: x-a, value: '1'}]}], limit: {requests: 0, unit: Hour}},
      {limit: {requests: 10, unit: Hour}}]}",
    );
    let files = [
        ("gateway.yaml", GATEWAY),
        ("many.yaml", &many),
        ("strictest.yaml", &strictest),
        ("blocked.yaml", &blocked),
    ];
    let scene = Scene::start(netns, &files)?;

    assert_eq!(scene.statuses("many", &[A, B], 3)?, [200; 3]);
    let all = "3, 3;w=3600, 5;w=3600, 100;w=3600";
    for _ in 0..2 {
        let told = scene.get("many", "/", &[A, B])?;
        scene.expect(&told, 429, [all, "0", "3600", "1200"]);
    }
    // Who is denied is charged by none of them: two of five are left, and 95 of a hundred at last.
    assert_eq!(scene.statuses("many", &[B], 2)?, [200; 2]);
    let told = scene.get("many", "/", &[B])?;
    scene.expect(&told, 429, ["5, 5;w=3600, 100;w=3600", "0", "3600", "720"]);
    // The longest wait is told.
    let told = scene.get("many", "/", &[A, B])?;
    scene.expect(&told, 429, [all, "0", "3600", "1200"]);
    let told = scene.get("many", "/", &[])?;
    scene.expect(&told, 200, ["100, 100;w=3600", "94", "216", ""]);

    // Of local ones, that without selectors is for what no other matches.
    assert_eq!(scene.statuses("strictest", &[A, B], 3)?, [200, 200, 429]);
    let told = scene.get("strictest", "/", &[A])?;
    scene.expect(&told, 200, ["3, 3;w=3600", "0", "3600", ""]);
    assert_eq!(
        scene.statuses("strictest", &[], 5)?,
        [200, 200, 200, 200, 429]
    );

    let told = scene.get("blocked", "/", &[A])?;
    scene.expect(&told, 429, ["0, 0;w=3600, 10;w=3600", "0", "0", ""]);
    let told = scene.get("blocked", "/", &[])?;
    scene.expect(&told, 200, ["10, 10;w=3600", "9", "360", ""]);
    Ok(())
}

#[test]
fn buckets_are_of_a_route_unless_shared() -> Result<()> {
    let netns = Netns::new("shared")?;
    let _backend = demo_backend(&netns)?;
    let policy = limits(
        "gateway",
        "kind: Gateway, name: eg",
        "global: {rules: [
      {clientSelectors: [{headers: [{name: x-a, value: '1'}]}], shared: true, limit: {requests: 3, unit: Hour}},
      {clientSelectors: [{headers: [{name: x-b, value: '1'}]}], limit: {requests: 3, unit: Hour}}]}",
    );
    let routes = host_route("one") + &host_route("two");
    let files = [
        ("gateway.yaml", GATEWAY),
        ("routes.yaml", &routes),
        ("policy.yaml", &policy),
    ];
    let scene = Scene::start(netns, &files)?;
    assert_eq!(scene.statuses("one", &[A], 2)?, [200; 2]);
    assert_eq!(scene.statuses("two", &[A], 2)?, [200, 429]);
    assert_eq!(scene.statuses("one", &[A], 1)?, [429]);
    assert_eq!(scene.statuses("one", &[B], 4)?, [200, 200, 200, 429]);
    assert_eq!(scene.statuses("two", &[B], 4)?, [200, 200, 200, 429]);
    Ok(())
}

/// Listeners on 8080, with headers, and on 8081, without them.
const TWO: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners:
  - {name: http, protocol: HTTP, port: 8080}
  - {name: quiet, protocol: HTTP, port: 8081}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: demo}
spec:
  endpoints:
  - ip: {address: 127.0.0.1, port: 3000}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: quiet}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: eg, sectionName: quiet}]
  headers: {disableRateLimitHeaders: true, enableEnvoyHeaders: true}
";

#[test]
fn shadows_and_switches_of_headers() -> Result<()> {
    let netns = Netns::new("switches")?;
    let _backend = demo_backend(&netns)?;
    let one = |name, more| {
        let rule = format!("global: {{rules: [{{limit: {{requests: 2, unit: Hour}}{more}}}]}}");
        limited_host(name, &rule)
    };
    let files = [
        ("gateway.yaml", TWO),
        ("shadow.yaml", &one("shadow", ", shadowMode: true")),
        ("plain.yaml", &one("plain", "")),
        ("off.yaml", &one("never", ", xRateLimitHeaders: 'Off'")),
        (
            "on.yaml",
            &one("always", ", xRateLimitHeaders: DraftVersion03"),
        ),
    ];
    let scene = Scene::start(netns, &files)?;
    for _ in 0..5 {
        scene.expect(&scene.get("shadow", "/", &[])?, 200, [""; 4]);
    }
    let labels = |decision| [("rule", "default/shadow/rule/0"), ("decision", decision)];
    let name = "limiterd_global_rate_limit_total";
    scene.counted(name, &labels("ok"), 2.0)?;
    scene.counted(name, &labels("shadow_over_limit"), 3.0)?;
    scene.counted(name, &labels("over_limit"), 0.0)?;

    let quiet = |name: &str| {
        scene.ask(
            "GET",
            "127.0.0.1:8081",
            "/",
            &[("host", &format!("{name}.test"))],
        )
    };
    let last = |name| -> Result<(Answer, Answer)> {
        assert_eq!(scene.statuses(name, &[], 2)?, [200; 2]);
        Ok((scene.get(name, "/", &[])?, quiet(name)?))
    };
    let (loud, silent) = last("plain")?;
    scene.expect(&loud, 429, ["2, 2;w=3600", "0", "3600", "1800"]);
    assert_eq!(loud.header("x-envoy-ratelimited"), "");
    scene.expect(&silent, 429, [""; 4]);
    assert_eq!(silent.header("x-envoy-ratelimited"), "true");
    let (loud, silent) = last("never")?;
    scene.expect(&loud, 429, ["", "", "", "1800"]);
    scene.expect(&silent, 429, [""; 4]);
    let (loud, silent) = last("always")?;
    scene.expect(&loud, 429, ["2, 2;w=3600", "0", "3600", "1800"]);
    scene.expect(&silent, 429, ["2, 2;w=3600", "0", "3600", ""]);
    Ok(())
}

#[test]
fn units_and_costs() -> Result<()> {
    let netns = Netns::new("units")?;
    let _backend = demo_backend(&netns)?;
    let units = [
        ("Second", 1),
        ("Minute", 60),
        ("Hour", 3600),
        ("Day", 86_400),
        ("Month", 2_592_000),
        ("Year", 31_536_000),
    ];
    let rules = units.map(|(unit, _)| {
        format!("{{clientSelectors: [{{headers: [{{name: x-unit, value: {unit}}}]}}], limit: {{requests: 10, unit: {unit}}}}}")
    });
    let units_of = limited_host(
        "units",
        &format!("local: {{rules: [{}]}}", rules.join(", ")),
    );
    let costs = limited_host(
        "costs",
        "global: {rules: [{limit: {requests: 10, unit: Hour}, cost: {request: {from: Number, number: 3}}}]}",
    );
    let after = limited_host(
        "after",
        "global: {rules: [{limit: {requests: 10, unit: Hour},
      cost: {request: {from: Number, number: 0}, response: {from: Number, number: 6}}}]}",
    );
    let files = [
        ("gateway.yaml", GATEWAY),
        ("units.yaml", &units_of),
        ("costs.yaml", &costs),
        ("after.yaml", &after),
    ];
    let scene = Scene::start(netns, &files)?;
    for (unit, seconds) in units {
        let told = scene.get("units", "/", &[("x-unit", unit)])?;
        let (limit, reset) = (format!("10, 10;w={seconds}"), f64::from(seconds) / 10.0);
        let reset = format!("{}", reset.ceil());
        scene.expect(&told, 200, [&limit, "9", &reset, ""]);
    }

    for left in ["7", "4", "1"] {
        assert_eq!(
            scene
                .get("costs", "/", &[])?
                .header("x-ratelimit-remaining"),
            left
        );
    }
    // Three tokens are needed, one is there, and one comes in six minutes.
    let told = scene.get("costs", "/", &[])?;
    scene.expect(&told, 429, ["10, 10;w=3600", "1", "3240", "720"]);

    // A request of cost 0 is only checked. The response is paid for when it is over, also beyond what
    // is there: two tokens are owed at last.
    let labels = [("rule", "default/after/rule/0")];
    for (left, paid) in [("10", 6.0), ("4", 12.0)] {
        let told = scene.get("after", "/", &[])?;
        assert_eq!(
            (told.status.as_u16(), told.header("x-ratelimit-remaining")),
            (200, left)
        );
        scene.counted("limiterd_rate_limit_response_tokens_total", &labels, paid)?;
    }
    let told = scene.get("after", "/", &[])?;
    scene.expect(&told, 429, ["10, 10;w=3600", "0", "4320", "1080"]);
    Ok(())
}
