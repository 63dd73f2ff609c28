//! Metrics of HTTP limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::{Page, catalogue};
use crate::engine::state::{LimitStats, Reach, RouteStats, Scope};

/// Envoy Gateway's `stat_prefix` of the local rate limit filter, which is a label there.
const PREFIX: &str = "http_local_rate_limiter";

pub(super) fn encode(routes: &[Arc<RouteStats>], scopes: &[Arc<Scope>], page: &mut Page) {
    requests(routes, page);
    decisions(scopes, Reach::Local, page);
    decisions(scopes, Reach::Global, page);
    candidates(scopes, page);
    in_force(scopes, page);
    page.rows(
        &catalogue::REFUNDED,
        totals(scopes, |scope| &scope.counters.refunded),
    );
    page.rows(
        &catalogue::RESPONSE_TOKENS,
        totals(scopes, |scope| &scope.counters.response_tokens),
    );
    page.rows(
        &catalogue::UNMETERED,
        totals(scopes, |scope| &scope.counters.unmetered),
    );
}

/// Each request once, by Envoy's names.
fn requests(routes: &[Arc<RouteStats>], page: &mut Page) {
    let each = |value: fn(&LimitStats) -> u64| {
        routes
            .iter()
            .map(move |route| ([PREFIX, route.route.as_str()], value(&route.limits)))
    };
    page.rows(
        &catalogue::LOCAL_ENABLED,
        each(|limits| read(&limits.ok) + read(&limits.over)),
    );
    page.rows(&catalogue::LOCAL_OK, each(|limits| read(&limits.ok)));
    page.rows(
        &catalogue::LOCAL_RATE_LIMITED,
        each(|limits| read(&limits.over)),
    );
    page.rows(
        &catalogue::LOCAL_ENFORCED,
        each(|limits| read(&limits.refused)),
    );
    page.rows(
        &catalogue::OVER_LIMIT,
        routes.iter().map(|route| {
            let refused = read(&route.limits.refused_by_store);
            ([route.route.as_str()], refused)
        }),
    );
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn decisions(scopes: &[Arc<Scope>], reach: Reach, page: &mut Page) {
    let own = |scope: &&Arc<Scope>| scope.name.reach == reach && scope.name.candidate.is_empty();
    let rows = scopes.iter().filter(own).flat_map(|scope| {
        let counters = &scope.counters;
        [
            ("ok", &counters.admitted),
            ("over_limit", &counters.limited),
            ("shadow_over_limit", &counters.shadow_limited),
        ]
        .map(|(decision, count)| {
            let labels = [
                scope.name.rule.as_str(),
                scope.name.route.as_str(),
                decision,
            ];
            (labels, read(count))
        })
    });
    let family = match reach {
        Reach::Local => &catalogue::LOCAL_DECISIONS,
        Reach::Global => &catalogue::GLOBAL_DECISIONS,
    };
    page.rows(family, rows);
}

fn candidates(scopes: &[Arc<Scope>], page: &mut Page) {
    let tried = scopes.iter().filter(|s| !s.name.candidate.is_empty());
    let rows = tried.flat_map(|scope| {
        let counters = &scope.counters;
        [
            ("ok", &counters.admitted),
            ("over_limit", &counters.limited),
        ]
        .map(|(decision, count)| {
            let labels = [
                scope.name.reach.name(),
                scope.name.rule.as_str(),
                scope.name.route.as_str(),
                scope.name.candidate.as_str(),
                decision,
            ];
            (labels, read(count))
        })
    });
    page.rows(&catalogue::CANDIDATE_DECISIONS, rows);
}

/// What each limit admits; a rule that admits everything has none.
fn in_force(scopes: &[Arc<Scope>], page: &mut Page) {
    let each = || {
        scopes.iter().filter_map(|scope| {
            let labels = [
                scope.name.reach.name(),
                scope.name.rule.as_str(),
                scope.name.route.as_str(),
                scope.name.candidate.as_str(),
            ];
            Some((labels, scope.admits()?))
        })
    };
    page.rows(
        &catalogue::LIMIT_TOKENS,
        each().map(|(labels, admits)| (labels, admits.tokens)),
    );
    page.rows(
        &catalogue::LIMIT_RATE,
        each().map(|(labels, admits)| (labels, admits.per_second)),
    );
}

/// A row for each rule that has counted anything.
fn totals<'a>(
    scopes: &'a [Arc<Scope>],
    counter: impl Fn(&'a Scope) -> &'a AtomicU64,
) -> impl Iterator<Item = ([&'a str; 3], u64)> {
    let own = scopes.iter().filter(|s| s.name.candidate.is_empty());
    own.map(move |scope| {
        let labels = [
            scope.name.reach.name(),
            scope.name.rule.as_str(),
            scope.name.route.as_str(),
        ];
        (labels, read(counter(scope)))
    })
    .filter(|(_, count)| *count > 0)
}
