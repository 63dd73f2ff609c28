//! What the program would say of a source now, from the maps it reads, by the functions it uses.

use std::net::IpAddr;

use aya::maps::MapError;
use aya::maps::lpm_trie::Key;
use limiter_common::bucket::step;
use limiter_common::key::{CIDR_LOOKUP_BITS, bucket_key, cidr_set, port_index};
use limiter_common::policy::{FLAG_CIDRS, FLAG_SHADOW, MAX_CLASSES, MAX_POLICIES};
use limiter_common::table::{cell_indices, set_index, storable};
use limiter_common::{
    Address, CidrAction, CidrKey, Class, Config, Level, Limit, Policy, Protocol, Step, Unit,
};

use super::error::L4Error;
use super::maps::{Pinned, Raw, Tables, of};
use super::sentences::address;
use super::sync::Generations;

/// What holds for a source and a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `None`: no policy targets the destination, and everything passes.
    pub policy: Option<PolicyState>,
    /// End of the sentence that the source serves, by [`clock::now`](super::clock::now), whether or
    /// not a policy makes it felt here.
    pub sentenced_until: Option<u64>,
}

/// What the policy of a destination says of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyState {
    /// `namespace/name`.
    pub name: String,
    /// Drops nothing, whatever is said here.
    pub shadow: bool,
    pub standing: Standing,
    /// Every bucket that a packet of the source may be charged to, by level and unit; empty if the
    /// source is not limited.
    pub buckets: Vec<BucketState>,
}

/// How a policy takes a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On the allow list: never dropped.
    Allowed,
    /// On the deny list: always dropped.
    Denied,
    /// Under the limits of a rule; `None`: of the policy's default.
    Limited { rule: Option<String> },
}

impl PolicyState {
    /// The bucket with the smallest share of its tokens left.
    #[must_use]
    pub fn tightest(&self) -> Option<&BucketState> {
        let share = |of: &BucketState, other: &BucketState| {
            u128::from(of.remaining) * u128::from(other.limit.capacity)
        };
        self.buckets
            .iter()
            .min_by(|one, other| share(one, other).cmp(&share(other, one)))
    }
}

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketState {
    /// Index of the level.
    pub level: u32,
    pub unit: Unit,
    pub limit: Limit,
    /// What its key is made of, beside the source.
    pub(super) seed: u64,
    /// What of the source counts on this level.
    pub source: Address,
    pub place: Place,
    /// Theoretical arrival time; 0: full, never used.
    pub tat: u64,
    /// Whole tokens left now.
    pub remaining: u64,
    /// Whether it would give one token now.
    pub admits: bool,
}

/// Where a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a place of its own.
    Table,
    /// In cells shared with other sources. The state is that of the lesser one.
    Sketch,
    /// Nowhere: the source has used nothing lately.
    Nowhere,
}

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    /// Of the interface that they come in on, if it matters.
    pub(super) ifindex: Option<u32>,
}

pub(super) fn explain(
    tables: &Tables,
    generations: &Generations,
    source: IpAddr,
    destination: Destination,
    now: u64,
) -> Result<Explanation, L4Error> {
    let source = address(source);
    let config = tables.config()?;
    let generation = config.generation & 1;
    let sentenced_until = missing(tables.sentences.get(&Key::new(128, source.octets()), 0))
        .map_err(of(Pinned::Sentences))?
        .filter(|until| *until > now);
    let Some(policy) = policy_of(tables, generation, destination)? else {
        return Ok(Explanation {
            policy: None,
            sentenced_until,
        });
    };
    let policy = state_of(tables, generations, &config, &policy, source, now)?;
    Ok(Explanation {
        policy: Some(policy),
        sentenced_until,
    })
}

/// What the policy with this id says of a source; `None` if it is not in force any more.
pub(super) fn explain_policy(
    tables: &Tables,
    generations: &Generations,
    id: u32,
    source: Address,
    now: u64,
) -> Result<Option<PolicyState>, L4Error> {
    let config = tables.config()?;
    let policy = policy(tables, config.generation & 1, id)?;
    if policy.id != id {
        return Ok(None);
    }
    state_of(tables, generations, &config, &policy, source, now).map(Some)
}

fn state_of(
    tables: &Tables,
    generations: &Generations,
    config: &Config,
    policy: &Policy,
    source: Address,
    now: u64,
) -> Result<PolicyState, L4Error> {
    let generation = config.generation & 1;
    let mut buckets = Vec::new();
    let standing = match action_of(tables, generation, policy, source)? {
        CidrAction::Allow => Standing::Allowed,
        CidrAction::Deny => Standing::Denied,
        CidrAction::Class(class) => {
            let index = Config::index(generation, MAX_CLASSES, class);
            let Raw(limits) = tables.classes.get(&index, 0).map_err(of(Pinned::Classes))?;
            buckets = states(tables, config, &limits, source, now)?;
            let rule = generations.rule(class).map(str::to_owned);
            Standing::Limited { rule }
        }
    };
    Ok(PolicyState {
        name: tables.name(policy.id)?.unwrap_or_default(),
        shadow: policy.flags & FLAG_SHADOW != 0,
        standing,
        buckets,
    })
}

fn policy_of(
    tables: &Tables,
    generation: u32,
    destination: Destination,
) -> Result<Option<Policy>, L4Error> {
    let Destination {
        protocol,
        port,
        ifindex,
    } = destination;
    let index = port_index(generation, protocol, port);
    let mut id = tables.ports.get(&index, 0).map_err(of(Pinned::Ports))?;
    if id == 0
        && let Some(ifindex) = ifindex
    {
        id = missing(tables.interfaces.get(&[ifindex, generation], 0))
            .map_err(of(Pinned::Interfaces))?
            .unwrap_or(0);
    }
    if id == 0 {
        return Ok(None);
    }
    policy(tables, generation, id).map(Some)
}

fn policy(tables: &Tables, generation: u32, id: u32) -> Result<Policy, L4Error> {
    let index = Config::index(generation, MAX_POLICIES, id);
    let Raw(policy) = tables
        .policies
        .get(&index, 0)
        .map_err(of(Pinned::Policies))?;
    Ok(policy)
}

fn action_of(
    tables: &Tables,
    generation: u32,
    policy: &Policy,
    source: Address,
) -> Result<CidrAction, L4Error> {
    let own = CidrAction::Class(policy.class);
    if policy.flags & FLAG_CIDRS == 0 {
        return Ok(own);
    }
    let key = CidrKey {
        set: cidr_set(generation, policy.id),
        address: source.octets(),
    };
    let found = missing(tables.cidrs.get(&Key::new(CIDR_LOOKUP_BITS, Raw(key)), 0));
    let found = found.map_err(of(Pinned::Cidrs))?;
    Ok(found.map_or(own, CidrAction::from_raw))
}

fn states(
    tables: &Tables,
    config: &Config,
    class: &Class,
    source: Address,
    now: u64,
) -> Result<Vec<BucketState>, L4Error> {
    let mut states = Vec::new();
    for (index, level) in (0..class.count).zip(&class.levels) {
        for unit in Unit::ALL {
            if level.units & unit.bit() != 0 {
                states.push(state(tables, config, (index, level), unit, source, now)?);
            }
        }
    }
    Ok(states)
}

fn state(
    tables: &Tables,
    config: &Config,
    (index, level): (u32, &Level),
    unit: Unit,
    source: Address,
    now: u64,
) -> Result<BucketState, L4Error> {
    let mask = if source.is_v4() {
        level.mask_v4
    } else {
        level.mask_v6
    };
    let source = source.masked(mask);
    let key = storable(bucket_key(config.secret, level.unit_seed(unit), source));
    let limit = level.limits.get(unit as usize).copied().unwrap_or_default();
    let (place, tat) = find(tables, config, key, now)?;
    Ok(BucketState {
        level: index,
        unit,
        limit,
        seed: level.unit_seed(unit),
        source,
        place,
        tat,
        remaining: limit.remaining(tat, now),
        admits: matches!(
            step(tat, now, limit.cost(1), limit.tolerance),
            Step::Admit { .. }
        ),
    })
}

/// Makes the bucket a full one, if it has a place of its own.
///
/// A set is written as a whole, there being no other way into the map: what packets of the up to three
/// other sources in it take at that very moment (about a microsecond) is lost.
pub(super) fn refill(tables: &mut Tables, bucket: &BucketState) -> Result<(), L4Error> {
    let config = tables.config()?;
    let key = storable(bucket_key(config.secret, bucket.seed, bucket.source));
    let index = set_index(key, config.set_mask);
    let mut set = tables.sources.get(&index, 0).map_err(of(Pinned::Sources))?;
    let mut slots = set.as_chunks_mut().0.iter_mut();
    if let Some([_, tat]) = slots.find(|[owner, _]| *owner == key) {
        *tat = 0;
        tables
            .sources
            .set(index, set, 0)
            .map_err(of(Pinned::Sources))?;
    }
    Ok(())
}

/// Where the bucket is, and its state.
fn find(tables: &Tables, config: &Config, key: u64, now: u64) -> Result<(Place, u64), L4Error> {
    let index = set_index(key, config.set_mask);
    let set = tables.sources.get(&index, 0).map_err(of(Pinned::Sources))?;
    if let Some([_, tat]) = set.as_chunks().0.iter().find(|[owner, _]| *owner == key) {
        return Ok((Place::Table, *tat));
    }
    let [first, second] = cell_indices(key, config.cell_mask);
    let cell = |index| tables.sketch.get(&index, 0).map_err(of(Pinned::Sketch));
    let debt = cell(first)?.min(cell(second)?);
    Ok(if debt > now {
        (Place::Sketch, debt)
    } else {
        (Place::Nowhere, 0)
    })
}

/// What a lookup found, if it found anything.
fn missing<T>(found: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
