//! The buckets that a packet's source must have tokens in.

use limiter_common::key::bucket_key;
use limiter_common::policy::{MAX_CLASSES, MAX_LEVELS};
use limiter_common::table::{Request, storable};
use limiter_common::{Address, Class, Config, Level, Reason, Secret, Unit};

use crate::clock;
use crate::local::Own;
use crate::maps::{CLASSES, CONFIG};
use crate::packet::Facts;
use crate::parse::Segment;
use crate::sources::{self, Answer};

/// Units there are.
const UNITS: u32 = 3;
const _: () = assert!(Unit::ALL.len() == UNITS as usize);

/// How much of each unit a packet is.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) packets: u32,
    pub(crate) bytes: u32,
}

impl Load {
    /// As one number, with whether the packet is a connection attempt.
    #[inline(always)]
    pub(crate) const fn to_raw(self, attempt: bool) -> u64 {
        (self.packets as u64) << 33 | (self.bytes as u64) << 1 | attempt as u64
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "what `to_raw` has put together"
    )]
    pub(crate) const fn from_raw(raw: u64) -> (Self, bool) {
        let load = Self {
            packets: (raw >> 33) as u32,
            bytes: (raw >> 1) as u32,
        };
        (load, raw & 1 != 0)
    }
}

/// Charges the packet to its source under the class with this index in [`CLASSES`]: the reason, and
/// the level that gave it.
#[inline(always)]
pub(crate) fn apply<F: Facts>(
    config: &Config,
    class: u32,
    segment: &Segment,
    facts: &F,
    own: &mut Own,
    coarse: u64,
) -> (Reason, u32) {
    let Some(limits) = CLASSES.get(class) else {
        return (Reason::Untargeted, 0);
    };
    let &Segment {
        source, attempt, ..
    } = segment;
    let outcome = match limits.sole {
        _ if !F::IN_ONE_PIECE => apply_all(config, limits, source, facts.load(), attempt, coarse),
        0 => {
            let load = facts.load().to_raw(attempt);
            limit_apply(source.high, source.low, class, load, coarse)
        }
        sole => {
            let (unit, tokens) = match sole {
                1 => (0, attempt.into()),
                2 => (1, facts.load().packets.into()),
                _ => (2, facts.load().bytes.into()),
            };
            if tokens == 0 {
                CONFORMING
            } else {
                let level = &limits.levels[0];
                let precise = level.coarse & 1 << unit == 0;
                let now = if precise { clock::precise() } else { coarse };
                let request = request(config.secret, level, unit, tokens, source, now);
                outcome(sources::take_sole(config, &request, own), unit)
            }
        }
    };
    let reason = match outcome & 7 {
        0 => Reason::Conforming,
        1 => Reason::OverConnections,
        2 => Reason::OverPackets,
        3 => Reason::OverBytes,
        4 => Reason::Contended,
        _ => Reason::Untargeted,
    };
    let level = outcome >> 3;
    // The verifier forgets what the function may return.
    (reason, if level < MAX_LEVELS { level } else { 0 })
}

#[inline(always)]
const fn outcome(answer: Answer, unit: u32) -> u32 {
    match answer {
        Answer::Admitted => CONFORMING,
        Answer::Denied => unit + 1,
        Answer::Contended => CONTENDED,
    }
}

/// What [`limit_apply`] returns: the outcome in three bits, and the level above them. A bucket that is
/// empty is its unit and one.
const CONFORMING: u32 = 0;
const CONTENDED: u32 = 4;
/// The daemon wrote an index of no class.
const NO_CLASS: u32 = 5;

/// [`apply_all`], as a function that the verifier looks at by itself (see [`sources`]).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn limit_apply(high: u64, low: u64, class: u32, load: u64, coarse: u64) -> u32 {
    let (Some(config), Some(class)) = (CONFIG.get(0), CLASSES.get(class)) else {
        return NO_CLASS;
    };
    let (load, attempt) = Load::from_raw(load);
    apply_all(config, class, Address { high, low }, load, attempt, coarse)
}

/// The outcome under any class.
///
/// Where several buckets apply, all are asked before any is charged, so that a denied packet charges
/// none. Only if another CPU takes the last tokens of one in between, or changes its place, are the
/// tokens of those before it lost with the denial: less than the limit is admitted then, never more.
#[inline(always)]
fn apply_all(
    config: &Config,
    class: &Class,
    source: Address,
    load: Load,
    attempt: bool,
    coarse: u64,
) -> u32 {
    // The bit of `Unit::Connections` is that of an attempt.
    let units = Unit::Packets.bit() | Unit::Bytes.bit() | u32::from(attempt);
    let (buckets, precise) = survey(class, units);
    let tokens = [u64::from(attempt), load.packets.into(), load.bytes.into()];
    let packet = Packet {
        source,
        tokens,
        coarse,
        precise: if precise { clock::precise() } else { coarse },
    };
    // Asking the one bucket there is would be asking twice.
    if buckets > 1 {
        let outcome = pass(config.secret, class, units, &packet, sources::ask);
        if outcome != CONFORMING {
            return outcome;
        }
    }
    pass(config.secret, class, units, &packet, sources::take)
}

/// What the buckets want to know of a packet.
struct Packet {
    source: Address,
    /// By [`Unit`].
    tokens: [u64; UNITS as usize],
    coarse: u64,
    precise: u64,
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

/// Puts the packet's requests to all its buckets, up to the first that denies.
#[inline(always)]
fn pass(
    secret: Secret,
    class: &Class,
    units: u32,
    packet: &Packet,
    put: impl Fn(&Request) -> Answer,
) -> u32 {
    let mut index = 0;
    while index < MAX_LEVELS && index < class.count {
        let Some(level) = class.levels.get(index as usize) else {
            break;
        };
        let mut unit = 0;
        while unit < UNITS {
            if level.units & units & 1 << unit != 0 {
                let now = if level.coarse & 1 << unit == 0 {
                    packet.precise
                } else {
                    packet.coarse
                };
                let tokens = match unit {
                    0 => packet.tokens[0],
                    1 => packet.tokens[1],
                    _ => packet.tokens[2],
                };
                let answer = put(&request(secret, level, unit, tokens, packet.source, now));
                let outcome = outcome(answer, unit);
                if outcome != CONFORMING {
                    return index << 3 | outcome;
                }
            }
            unit += 1;
        }
        index += 1;
    }
    CONFORMING
}

/// What so many tokens ask of the bucket of one level and unit.
#[inline(always)]
fn request(
    secret: Secret,
    level: &Level,
    unit: u32,
    tokens: u64,
    source: Address,
    now: u64,
) -> Request {
    let (unit, limit) = match unit {
        0 => (Unit::Connections, &level.limits[0]),
        1 => (Unit::Packets, &level.limits[1]),
        _ => (Unit::Bytes, &level.limits[2]),
    };
    let mask = if source.is_v4() {
        level.mask_v4
    } else {
        level.mask_v6
    };
    Request {
        key: storable(bucket_key(
            secret,
            level.unit_seed(unit),
            source.masked(mask),
        )),
        now,
        cost: limit.cost(tokens),
        tolerance: limit.tolerance,
    }
}

/// Index of a class in [`CLASSES`].
#[inline(always)]
pub(crate) const fn class_index(generation: u32, class: u32) -> u32 {
    Config::index(generation, MAX_CLASSES, class)
}
