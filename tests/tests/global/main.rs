//! Global limits counted by a real Redis: one limit for all nodes, and what holds without it.

mod failover;
mod fleet;
mod leases;
mod model;
mod outages;
mod settling;
mod support;
mod ways;
