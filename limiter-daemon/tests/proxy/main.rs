//! The data plane over real sockets, on plans that are built in code.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

mod client;
mod costs;
mod plans;
mod stage;
mod upstream;

mod upstreams;
