//! What is said of the metrics, held to the catalogue: `docs/metrics.md` is made of it, and every
//! metric that an alert or the Grafana dashboard asks for is in it, with the labels it is asked by.
//!
//! `BLESS=1 cargo test -p limiter-daemon --test metrics` writes `docs/metrics.md` anew.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use limiter_daemon::admin::metrics::catalogue::ALL;
use limiter_daemon::admin::metrics::{Declared, Kind};
use regex::Regex;
use serde_json::Value;

const INTRODUCTION: &str = "\
# Metrics

Every metric of `GET /metrics` on the admin address. This file is made of the catalogue in
`limiter-daemon/src/admin/metrics/catalogue.rs`; a test holds a real scrape to it.

The page is in the classic text format, or in OpenMetrics for who asks for it (`Accept`), as Prometheus
does. Where Envoy or its rate limit service has a name for what is counted, it has that name here, so that
dashboards made for them go on working; those counters have no type, because their names do not end in
`_total`. Labels are bounded by the policy files: never an address, a path or a header's value. A metric
that nothing is configured for is left out, or has no samples.

Alerts: [deploy/prometheus/limiterd.rules.yaml](../deploy/prometheus/limiterd.rules.yaml). A dashboard for
Grafana: [deploy/grafana/limiterd.json](../deploy/grafana/limiterd.json).
";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn all() -> impl Iterator<Item = &'static Declared> {
    ALL.iter().flat_map(|(_, metrics)| *metrics)
}

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (chapter, metrics) in ALL {
        write!(text, "\n## {chapter}\n\n").unwrap();
        text.push_str("| metric | labels | kind | unit | |\n|---|---|---|---|---|\n");
        for metric in *metrics {
            let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            writeln!(
                text,
                "| `{}` | {} | {} | {} | {} |",
                metric.sample(),
                labels.join(", "),
                metric.kind.name(),
                metric.unit,
                metric.help
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn the_document_says_what_the_catalogue_says() {
    let path = workspace().join("docs/metrics.md");
    let expected = document();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, expected, "BLESS=1 writes it anew");
}

#[test]
fn names_and_labels_are_what_prometheus_wants() {
    let name = Regex::new("^[a-z][a-z0-9_]*[a-z0-9]$").unwrap();
    let mut names = BTreeSet::new();
    for metric in all() {
        assert!(names.insert(metric.sample()), "{} twice", metric.name);
        assert!(name.is_match(metric.name), "{}", metric.name);
        let of_others = ["envoy_", "ratelimit_service_"];
        let of_others = of_others.iter().any(|begin| metric.name.starts_with(begin));
        assert!(
            of_others || metric.name.starts_with("limiterd_"),
            "{}",
            metric.name
        );
        assert!(
            !of_others || metric.kind != Kind::Counter,
            "{}",
            metric.name
        );
        let known = [Kind::Known, Kind::KnownGauge].contains(&metric.kind);
        assert!(!metric.name.ends_with("_total") || known, "{}", metric.name);
        assert!(
            metric.help.ends_with('.') && !metric.help.contains('|'),
            "{}",
            metric.name
        );
        for label in metric.labels {
            assert!(name.is_match(label), "{}: {label}", metric.name);
            assert!(
                !["le", "quantile", "job", "instance"].contains(label),
                "{label}"
            );
        }
    }
}

/// What an expression may ask for: samples, and the labels that each has.
fn askable() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut askable = BTreeMap::new();
    for metric in all() {
        let mut labels: BTreeSet<_> = metric.labels.iter().copied().collect();
        labels.extend(["job", "instance"]);
        if metric.kind == Kind::Histogram {
            for part in ["sum", "count"] {
                askable.insert(format!("{}_{part}", metric.name), labels.clone());
            }
            labels.insert("le");
            askable.insert(format!("{}_bucket", metric.name), labels);
        } else {
            askable.insert(metric.sample(), labels);
        }
    }
    askable.insert("up".to_owned(), ["job", "instance"].into());
    askable
}

/// Whether an expression asks only for what there is.
fn check(
    expression: &str,
    askable: &BTreeMap<String, BTreeSet<&'static str>>,
) -> Result<(), String> {
    // Texts are no names, and durations in brackets are none either.
    let plain = Regex::new(r#""[^"]*"|\[[^\]]*\]"#).unwrap();
    let text = plain.replace_all(expression, "");
    let series =
        Regex::new(r"\b((?:limiterd|envoy|ratelimit)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r"([a-z_0-9]+)\s*(?:=~|!~|!=|=)").unwrap();
    let grouping = Regex::new(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)").unwrap();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    let mut found = false;
    let spare = grouping.replace_all(&text, "");
    for one in series.captures_iter(&spare) {
        found = true;
        let name = &one[1];
        let labels = askable
            .get(name)
            .ok_or_else(|| format!("there is no metric {name}"))?;
        let matchers = one.get(2).map_or("", |matchers| matchers.as_str());
        for label in matcher.captures_iter(matchers) {
            if !labels.contains(&label[1]) {
                return Err(format!("{name} has no label {}", &label[1]));
            }
        }
        known.extend(labels);
    }
    if !found {
        return Err("it asks for no metric".to_owned());
    }
    for list in grouping.captures_iter(&text) {
        for label in list[1]
            .split(',')
            .map(str::trim)
            .filter(|label| !label.is_empty())
        {
            if !known.contains(label) {
                return Err(format!("none of its metrics has a label {label}"));
            }
        }
    }
    Ok(())
}

/// Every value under `key`, at whatever depth.
fn under<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == key && value.is_string() {
                    found.extend(value.as_str());
                } else {
                    under(key, value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| under(key, item, found)),
        _ => {}
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let askable = askable();
    let deploy = workspace().join("deploy");
    let rules = std::fs::read_to_string(deploy.join("prometheus/limiterd.rules.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    let dashboard = std::fs::read_to_string(deploy.join("grafana/limiterd.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let (mut expressions, mut alerts) = (Vec::new(), Vec::new());
    under("expr", &rules, &mut expressions);
    under("alert", &rules, &mut alerts);
    assert_eq!(expressions.len(), alerts.len());
    under("expr", &dashboard, &mut expressions);
    let wrong: Vec<_> = expressions
        .iter()
        .filter_map(|one| Some(format!("{one}\n  {}", check(one, &askable).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(expressions.len() > 50, "{}", expressions.len());

    // Each alert is played, and each panel is about something of its own.
    let played =
        std::fs::read_to_string(deploy.join("prometheus/limiterd.rules.test.yaml")).unwrap();
    for alert in alerts {
        assert!(
            played.contains(&format!("alertname=\"{alert}\"")),
            "{alert} is not played"
        );
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let titles: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["title"].to_string())
        .collect();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].to_string()).collect();
    assert_eq!([titles.len(), ids.len()], [panels.len(); 2]);
}

#[test]
fn an_expression_about_nothing_is_noticed() {
    let askable = askable();
    for (wrong, why) in [
        ("rate(limiterd_downstream_rq[5m])", "there is no metric"),
        ("limiterd_store_state{shop=\"a\"}", "has no label shop"),
        ("sum by (shop) (limiterd_store_state)", "has a label shop"),
        ("vector(1)", "asks for no metric"),
    ] {
        let said = check(wrong, &askable).unwrap_err();
        assert!(said.contains(why), "{wrong}: {said}");
    }
}
