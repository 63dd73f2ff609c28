//! Global limits counted by a real Redis: one limit for all nodes, and what holds without it.

mod clocks;
mod cluster;
mod failover;
mod fleet;
mod leases;
mod model;
mod outages;
mod per_second;
mod sentinel;
mod settling;
mod support;
mod ways;
