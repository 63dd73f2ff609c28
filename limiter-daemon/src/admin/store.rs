//! Metrics of the store that nodes share.

use std::fmt;
use std::sync::Arc;

use super::metrics::Page;
use crate::engine::store::Without;
use crate::engine::store::breaker::Condition;
use crate::global::RedisLedger;

/// A store, and what holds while it does not answer.
pub(super) type Watched = (Arc<RedisLedger>, Arc<Without>);

pub(super) fn encode((store, without): &Watched, page: &mut Page<'_, '_>) -> fmt::Result {
    let counts = store.counts();
    page.counters(
        "limiterd_store_requests",
        "Questions to the store of global limits by result; not_asked: it has failed too often to be asked.",
        counts.asked().map(|(result, count)| ([("result", result)], count)),
    )?;
    page.counters(
        "limiterd_store_failure_decisions",
        "Limits that were decided without the store, by what held instead.",
        without
            .counts()
            .map(|(mode, count)| ([("mode", mode)], count)),
    )?;
    page.counter(
        "limiterd_store_adjustments_lost",
        "Refunds and costs of responses that did not reach the store.",
        counts.lost_adjustments(),
    )?;
    page.gauge(
        "limiterd_store_connections",
        "Connections to the store that are up; one for each worker and each thread of the rate limit service.",
        counts.connections(),
    )?;
    page.gauge(
        "limiterd_store_state",
        "0: the store is asked; 1: a request at a time, to see whether it answers again; 2: it is not asked.",
        match store.condition() {
            Condition::Closed => 0,
            Condition::HalfOpen => 1,
            Condition::Open => 2,
        },
    )
}
