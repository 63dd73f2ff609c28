//! The end-to-end harness: network namespaces, a running daemon, HTTP clients, floods of packets and
//! captures. Everything is made by the test that uses it and goes with it; two tests share nothing,
//! so they run in parallel.

pub mod activation;
pub mod browser;
pub mod capture;
pub mod collector;
pub mod counting;
pub mod daemon;
pub mod echo;
pub mod envoy;
pub mod flood;
pub mod fuzz;
pub mod grpc;
pub mod http_client;
pub mod kubernetes;
pub mod metrics;
pub mod netns;
pub mod oracle;
pub mod over;
pub mod packets;
pub mod pod;
pub mod policies;
pub mod prometheus;
pub mod raw;
pub mod redis;
pub mod redis_cluster;
pub mod rls;
pub mod rls_peer;
pub mod scene;
pub mod scripted;
pub mod soak;
pub mod storm;
pub mod tls;
pub mod topology;
pub mod upstream;
pub mod user;
pub mod volume;
