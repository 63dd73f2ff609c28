//! Captures, replayed through the program that the kernel runs on packets: its own maps, its own
//! buckets, the capture's times as its clock, and no interface (`BPF_PROG_TEST_RUN`).

mod capture;

use std::io::BufRead;
use std::net::IpAddr;
use std::path::PathBuf;

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::report::{DroppedSource, PacketReason, PacketReport, Ranking};
use super::series::Series;
use super::{Settings, SimulateError, line::rfc3339};
use crate::engine::top::Top;
use crate::l4::trial::{self, Action, Program, Trial};
use capture::{Capture, Packet};

/// Sources that are kept.
const KEPT: usize = 50_000;
/// Where the program's clock starts, in nanoseconds: at 0 a bucket has never been seen.
const START: u64 = 1_000_000_000_000;
/// Bytes that a test run takes of a packet: with a program for packets in several buffers, and without.
const MAX_BUFFERS: usize = 16 << 10;
const MAX_BUFFER: usize = 3 << 10;
/// Packets between two words of how far it has come.
const STEP: u64 = 1024;

/// Gives the packets of all captures, in the order of their times, to the program with the policy's
/// limits.
pub(super) fn replay(
    captures: Vec<(PathBuf, Box<dyn BufRead + Send>)>,
    settings: &Settings<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<PacketReport, SimulateError> {
    let plan = &settings.policy.plan;
    let mut trial = Trial::new(trial::Settings {
        max_sources: plan.daemon.max_sources,
        sketch_cells: plan.daemon.sketch_cells,
        keep: plan.daemon.keep_sources,
        ..trial::Settings::default()
    })?;
    trial.set_clock(START)?;
    trial.apply(&plan.network)?;
    let (program, longest) = if trial::has_buffers()? {
        (Program::LimiterBuffers, MAX_BUFFERS)
    } else {
        (Program::Limiter, MAX_BUFFER)
    };
    let mut open = Vec::new();
    for (path, reader) in captures {
        open.push(Capture::open(path, reader)?);
    }
    let mut seen = Seen::default();
    while let Some(mut packet) = next(&mut open)? {
        seen.cut += u64::from(packet.fit(longest));
        let at = seen.time(packet.at);
        trial.set_clock(START + (at - seen.from))?;
        let outcome = trial.run(program, &packet.bytes, 1)?;
        seen.count(at, &packet, outcome.action == Action::Drop);
        if seen.packets % STEP == 0 {
            progress(seen.packets);
        }
    }
    let unreadable = open.iter().map(|capture| capture.unreadable).sum();
    seen.report(&trial, settings.top, unreadable)
}

/// The earliest packet that is left.
fn next(captures: &mut [Capture]) -> Result<Option<Packet>, SimulateError> {
    let at = |capture: &&mut Capture| capture.next_at();
    let earliest = captures
        .iter_mut()
        .filter(|c| c.next_at().is_some())
        .min_by_key(at);
    earliest.map_or(Ok(None), Capture::take)
}

/// What came of the packets.
struct Seen {
    packets: u64,
    dropped: u64,
    cut: u64,
    from: u64,
    to: u64,
    /// All, and those that were dropped.
    series: Series<2>,
    sources: Top<(IpAddr, u16)>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            packets: 0,
            dropped: 0,
            cut: 0,
            from: 0,
            to: 0,
            series: Series::default(),
            sources: Top::new(KEPT),
        }
    }
}

impl Seen {
    /// The time of the next packet: captures of several queues may go back a little, the clock does
    /// not.
    fn time(&mut self, at: u64) -> u64 {
        if self.packets == 0 {
            self.from = at;
        }
        self.to = self.to.max(at);
        self.to
    }

    fn count(&mut self, at: u64, packet: &Packet, dropped: bool) {
        self.packets += 1;
        self.dropped += u64::from(dropped);
        self.series.add(at, [true, dropped]);
        if let Some(source) = dropped.then(|| source(&packet.bytes)).flatten() {
            self.sources.add(source, at);
        }
    }

    fn report(
        self,
        trial: &Trial,
        top: usize,
        unreadable: u64,
    ) -> Result<PacketReport, SimulateError> {
        let counters = trial.counters()?.into_iter();
        let mut reasons: Vec<PacketReason> = counters
            .filter(|counter| counter.packets > 0)
            .map(|counter| PacketReason {
                policy: counter.policy,
                level: counter.level,
                reason: counter.reason.name(),
                shadow: counter.shadow,
                dropped: counter.reason.is_drop() && !counter.shadow,
                packets: counter.packets,
            })
            .collect();
        reasons.sort_by_key(|reason| std::cmp::Reverse((reason.dropped, reason.packets)));
        let shadowed = reasons.iter().filter(|reason| {
            reason.shadow
                && limiter_common::Reason::ALL
                    .iter()
                    .any(|one| one.name() == reason.reason && one.is_drop())
        });
        let most = self.sources.most(top).into_iter();
        let time = |at: u64| (self.packets > 0).then(|| rfc3339(at));
        Ok(PacketReport {
            from: time(self.from),
            to: time(self.to),
            packets: self.packets,
            passed: self.packets - self.dropped,
            dropped: self.dropped,
            shadow_dropped: shadowed.map(|reason| reason.packets).sum(),
            unreadable,
            cut: self.cut,
            sources: Ranking {
                most: most
                    .map(|((source, port), seen)| DroppedSource {
                        source: source.to_string(),
                        port,
                        dropped: seen.count,
                        first: rfc3339(seen.first),
                        last: rfc3339(seen.last),
                    })
                    .collect(),
                known: self.sources.known(),
                missing: self.sources.missing(),
            },
            packets_over_time: self.series.of(0),
            dropped_over_time: self.series.of(1),
            reasons,
        })
    }
}

/// Source address and destination port of a packet, where it has them.
fn source(packet: &[u8]) -> Option<(IpAddr, u16)> {
    let parsed = LaxSlicedPacket::from_ethernet(packet).ok()?;
    let source = match parsed.net? {
        LaxNetSlice::Ipv4(ip) => IpAddr::V4(ip.header().source_addr()),
        LaxNetSlice::Ipv6(ip) => IpAddr::V6(ip.header().source_addr()),
        LaxNetSlice::Arp(_) => return None,
    };
    let port = match parsed.transport {
        Some(TransportSlice::Tcp(tcp)) => tcp.destination_port(),
        Some(TransportSlice::Udp(udp)) => udp.destination_port(),
        _ => 0,
    };
    Some((source, port))
}
