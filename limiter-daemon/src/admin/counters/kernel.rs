//! Counters of the kernel half.

use std::net::IpAddr;
use std::sync::PoisonError;

use http::StatusCode;

use super::{Admin, CounterView, CountersView, Refused, Wanted, bad};
use crate::admin::explain::unit;
use crate::admin::l4::{L4, internal};
use crate::engine::explain;
use crate::l4::{BucketState, Place, PolicyState, Standing, clock};

const MILLISECOND: u64 = 1_000_000;
const NO_KERNEL: &str = "the kernel half is not in use: no interface is configured";

impl Admin {
    /// The policies, and under them the buckets of the sources that are dropped most.
    pub(super) fn list_kernel(
        &self,
        wanted: &Wanted<'_>,
        view: &mut CountersView,
    ) -> Result<(), Refused> {
        let Some(l4) = &self.l4 else {
            if wanted.place.is_some() {
                view.notes.push(NO_KERNEL.to_owned());
            }
            return Ok(());
        };
        let policies: Vec<String> = self.loads.with_plan(|plan| {
            let names = plan.network.iter().map(|policy| policy.name.clone());
            names.collect()
        });
        let named = |policy: &String| format!("kernel:{policy}").starts_with(wanted.prefix);
        let offenders = {
            let offenders = l4.offenders.lock();
            let offenders = offenders.unwrap_or_else(PoisonError::into_inner);
            offenders.top(wanted.most)
        };
        let sources: Vec<IpAddr> = offenders
            .iter()
            .map(|one| IpAddr::from(one.last.source.octets()).to_canonical())
            .collect();
        for policy in policies.iter().filter(|policy| named(policy)) {
            if view.counters.len() >= wanted.most {
                view.more = true;
                break;
            }
            view.counters.push(CounterView {
                name: format!("kernel:{policy}"),
                place: "kernel".to_owned(),
                buckets: "per source".to_owned(),
                ..CounterView::default()
            });
            for source in &sources {
                if let Some(state) = l4
                    .kernel()
                    .explain_named(policy, *source)
                    .map_err(internal)?
                {
                    let used = state
                        .buckets
                        .iter()
                        .filter(|one| one.place != Place::Nowhere);
                    view.counters
                        .extend(used.map(|bucket| counter(policy, *source, bucket)));
                }
            }
        }
        Ok(())
    }

    /// The buckets of a source under a policy.
    pub(super) fn one_of_kernel(
        &self,
        policy: &str,
        source: Option<IpAddr>,
        reset: bool,
    ) -> Result<CountersView, Refused> {
        let l4 = self.l4.as_ref();
        let l4 = l4.ok_or_else(|| (StatusCode::NOT_FOUND, NO_KERNEL.to_owned()))?;
        let source = source.ok_or_else(|| {
            bad(format!(
                "kernel:{policy} has buckets by source: name one with from"
            ))
        })?;
        let mut state = look(l4, policy, source)?;
        let mut notes = match &state.standing {
            Standing::Allowed => vec![format!("{source} is on the allow list: it is not limited")],
            Standing::Denied => vec![format!("{source} is on the deny list: it has no bucket")],
            Standing::Limited { .. } => Vec::new(),
        };
        if reset {
            let filled = l4.kernel().refill(&state.buckets).map_err(internal)?;
            notes.push(format!("{filled} buckets were filled"));
            let mut shared = state.buckets.iter();
            if shared.any(|bucket| bucket.place == Place::Sketch) {
                notes.push(
                    "the rest lies in cells that other sources share, and is left as it is"
                        .to_owned(),
                );
            }
            state = look(l4, policy, source)?;
        }
        let buckets = state.buckets.iter();
        Ok(CountersView {
            counters: buckets
                .map(|bucket| counter(policy, source, bucket))
                .collect(),
            notes,
            more: false,
        })
    }
}

fn look(l4: &L4, policy: &str, source: IpAddr) -> Result<PolicyState, Refused> {
    let found = l4
        .kernel()
        .explain_named(policy, source)
        .map_err(internal)?;
    found.ok_or_else(|| {
        let why = format!("no policy `{policy}` is in force in the kernel");
        (StatusCode::NOT_FOUND, why)
    })
}

fn counter(policy: &str, source: IpAddr, bucket: &BucketState) -> CounterView {
    let now = clock::now();
    let ahead = bucket.tat.saturating_sub(now);
    // A token is worth so much less time than the bucket that the wait for one is what is beyond it.
    let wait = ahead.saturating_sub(bucket.limit.tolerance.saturating_sub(bucket.limit.cost(1)));
    let place = match bucket.place {
        Place::Table => "in a place of its own",
        Place::Sketch => "in cells shared with others",
        Place::Nowhere => "not used lately",
    };
    CounterView {
        name: format!("kernel:{policy}"),
        place: "kernel".to_owned(),
        quota: format!("level {}, {}, {place}", bucket.level, unit(bucket.unit)),
        buckets: "one".to_owned(),
        source: Some(source),
        capacity: Some(bucket.limit.capacity),
        state: Some(explain::BucketState {
            remaining: bucket.remaining,
            reset_ms: ahead.div_ceil(MILLISECOND),
            admits: bucket.admits,
            wait_ms: if bucket.admits {
                0
            } else {
                wait.div_ceil(MILLISECOND)
            },
        }),
        ..CounterView::default()
    }
}
