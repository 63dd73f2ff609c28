//! What is decided of global limits when the store that counts them does not answer.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::engine::charge::{self, Denial, Draw, Drawn, Few, Verdicts};
use crate::engine::meter::NEVER;
use crate::engine::rule::{Measure, Rule};
use crate::engine::time::Now;
use crate::policy::plan::OnStoreFailure;

/// Decides without the store: each rule as it says, or else as `default` does. What is counted here is
/// the limit divided by `nodes`, those last seen alive.
///
/// One rule that denies then denies the request, unless it is only watching; otherwise those that are
/// counted here decide. What blocks or admits everything needs no store.
pub fn decide<R: Borrow<Arc<Rule>> + Clone>(
    draws: &[Draw<R>],
    default: OnStoreFailure,
    nodes: u32,
    now: Now,
) -> Verdicts {
    let mode = |draw: &Draw<R>| mode(draw.rule.borrow(), default);
    let mut drawn: Few<Drawn> = draws.iter().map(|_| Drawn::default()).collect();
    let denies = |draw: &Draw<R>| mode(draw) == OnStoreFailure::Deny && !rule(draw).shadow;
    if let Some(by) = draws.iter().position(denies) {
        let denied = Denial {
            by,
            wait: NEVER,
            alone: false,
            unknown: true,
        };
        return Verdicts {
            drawn,
            denied: Some(denied),
        };
    }
    let here = |(_, draw): &(usize, &Draw<R>)| mode(draw) == OnStoreFailure::Local;
    let (places, counted): (Few<usize>, Few<Draw<R>>) = draws
        .iter()
        .enumerate()
        .filter(here)
        .map(|(place, draw)| {
            let mut draw = draw.clone();
            draw.nodes = nodes.max(1);
            (place, draw)
        })
        .unzip();
    let mut verdicts = charge::charge(&counted, now);
    charge::observe(&counted, &mut verdicts.drawn, verdicts.denied, now);
    for (place, one) in places.iter().zip(verdicts.drawn) {
        drawn[*place] = one;
    }
    let denied = verdicts.denied.map(|denial| Denial {
        by: places[denial.by],
        ..denial
    });
    Verdicts { drawn, denied }
}

fn rule<R: Borrow<Arc<Rule>>>(draw: &Draw<R>) -> &Rule {
    draw.rule.borrow()
}

/// What holds for a rule while the store does not answer.
#[must_use]
pub fn mode(rule: &Rule, default: OnStoreFailure) -> OnStoreFailure {
    match rule.measure {
        Measure::Metered(_) => rule.on_store_failure.unwrap_or(default),
        Measure::Nothing | Measure::Everything => OnStoreFailure::Local,
    }
}
