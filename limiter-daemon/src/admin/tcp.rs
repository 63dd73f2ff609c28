//! Metrics of connections that are passed on, under Envoy's names where it has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::{Family, Page, catalogue};
use crate::engine::tcp::{Lost, TcpStats};

pub(super) fn encode(proxies: &[Arc<TcpStats>], page: &mut Page) {
    type Row = (Family<1>, fn(&TcpStats) -> &AtomicU64);
    const ROWS: [Row; 5] = [
        (catalogue::TCP_CX, |stats| &stats.connections),
        (catalogue::TCP_NO_ROUTE, |stats| &stats.no_route),
        (catalogue::TCP_RECEIVED, |stats| &stats.received),
        (catalogue::TCP_SENT, |stats| &stats.sent),
        (catalogue::TCP_IDLE_TIMEOUT, |stats| &stats.idle),
    ];
    for (family, read) in &ROWS {
        let rows = proxies
            .iter()
            .map(|stats| ([stats.name.as_str()], read(stats).load(Ordering::Relaxed)));
        page.rows(family, rows);
    }
    let rows = proxies.iter().flat_map(|stats| {
        Lost::ALL.map(|why| ([stats.name.as_str(), why.name()], stats.lost(why)))
    });
    page.rows(&catalogue::TCP_FAILED, rows);
}
