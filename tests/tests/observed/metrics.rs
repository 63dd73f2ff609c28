//! A real scrape: promtool finds nothing to complain of, and it is what the catalogue declares; a
//! Prometheus reads it, and every alert and every panel of the dashboard has an answer there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use http::Request;
use http_body_util::Full;
use limiter_daemon::admin::metrics::catalogue::ALL;
use limiter_daemon::admin::metrics::{Format, Kind};
use serde_json::Value;
use tests::daemon::{ADMIN, eventually};
use tests::http_client::{Speak, many};
use tests::prometheus::{Prometheus, promtool};

use crate::support::{LIMIT, Node};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path)
}

/// Names of the metrics that a page tells the type of.
fn declared(page: &str) -> BTreeSet<&str> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}

#[test]
fn a_scrape_is_what_the_catalogue_declares_and_promtool_likes_it() -> Result<()> {
    let node = Node::start()?;
    for name in ["local", "global", "tried", "treated", "named"] {
        node.ask(name, LIMIT + 2)?;
    }
    let scrape = node.admin("/metrics")?;
    assert_eq!(
        scrape.header("content-type"),
        Format::Classic.content_type()
    );
    let page = scrape.text();
    let checked = promtool(&["check", "metrics"], &page)?;
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "{said}");

    let all = ALL.iter().flat_map(|(_, metrics)| *metrics);
    let catalogue: BTreeSet<String> = all.clone().map(|metric| metric.sample()).collect();
    let catalogue: BTreeSet<&str> = catalogue.iter().map(String::as_str).collect();
    let found = declared(&page);
    assert_eq!(
        found.difference(&catalogue).collect::<Vec<_>>(),
        Vec::<&&str>::new()
    );
    assert_eq!(
        catalogue.difference(&found).collect::<Vec<_>>(),
        Vec::<&&str>::new()
    );

    for configured in [
        "\nlimiterd_rls_limit_tokens{domain=\"shop\",key1=\"user\"} 2\n",
        "\nlimiterd_rls_limit_tokens_per_second{domain=\"shop\",key1=\"user\"} 0.00055",
    ] {
        assert!(page.contains(configured), "{configured}");
    }

    // Those without samples here: nothing of the kind is configured or has happened.
    let silent = |name: &str| {
        let begins = [
            format!("\n{name} "),
            format!("\n{name}{{"),
            format!("\n{name}_bucket{{"),
        ];
        !begins.iter().any(|begin| page.contains(begin.as_str()))
    };
    let silent: Vec<&str> = found.iter().copied().filter(|name| silent(name)).collect();
    let expected = [
        "envoy_cluster_ratelimit_",
        "envoy_tcp_",
        "limiterd_asked_service_",
        "limiterd_log_lines_left_out_",
        "limiterd_rate_limit_refunded_",
        "limiterd_rate_limit_response_",
        "limiterd_rate_limit_unmetered_",
        "limiterd_runtime_percent",
        "limiterd_tcp_",
    ];
    let unexpected = |name: &&&str| !expected.iter().any(|begin| name.starts_with(begin));
    assert_eq!(
        silent.iter().filter(unexpected).collect::<Vec<_>>(),
        Vec::<&&str>::new()
    );
    Ok(())
}

#[test]
fn numbers_are_those_of_the_requests() -> Result<()> {
    let node = Node::start()?;
    assert_eq!(node.ask("local", LIMIT + 2)?, [200, 200, 200, 429, 429]);
    assert_eq!(node.ask("global", LIMIT + 1)?, [200, 200, 200, 429]);
    assert_eq!(node.ask("tried", 3)?, [200; 3]);
    let metrics = node.daemon.metrics(node.netns())?;
    let of = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    let local = [
        (
            "envoy_local_http_ratelimit_prefix",
            "http_local_rate_limiter",
        ),
        ("route", "default/local"),
    ];
    assert_eq!(of("envoy_http_local_rate_limit_enabled", &local), 5.0);
    assert_eq!(of("envoy_http_local_rate_limit_ok", &local), 3.0);
    assert_eq!(of("envoy_http_local_rate_limit_rate_limited", &local), 2.0);
    assert_eq!(of("envoy_http_local_rate_limit_enforced", &local), 2.0);
    let tried = [("route", "default/tried")];
    assert_eq!(of("envoy_http_local_rate_limit_rate_limited", &tried), 1.0);
    assert_eq!(of("envoy_http_local_rate_limit_enforced", &tried), 0.0);
    let global = [("route", "default/global")];
    assert_eq!(of("envoy_http_ratelimit_over_limit", &global), 1.0);
    assert_eq!(of("envoy_http_local_rate_limit_enabled", &global), 0.0);
    let decided = |decision| {
        let labels = [("decision", decision)];
        of("limiterd_added_latency_seconds_count", &labels)
    };
    assert_eq!([decided("forwarded"), decided("answered")], [9.0, 3.0]);
    let demo = [
        ("envoy_cluster_name", "default/demo"),
        ("envoy_response_code_class", "2"),
    ];
    assert_eq!(of("envoy_cluster_upstream_rq_xx", &demo), 9.0);

    // What is configured.
    let rule = [
        ("limit", "local"),
        ("rule", "default/local/rule/0"),
        ("candidate", ""),
    ];
    assert_eq!(of("limiterd_rate_limit_tokens", &rule), 3.0);
    let rate = of("limiterd_rate_limit_tokens_per_second", &rule);
    assert!((rate - 3.0 / 3600.0).abs() < 1e-9, "{rate}");
    let candidate = [("rule", "default/tried/rule/0"), ("candidate", "tighter")];
    assert_eq!(of("limiterd_rate_limit_tokens", &candidate), 1.0);
    let edge = [
        ("policy", "default/edge"),
        ("class", "default"),
        ("unit", "connections"),
    ];
    assert_eq!(of("limiterd_xdp_limit", &edge), 1000.0);
    assert_eq!(of("limiterd_xdp_limit_per_second", &edge).round(), 100.0);
    let breaker = [
        ("envoy_cluster_name", "default/treated"),
        ("resource", "requests"),
    ];
    assert_eq!(of("limiterd_circuit_breaker_limit", &breaker), 100.0);
    Ok(())
}

#[test]
fn a_reload_changes_what_limits_are_said_to_be() -> Result<()> {
    let node = Node::start()?;
    let edge = tests::policies::network("edge", "  packets: {maxTokens: 70, tokensPerFill: 7}\n");
    node.policies.write("network.yaml", &edge)?;
    node.daemon.reload(node.netns())?;
    let metrics = node.daemon.metrics(node.netns())?;
    let of = |unit| {
        let labels = [("policy", "default/edge"), ("unit", unit)];
        metrics.sum("limiterd_xdp_limit", &labels)
    };
    assert_eq!([of("packets"), of("connections")], [70.0, 0.0]);
    Ok(())
}

#[test]
fn who_asks_for_open_metrics_gets_them() -> Result<()> {
    let node = Node::start()?;
    let request = Request::get(format!("http://{ADMIN}/metrics"))
        .header(
            "accept",
            "application/openmetrics-text;version=1.0.0,*/*;q=0.1",
        )
        .body(Full::default())?;
    let answers = node.netns().enter(|| many(Speak::Http1, vec![request]))?;
    let answer = answers.first().context("no answer")?;
    let kind = answer.header("content-type");
    assert_eq!(kind, Format::OpenMetrics.content_type());
    let page = answer.text();
    assert!(page.ends_with("# EOF\n"));
    let names: BTreeSet<&str> = ALL
        .iter()
        .flat_map(|(_, all)| *all)
        .map(|one| one.name)
        .collect();
    assert_eq!(declared(&page), names);
    for (_, metrics) in ALL {
        for metric in metrics.iter().filter(|metric| metric.kind == Kind::Known) {
            let line = format!("# TYPE {} unknown\n", metric.name);
            assert!(page.contains(&line), "{line}");
        }
    }
    Ok(())
}

#[test]
fn the_rules_play_as_written() -> Result<()> {
    let rules = deploy("prometheus/limiterd.rules.yaml");
    let checked = promtool(&["check", "rules", &rules.to_string_lossy()], "")?;
    ensure!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let played = deploy("prometheus/limiterd.rules.test.yaml");
    let tested = promtool(&["test", "rules", &played.to_string_lossy()], "")?;
    ensure!(
        tested.status.success(),
        "{}{}",
        String::from_utf8_lossy(&tested.stdout),
        String::from_utf8_lossy(&tested.stderr)
    );
    Ok(())
}

/// Every expression of the dashboard, as Grafana would ask it with all nodes chosen.
fn expressions() -> Result<Vec<String>> {
    let dashboard = std::fs::read_to_string(deploy("grafana/limiterd.json"))?;
    let dashboard: Value = serde_json::from_str(&dashboard)?;
    let panels = dashboard["panels"].as_array().context("it has no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let expressions = targets
        .flatten()
        .filter_map(|target| target["expr"].as_str());
    let asked = expressions.map(|one| {
        one.replace("$__rate_interval", "1m")
            .replace("$job", ".*")
            .replace("$instance", ".*")
    });
    Ok(asked.collect())
}

#[test]
fn a_prometheus_has_an_answer_for_every_panel_and_evaluates_every_rule() -> Result<()> {
    let node = Node::start()?;
    let rules = deploy("prometheus/limiterd.rules.yaml");
    let rules = std::fs::canonicalize(rules)?;
    let prometheus = Prometheus::start(node.netns(), &rules)?;
    let expressions = expressions()?;
    assert!(expressions.len() > 40, "{}", expressions.len());
    for name in ["local", "global", "tried", "treated", "named"] {
        node.ask(name, LIMIT + 2)?;
    }
    for expression in &expressions {
        eventually(&format!("an answer to {expression}"), || {
            let samples = prometheus.query(node.netns(), expression)?;
            Ok((!samples.is_empty()).then_some(()))
        })?;
    }
    // A target that is scraped as OpenMetrics, without an error.
    let targets = prometheus.api(node.netns(), "targets")?;
    let target = &targets["activeTargets"][0];
    assert_eq!(
        [&target["health"], &target["lastError"]],
        ["up", ""],
        "{target}"
    );

    let evaluated = eventually("every rule to be evaluated", || {
        let data = prometheus.api(node.netns(), "rules")?;
        let rules = data["groups"][0]["rules"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let all = !rules.is_empty() && rules.iter().all(|rule| rule["health"] != "unknown");
        Ok(all.then_some(rules))
    })?;
    for rule in evaluated {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
    Ok(())
}
