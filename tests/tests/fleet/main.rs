//! Nodes that share a store: who is alive, and blocks that reach all.

mod access;
mod blocks;
mod full;
mod nodes;
mod outages;
mod support;
