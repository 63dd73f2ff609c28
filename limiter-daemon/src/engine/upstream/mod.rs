//! Backends as decisions see them: how much may be under way to them, and what becomes of it.

mod breaker;
mod slots;
mod stats;

pub use breaker::{Breaker, Overflow, Permit, Resource};
pub use slots::{Slot, Slots, Waiter};
pub use stats::{Stat, Stats};
