//! What is seen of a running daemon: its metrics, by promtool and a real Prometheus; and its
//! dashboard, by a real Chromium.

mod metrics;
mod page;
mod support;
