//! Limits of the rate limit service, in memory and counted by a real Redis: one limit for all nodes, the
//! reference service beside, and what holds without the store.

mod beside;
mod features;
mod fleet;
mod model;
mod outcomes;
mod precedence;
mod support;
