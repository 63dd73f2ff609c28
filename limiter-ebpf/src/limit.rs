//! The buckets that a packet's source must have tokens in.

use limiter_common::key::bucket_key;
use limiter_common::policy::MAX_LEVELS;
use limiter_common::table::storable;
use limiter_common::{Class, Config, Level, Reason, Unit};

use crate::clock;
use crate::parse::Segment;
use crate::sources::{self, Answer, Request};

/// Units there are.
const UNITS: u32 = Unit::ALL.len() as u32;
/// Buckets of one packet at most.
const BUCKETS: u32 = MAX_LEVELS * UNITS;

/// How much of each unit a packet is.
pub(crate) struct Load {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// Charges the packet to its source under `class`: the reason, and the level that gave it.
///
/// Where several buckets apply, all are asked before any is charged, so that a denied packet charges
/// none. Only if another CPU takes the last tokens of one in between, or changes its place, are the
/// tokens of those before it lost with the denial: less than the limit is admitted then, never more.
#[inline(always)]
pub(crate) fn apply(
    config: &Config,
    class: &Class,
    segment: &Segment,
    load: &Load,
    coarse: u64,
) -> (Reason, u32) {
    let units = units_of(segment);
    let (buckets, precise) = survey(class, units);
    let precise = if precise { clock::precise() } else { coarse };
    // Asking the one bucket there is would be asking twice.
    let mut step = if buckets > 1 { 0 } else { BUCKETS };
    while step < 2 * BUCKETS {
        let charge = step >= BUCKETS;
        let bucket = if charge { step - BUCKETS } else { step };
        step += 1;
        let (index, unit) = (bucket / UNITS, bucket % UNITS);
        if index >= class.count {
            continue;
        }
        let Some(level) = class.levels.get(index as usize) else {
            continue;
        };
        if level.units & units & 1 << unit == 0 {
            continue;
        }
        let Some(request) = request(config, level, unit, segment, load, (coarse, precise)) else {
            continue;
        };
        let answer = if charge {
            sources::take(&request)
        } else {
            sources::ask(&request)
        };
        match answer {
            Answer::Admitted => {}
            Answer::Denied => return (over(unit), index),
            Answer::Contended => return (Reason::Contended, index),
        }
    }
    (Reason::Conforming, 0)
}

/// The units that the packet is counted in, as bits.
#[inline(always)]
const fn units_of(segment: &Segment) -> u32 {
    let always = Unit::Packets.bit() | Unit::Bytes.bit();
    if segment.attempt {
        always | Unit::Connections.bit()
    } else {
        always
    }
}

/// How many buckets the packet is charged to, and whether any of them takes the precise clock.
#[inline(always)]
fn survey(class: &Class, units: u32) -> (u32, bool) {
    let (mut buckets, mut precise) = (0, 0);
    let mut index = 0;
    while index < MAX_LEVELS {
        if index < class.count
            && let Some(level) = class.levels.get(index as usize)
        {
            let applying = level.units & units;
            buckets += (applying & 1) + (applying >> 1 & 1) + (applying >> 2 & 1);
            precise |= applying & !level.coarse;
        }
        index += 1;
    }
    (buckets, precise != 0)
}

/// What the packet asks of the bucket of one level and unit.
#[inline(always)]
fn request(
    config: &Config,
    level: &Level,
    unit: u32,
    segment: &Segment,
    load: &Load,
    (coarse, precise): (u64, u64),
) -> Option<Request> {
    let (unit, tokens) = match unit {
        0 => (Unit::Connections, 1),
        1 => (Unit::Packets, load.packets),
        _ => (Unit::Bytes, load.bytes),
    };
    let limit = level.limits.get(unit as usize)?;
    let mask = if segment.source.is_v4() {
        level.mask_v4
    } else {
        level.mask_v6
    };
    let source = segment.source.masked(mask);
    Some(Request {
        key: storable(bucket_key(config.secret, level.unit_seed(unit), source)),
        now: if level.coarse & unit.bit() == 0 {
            precise
        } else {
            coarse
        },
        cost: limit.cost(tokens),
        tolerance: limit.tolerance,
    })
}

/// Why a packet is dropped whose bucket of `unit` is empty.
#[inline(always)]
const fn over(unit: u32) -> Reason {
    match unit {
        0 => Reason::OverConnections,
        1 => Reason::OverPackets,
        _ => Reason::OverBytes,
    }
}
