//! Subcommands, one file each.

pub mod check;
pub mod demo_backend;
pub mod probe;
