//! Tables of what passes and what does not: limits, the kernel half, routes, backends.

use std::collections::BTreeMap;

use limiter_common::Reason;

use super::super::rates::{Between, Counters, gauges, share};
use super::super::table::{Cell, Mood, Row};

/// Metrics of a limit: whose, its name, and what its labels are.
const LIMITS: [(&str, &str); 2] = [
    ("local", "limiterd_local_rate_limit_total"),
    ("global", "limiterd_global_rate_limit_total"),
];
const CANDIDATES: &str = "limiterd_rate_limit_candidate_total";
/// The rate limit service's limits: by decision.
const SERVICE: [(&str, &str); 3] = [
    ("ok", "ratelimit_service_rate_limit_within_limit"),
    ("over_limit", "ratelimit_service_rate_limit_over_limit"),
    (
        "shadow_over_limit",
        "ratelimit_service_rate_limit_shadow_mode",
    ),
];
/// Levels of descriptors that are told.
const LEVELS: [&str; 6] = ["domain", "key1", "key2", "key3", "key4", "key5"];

pub(super) fn limits(between: Between<'_>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (reach, metric) in LIMITS {
        let counters = between.counters(metric, &["rule", "route"], "decision");
        for key in counters.keys() {
            let [rule, route] = key[..] else { continue };
            let rate = |decision| counters.rate(key, |one| one == decision);
            let limited = counters.total(key, |one| one == "over_limit");
            let rates = [rate("ok"), rate("over_limit"), rate("shadow_over_limit")];
            rows.push(limit(rule.to_owned(), route, reach, rates, limited));
        }
    }
    let counters = between.counters(
        CANDIDATES,
        &["rule", "route", "candidate", "limit"],
        "decision",
    );
    for key in counters.keys() {
        let [rule, route, candidate, reach] = key[..] else {
            continue;
        };
        let rate = |decision| counters.rate(key, |one| one == decision);
        let limited = counters.total(key, |one| one == "over_limit");
        let rule = format!("{rule} ~ {candidate}");
        // It denies nobody: what it would deny is the shadow's.
        let rates = [rate("ok"), None, rate("over_limit")];
        let mut row = limit(rule, route, &format!("{reach}, tried"), rates, limited);
        row.mood = Mood::Well;
        rows.push(row);
    }
    rows.extend(service(between));
    rows
}

fn service(between: Between<'_>) -> Vec<Row> {
    let by_decision = SERVICE.map(|(_, metric)| between.counters(metric, &LEVELS, ""));
    let [within, over, shadow] = &by_decision;
    let row = |key: &Vec<&str>| {
        let path: Vec<&str> = key
            .iter()
            .copied()
            .filter(|part| !part.is_empty())
            .collect();
        let any = |_: &str| true;
        let rates = [within, over, shadow].map(|counters| counters.rate(key, any));
        limit(path.join(" / "), "", "service", rates, over.total(key, any))
    };
    within.keys().map(row).collect()
}

fn limit(
    rule: String,
    route: &str,
    reach: &str,
    [ok, limited, shadow]: [Option<f64>; 3],
    total: f64,
) -> Row {
    let busy = limited.is_some_and(|rate| rate > 0.0);
    let over = limited.or(shadow);
    Row {
        cells: vec![
            Cell::Text(rule),
            Cell::Text(if route.is_empty() { "-" } else { route }.to_owned()),
            Cell::Text(reach.to_owned()),
            Cell::Rate(ok),
            Cell::Rate(limited),
            Cell::Rate(shadow),
            Cell::Share(share(over, ok)),
            Cell::Number(whole(total)),
        ],
        mood: if busy { Mood::Busy } else { Mood::Well },
    }
}

/// Whether something is `wanted`.
fn is(wanted: &str) -> impl Fn(&str) -> bool {
    move |one| one == wanted
}

pub(super) fn kernel(between: Between<'_>) -> Vec<Row> {
    let metric = "limiterd_xdp_packets_total";
    let verdicts = between.counters(metric, &["policy", "mode"], "verdict");
    // Reasons of drops only: what passes has reasons as well.
    let reasons = between.counters(metric, &["policy", "mode", "verdict"], "reason");
    let mut policies: Vec<&str> = verdicts
        .keys()
        .filter_map(|key| key.first().copied())
        .collect();
    policies.dedup();
    let row = |policy: &str| {
        let enforced = [policy, "enforced"];
        let shadow = [policy, "shadow"];
        let sum = |one: Option<f64>, two: Option<f64>| Some(one? + two?);
        let dropped = verdicts.rate(&enforced, is("dropped"));
        let passed = sum(
            verdicts.rate(&enforced, is("passed")),
            verdicts.rate(&shadow, |_any| true),
        );
        let drop_key = [policy, "enforced", "dropped"];
        let most = reasons
            .of(&drop_key)
            .into_iter()
            .map(|(reason, total)| (reason, reasons.rate(&drop_key, is(reason)), total))
            .filter(|(_, _, total)| *total > 0.0)
            .max_by(|(_, one, first), (_, two, second)| {
                one.partial_cmp(two)
                    .filter(|order| order.is_ne())
                    .unwrap_or_else(|| first.total_cmp(second))
            });
        let would = reasons.rate(&[policy, "shadow", "passed"], |name| {
            let drops = |reason: &Reason| reason.is_drop() && reason.name() == name;
            Reason::ALL.iter().any(drops)
        });
        let busy = dropped.is_some_and(|rate| rate > 0.0);
        Row {
            cells: vec![
                Cell::Text(if policy.is_empty() { "(none)" } else { policy }.to_owned()),
                Cell::Rate(passed),
                Cell::Rate(dropped),
                Cell::Rate(would),
                Cell::Share(share(dropped, passed)),
                Cell::Number(whole(verdicts.total(&enforced, is("dropped")))),
                Cell::Text(most.map_or("", |(reason, _, _)| reason).to_owned()),
            ],
            mood: if busy { Mood::Busy } else { Mood::Well },
        }
    };
    policies.into_iter().map(row).collect()
}

pub(super) fn routes(between: Between<'_>) -> Vec<Row> {
    let counters = between.counters(
        "limiterd_downstream_rq_total",
        &["route"],
        "response_code_class",
    );
    let row = |key: &Vec<&str>| {
        let rate = |class| counters.rate(key, |one| one == class);
        let all = counters.rate(key, |_any| true);
        let failed = rate("5xx");
        let rest = all.zip(failed).map(|(all, failed)| all - failed);
        let bad = failed.is_some_and(|rate| rate > 0.0);
        Row {
            cells: vec![
                Cell::Text(key.concat()),
                Cell::Rate(all),
                Cell::Rate(rate("2xx")),
                Cell::Rate(rate("4xx")),
                Cell::Rate(failed),
                Cell::Share(share(failed, rest)),
            ],
            mood: if bad { Mood::Bad } else { Mood::Well },
        }
    };
    counters.keys().map(row).collect()
}

/// Gauges of breakers that are 1 while one is open, and what of it is.
const BREAKERS: [(&str, &str); 4] = [
    ("envoy_cluster_circuit_breakers_default_rq_open", "requests"),
    (
        "envoy_cluster_circuit_breakers_default_rq_pending_open",
        "waiting",
    ),
    (
        "envoy_cluster_circuit_breakers_default_rq_retry_open",
        "retries",
    ),
    (
        "envoy_cluster_circuit_breakers_default_cx_open",
        "connections",
    ),
];

pub(super) fn upstreams(between: Between<'_>) -> Vec<Row> {
    let by = ["envoy_cluster_name", "policy"];
    let page = between.after;
    let gauge = |name: &str| gauges(page, name, &by);
    let active = gauge("envoy_cluster_upstream_rq_active");
    let waiting = gauge("envoy_cluster_upstream_rq_pending_active");
    let all = gauge("envoy_cluster_membership_total");
    let healthy = gauge("envoy_cluster_membership_healthy");
    let ejected = gauge("envoy_cluster_outlier_detection_ejections_active");
    let open = BREAKERS.map(|(metric, what)| (gauge(metric), what));
    let rates = [
        "envoy_cluster_upstream_rq_total",
        "envoy_cluster_upstream_rq_pending_overflow",
        "envoy_cluster_upstream_rq_retry",
    ]
    .map(|metric| between.counters(metric, &by, ""));
    let mut keys: Vec<&Vec<&str>> = active.keys().chain(all.keys()).collect();
    keys.sort();
    keys.dedup();
    let row = |key: &Vec<&str>| {
        let of = |gauges: &BTreeMap<Vec<&str>, f64>| gauges.get(key).copied().unwrap_or_default();
        let [requests, refused, retries] = &rates;
        let rate = |counters: &Counters<'_>| counters.rate(key, |_any| true);
        let stuck: Vec<&str> = open
            .iter()
            .filter(|(gauges, _)| of(gauges) > 0.0)
            .map(|(_, what)| *what)
            .collect();
        let (total, up) = (of(&all), of(&healthy));
        let mut state = Vec::new();
        if !stuck.is_empty() {
            state.push(format!("open: {}", stuck.join(", ")));
        }
        if of(&ejected) > 0.0 {
            state.push(format!("{} ejected", of(&ejected)));
        }
        if state.is_empty() {
            state.push("closed".to_owned());
        }
        let bad = !stuck.is_empty() || up < total;
        let [backend, policy] = key[..] else {
            return None;
        };
        Some(Row {
            cells: vec![
                Cell::Text(backend.to_owned()),
                Cell::Text(state.join(", ")),
                Cell::Rate(rate(requests)),
                Cell::Number(whole(of(&active))),
                Cell::Number(whole(of(&waiting))),
                Cell::Rate(rate(refused)),
                Cell::Rate(rate(retries)),
                Cell::Share((total > 0.0).then(|| up / total)),
                Cell::Text(policy.to_owned()),
            ],
            mood: if bad { Mood::Bad } else { Mood::Well },
        })
    };
    keys.into_iter().filter_map(row).collect()
}

/// A sample as the whole number that it is.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters and gauges are whole numbers from 0 on, and the cast is saturating"
)]
pub(in crate::cli) fn whole(value: f64) -> u64 {
    value as u64
}
