//! What is seen of a running daemon: its metrics, by promtool and a real Prometheus.

mod metrics;
mod support;
