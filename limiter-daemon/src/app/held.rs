//! What a node holds and remembers of the store that nodes share: leases, and keys over their limit.

use std::sync::Arc;

use super::Daemon;
use crate::admin::Holdings;
use crate::engine::store::lease::Leases;
use crate::engine::store::ledger::Ledger;
use crate::engine::store::over_limit::{Memory, OverLimit};
use crate::engine::time::Now;
use crate::global::RedisLedger;

/// What stands before the store.
pub(super) struct Held {
    leases: Arc<Leases>,
    /// `None`: nothing is remembered.
    memory: Option<Arc<Memory>>,
    stores: Vec<Arc<RedisLedger>>,
}

/// What is asked in place of the store.
pub(super) struct Before {
    pub(super) held: Held,
    pub(super) requests: Arc<dyn Ledger>,
    pub(super) domains: Arc<dyn Ledger>,
}

impl Held {
    /// Puts both before `ledger`, which counts in `stores`, for limits on requests; and the memory alone
    /// for those of domains, whose keys are others. At most `keys` over their limit are remembered.
    pub(super) fn before(
        ledger: Arc<dyn Ledger>,
        stores: &[(&str, Arc<RedisLedger>)],
        keys: usize,
    ) -> Before {
        let (memory, ledger, domains) = if keys > 0 {
            let remembering = OverLimit::new(Arc::clone(&ledger), keys);
            let memory = Arc::clone(remembering.memory());
            let domains: Arc<dyn Ledger> = Arc::new(remembering.of_all(ledger));
            let requests: Arc<dyn Ledger> = Arc::new(remembering);
            (Some(memory), requests, domains)
        } else {
            (None, Arc::clone(&ledger), ledger)
        };
        let leases = Arc::new(Leases::new(ledger));
        let first = Arc::<Leases>::clone(&leases);
        let held = Self {
            leases,
            memory,
            stores: stores.iter().map(|(_, store)| Arc::clone(store)).collect(),
        };
        Before {
            held,
            requests: first,
            domains,
        }
    }

    pub(super) fn watched(&self) -> Holdings {
        Holdings {
            leases: Arc::clone(self.leases.table()),
            memory: self.memory.clone(),
        }
    }

    /// Gives all leases back, and waits until the store has them, for as long as a change may take.
    pub(super) async fn end(&self, now: Now) {
        self.leases.end(now);
        for store in &self.stores {
            store.settled().await;
        }
    }
}

impl Daemon {
    /// Gives back what nobody asked for until its time was over.
    pub(super) fn look_after_leases(&self) {
        if let Some(held) = &self.held {
            held.leases.tend(self.clock.both());
        }
    }
}
