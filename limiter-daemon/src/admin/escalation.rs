//! Metrics of sentences.

use super::metrics::{Page, catalogue};
use crate::engine::escalation::Fate;
use crate::engine::state::State;
use crate::policy::plan::Offence;

pub(super) fn encode(state: &State, page: &mut Page) {
    let tallies = state.tallies();
    page.rows(
        &catalogue::OFFENCES,
        tallies.iter().flat_map(|tally| {
            Offence::ALL.map(|offence| {
                let labels = [tally.policy.as_str(), offence.name()];
                (labels, tally.offences(offence))
            })
        }),
    );
    page.rows(
        &catalogue::ESCALATION_DECISIONS,
        tallies.iter().flat_map(|tally| {
            Fate::ALL.map(|fate| ([tally.policy.as_str(), fate.name()], tally.fates(fate)))
        }),
    );
    let known = u64::try_from(state.offenders().known()).unwrap_or(u64::MAX);
    page.value(&catalogue::OFFENDERS, known);
    page.rows(
        &catalogue::OFFENDERS_FORGOTTEN,
        [(["full"], state.offenders().forgotten())],
    );
}
