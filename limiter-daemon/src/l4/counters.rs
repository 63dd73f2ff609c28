//! What the program counts.

use limiter_common::local::Pressure as Event;
use limiter_common::policy::MAX_LEVELS;
use limiter_common::{Reason, Verdict};

use super::error::L4Error;
use super::maps::{Pinned, Tables, io_of};
use super::sync::names;

/// Packets with the same fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// `namespace/name`; `None` for packets that no policy has a say in.
    pub policy: Option<String>,
    /// Index of the level that decided; 0 where none did.
    pub level: u32,
    /// The policy was in shadow mode: what `reason` says would be dropped passed.
    pub shadow: bool,
    pub reason: Reason,
    pub packets: u64,
}

/// How hard the table of sources is pressed. All of it since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Buckets that were given a place in the table.
    pub placed: u64,
    /// Packets judged by the sketch because their source found no place.
    pub sketched: u64,
    /// Places that had been another source's.
    pub evicted: u64,
    /// Packets that met a change of their place under way.
    pub lost_races: u64,
}

/// What the places of the table are in use for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    pub slots: u64,
    /// Hold a bucket that is not full.
    pub live: u64,
    /// Hold a full bucket, and are kept for its source a while longer.
    pub kept: u64,
}

/// The counters of all ids in use. What can occur under an id is there even if it has not; the rest
/// (levels above the first, shadow mode, ids that are free) only if it has.
pub(super) fn read(tables: &Tables) -> Result<Vec<Counter>, L4Error> {
    let mut counters = Vec::new();
    of_policy(tables, 0, None, &mut counters)?;
    for (id, name) in &names(tables)? {
        of_policy(tables, *id, Some(name), &mut counters)?;
    }
    Ok(counters)
}

fn of_policy(
    tables: &Tables,
    policy: u32,
    name: Option<&String>,
    counters: &mut Vec<Counter>,
) -> Result<(), L4Error> {
    for shadow in [false, true] {
        for level in 0..MAX_LEVELS {
            for reason in Reason::ALL {
                let verdict = Verdict {
                    policy,
                    level,
                    reason,
                    shadow,
                };
                let packets = tables.count(verdict.counter())?;
                let usual = !shadow && level == 0 && occurs(name.is_some(), reason);
                if packets != 0 || usual {
                    counters.push(Counter {
                        policy: name.cloned(),
                        level,
                        shadow,
                        reason,
                        packets,
                    });
                }
            }
        }
    }
    Ok(())
}

/// Whether packets are counted so: under a policy, or under none.
const fn occurs(under_policy: bool, reason: Reason) -> bool {
    let needs_policy =
        reason as u32 >= Reason::DaemonLost as u32 && !matches!(reason, Reason::HeaderChain);
    needs_policy == under_policy
}

pub(super) fn pressure(tables: &Tables) -> Result<Pressure, L4Error> {
    Ok(Pressure {
        placed: tables.pressure(Event::Placed)?,
        sketched: tables.pressure(Event::Sketched)?,
        evicted: tables.pressure(Event::Evicted)?,
        lost_races: tables.pressure(Event::Lost)?,
    })
}

/// Reads the whole table: a system call for every 4096 sets.
pub(super) fn occupancy(tables: &Tables, now: u64) -> Result<Occupancy, L4Error> {
    let keep = tables.config()?.keep;
    let mut occupancy = Occupancy::default();
    let sets = tables.sources.len();
    tables
        .source_batch
        .read(0, sets, Default::default(), |_, set| {
            for [key, tat] in set.as_chunks().0 {
                occupancy.slots += 1;
                if *key != 0 && *tat > now {
                    occupancy.live += 1;
                } else if *key != 0 && tat.saturating_add(keep) > now {
                    occupancy.kept += 1;
                }
            }
        })
        .map_err(io_of(Pinned::Sources))?;
    Ok(occupancy)
}
