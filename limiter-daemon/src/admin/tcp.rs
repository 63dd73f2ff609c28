//! Metrics of connections that are passed on, under Envoy's names where it has one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::Page;
use crate::engine::tcp::{Lost, TcpStats};

pub(super) fn encode(proxies: &[Arc<TcpStats>], page: &mut Page<'_, '_>) -> fmt::Result {
    type Row = (&'static str, &'static str, fn(&TcpStats) -> &AtomicU64);
    const ROWS: [Row; 5] = [
        (
            "envoy_tcp_downstream_cx_total",
            "Connections that came to be passed on.",
            |stats| &stats.connections,
        ),
        (
            "envoy_tcp_downstream_cx_no_route",
            "Connections closed because no host is for the name that the client asked for, or its destination leads nowhere.",
            |stats| &stats.no_route,
        ),
        (
            "envoy_tcp_downstream_cx_rx_bytes_total",
            "Bytes that came from clients and were passed on.",
            |stats| &stats.received,
        ),
        (
            "envoy_tcp_downstream_cx_tx_bytes_total",
            "Bytes sent to clients.",
            |stats| &stats.sent,
        ),
        (
            "envoy_tcp_idle_timeout",
            "Connections closed because nothing came from either side for too long.",
            |stats| &stats.idle,
        ),
    ];
    for (name, help, read) in ROWS {
        let rows = proxies.iter().map(|stats| {
            let labels = [("envoy_tcp_prefix", stats.name.as_str())];
            (labels, read(stats).load(Ordering::Relaxed))
        });
        page.known(name, help, rows)?;
    }
    let rows = proxies.iter().flat_map(|stats| {
        Lost::ALL.map(|why| {
            let labels = [
                ("envoy_tcp_prefix", stats.name.as_str()),
                ("reason", why.name()),
            ];
            (labels, stats.lost(why))
        })
    });
    page.counters(
        "limiterd_tcp_downstream_cx_failed",
        "Connections closed because no endpoint could have them, by reason.",
        rows,
    )
}
