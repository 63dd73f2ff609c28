//! The data plane over real sockets, on plans that are built in code.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails, fails the test"
)]

mod certificates;
mod client;
mod frames;
mod grpc_health;
mod http2;
mod plans;
mod stage;
mod upstream;

mod asking;
mod bounds;
mod breakers;
mod buffering;
mod clients;
mod costs;
mod faults;
mod grpc;
mod h2_frames;
mod health_checks;
mod logging;
mod overrides;
mod retries;
mod routes;
mod smuggling;
mod tcp;
mod tls;
mod upstreams;
