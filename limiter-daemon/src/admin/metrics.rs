//! Every metric, in one file, read from where it is counted when it is scraped.
//!
//! Labels are bounded by the policy files: routes, rules, network policies, reasons. Never an
//! address, a path or a header's value.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::asks;
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
use crate::l4::{Kernel, L4Error};
use crate::l7::Active;
use crate::l7::access_log;
use crate::l7::clock::Clock;
use crate::l7::dns::Resolver;
use crate::l7::metrics::{Closed, Counters};
use crate::rls;

/// OpenMetrics 1.0, which Prometheus reads.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics page.
#[derive(Debug)]
pub struct Metrics(Registry);

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
}

impl Metrics {
    #[must_use]
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// The page in the OpenMetrics text format.
    ///
    /// # Errors
    /// None in practice: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.0)?;
        Ok(page)
    }
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let page = &mut Page(&mut encoder);
        self.reloads(page)?;
        self.connections(page)?;
        self.requests(page)?;
        self.faults(page)?;
        tcp::encode(&self.state.tcp(), page)?;
        self.limits(page)?;
        let backends = self.active.load().backends(self.clock.now());
        upstreams::encode(self.state.upstreams(), &backends, page)?;
        upstreams::names(&self.resolver.counts(), page)?;
        service::encode(&self.service, &self.state, self.status.reloads(), page)?;
        asks::encode(&self.state, &self.asked, page)?;
        if let Some(store) = &self.store {
            store::encode(store, page)?;
        }
        if let Some(held) = &self.held {
            held::encode(held, page)?;
        }
        if let Some(blocking) = &self.blocking {
            fleet::encode(blocking, page)?;
            escalation::encode(&self.state, page)?;
        }
        self.log(page)?;
        self.kernel(page)
    }
}

impl Sources {
    fn reloads(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let reloads = self.status.reloads();
        page.counters(
            "limiterd_policy_reloads",
            "Reloads of the policy files by result.",
            [
                ([("result", "applied")], reloads.applied),
                ([("result", "rejected")], reloads.rejected),
            ],
        )?;
        page.gauge(
            "limiterd_policy_last_reload_successful",
            "1 if the policy files were valid when they were last read.",
            u64::from(reloads.last_succeeded),
        )?;
        page.gauge(
            "limiterd_policy_watching",
            "1 if changes of the policy files are noticed; 0: they are read again on SIGHUP only.",
            u64::from(self.loads.watching()),
        )
    }

    fn log(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let Some(log) = &self.log else {
            return Ok(());
        };
        page.counters(
            "limiterd_access_log_lines",
            "Lines of the access log: written, or lost because the queue was full or writing failed.",
            [
                ([("result", "written")], log.written.load(Ordering::Relaxed)),
                ([("result", "lost")], log.lost.load(Ordering::Relaxed)),
            ],
        )
    }

    fn connections(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        page.counter(
            "limiterd_downstream_cx",
            "Connections accepted.",
            read(&counters.connections),
        )?;
        page.gauge(
            "limiterd_downstream_cx_active",
            "Connections open.",
            read(&counters.active),
        )?;
        page.counter(
            "limiterd_downstream_cx_full",
            "Times that a worker waited with accepting because it had all the connections it may.",
            read(&counters.full),
        )?;
        page.counter(
            "limiterd_downstream_accept_errors",
            "Times that accept(2) failed.",
            read(&counters.accept_errors),
        )?;
        page.counter(
            "limiterd_downstream_rq_unrouted",
            "Requests that no route took or that are no requests.",
            read(&counters.unrouted),
        )?;
        page.counters(
            "limiterd_downstream_cx_closed",
            "Connections closed by a bound, by the bound.",
            Closed::ALL.map(|reason| ([("reason", reason.name())], counters.closed(reason))),
        )?;
        page.gauge(
            "limiterd_downstream_tunnels",
            "Upgraded connections open.",
            read(&counters.tunnels),
        )?;
        page.counter(
            "limiterd_mirror_dropped",
            "Copies of requests that no mirror got, because too many were on their way.",
            read(&counters.mirrors_dropped),
        )
    }

    fn requests(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let routes = self.state.routes();
        let rows = routes.iter().flat_map(|route| {
            CLASSES.iter().zip(&route.responses).map(|(class, count)| {
                let labels = [
                    ("route", route.route.as_str()),
                    ("response_code_class", class),
                ];
                (labels, count.load(Ordering::Relaxed))
            })
        });
        page.counters(
            "limiterd_downstream_rq",
            "Requests answered, by route and class of status.",
            rows,
        )
    }

    /// By Envoy's names.
    fn faults(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let none: [(&str, &str); 0] = [];
        for (name, help, value) in [
            (
                "envoy_http_fault_delays_injected",
                "Requests delayed on purpose.",
                &counters.fault_delays,
            ),
            (
                "envoy_http_fault_aborts_injected",
                "Requests answered on purpose in place of the upstream.",
                &counters.fault_aborts,
            ),
            (
                "envoy_http_fault_faults_overflow",
                "Requests not delayed because as many were as may be.",
                &counters.fault_overflow,
            ),
        ] {
            page.known(name, help, [(none, read(value))])?;
        }
        page.gauge(
            "envoy_http_fault_active_faults",
            "Requests being delayed.",
            read(&counters.fault_active),
        )
    }

    fn limits(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        limits::encode(&self.state.scopes(), page)?;
        let table = self.state.table();
        let to_u64 = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        page.gauge(
            "limiterd_buckets_capacity",
            "Buckets that fit.",
            to_u64(table.capacity()),
        )?;
        page.gauge(
            "limiterd_buckets_live",
            "Buckets that are not full.",
            to_u64(table.live(self.clock.both())),
        )?;
        page.counter(
            "limiterd_buckets_refused",
            "Decisions on an aggregate bucket because no bucket was free for the value.",
            table.refused(),
        )
    }

    fn kernel(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        let kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
        let modes: Vec<_> = kernel
            .attachments()
            .iter()
            .map(|a| {
                (
                    [
                        ("interface", a.interface.clone()),
                        ("mode", a.mode.name().to_owned()),
                    ],
                    1,
                )
            })
            .collect();
        page.gauges(
            "limiterd_xdp_attached",
            "1 for each interface that the XDP program is on.",
            modes,
        )?;
        if let Err(error) = table(&kernel, page)? {
            tracing::error!(%error, "the kernel's table of sources cannot be read");
        }
        match kernel.counters() {
            Ok(counters) => {
                let rows = counters.iter().map(|counter| {
                    let verdict = if counter.reason.is_drop() && !counter.shadow {
                        "dropped"
                    } else {
                        "passed"
                    };
                    let labels = [
                        ("policy", counter.policy.clone().unwrap_or_default()),
                        ("level", counter.level.to_string()),
                        ("reason", counter.reason.name().to_owned()),
                        (
                            "mode",
                            if counter.shadow { "shadow" } else { "enforced" }.to_owned(),
                        ),
                        ("verdict", verdict.to_owned()),
                    ];
                    (labels, counter.packets)
                });
                page.counters(
                    "limiterd_xdp_packets",
                    "Packets, by policy, reason and verdict.",
                    rows,
                )
            }
            Err(error) => {
                tracing::error!(%error, "kernel counters cannot be read");
                Ok(())
            }
        }
    }
}

/// The kernel's table of sources, and the samples of what is dropped.
fn table(kernel: &Kernel, page: &mut Page<'_, '_>) -> Result<Result<(), L4Error>, fmt::Error> {
    let read = || {
        Ok((
            kernel.pressure()?,
            kernel.occupancy()?,
            kernel.samples_lost()?,
        ))
    };
    let (pressure, occupancy, lost) = match read() {
        Ok(read) => read,
        Err(error) => return Ok(Err(error)),
    };
    page.gauge(
        "limiterd_xdp_slots",
        "Places of the table of sources.",
        occupancy.slots,
    )?;
    page.gauges(
        "limiterd_xdp_slots_used",
        "Places in use: live holds a bucket that is not full, kept one that is.",
        [
            ([("state", "live")], occupancy.live),
            ([("state", "kept")], occupancy.kept),
        ],
    )?;
    page.counters(
        "limiterd_xdp_sources",
        "First sights of sources that found a place, took over another's, or were judged by the \
         sketch for want of one; and packets that met a place changing hands.",
        [
            ([("event", "placed")], pressure.placed),
            ([("event", "evicted")], pressure.evicted),
            ([("event", "sketched")], pressure.sketched),
            ([("event", "lost_race")], pressure.lost_races),
        ],
    )?;
    page.counter(
        "limiterd_xdp_samples_lost",
        "Dropped packets of which no sample was sent: over the cap, or the ring was full.",
        lost,
    )?;
    page.gauge(
        "limiterd_xdp_sentences",
        "Sentences being served.",
        u64::try_from(kernel.sentences().len()).unwrap_or(u64::MAX),
    )?;
    Ok(Ok(()))
}

/// Writes metric families.
pub(super) struct Page<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Page<'_, '_> {
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(
            self.0
                .encode_descriptor(name, help, None, MetricType::Counter)?,
        )
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        family(encoder, rows, |value, encoder| {
            ConstCounter::new(value).encode(encoder)
        })
    }

    /// A metric under a name that others know already: Envoy's counters are not called `_total`, so
    /// that OpenMetrics cannot have them as counters.
    pub(super) fn known<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.values(MetricType::Unknown, (name, help), rows)
    }

    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        self.values(MetricType::Gauge, (name, help), rows)
    }

    /// `buckets`: upper ends, and how many are in each.
    pub(super) fn histogram<L: EncodeLabelSet>(
        &mut self,
        (name, help): (&str, &str),
        labels: &L,
        sum: f64,
        buckets: &[(f64, u64)],
    ) -> fmt::Result {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder
            .encode_family(labels)?
            .encode_histogram::<L>(sum, count, buckets, None)
    }

    fn values<L: EncodeLabelSet>(
        &mut self,
        kind: MetricType,
        (name, help): (&str, &str),
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let encoder = self.0.encode_descriptor(name, help, None, kind)?;
        family(encoder, rows, |value, encoder| {
            ConstGauge::new(value).encode(encoder)
        })
    }
}

fn family<L: EncodeLabelSet>(
    mut encoder: MetricEncoder<'_>,
    rows: impl IntoIterator<Item = (L, u64)>,
    write: impl Fn(u64, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    for (labels, value) in rows {
        write(value, encoder.encode_family(&labels)?)?;
    }
    Ok(())
}
