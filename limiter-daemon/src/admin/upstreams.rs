//! Metrics of backends, under Envoy's names: breakers, retries, ejections, checks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::metrics::{Family, Page, catalogue};
use crate::engine::upstream::{
    Admission, Breaker, CheckStats, Kind, Outliers, Registry, Resource, Stat,
};
use crate::l7::BackendState;
use crate::l7::dns::{BackendCounts, Counts};

/// A backend and the policies that it is under, or a route and those.
type Labels<'a> = [&'a str; 2];

pub(super) fn encode(upstreams: &Registry, backends: &[BackendState], page: &mut Page) {
    breakers(&upstreams.breakers(), page);
    outliers(&upstreams.all_outliers(), page);
    members(backends, page);
    checks(&upstreams.all_checks(), page);
    page.rows(
        &catalogue::NOT_ADMITTED,
        each(
            &upstreams.admissions(),
            |admission: &Admission| [&admission.route, &admission.policy],
            |admission| admission.rejected.load(Ordering::Relaxed),
        ),
    );
}

/// Lookups of names, by backend; where Envoy has a name for it, by that.
pub(super) fn names(backends: &[BackendCounts], page: &mut Page) {
    type Row = (Family<2>, fn(&Counts) -> u64);
    const ROWS: [Row; 6] = [
        (catalogue::UPDATE_ATTEMPT, |counts| counts.attempts),
        (catalogue::UPDATE_SUCCESS, |counts| counts.successes),
        (catalogue::UPDATE_NO_REBUILD, |counts| counts.unchanged),
        (catalogue::UPDATE_FAILURE, |counts| counts.failures),
        (catalogue::UPDATE_EMPTY, |counts| counts.empty),
        (catalogue::ADDRESSES_LEFT_OUT, |counts| counts.left_out),
    ];
    for (family, read) in &ROWS {
        let rows = backends.iter().map(|one| {
            (
                [one.backend.as_str(), one.policy.as_str()],
                read(&one.counts),
            )
        });
        page.rows(family, rows);
    }
}

fn each<'a, T>(
    items: &'a [Arc<T>],
    labels: fn(&'a T) -> Labels<'a>,
    value: impl Fn(&T) -> u64,
) -> impl Iterator<Item = (Labels<'a>, u64)> {
    items.iter().map(move |item| (labels(item), value(item)))
}

fn of_breaker(breaker: &Breaker) -> Labels<'_> {
    [&breaker.backend, &breaker.policy]
}

fn of_outliers(outliers: &Outliers) -> Labels<'_> {
    [&outliers.backend, &outliers.policy]
}

fn of_checks(checks: &CheckStats) -> Labels<'_> {
    [&checks.backend, &checks.policy]
}

fn breakers(breakers: &[Arc<Breaker>], page: &mut Page) {
    for stat in Stat::ALL {
        let rows = each(breakers, of_breaker, |b| b.stats.get(stat));
        page.rows(catalogue::of_stat(stat), rows);
    }
    let answers = breakers.iter().flat_map(|breaker| {
        let [backend, policy] = of_breaker(breaker);
        let classes = ["1", "2", "3", "4", "5"].into_iter();
        let answers = classes.zip(breaker.stats.answers());
        answers.map(move |(class, count)| ([backend, policy, class], count))
    });
    page.rows(&catalogue::RQ_XX, answers);
    for resource in Resource::ALL {
        let [used, open] = catalogue::of_resource(resource);
        let under_way = |breaker: &Breaker| u64::from(breaker.used(resource));
        page.rows(used, each(breakers, of_breaker, under_way));
        let is_open = |breaker: &Breaker| u64::from(breaker.is_open(resource));
        page.rows(open, each(breakers, of_breaker, is_open));
    }
    let limits = breakers.iter().flat_map(|breaker| {
        let [backend, policy] = of_breaker(breaker);
        Resource::ALL.map(|resource| {
            let labels = [backend, policy, resource.name()];
            (labels, u64::from(breaker.bound(resource)))
        })
    });
    page.rows(&catalogue::BREAKER_LIMIT, limits);
}

fn outliers(outliers: &[Arc<Outliers>], page: &mut Page) {
    page.rows(
        &catalogue::EJECTIONS_TOTAL,
        each(outliers, of_outliers, Outliers::enforced_total),
    );
    page.rows(
        &catalogue::EJECTIONS_OVERFLOW,
        each(outliers, of_outliers, Outliers::overflow),
    );
    for kind in Kind::ALL {
        let [enforced, detected] = catalogue::of_ejection(kind);
        page.rows(enforced, each(outliers, of_outliers, |o| o.enforced(kind)));
        page.rows(detected, each(outliers, of_outliers, |o| o.detected(kind)));
    }
}

fn members(backends: &[BackendState], page: &mut Page) {
    let rows = |value: fn(&BackendState) -> usize| {
        backends.iter().map(move |backend| {
            let labels = [backend.backend.as_str(), backend.policy.as_str()];
            (labels, u64::try_from(value(backend)).unwrap_or(u64::MAX))
        })
    };
    page.rows(
        &catalogue::MEMBERSHIP_TOTAL,
        rows(|backend| backend.endpoints),
    );
    page.rows(
        &catalogue::MEMBERSHIP_HEALTHY,
        rows(|backend| backend.healthy),
    );
    page.rows(
        &catalogue::EJECTIONS_ACTIVE,
        rows(|backend| backend.ejected),
    );
}

fn checks(checks: &[Arc<CheckStats>], page: &mut Page) {
    page.rows(
        &catalogue::CHECK_ATTEMPT,
        each(checks, of_checks, |c| c.attempts.load(Ordering::Relaxed)),
    );
    page.rows(
        &catalogue::CHECK_SUCCESS,
        each(checks, of_checks, |c| c.successes.load(Ordering::Relaxed)),
    );
    page.rows(
        &catalogue::CHECK_FAILURE,
        each(checks, of_checks, |c| c.failures.load(Ordering::Relaxed)),
    );
    page.rows(
        &catalogue::CHECK_NETWORK_FAILURE,
        each(checks, of_checks, |c| {
            c.network_failures.load(Ordering::Relaxed)
        }),
    );
}
