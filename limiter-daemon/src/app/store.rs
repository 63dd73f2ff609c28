//! What counts global limits, put together.

use std::sync::Arc;

use crate::engine::store::SharedStore;
use crate::engine::store::parts::{Parts, Place};
use crate::global::RedisLedger;
use crate::policy::plan::{DaemonConfig, StoreAddress, StoreConfig};

/// The store that nodes share, if there is one. It need not be there: until it is, limits hold as they
/// say for that.
pub(super) fn store(config: &DaemonConfig) -> anyhow::Result<Option<(Vec<Ledger>, SharedStore)>> {
    let Some(settings) = &config.store else {
        return Ok(None);
    };
    let mut ledgers = Vec::new();
    let mut place = |name, settings: &StoreConfig| -> anyhow::Result<Place> {
        let ledger = Arc::new(RedisLedger::new(settings)?);
        ledgers.push((name, Arc::clone(&ledger)));
        tracing::info!(store = %settings.address, budget = ?settings.budget, limits = name, "global limits are counted there");
        Ok(Place {
            slots: matches!(settings.address, StoreAddress::Cluster(_)),
            ledger,
        })
    };
    let main = place("main", settings)?;
    let per_second = config.per_second_store.as_ref();
    let per_second = per_second
        .map(|settings| place("per_second", settings))
        .transpose()?;
    let ledger = if main.slots || per_second.is_some() {
        Arc::new(Parts::new(main, per_second))
    } else {
        main.ledger
    };
    let store = SharedStore::new(ledger, &settings.prefix, settings.on_failure);
    Ok(Some((ledgers, store)))
}

/// A store by its name in metrics.
pub(super) type Ledger = (&'static str, Arc<RedisLedger>);
