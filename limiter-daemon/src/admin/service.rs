//! Statistics of Envoy's rate limit service, by the names that the reference service's Prometheus
//! mapping gives them: `key1`, `key2` and so on are the levels of the descriptors, of which that
//! mapping has two.

use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::{Page, catalogue, spread};
use super::status::Reloads;
use crate::engine::domain::LimitStats;
use crate::engine::state::State;
use crate::rls::Counters;

/// The domain of a limit, and the levels of its descriptor.
fn labels(limit: &LimitStats) -> ([&str; 1], Vec<(String, &str)>) {
    let levels = limit.path.iter().enumerate();
    let levels = levels.map(|(at, label)| (format!("key{}", at + 1), label.as_str()));
    ([limit.domain.as_str()], levels.collect())
}

pub(super) fn encode(counters: &Counters, state: &State, reloads: Reloads, page: &mut Page) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let limits = state.service_limits();
    for (index, family) in catalogue::OF_SERVICE.iter().enumerate() {
        let rows = limits.iter().map(|limit| {
            let (domain, levels) = labels(limit);
            (domain, levels, limit.counts()[index])
        });
        page.open_rows(family, rows);
    }
    let in_force = || {
        let limits = limits.iter();
        limits.filter_map(|limit| Some((labels(limit), limit.admits()?)))
    };
    page.open_rows(
        &catalogue::RLS_LIMIT_TOKENS,
        in_force().map(|((domain, levels), admits)| (domain, levels, admits.tokens)),
    );
    page.open_rows(
        &catalogue::RLS_LIMIT_RATE,
        in_force().map(|((domain, levels), admits)| (domain, levels, admits.per_second)),
    );
    page.value(&catalogue::RLS_CONFIG_SUCCESS, reloads.applied);
    page.value(&catalogue::RLS_CONFIG_ERROR, reloads.rejected);
    page.value(&catalogue::RLS_GLOBAL_SHADOW, read(&counters.shadowed));
    page.value(
        &catalogue::RLS_DOMAIN_NOT_FOUND,
        read(&counters.domain_not_found),
    );
    let method = ["ShouldRateLimit"];
    page.rows(
        &catalogue::RLS_REQUESTS,
        [(method, read(&counters.requests))],
    );
    let by_store = read(&counters.store_errors);
    let others = read(&counters.errors).saturating_sub(by_store);
    page.rows(
        &catalogue::RLS_ERRORS,
        [(["service_error"], others), (["redis_error"], by_store)],
    );
    page.histograms(
        &catalogue::RLS_RESPONSE_TIME,
        [(method, spread(&counters.times.taken()))],
    );
    if let Some(store) = state.domain_store() {
        page.rows(
            &catalogue::RLS_STORE_FAILURE,
            store.without().map(|(mode, count)| ([mode], count)),
        );
    }
    page.value(&catalogue::RLS_DETAILS_REFUSED, state.details_refused());
    page.value(&catalogue::RLS_CX, read(&counters.connections));
    page.value(&catalogue::RLS_CX_FULL, read(&counters.full));
    page.value(&catalogue::RLS_CX_MUTE, read(&counters.mute));
    page.value(&catalogue::RLS_CX_ACTIVE, read(&counters.active));
}
