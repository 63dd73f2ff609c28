//! Subcommands, one file each.

pub mod check;
pub mod client;
pub mod control;
pub mod counters;
pub mod demo_backend;
pub mod endpoint;
pub mod explain;
pub mod l4;
pub mod manual;
pub mod paint;
pub mod probe;
pub mod sentences;
pub mod simulate;
pub mod status;
pub mod top;
