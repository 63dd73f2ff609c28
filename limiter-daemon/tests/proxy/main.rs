//! The data plane over real sockets, on plans that are built in code.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails, fails the test"
)]

mod certificates;
mod client;
mod frames;
mod http2;
mod plans;
mod stage;
mod upstream;

mod bounds;
mod buffering;
mod clients;
mod costs;
mod faults;
mod grpc;
mod h2_frames;
mod logging;
mod overrides;
mod routes;
mod smuggling;
mod tls;
mod upstreams;
