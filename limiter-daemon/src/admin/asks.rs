//! Metrics of questions to rate limit services (by Envoy's names, by upstream), and of settings that
//! may be changed while running.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::metrics::{Page, catalogue};
use crate::engine::ask::{AskCounts, AskStat};
use crate::engine::state::State;
use crate::rls::Clients;

pub(super) fn encode(state: &State, clients: &Clients, page: &mut Page) {
    upstreams(state, page);
    let clients = clients.living();
    let name = |host: &dyn fmt::Display| [host.to_string()];
    page.rows(
        &catalogue::ASKED_CONNECTIONS,
        clients
            .iter()
            .map(|one| (name(&one.plan().host), one.connections())),
    );
    page.rows(
        &catalogue::ASKED_CONNECT_FAIL,
        clients
            .iter()
            .map(|one| (name(&one.plan().host), one.connect_failures())),
    );
    let settings = state.runtime().settings();
    page.rows(
        &catalogue::RUNTIME_PERCENT,
        settings
            .iter()
            .map(|one| ([one.name.as_str()], u64::from(one.percent))),
    );
}

/// A family for each prefix and event: Envoy has the prefix in the name.
fn upstreams(state: &State, page: &mut Page) {
    let breakers = state.upstreams().breakers();
    let counts: Vec<Vec<Arc<AskCounts>>> =
        breakers.iter().map(|breaker| breaker.asks.all()).collect();
    let mut prefixes: BTreeSet<&str> = counts
        .iter()
        .flatten()
        .map(|one| one.prefix.as_str())
        .collect();
    prefixes.insert("");
    for prefix in prefixes {
        for stat in AskStat::ALL {
            let family = catalogue::of_ask(stat);
            let name = match prefix {
                "" => family.declared().name.to_owned(),
                prefix => {
                    format!(
                        "envoy_cluster_ratelimit_{}_{}",
                        in_a_name(prefix),
                        stat.name()
                    )
                }
            };
            let rows = breakers
                .iter()
                .zip(&counts)
                .filter_map(|(breaker, counts)| {
                    let found = counts.iter().find(|one| one.prefix == prefix)?;
                    let labels = [breaker.backend.as_str(), breaker.policy.as_str()];
                    Some((labels, found.get(stat)))
                });
            page.rows_as(family, &name, rows);
        }
    }
}

/// As Envoy writes it for Prometheus.
fn in_a_name(prefix: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    prefix.chars().map(plain).collect()
}
