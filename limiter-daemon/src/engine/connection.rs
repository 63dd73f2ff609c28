//! Buckets of one client connection, of limits that give each connection one of its own.
//!
//! They lie with the connection and go with it: connections without number take no room in the
//! table of buckets from other clients, and one that was closed leaves nothing behind. There are as
//! many as limits that its requests met, so at most as many as its listener has.

use std::sync::{Arc, Mutex, PoisonError};

use smallvec::SmallVec;

use super::buckets::Word;

/// The state of a bucket: as many words as any algorithm needs.
pub type OwnWords = Arc<[Word; 2]>;

/// The buckets of a connection.
#[derive(Debug, Default)]
pub struct ConnectionBuckets(Mutex<SmallVec<[(u64, OwnWords); 1]>>);

impl ConnectionBuckets {
    /// The bucket of a limit, which is full at first; `limit` stands for its name, so that it is
    /// the same one after a reload.
    #[must_use]
    pub fn of(&self, limit: u64) -> OwnWords {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match buckets.binary_search_by_key(&limit, |(of, _)| *of) {
            Ok(index) => index,
            Err(index) => {
                buckets.insert(index, (limit, OwnWords::default()));
                index
            }
        };
        Arc::clone(&buckets[index].1)
    }
}
