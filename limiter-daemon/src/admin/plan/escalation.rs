//! Escalations as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::seconds;
use crate::engine::explain as words;
use crate::policy::plan::{Escalation, Offence, Reach};

#[derive(Debug, Serialize)]
pub(super) struct EscalationView {
    policy: String,
    ports: Vec<u16>,
    /// Tokens that an offence takes; of statuses as `UpstreamStatus 401`.
    events: BTreeMap<String, u32>,
    /// Tokens of a full bucket: what is tolerated at once.
    tolerated: u64,
    /// Tokens that come back in an hour.
    tolerated_per_hour: u64,
    prefix_length: String,
    block_for_seconds: f64,
    growth: f64,
    max_block_seconds: f64,
    decay_seconds: f64,
    scope: &'static str,
    shadow: bool,
}

impl From<&Escalation> for EscalationView {
    fn from(escalation: &Escalation) -> Self {
        const HOUR: u64 = 3_600;
        let Escalation {
            policy,
            ports,
            costs,
            statuses,
            threshold,
            v4,
            v6,
            terms,
            reach,
            shadow,
        } = escalation;
        let offences = Offence::ALL
            .iter()
            .zip(costs)
            .filter(|(_, cost)| **cost > 0);
        let offences = offences.map(|(offence, cost)| (offence.name().to_owned(), *cost));
        let statuses = statuses.iter().map(|(status, cost)| {
            (
                format!("{} {status}", Offence::UpstreamStatus.name()),
                *cost,
            )
        });
        Self {
            policy: policy.clone(),
            ports: ports.clone(),
            events: offences.chain(statuses).collect(),
            tolerated: threshold.capacity,
            tolerated_per_hour: u64::try_from(words::per_window(*threshold, HOUR))
                .unwrap_or(u64::MAX),
            prefix_length: format!("/{v4}, /{v6}"),
            block_for_seconds: seconds(terms.block_for),
            growth: f64::from(terms.growth) / 1_000.0,
            max_block_seconds: seconds(terms.max_block),
            decay_seconds: seconds(terms.decay),
            scope: match reach {
                Reach::Node => "node",
                Reach::Fleet => "fleet",
            },
            shadow: *shadow,
        }
    }
}
