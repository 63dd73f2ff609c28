//! The metrics page: what [`catalogue`] declares, read from where it is counted when it is scraped.

pub mod catalogue;
mod family;
mod kernel;
mod page;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::asks;
use super::audit::Audit;
use super::blocks::Blocking;
use super::config::Loads;
use super::escalation;
use super::fleet;
use super::held::{self, Holdings};
use super::limits;
use super::service;
use super::status::Status;
use super::store::{self, Watched};
use super::{tcp, upstreams};
use crate::engine::state::State;
use crate::engine::times::{ENDS, Taken};
use crate::l4::Kernel;
use crate::l7::Active;
use crate::l7::access_log;
use crate::l7::clock::Clock;
use crate::l7::dns::Resolver;
use crate::l7::metrics::{Closed, Counters, Decided};
use crate::log::Sites;
use crate::rls;
use crate::traces;
use arc_swap::ArcSwap;
pub use family::{Chapter, Declared, Family, Kind};
pub use page::Format;
pub(in crate::admin) use page::Page;
use page::Spread;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics page.
#[derive(Debug)]
pub struct Metrics(Sources);

/// Where the numbers are.
#[derive(Debug)]
pub struct Sources {
    pub status: Arc<Status>,
    pub loads: Arc<Loads>,
    pub state: Arc<State>,
    pub active: Arc<ArcSwap<Active>>,
    pub counters: Arc<Counters>,
    pub resolver: Arc<Resolver>,
    /// Of Envoy's rate limit service.
    pub service: Arc<rls::Counters>,
    /// `None`: global limits are counted in memory.
    pub store: Option<Watched>,
    /// What this node has of it.
    pub held: Option<Holdings>,
    /// Rate limit services elsewhere that filters ask.
    pub asked: Arc<rls::Clients>,
    /// `None`: there is neither a kernel half nor a store.
    pub blocking: Option<Blocking>,
    pub clock: Clock,
    pub kernel: Option<Arc<Mutex<Kernel>>>,
    /// `None`: there is no access log.
    pub log: Option<Arc<access_log::Shared>>,
    pub audit: Arc<Audit>,
    /// `None`: nothing is traced.
    pub traces: Option<Arc<traces::Shared>>,
    /// Of the daemon's own log.
    pub lines: Arc<Sites>,
}

impl Metrics {
    #[must_use]
    pub const fn new(sources: Sources) -> Self {
        Self(sources)
    }

    /// What the data plane counts.
    pub(in crate::admin) fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The page.
    #[must_use]
    pub fn encode(&self, format: Format) -> String {
        let mut page = Page::new(format);
        self.0.write(&mut page);
        page.finish()
    }
}

impl Sources {
    fn write(&self, page: &mut Page) {
        self.daemon(page);
        self.connections(page);
        self.requests(page);
        self.faults(page);
        tcp::encode(&self.state.tcp(), page);
        self.limits(page);
        let backends = self.active.load().backends(self.clock.now());
        upstreams::encode(self.state.upstreams(), &backends, page);
        upstreams::names(&self.resolver.counts(), page);
        service::encode(&self.service, &self.state, self.status.reloads(), page);
        asks::encode(&self.state, &self.asked, page);
        if let Some(store) = &self.store {
            store::encode(store, page);
        }
        if let Some(held) = &self.held {
            held::encode(held, page);
        }
        if let Some(blocking) = &self.blocking {
            fleet::encode(blocking, page);
            escalation::encode(&self.state, page);
        }
        self.log(page);
        page.rows(&catalogue::ADMIN_WRITES, self.audit.writes());
        page.rows(&catalogue::ADMIN_DENIED, self.audit.denied());
        if let Some(kernel) = &self.kernel {
            kernel::encode(kernel, page);
            self.loads
                .with_plan(|plan| kernel::in_force(&plan.network, page));
        }
    }

    fn daemon(&self, page: &mut Page) {
        let abi = limiter_common::ABI_VERSION.to_string();
        let version = [env!("CARGO_PKG_VERSION"), abi.as_str()];
        page.rows(&catalogue::BUILD_INFO, [(version, 1_u64)]);
        let reloads = self.status.reloads();
        page.rows(
            &catalogue::POLICY_RELOADS,
            [
                (["applied"], reloads.applied),
                (["rejected"], reloads.rejected),
            ],
        );
        page.value(
            &catalogue::POLICY_LAST_RELOAD_SUCCESSFUL,
            u64::from(reloads.last_succeeded),
        );
        page.value(
            &catalogue::POLICY_WATCHING,
            u64::from(self.loads.watching()),
        );
    }

    /// What is said of requests elsewhere, and what is not.
    fn log(&self, page: &mut Page) {
        let left_out = self.lines.left_out().into_iter();
        let left_out = left_out.map(|(module, lines)| ([module], lines));
        page.rows(&catalogue::LOG_LEFT_OUT, left_out);
        if let Some(traces) = &self.traces {
            let results = [
                (["exported"], read(&traces.exported)),
                (["dropped"], read(&traces.dropped)),
                (["failed"], read(&traces.failed)),
                (["rejected"], read(&traces.rejected)),
            ];
            page.rows(&catalogue::TRACE_SPANS, results);
        }
        let Some(log) = &self.log else {
            return;
        };
        page.rows(
            &catalogue::ACCESS_LOG_LINES,
            [
                (["written"], read(&log.written)),
                (["lost"], read(&log.lost)),
            ],
        );
    }

    fn connections(&self, page: &mut Page) {
        let counters = &self.counters;
        page.value(&catalogue::DOWNSTREAM_CX, read(&counters.connections));
        page.value(&catalogue::DOWNSTREAM_CX_ACTIVE, read(&counters.active));
        page.value(&catalogue::DOWNSTREAM_CX_FULL, read(&counters.full));
        page.value(
            &catalogue::DOWNSTREAM_ACCEPT_ERRORS,
            read(&counters.accept_errors),
        );
        page.value(&catalogue::DOWNSTREAM_RQ_UNROUTED, read(&counters.unrouted));
        page.rows(
            &catalogue::DOWNSTREAM_CX_CLOSED,
            Closed::ALL.map(|reason| ([reason.name()], counters.closed(reason))),
        );
        page.value(&catalogue::DOWNSTREAM_TUNNELS, read(&counters.tunnels));
        page.value(&catalogue::MIRROR_DROPPED, read(&counters.mirrors_dropped));
    }

    fn requests(&self, page: &mut Page) {
        let routes = self.state.routes();
        let rows = routes.iter().flat_map(|route| {
            let classes = CLASSES.iter().zip(&route.responses);
            classes.map(|(class, count)| ([route.route.as_str(), class], read(count)))
        });
        page.rows(&catalogue::DOWNSTREAM_RQ, rows);
        let latencies =
            Decided::ALL.map(|fate| ([fate.name()], spread(&self.counters.decided(fate))));
        page.histograms(&catalogue::ADDED_LATENCY, latencies);
    }

    /// By Envoy's names.
    fn faults(&self, page: &mut Page) {
        let counters = &self.counters;
        page.value(&catalogue::FAULT_DELAYS, read(&counters.fault_delays));
        page.value(&catalogue::FAULT_ABORTS, read(&counters.fault_aborts));
        page.value(&catalogue::FAULT_OVERFLOW, read(&counters.fault_overflow));
        page.value(&catalogue::FAULT_ACTIVE, read(&counters.fault_active));
    }

    fn limits(&self, page: &mut Page) {
        limits::encode(&self.state.routes(), &self.state.scopes(), page);
        let table = self.state.table();
        let to_u64 = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        page.value(&catalogue::BUCKETS_CAPACITY, to_u64(table.capacity()));
        page.value(
            &catalogue::BUCKETS_LIVE,
            to_u64(table.live(self.clock.both())),
        );
        page.value(&catalogue::BUCKETS_REFUSED, table.refused());
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// As a histogram in seconds.
pub(in crate::admin) fn spread(taken: &Taken) -> Spread {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let ends = ENDS.into_iter().map(seconds).chain([f64::INFINITY]);
    Spread {
        sum: seconds(taken.sum),
        buckets: ends.zip(taken.counts).collect(),
    }
}
