//! Global limits counted by a real Redis: one limit for all nodes, and what holds without it.

mod clocks;
mod failover;
mod fleet;
mod model;
mod outages;
mod settling;
mod support;
mod ways;
