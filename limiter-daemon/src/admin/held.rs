//! Metrics of what a node holds and remembers of the store that nodes share.

use std::sync::Arc;

use super::metrics::{Page, catalogue};
use crate::engine::store::lease::table::Table;
use crate::engine::store::over_limit::Memory;

/// What is held and remembered.
#[derive(Debug)]
pub struct Holdings {
    pub leases: Arc<Table>,
    /// `None`: nothing is remembered.
    pub memory: Option<Arc<Memory>>,
}

pub(super) fn encode(held: &Holdings, page: &mut Page) {
    let Holdings { leases, memory } = held;
    page.value(&catalogue::STORE_LEASES, leases.in_hand());
    let counts = leases.counts();
    page.value(&catalogue::LEASE_DECISIONS, counts.decisions());
    page.rows(
        &catalogue::LEASE_TOKENS,
        counts.tokens().map(|(event, count)| ([event], count)),
    );
    page.value(&catalogue::LEASE_UNTRACKED, counts.untracked());
    let Some(memory) = memory else {
        return;
    };
    page.rows(
        &catalogue::OVER_LIMIT_MEMORY,
        memory.counts().map(|(result, count)| ([result], count)),
    );
}
