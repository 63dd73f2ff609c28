//! What counts global limits, put together.

use std::sync::Arc;

use super::held::{Before, Held};
use crate::admin::Counted;
use crate::engine::domain::DomainStore;
use crate::engine::fleet::Alive;
use crate::engine::store::SharedStore;
use crate::engine::store::ledger::Ledger;
use crate::engine::store::parts::{Parts, Place};
use crate::global::{RedisLedger, Windows};
use crate::policy::plan::{DaemonConfig, StoreAddress, StoreConfig};

/// What counts in the store that nodes share.
pub(super) struct Stores {
    pub(super) main: Arc<RedisLedger>,
    /// All, by their names in metrics.
    pub(super) ledgers: Vec<(&'static str, Arc<RedisLedger>)>,
    /// Nodes last seen alive.
    pub(super) alive: Arc<Alive>,
    /// What this node holds of it.
    pub(super) held: Held,
    /// Limits on requests.
    pub(super) requests: SharedStore,
    /// Limits of the rate limit service.
    pub(super) domains: DomainStore,
}

impl Stores {
    /// What the admin listener may look at.
    pub(super) fn counted(&self, config: &DaemonConfig) -> Counted {
        let stores = self.ledgers.iter();
        Counted {
            stores: stores.map(|(_, store)| Arc::clone(store)).collect(),
            prefix: config
                .store
                .as_ref()
                .map_or_else(String::new, |store| store.prefix.clone()),
            memory: self.held.watched().memory,
        }
    }
}

/// The store that nodes share, if there is one. It need not be there: until it is, limits hold as they
/// say for that.
pub(super) fn store(config: &DaemonConfig) -> anyhow::Result<Option<Stores>> {
    let Some(settings) = &config.store else {
        return Ok(None);
    };
    let mut ledgers = Vec::new();
    let mut place = |name, settings: &StoreConfig| -> anyhow::Result<(Arc<RedisLedger>, Place)> {
        let ledger = Arc::new(RedisLedger::new(settings)?);
        ledgers.push((name, Arc::clone(&ledger)));
        tracing::info!(store = %settings.address, budget = ?settings.budget, limits = name, "global limits are counted there");
        let slots = matches!(settings.address, StoreAddress::Cluster(_));
        Ok((Arc::clone(&ledger), Place { ledger, slots }))
    };
    let (main, place_of_main) = place("main", settings)?;
    let per_second = config.per_second_store.as_ref();
    let per_second = per_second
        .map(|settings| Ok::<_, anyhow::Error>(place("per_second", settings)?.1))
        .transpose()?;
    let ledger: Arc<dyn Ledger> = if place_of_main.slots || per_second.is_some() {
        Arc::new(Parts::new(place_of_main, per_second))
    } else {
        place_of_main.ledger
    };
    let Before {
        held,
        requests,
        domains,
    } = Held::before(ledger, &ledgers, settings.over_limit_memory);
    let alive = Arc::<Alive>::default();
    let windows = Arc::new(Windows::new(domains, settings.budget));
    Ok(Some(Stores {
        requests: SharedStore::new(requests, &settings.prefix, settings.on_failure)
            .among(Arc::clone(&alive)),
        domains: DomainStore::new(windows, &settings.prefix).among(Arc::clone(&alive)),
        main,
        ledgers,
        alive,
        held,
    }))
}
