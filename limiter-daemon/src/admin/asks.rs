//! Metrics of questions to rate limit services (by Envoy's names, by upstream), and of settings that
//! may be changed while running.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::metrics::Page;
use crate::engine::ask::{AskCounts, AskStat};
use crate::engine::state::State;
use crate::rls::Clients;

pub(super) fn encode(state: &State, clients: &Clients, page: &mut Page<'_, '_>) -> fmt::Result {
    upstreams(state, page)?;
    let clients = clients.living();
    let name = |host: &dyn fmt::Display| [("service", host.to_string())];
    page.gauges(
        "limiterd_asked_service_connections",
        "Connections to a rate limit service that filters ask.",
        clients
            .iter()
            .map(|one| (name(&one.plan().host), one.connections())),
    )?;
    page.counters(
        "limiterd_asked_service_connect_fail",
        "Attempts to connect to a rate limit service that failed.",
        clients
            .iter()
            .map(|one| (name(&one.plan().host), one.connect_failures())),
    )?;
    let settings = state.runtime().settings();
    page.gauges(
        "limiterd_runtime_percent",
        "Settings that may be changed while running, in percent of the requests.",
        settings
            .iter()
            .map(|one| ([("key", one.name.as_str())], u64::from(one.percent))),
    )
}

/// A family for each prefix and event: Envoy has the prefix in the name.
fn upstreams(state: &State, page: &mut Page<'_, '_>) -> fmt::Result {
    let breakers = state.upstreams().breakers();
    let counts: Vec<Vec<Arc<AskCounts>>> =
        breakers.iter().map(|breaker| breaker.asks.all()).collect();
    let prefixes: BTreeSet<&str> = counts
        .iter()
        .flatten()
        .map(|one| one.prefix.as_str())
        .collect();
    for prefix in prefixes {
        for stat in AskStat::ALL {
            let (event, help) = stat.describe();
            let name = match prefix {
                "" => format!("envoy_cluster_ratelimit_{event}"),
                prefix => format!("envoy_cluster_ratelimit_{}_{event}", in_a_name(prefix)),
            };
            let rows = breakers
                .iter()
                .zip(&counts)
                .filter_map(|(breaker, counts)| {
                    let found = counts.iter().find(|one| one.prefix == prefix)?;
                    let labels = [
                        ("envoy_cluster_name", breaker.backend.as_str()),
                        ("policy", breaker.policy.as_str()),
                    ];
                    Some((labels, found.get(stat)))
                });
            page.known(&name, help, rows)?;
        }
    }
    Ok(())
}

/// As Envoy writes it for Prometheus.
fn in_a_name(prefix: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    prefix.chars().map(plain).collect()
}
