//! What the daemon says at two times, as one document: the one that `--json` writes. Names and
//! meanings of its fields stay; new ones may come.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::admin::listeners::ListenerView;
use crate::admin::node::{BlocksView, FleetView, InterfaceView, NodeView, PolicyView};
use crate::cli::top::page::Page;
use crate::cli::top::rates::{Between, gauges};
use crate::cli::top::whole;

/// What the daemon said at one time.
#[derive(Debug)]
pub(super) struct Look {
    /// Nanoseconds, by a clock of who looks.
    pub at: u64,
    pub metrics: Page,
    pub node: NodeView,
    /// `None`: no store is shared.
    pub fleet: Option<FleetView>,
}

/// How it is. Rates are a second; `null`: not known, as with `--over 0s`.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    pub name: String,
    pub version: String,
    pub started: String,
    pub uptime_seconds: u64,
    /// `starting`, `serving`, `draining` or `failed`.
    pub phase: String,
    pub ready: bool,
    /// What `/ready` says, by line.
    pub report: Vec<String>,
    pub policy: PolicyView,
    pub listeners: Vec<ListenerView>,
    /// `None`: there is no kernel half.
    pub kernel: Option<Kernel>,
    pub traffic: Traffic,
    /// Limits that deny now, the busiest first.
    pub limiting: Vec<Limiting>,
    pub buckets: Buckets,
    pub backends: Vec<Backend>,
    /// Empty: each node counts for itself.
    pub stores: Vec<Store>,
    /// `None`: no store is shared.
    pub fleet: Option<Fleet>,
    pub blocks: BlocksView,
    /// Addresses whose offences are remembered.
    pub offenders: u64,
    /// `None`: Envoy's rate limit service is not served.
    pub rls: Option<Service>,
    /// Rate limit services elsewhere that filters ask.
    pub asked_services: Vec<Asked>,
    /// Lines of the access log that were lost.
    pub log_lines_lost_per_second: Option<f64>,
}

/// The kernel half.
#[derive(Debug, Serialize)]
pub(super) struct Kernel {
    pub interfaces: Vec<InterfaceView>,
    /// Places of the table of sources, and how many hold a bucket that is not full.
    pub places: u64,
    pub live: u64,
    /// Sources that found no place.
    pub sketched_per_second: Option<f64>,
    pub sentences: u64,
    pub packets_per_second: Option<f64>,
    pub dropped_per_second: Option<f64>,
}

/// What goes through.
#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    /// Of clients, open.
    pub connections: u64,
    pub requests_per_second: Option<f64>,
    /// Denied by limits on requests.
    pub limited_per_second: Option<f64>,
    pub server_errors_per_second: Option<f64>,
    /// Times that workers did not accept because they had all the connections they may.
    pub workers_full_per_second: Option<f64>,
}

/// A limit that denies.
#[derive(Debug, Serialize)]
pub(super) struct Limiting {
    /// `local`, `global`, `service` (of the rate limit service) or `network` (in the kernel).
    pub limit: String,
    /// Rule, descriptor or network policy.
    pub rule: String,
    /// Empty: of all routes, or of none.
    pub route: String,
    /// Requests, hits or packets.
    pub denied_per_second: f64,
}

/// Buckets of distinct values.
#[derive(Debug, Serialize)]
pub(super) struct Buckets {
    pub capacity: u64,
    pub live: u64,
    /// Decisions by an aggregate bucket because there was no room.
    pub refused_per_second: Option<f64>,
}

/// A backend under a policy.
#[derive(Debug, Serialize)]
pub(super) struct Backend {
    pub backend: String,
    /// Empty: under none.
    pub policy: String,
    /// Bounds of its circuit breaker that are reached: `requests`, `pending`, `connections`.
    pub open: Vec<&'static str>,
    pub endpoints: u64,
    /// Neither ejected nor failed by checks.
    pub healthy: u64,
    pub ejected: u64,
}

/// A store.
#[derive(Debug, Serialize)]
pub(super) struct Store {
    pub name: String,
    /// `None`: not told.
    pub address: Option<String>,
    /// `asked`, `probed` (a request at a time) or `not_asked` (it fails).
    pub state: &'static str,
    pub connections: u64,
}

/// The nodes that share the store.
#[derive(Debug, Serialize)]
pub(super) struct Fleet {
    pub connected: bool,
    /// Why not.
    pub away: Option<String>,
    pub nodes: u64,
    /// Names of nodes that have not heard of all blocks.
    pub behind: Vec<String>,
}

/// Envoy's rate limit service.
#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub address: String,
    pub connections: u64,
    pub questions_per_second: Option<f64>,
    pub over_limit_per_second: Option<f64>,
}

/// A rate limit service elsewhere.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    pub service: String,
    pub connections: u64,
    /// Ever.
    pub connect_failures: u64,
}

impl Facts {
    /// What `after` says, with rates since `before`.
    pub(super) fn of(before: Option<&Look>, after: Look) -> Self {
        let seconds = |look: &Look| after.at.saturating_sub(look.at) as f64 / 1e9;
        let between = Between {
            before: before.map(|look| (&look.metrics, seconds(look))),
            after: &after.metrics,
        };
        let page = &after.metrics;
        let node = &after.node;
        let serves_rls = node.listeners.iter().find(|one| one.serves == "rls");
        let rls = serves_rls.map(|listener| Service {
            address: listener.address.clone(),
            connections: whole(page.sum("limiterd_rls_cx_active")),
            questions_per_second: between.rate("ratelimit_service_total_requests"),
            over_limit_per_second: between.rate("ratelimit_service_rate_limit_over_limit"),
        });
        let lost = between.counters("limiterd_access_log_lines_total", &[], "result");
        let limiting = limiting(between);
        let kernel = node.kernel.as_ref().map(|kernel| {
            let packets = between.counters("limiterd_xdp_packets_total", &[], "verdict");
            let sources = between.counters("limiterd_xdp_sources_total", &[], "event");
            Kernel {
                interfaces: kernel.interfaces.clone(),
                places: whole(page.sum("limiterd_xdp_slots")),
                live: with(page, "limiterd_xdp_slots_used", "state", "live"),
                sketched_per_second: sources.rate(&[], |event| event == "sketched"),
                sentences: whole(page.sum("limiterd_xdp_sentences")),
                packets_per_second: packets.rate(&[], |_any| true),
                dropped_per_second: packets.rate(&[], |verdict| verdict == "dropped"),
            }
        });
        Self {
            kernel,
            traffic: traffic(between),
            limiting,
            buckets: Buckets {
                capacity: whole(page.sum("limiterd_buckets_capacity")),
                live: whole(page.sum("limiterd_buckets_live")),
                refused_per_second: between.rate("limiterd_buckets_refused_total"),
            },
            backends: backends(page),
            stores: stores(&after),
            fleet: after.fleet.as_ref().map(fleet),
            offenders: whole(page.sum("limiterd_escalation_offenders")),
            rls,
            asked_services: asked(page),
            log_lines_lost_per_second: lost.rate(&[], |result| result == "lost"),
            name: after.node.name,
            version: after.node.version,
            started: after.node.started,
            uptime_seconds: after.node.uptime_seconds,
            phase: after.node.phase,
            ready: after.node.ready,
            report: after.node.report,
            policy: after.node.policy,
            listeners: after.node.listeners,
            blocks: after.node.blocks,
        }
    }
}

/// The samples of `name` whose label `key` is `value`.
fn with(page: &Page, name: &str, key: &str, value: &str) -> u64 {
    let all = page.all(name).iter();
    let wanted = all.filter(|sample| sample.label(key) == value);
    whole(wanted.map(|sample| sample.value).sum())
}

/// Decisions of limits on requests, by where they are counted.
const LIMITS: [(&str, &str); 2] = [
    ("local", "limiterd_local_rate_limit_total"),
    ("global", "limiterd_global_rate_limit_total"),
];
/// Levels of descriptors that are told.
const LEVELS: [&str; 6] = ["domain", "key1", "key2", "key3", "key4", "key5"];

fn traffic(between: Between<'_>) -> Traffic {
    let metric = "limiterd_downstream_rq_total";
    let answers = between.counters(metric, &[], "response_code_class");
    let limited = LIMITS.map(|(_, metric)| {
        let counters = between.counters(metric, &[], "decision");
        counters.rate(&[], |decision| decision == "over_limit")
    });
    Traffic {
        connections: whole(between.after.sum("limiterd_downstream_cx_active")),
        requests_per_second: between.rate(metric),
        limited_per_second: limited.into_iter().sum(),
        server_errors_per_second: answers.rate(&[], |class| class == "5xx"),
        workers_full_per_second: between.rate("limiterd_downstream_cx_full_total"),
    }
}

fn limiting(between: Between<'_>) -> Vec<Limiting> {
    let mut found = Vec::new();
    let mut add = |limit: &str, rule: String, route: &str, rate: Option<f64>| {
        if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
            found.push(Limiting {
                limit: limit.to_owned(),
                rule,
                route: route.to_owned(),
                denied_per_second: rate,
            });
        }
    };
    for (reach, metric) in LIMITS {
        let counters = between.counters(metric, &["rule", "route"], "decision");
        for key in counters.keys() {
            let rate = counters.rate(key, |decision| decision == "over_limit");
            let [rule, route] = key[..] else { continue };
            add(reach, rule.to_owned(), route, rate);
        }
    }
    // Hits of limits in shadow mode are over the limit as well, and are not denied.
    let over = between.counters("ratelimit_service_rate_limit_over_limit", &LEVELS, "");
    let shadow = between.counters("ratelimit_service_rate_limit_shadow_mode", &LEVELS, "");
    for key in over.keys() {
        let shadow = shadow.rate(key, |_any| true).unwrap_or_default();
        let rate = over.rate(key, |_any| true).map(|rate| rate - shadow);
        let levels = key.iter().copied().filter(|level| !level.is_empty());
        add("service", levels.collect::<Vec<_>>().join("."), "", rate);
    }
    let packets = between.counters("limiterd_xdp_packets_total", &["policy"], "verdict");
    for key in packets.keys() {
        let rate = packets.rate(key, |verdict| verdict == "dropped");
        add("network", key.concat(), "", rate);
    }
    found.sort_by(|one, other| {
        let rates = other.denied_per_second.total_cmp(&one.denied_per_second);
        rates.then_with(|| (&one.rule, &one.route).cmp(&(&other.rule, &other.route)))
    });
    found
}

fn read(from: &BTreeMap<Vec<&str>, f64>, key: &[&str]) -> u64 {
    whole(from.get(key).copied().unwrap_or_default())
}

/// Bounds of a breaker, and what tells that they are reached.
const BOUNDS: [(&str, &str); 3] = [
    ("requests", "envoy_cluster_circuit_breakers_default_rq_open"),
    (
        "pending",
        "envoy_cluster_circuit_breakers_default_rq_pending_open",
    ),
    (
        "connections",
        "envoy_cluster_circuit_breakers_default_cx_open",
    ),
];

fn backends(page: &Page) -> Vec<Backend> {
    let by = ["envoy_cluster_name", "policy"];
    let of = |name| gauges(page, name, &by);
    let bounds = BOUNDS.map(|(bound, name)| (bound, of(name)));
    let total = of("envoy_cluster_membership_total");
    let healthy = of("envoy_cluster_membership_healthy");
    let ejected = of("envoy_cluster_outlier_detection_ejections_active");
    let breakers = bounds.iter().flat_map(|(_, of)| of.keys());
    let keys: BTreeSet<_> = breakers.chain(total.keys()).collect();
    let view = |key: &Vec<&str>| {
        let [backend, policy] = key[..] else {
            return None;
        };
        let reached = bounds.iter().filter(|(_, of)| read(of, key) > 0);
        Some(Backend {
            backend: backend.to_owned(),
            policy: policy.to_owned(),
            open: reached.map(|(bound, _)| *bound).collect(),
            endpoints: read(&total, key),
            healthy: read(&healthy, key),
            ejected: read(&ejected, key),
        })
    };
    keys.into_iter().filter_map(view).collect()
}

/// What the store of limits that are forgotten within a second is called.
const PER_SECOND: &str = "per_second";

fn stores(look: &Look) -> Vec<Store> {
    let connections = gauges(&look.metrics, "limiterd_store_connections", &["store"]);
    let states = gauges(&look.metrics, "limiterd_store_state", &["store"]);
    let told = look.node.store.as_ref();
    let view = |(key, state): (Vec<&str>, f64)| Store {
        connections: whole(connections.get(&key).copied().unwrap_or_default()),
        // The daemon tells the address of the one that the fleet is in.
        address: told
            .filter(|_one| key != [PER_SECOND])
            .map(|one| one.address.clone()),
        state: match whole(state) {
            0 => "asked",
            1 => "probed",
            _ => "not_asked",
        },
        name: key.concat(),
    };
    states.into_iter().map(view).collect()
}

fn fleet(view: &FleetView) -> Fleet {
    let behind = view.nodes.iter().filter(|node| !node.caught_up);
    Fleet {
        connected: view.connected,
        away: view.away.clone(),
        nodes: u64::try_from(view.nodes.len()).unwrap_or(u64::MAX),
        behind: behind.map(|node| node.name.clone()).collect(),
    }
}

fn asked(page: &Page) -> Vec<Asked> {
    let name = "limiterd_asked_service_connections";
    let failures = "limiterd_asked_service_connect_fail_total";
    let view = |(key, connections): (Vec<&str>, f64)| {
        let service = key.concat();
        Asked {
            connections: whole(connections),
            connect_failures: with(page, failures, "service", &service),
            service,
        }
    };
    let all = gauges(page, name, &["service"]).into_iter();
    all.map(view).collect()
}
