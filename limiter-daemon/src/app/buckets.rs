//! The buckets of limits on requests, which outlive the process: in a file of memory that systemd
//! keeps over a restart and a crash, and that a new process takes over.
//!
//! Rejected: writing them to a disk. What a crash would leave is always old, and what is denied is
//! changed by every request.

use std::os::fd::OwnedFd;

use crate::engine::buckets::BucketTable;
use crate::engine::time::Now;

/// A table of at least `capacity` words, in the file that was passed if there is one.
pub(super) fn open(passed: Option<OwnedFd>, capacity: usize, now: Now) -> BucketTable {
    if let Some(file) = passed {
        match BucketTable::adopt(file, capacity, now) {
            Ok((table, 0)) => {
                tracing::info!("buckets of requests go on as they were");
                return table;
            }
            Ok((table, lost)) => {
                tracing::warn!(
                    lost,
                    "buckets of requests go on as they were, but those that found no room: these \
                     are full; http.maxBuckets was more before"
                );
                return table;
            }
            Err(error) => {
                tracing::warn!(%error, "buckets of requests that were passed cannot be used: all are full");
            }
        }
    }
    BucketTable::kept(capacity).unwrap_or_else(|error| {
        tracing::warn!(%error, "no memory that others can take over: buckets of requests end with this process");
        BucketTable::new(capacity)
    })
}
