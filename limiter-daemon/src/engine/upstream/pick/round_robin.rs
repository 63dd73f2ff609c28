//! In turn, over all workers.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::View;
use crate::engine::upstream::mix::splitmix64;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns(AtomicUsize);

impl Turns {
    /// The next host that may be taken. The turn of one that may not is passed over for everybody,
    /// so that the one behind it does not get two shares; so is that of a host in slow start, as
    /// often as its share is small.
    pub(super) fn pick(&self, view: &View<'_>, random: u64) -> Option<usize> {
        let count = view.count();
        let mut random = random;
        let mut first = None;
        for _ in 0..count {
            let turn = self.0.fetch_add(1, Ordering::Relaxed) % count;
            if !view.takes(turn) {
                continue;
            }
            random = splitmix64(random);
            let slow_start = view.hosts.slow_start;
            if slow_start.accepts(view.host(turn), random, view.now) {
                return Some(turn);
            }
            first = first.or(Some(turn));
        }
        // Everybody passed, or others took the turns of those that may be taken.
        first.or_else(|| (0..count).find(|index| view.takes(*index)))
    }
}
