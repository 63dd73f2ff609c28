//! How many nodes share the store.

use std::sync::atomic::{AtomicU32, Ordering};

/// The number of nodes last seen alive, this one among them. It stays as it was while nobody is seen:
/// without the store, a node that is gone cannot be told from one that is cut off.
#[derive(Debug)]
pub struct Alive(AtomicU32);

impl Default for Alive {
    fn default() -> Self {
        Self(AtomicU32::new(1))
    }
}

impl Alive {
    /// At least 1.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// So many nodes were seen.
    pub fn saw(&self, nodes: usize) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        self.0.store(nodes, Ordering::Relaxed);
    }
}
