//! The rate limit services elsewhere that are asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::client::Client;
use crate::policy::plan::RlsPeer;

/// Clients, found again for as long as anybody asks them.
#[derive(Debug, Default)]
pub struct Clients(Mutex<Vec<Weak<Client>>>);

impl Clients {
    fn known(&self) -> MutexGuard<'_, Vec<Weak<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that are asked.
    #[must_use]
    pub fn living(&self) -> Vec<Arc<Client>> {
        self.known().iter().filter_map(Weak::upgrade).collect()
    }

    /// The client of `peer`, made if there is none.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn find<E>(
        &self,
        peer: &RlsPeer,
        make: impl FnOnce() -> Result<Client, E>,
    ) -> Result<Arc<Client>, E> {
        let mut known = self.known();
        known.retain(|client| client.strong_count() > 0);
        let mut living = known.iter().filter_map(Weak::upgrade);
        if let Some(same) = living.find(|client| client.plan() == peer) {
            return Ok(same);
        }
        let made = Arc::new(make()?);
        known.push(Arc::downgrade(&made));
        Ok(made)
    }
}
