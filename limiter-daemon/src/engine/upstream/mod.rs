//! What is known of the endpoints of backends, and what is decided by it: which host a request goes
//! to, which are ejected or failed by checks, and whether requests are refused because too many
//! fail.
//!
//! Workers share all of it without locks: a host is a few atomics, a [`Hosts`] is immutable. Only
//! ejecting a host, which is rare, is done by one at a time.

mod admission;
mod health;
mod host;
mod mix;
mod outlier;
mod pick;
mod registry;

pub use admission::Admission;
pub use health::{CheckStats, Health, Transition};
pub use host::Host;
pub use mix::{hash, splitmix64};
pub use outlier::{Ejected, Exchange, Kind, Outliers};
pub use pick::Hosts;
pub use registry::Registry;
