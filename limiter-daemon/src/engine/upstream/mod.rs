//! Backends as decisions see them: how much may be under way to them, which host a request goes to,
//! which are ejected or failed by checks, and whether requests are refused because too many fail.
//!
//! Workers share all of it. A host and a breaker are a few atomics, a [`Hosts`] is immutable; locks
//! are only for what is rare: ejecting a host, and waiting for a connection.

mod admission;
mod breaker;
mod health;
mod host;
mod mix;
mod outlier;
mod pick;
mod registry;
mod slots;
mod stats;

pub use admission::Admission;
pub use breaker::{Breaker, Overflow, Permit, Resource};
pub use health::{CheckStats, Health, Transition};
pub use host::Host;
pub use mix::{hash, splitmix64};
pub use outlier::{Ejected, Exchange, Kind, Outliers};
pub use pick::Hosts;
pub use registry::Registry;
pub use slots::{Slot, Slots, Waiter};
pub use stats::{Stat, Stats};
