//! The bucket against a plain model in wide integers, at its edges, and under real threads.

mod edges;
mod model;
mod threads;

use core::cell::Cell as StdCell;

use super::Cell;

/// A bucket's state on one thread.
struct Plain(StdCell<u64>);

impl Plain {
    const fn full() -> Self {
        Self(StdCell::new(0))
    }
}

impl Cell for Plain {
    fn load(&self) -> u64 {
        self.0.get()
    }

    fn compare_exchange(&self, seen: u64, next: u64) -> Result<(), u64> {
        let found = self.0.get();
        if found == seen {
            self.0.set(next);
            return Ok(());
        }
        Err(found)
    }
}
