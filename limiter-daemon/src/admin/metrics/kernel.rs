//! Metrics of the kernel half.

use std::sync::{Mutex, PoisonError};

use super::{Page, catalogue};
use crate::engine::meter::per_second;
use crate::l4::{Kernel, L4Error};
use crate::policy::plan::{NetworkPolicy, SourceLimits};

/// What the program counts; what cannot be read is logged and left out.
pub(super) fn encode(kernel: &Mutex<Kernel>, page: &mut Page) {
    let kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
    let attached = kernel
        .attachments()
        .iter()
        .map(|a| ([a.interface.as_str(), a.mode.name()], 1_u64));
    page.rows(&catalogue::XDP_ATTACHED, attached);
    if let Err(error) = table(&kernel, page) {
        tracing::error!(%error, "the kernel's table of sources cannot be read");
    }
    if let Err(error) = packets(&kernel, page) {
        tracing::error!(%error, "kernel counters cannot be read");
    }
}

fn packets(kernel: &Kernel, page: &mut Page) -> Result<(), L4Error> {
    let counters = kernel.counters()?;
    let rows = counters.iter().map(|counter| {
        let dropped = counter.reason.is_drop() && !counter.shadow;
        let labels = [
            counter.policy.clone().unwrap_or_default(),
            counter.level.to_string(),
            counter.reason.name().to_owned(),
            if counter.shadow { "shadow" } else { "enforced" }.to_owned(),
            if dropped { "dropped" } else { "passed" }.to_owned(),
        ];
        (labels, counter.packets)
    });
    page.rows(&catalogue::XDP_PACKETS, rows);
    Ok(())
}

/// The kernel's table of sources, and the samples of what is dropped.
fn table(kernel: &Kernel, page: &mut Page) -> Result<(), L4Error> {
    let pressure = kernel.pressure()?;
    let occupancy = kernel.occupancy()?;
    let lost = kernel.samples_lost()?;
    page.value(&catalogue::XDP_SLOTS, occupancy.slots);
    page.rows(
        &catalogue::XDP_SLOTS_USED,
        [(["live"], occupancy.live), (["kept"], occupancy.kept)],
    );
    page.rows(
        &catalogue::XDP_SOURCES,
        [
            (["placed"], pressure.placed),
            (["evicted"], pressure.evicted),
            (["sketched"], pressure.sketched),
            (["lost_race"], pressure.lost_races),
        ],
    );
    page.value(&catalogue::XDP_SAMPLES_LOST, lost);
    let sentences = u64::try_from(kernel.sentences().len()).unwrap_or(u64::MAX);
    page.value(&catalogue::XDP_SENTENCES, sentences);
    Ok(())
}

/// What each network limit of the plan admits.
pub(super) fn in_force(policies: &[NetworkPolicy], page: &mut Page) {
    let rows: Vec<_> = policies.iter().flat_map(limits).collect();
    page.rows(
        &catalogue::XDP_LIMIT,
        rows.iter()
            .map(|(labels, limit)| (labels.each_ref(), limit.capacity)),
    );
    page.rows(
        &catalogue::XDP_LIMIT_RATE,
        rows.iter()
            .map(|(labels, limit)| (labels.each_ref(), per_second(limit))),
    );
}

/// Policy, class, level and unit of each limit.
fn limits(policy: &NetworkPolicy) -> Vec<([String; 4], limiter_common::Limit)> {
    let rules = policy
        .rules
        .iter()
        .map(|rule| (rule.name.as_str(), &rule.limits));
    let classes = [("default", &policy.default)].into_iter().chain(rules);
    let mut all = Vec::new();
    for (class, limits) in classes {
        let SourceLimits::Levels(levels) = limits else {
            continue;
        };
        for (index, level) in levels.iter().enumerate() {
            let units = [
                ("connections", level.connections),
                ("packets", level.packets),
                ("bytes", level.bytes),
            ];
            for (unit, limit) in units {
                let Some(limit) = limit else {
                    continue;
                };
                let labels = [policy.name.as_str(), class, &index.to_string(), unit];
                all.push((labels.map(str::to_owned), limit));
            }
        }
    }
    all
}
