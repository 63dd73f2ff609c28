//! Statistics of Envoy's rate limit service, by the names that the reference service's Prometheus
//! mapping gives them: `key1`, `key2` and so on are the levels of the descriptors, of which that
//! mapping has two.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::Page;
use super::status::Reloads;
use crate::engine::domain::STATISTICS;
use crate::engine::state::State;
use crate::rls::{Counters, TIMES};

const HELP: [&str; 6] = [
    "Hits that limits of the rate limit service were asked about.",
    "Hits over a limit, also of limits in shadow mode.",
    "Hits beyond four fifths of a limit, or what share is set.",
    "Always 0: there is no such cache, as none is needed.",
    "Hits that were admitted.",
    "Hits over a limit in shadow mode.",
];

pub(super) fn encode(
    counters: &Counters,
    state: &State,
    reloads: Reloads,
    page: &mut Page<'_, '_>,
) -> fmt::Result {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let limits = state.service_limits();
    for (index, (name, help)) in STATISTICS.iter().zip(HELP).enumerate() {
        let rows = limits.iter().map(|limit| {
            let mut labels = vec![("domain".to_owned(), limit.domain.clone())];
            let levels = limit.path.iter().enumerate();
            labels.extend(levels.map(|(at, label)| (format!("key{}", at + 1), label.clone())));
            (labels, limit.counts()[index])
        });
        page.known(&format!("ratelimit_service_rate_limit_{name}"), help, rows)?;
    }
    let none: [(&str, &str); 0] = [];
    for (name, help, value) in [
        (
            "ratelimit_service_config_load_success",
            "Reloads of the policy files that were valid.",
            reloads.applied,
        ),
        (
            "ratelimit_service_config_load_error",
            "Reloads of the policy files with errors.",
            reloads.rejected,
        ),
        (
            "ratelimit_service_global_shadow_mode",
            "Questions that only the shadow mode of the whole service let pass.",
            read(&counters.shadowed),
        ),
        (
            "ratelimit_service_rate_limit_domain_not_found",
            "Questions about a domain that no file has.",
            read(&counters.domain_not_found),
        ),
    ] {
        page.known(name, help, [(none, value)])?;
    }
    page.known(
        "ratelimit_service_total_requests",
        "Questions, by gRPC and JSON.",
        [(
            [("grpc_method", "ShouldRateLimit")],
            read(&counters.requests),
        )],
    )?;
    let by_store = read(&counters.store_errors);
    let others = read(&counters.errors).saturating_sub(by_store);
    page.known(
        "ratelimit_service_should_rate_limit_error",
        "Questions that were answered with an error.",
        [
            ([("err_type", "service_error")], others),
            ([("err_type", "redis_error")], by_store),
        ],
    )?;
    times(counters, page)?;
    if let Some(store) = state.domain_store() {
        page.counters(
            "limiterd_rls_store_failure_decisions",
            "Descriptors that were decided without the store, by what held instead.",
            store
                .without()
                .map(|(mode, count)| ([("mode", mode)], count)),
        )?;
    }
    page.counter(
        "limiterd_rls_details_refused",
        "Questions counted with their limit only, for there was no room for statistics of their values.",
        state.details_refused(),
    )?;
    page.counters(
        "limiterd_rls_cx",
        "Connections to the rate limit service accepted.",
        [(none, read(&counters.connections))],
    )?;
    page.counters(
        "limiterd_rls_cx_full",
        "Times that a thread of the rate limit service waited with accepting because it had all the connections it may.",
        [(none, read(&counters.full))],
    )?;
    page.counters(
        "limiterd_rls_cx_mute",
        "Connections to the rate limit service that said nothing, or no TLS, and were closed.",
        [(none, read(&counters.mute))],
    )?;
    page.gauge(
        "limiterd_rls_cx_active",
        "Connections to the rate limit service open.",
        read(&counters.active),
    )
}

/// How long answers took.
fn times(counters: &Counters, page: &mut Page<'_, '_>) -> fmt::Result {
    let (counts, sum) = counters.times();
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let ends = TIMES.into_iter().map(seconds).chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
    page.histogram(
        (
            "ratelimit_service_response_time_seconds",
            "Time from a question to its answer.",
        ),
        &[("grpc_method", "ShouldRateLimit")],
        seconds(sum),
        &buckets,
    )
}
