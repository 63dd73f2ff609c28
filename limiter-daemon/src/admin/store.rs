//! Metrics of the store that nodes share.

use std::sync::Arc;

use super::metrics::{Page, catalogue};
use crate::engine::store::Without;
use crate::engine::store::breaker::Condition;
use crate::global::RedisLedger;

/// Stores by their names, and what holds while they do not answer.
pub(super) type Watched = (Vec<(&'static str, Arc<RedisLedger>)>, Arc<Without>);

pub(super) fn encode((stores, without): &Watched, page: &mut Page) {
    let each = |read: fn(&RedisLedger) -> u64| {
        let all = stores.iter();
        all.map(move |(name, store)| ([*name], read(store)))
    };
    page.rows(
        &catalogue::STORE_REQUESTS,
        stores.iter().flat_map(|(name, store)| {
            let asked = store.counts().asked();
            asked.map(|(result, count)| ([*name, result], count))
        }),
    );
    page.rows(
        &catalogue::STORE_FAILURE,
        without.counts().map(|(mode, count)| ([mode], count)),
    );
    page.rows(
        &catalogue::STORE_REDIRECTIONS,
        each(|store| store.counts().redirected()),
    );
    page.rows(
        &catalogue::STORE_ADJUSTMENTS_LOST,
        each(|store| store.counts().lost_adjustments()),
    );
    page.rows(
        &catalogue::STORE_CONNECTIONS,
        each(|store| store.counts().connections()),
    );
    page.rows(
        &catalogue::STORE_STATE,
        each(|store| match store.condition() {
            Condition::Closed => 0,
            Condition::HalfOpen => 1,
            Condition::Open => 2,
        }),
    );
}
