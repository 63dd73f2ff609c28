//! Metrics of sentences.

use std::fmt;

use super::metrics::Page;
use crate::engine::escalation::Fate;
use crate::engine::state::State;
use crate::policy::plan::Offence;

pub(super) fn encode(state: &State, page: &mut Page<'_, '_>) -> fmt::Result {
    let tallies = state.tallies();
    page.counters(
        "limiterd_escalation_offences",
        "Offences that counted against the address they came from.",
        tallies.iter().flat_map(|tally| {
            Offence::ALL.map(|offence| {
                let labels = [("policy", tally.policy.as_str()), ("type", offence.name())];
                (labels, tally.offences(offence))
            })
        }),
    )?;
    page.counters(
        "limiterd_escalation_decisions",
        "Times that an address was over the threshold, by what became of it.",
        tallies.iter().flat_map(|tally| {
            Fate::ALL.map(|fate| {
                let labels = [("policy", tally.policy.as_str()), ("result", fate.name())];
                (labels, tally.fates(fate))
            })
        }),
    )?;
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    page.gauge(
        "limiterd_escalation_offenders",
        "Addresses of which offences are remembered.",
        number(state.offenders().known()),
    )?;
    page.counters(
        "limiterd_escalation_offenders_forgotten",
        "Addresses forgotten because as many as may be had offended since.",
        [([("reason", "full")], state.offenders().forgotten())],
    )
}
