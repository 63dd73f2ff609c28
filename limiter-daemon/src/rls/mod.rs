//! Envoy's rate limit service: `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`, with
//! gRPC health and reflection, and the same question as JSON.
//!
//! One address for all of it: gRPC is HTTP/2, `POST /json` and `GET /healthcheck` may be either.
//! One thread a core, each with a single-threaded runtime and a socket of its own
//! (`SO_REUSEPORT`): a decision is made where its bytes arrive, and what threads share is the atomics
//! of the buckets. They are not the workers of the proxy, so that neither waits for the other's
//! connections; idle threads cost nothing. The kernel spreads connections, not requests: an Envoy has
//! one connection a worker thread, so a single small Envoy may use one core of limiterd, and a fleet
//! uses all.
//!
//! A question that cannot be answered is a gRPC error, which Envoy's `failure_mode_deny` is about:
//! `UNAVAILABLE` for a domain whose files were never valid and for a store that does not answer,
//! `INVALID_ARGUMENT` for what is no question.

mod body;
mod client;
mod clients;
mod counters;
mod http;
mod http2;
mod json;
mod metadata;
pub mod proto;
mod reflect;
mod service;
mod trace;
mod translate;
mod unary;
mod worker;

pub use client::{Client, PeerError};
pub use clients::Clients;
pub use counters::Counters;
pub use service::{Answer, Answering, Clock, Service, Telling};
pub use worker::{Server, StartError};
