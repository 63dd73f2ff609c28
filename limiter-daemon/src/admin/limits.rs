//! Metrics of HTTP limits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::Page;
use crate::engine::state::{Reach, Scope};

pub(super) fn encode(scopes: &[Arc<Scope>], page: &mut Page<'_, '_>) -> fmt::Result {
    decisions(scopes, Reach::Local, page)?;
    decisions(scopes, Reach::Global, page)?;
    candidates(scopes, page)?;
    page.counters(
        "limiterd_rate_limit_refunded_tokens",
        "Tokens given back, by rule and route.",
        totals(scopes, |scope| &scope.counters.refunded),
    )?;
    page.counters(
        "limiterd_rate_limit_response_tokens",
        "Tokens taken for responses, by rule and route.",
        totals(scopes, |scope| &scope.counters.response_tokens),
    )?;
    page.counters(
        "limiterd_rate_limit_unmetered_responses",
        "Responses that a rule charges for and whose cost was not found in them.",
        totals(scopes, |scope| &scope.counters.unmetered),
    )
}

fn decisions(scopes: &[Arc<Scope>], reach: Reach, page: &mut Page<'_, '_>) -> fmt::Result {
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
                ("rule", scope.name.rule.as_str()),
                ("route", scope.name.route.as_str()),
                ("decision", decision),
            ];
            (labels, count.load(Ordering::Relaxed))
        })
    });
    let (name, help) = match reach {
        Reach::Local => (
            "limiterd_local_rate_limit",
            "Decisions of local limits, by rule and route (none: of a shared rule); over_limit counts for the rule that decided.",
        ),
        Reach::Global => ("limiterd_global_rate_limit", "The same of global limits."),
    };
    page.counters(name, help, rows)
}

fn candidates(scopes: &[Arc<Scope>], page: &mut Page<'_, '_>) -> fmt::Result {
    let tried = scopes.iter().filter(|s| !s.name.candidate.is_empty());
    let rows = tried.flat_map(|scope| {
        let counters = &scope.counters;
        [
            ("ok", &counters.admitted),
            ("over_limit", &counters.limited),
        ]
        .map(|(decision, count)| {
            let labels = [
                ("limit", scope.name.reach.name()),
                ("rule", scope.name.rule.as_str()),
                ("route", scope.name.route.as_str()),
                ("candidate", scope.name.candidate.as_str()),
                ("decision", decision),
            ];
            (labels, count.load(Ordering::Relaxed))
        })
    });
    page.counters(
        "limiterd_rate_limit_candidate",
        "What candidates would have decided in their rule's place.",
        rows,
    )
}

/// A row for each rule that has counted anything.
fn totals<'a>(
    scopes: &'a [Arc<Scope>],
    counter: impl Fn(&'a Scope) -> &'a AtomicU64,
) -> impl Iterator<Item = ([(&'static str, &'a str); 3], u64)> {
    let own = scopes.iter().filter(|s| s.name.candidate.is_empty());
    own.map(move |scope| {
        let labels = [
            ("limit", scope.name.reach.name()),
            ("rule", scope.name.rule.as_str()),
            ("route", scope.name.route.as_str()),
        ];
        (labels, counter(scope).load(Ordering::Relaxed))
    })
    .filter(|(_, count)| *count > 0)
}
