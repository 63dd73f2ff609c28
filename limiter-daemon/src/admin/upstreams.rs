//! Metrics of backends, under Envoy's names: breakers, retries, ejections, checks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::metrics::Page;
use crate::engine::upstream::{
    Admission, Breaker, CheckStats, Kind, Outliers, Registry, Resource, Stat,
};
use crate::l7::BackendState;
use crate::l7::dns::{BackendCounts, Counts};

/// A backend and the policies that it is under, or a route and those.
type Labels<'a> = [(&'static str, &'a str); 2];

pub(super) fn encode(
    upstreams: &Registry,
    backends: &[BackendState],
    page: &mut Page<'_, '_>,
) -> fmt::Result {
    breakers(&upstreams.breakers(), page)?;
    outliers(&upstreams.all_outliers(), page)?;
    members(backends, page)?;
    checks(&upstreams.all_checks(), page)?;
    admission(&upstreams.admissions(), page)
}

/// Lookups of names, by backend; where Envoy has a name for it, by that.
pub(super) fn names(backends: &[BackendCounts], page: &mut Page<'_, '_>) -> fmt::Result {
    type Row = (&'static str, &'static str, fn(&Counts) -> u64);
    const ROWS: [Row; 6] = [
        (
            "envoy_cluster_update_attempt",
            "Lookups of a backend's names.",
            |counts| counts.attempts,
        ),
        (
            "envoy_cluster_update_success",
            "Lookups that found addresses.",
            |counts| counts.successes,
        ),
        (
            "envoy_cluster_update_no_rebuild",
            "Lookups that found the addresses that were known.",
            |counts| counts.unchanged,
        ),
        (
            "envoy_cluster_update_failure",
            "Lookups that failed: the last good addresses stay.",
            |counts| counts.failures,
        ),
        (
            "envoy_cluster_update_empty",
            "Lookups that found no name or no address: the last good ones stay.",
            |counts| counts.empty,
        ),
        (
            "limiterd_dns_addresses_left_out",
            "Addresses beyond the 64 that are used of a name, over all lookups.",
            |counts| counts.left_out,
        ),
    ];
    for (name, help, read) in ROWS {
        let rows = backends.iter().map(|one| {
            let labels = cluster(&one.backend, &one.policy);
            (labels, read(&one.counts))
        });
        if name.starts_with("envoy") {
            page.known(name, help, rows)?;
        } else {
            page.counters(name, help, rows)?;
        }
    }
    Ok(())
}

const fn cluster<'a>(backend: &'a str, policy: &'a str) -> Labels<'a> {
    [("envoy_cluster_name", backend), ("policy", policy)]
}

fn each<'a, T>(
    items: &'a [Arc<T>],
    labels: fn(&'a T) -> Labels<'a>,
    value: impl Fn(&T) -> u64,
) -> impl Iterator<Item = (Labels<'a>, u64)> {
    items.iter().map(move |item| (labels(item), value(item)))
}

fn of_breaker(breaker: &Breaker) -> Labels<'_> {
    cluster(&breaker.backend, &breaker.policy)
}

fn of_outliers(outliers: &Outliers) -> Labels<'_> {
    cluster(&outliers.backend, &outliers.policy)
}

fn of_checks(checks: &CheckStats) -> Labels<'_> {
    cluster(&checks.backend, &checks.policy)
}

fn breakers(breakers: &[Arc<Breaker>], page: &mut Page<'_, '_>) -> fmt::Result {
    for stat in Stat::ALL {
        let (name, help) = stat.describe();
        page.known(
            name,
            help,
            each(breakers, of_breaker, |b| b.stats.get(stat)),
        )?;
    }
    for resource in Resource::ALL {
        let (used, open) = resource.gauges();
        let help = match resource {
            Resource::Parallel => "Requests that have a connection, or are making one.",
            Resource::Pending => "Requests that wait for a connection.",
            Resource::Retries => "Requests that are being retried.",
            Resource::Connections => "Connections open, or being made.",
        };
        let under_way = |breaker: &Breaker| u64::from(breaker.used(resource));
        page.gauges(used, help, each(breakers, of_breaker, under_way))?;
        let help = "1 if as many are under way as may be: what comes now is refused or waits.";
        let is_open = |breaker: &Breaker| u64::from(breaker.is_open(resource));
        page.gauges(open, help, each(breakers, of_breaker, is_open))?;
    }
    Ok(())
}

fn outliers(outliers: &[Arc<Outliers>], page: &mut Page<'_, '_>) -> fmt::Result {
    page.known(
        "envoy_cluster_outlier_detection_ejections_enforced_total",
        "Endpoints ejected.",
        each(outliers, of_outliers, Outliers::enforced_total),
    )?;
    page.known(
        "envoy_cluster_outlier_detection_ejections_overflow",
        "Endpoints not ejected because as many were as may be.",
        each(outliers, of_outliers, Outliers::overflow),
    )?;
    for kind in Kind::ALL {
        let name = kind.name();
        page.known(
            &format!("envoy_cluster_outlier_detection_ejections_enforced_{name}"),
            "Endpoints ejected for this reason.",
            each(outliers, of_outliers, |outliers| outliers.enforced(kind)),
        )?;
        page.known(
            &format!("envoy_cluster_outlier_detection_ejections_detected_{name}"),
            "Times that an endpoint was found to fail for this reason, ejected or not.",
            each(outliers, of_outliers, |outliers| outliers.detected(kind)),
        )?;
    }
    Ok(())
}

fn members(backends: &[BackendState], page: &mut Page<'_, '_>) -> fmt::Result {
    let rows = |value: fn(&BackendState) -> usize| {
        backends.iter().map(move |backend| {
            let labels = cluster(&backend.backend, &backend.policy);
            (labels, u64::try_from(value(backend)).unwrap_or(u64::MAX))
        })
    };
    page.gauges(
        "envoy_cluster_membership_total",
        "Endpoints.",
        rows(|backend| backend.endpoints),
    )?;
    page.gauges(
        "envoy_cluster_membership_healthy",
        "Endpoints that are neither ejected nor failed by checks.",
        rows(|backend| backend.healthy),
    )?;
    page.gauges(
        "envoy_cluster_outlier_detection_ejections_active",
        "Endpoints ejected now.",
        rows(|backend| backend.ejected),
    )
}

fn checks(checks: &[Arc<CheckStats>], page: &mut Page<'_, '_>) -> fmt::Result {
    page.known(
        "envoy_cluster_health_check_attempt",
        "Checks begun.",
        each(checks, of_checks, |c| c.attempts.load(Ordering::Relaxed)),
    )?;
    page.known(
        "envoy_cluster_health_check_success",
        "Checks passed.",
        each(checks, of_checks, |c| c.successes.load(Ordering::Relaxed)),
    )?;
    page.known(
        "envoy_cluster_health_check_failure",
        "Checks failed.",
        each(checks, of_checks, |c| c.failures.load(Ordering::Relaxed)),
    )?;
    page.known(
        "envoy_cluster_health_check_network_failure",
        "Checks failed for want of a connection or of an answer.",
        each(checks, of_checks, |c| {
            c.network_failures.load(Ordering::Relaxed)
        }),
    )
}

fn admission(admissions: &[Arc<Admission>], page: &mut Page<'_, '_>) -> fmt::Result {
    page.known(
        "envoy_http_admission_control_rq_rejected",
        "Requests refused because too many fail.",
        each(
            admissions,
            |admission| {
                [
                    ("route", admission.route.as_str()),
                    ("policy", admission.policy.as_str()),
                ]
            },
            |admission| admission.rejected.load(Ordering::Relaxed),
        ),
    )
}
