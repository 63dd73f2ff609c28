//! Metrics of the store that nodes share.

use std::fmt;
use std::sync::Arc;

use super::metrics::Page;
use crate::engine::store::Without;
use crate::engine::store::breaker::Condition;
use crate::global::RedisLedger;

/// Stores by their names, and what holds while they do not answer.
pub(super) type Watched = (Vec<(&'static str, Arc<RedisLedger>)>, Arc<Without>);

pub(super) fn encode((stores, without): &Watched, page: &mut Page<'_, '_>) -> fmt::Result {
    let each = |read: fn(&RedisLedger) -> u64| {
        let all = stores.iter();
        all.map(move |(name, store)| ([("store", *name)], read(store)))
    };
    page.counters(
        "limiterd_store_requests",
        "Questions to the store of global limits by result; not_asked: it has failed too often to be asked.",
        stores.iter().flat_map(|(name, store)| {
            let asked = store.counts().asked();
            asked.map(|(result, count)| ([("store", *name), ("result", result)], count))
        }),
    )?;
    page.counters(
        "limiterd_store_failure_decisions",
        "Limits that were decided without the store, by what held instead.",
        without
            .counts()
            .map(|(mode, count)| ([("mode", mode)], count)),
    )?;
    page.counters(
        "limiterd_store_redirections",
        "Answers of a cluster's servers that a key is elsewhere, which were followed.",
        each(|store| store.counts().redirected()),
    )?;
    page.counters(
        "limiterd_store_adjustments_lost",
        "Refunds and costs of responses that did not reach the store.",
        each(|store| store.counts().lost_adjustments()),
    )?;
    page.gauges(
        "limiterd_store_connections",
        "Connections to the store that are up; one for each worker, each thread of the rate limit service, and server.",
        each(|store| store.counts().connections()),
    )?;
    page.gauges(
        "limiterd_store_state",
        "0: the store is asked; 1: a request at a time, to see whether it answers again; 2: it is not asked. Of a cluster its worst server.",
        each(|store| match store.condition() {
            Condition::Closed => 0,
            Condition::HalfOpen => 1,
            Condition::Open => 2,
        }),
    )
}
