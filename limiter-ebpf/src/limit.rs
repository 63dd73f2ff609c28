//! The buckets that a packet's source must have tokens in.

use limiter_common::key::bucket_key;
use limiter_common::policy::{MAX_CLASSES, MAX_LEVELS};
use limiter_common::table::{Request, storable};
use limiter_common::{Address, Class, Config, Level, Reason, Secret, Unit};

use crate::clock;
use crate::maps::{CLASSES, CONFIG};
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
/// the level that gave it. `load` is from [`Load::to_raw`].
#[inline(always)]
pub(crate) fn apply(class: u32, source: Address, load: u64, coarse: u64) -> (Reason, u32) {
    let outcome = limit_apply(source.high, source.low, class, load, coarse);
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

/// What [`limit_apply`] returns: the outcome in three bits, and the level above them. A bucket that is
/// empty is its unit and one.
const CONFORMING: u32 = 0;
const CONTENDED: u32 = 4;
/// The daemon wrote an index of no class.
const NO_CLASS: u32 = 5;

/// See [`apply`]. A function that the verifier looks at by itself (see [`sources`]).
///
/// Where several buckets apply, all are asked before any is charged, so that a denied packet charges
/// none. Only if another CPU takes the last tokens of one in between, or changes its place, are the
/// tokens of those before it lost with the denial: less than the limit is admitted then, never more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn limit_apply(high: u64, low: u64, class: u32, load: u64, coarse: u64) -> u32 {
    let (Some(config), Some(class)) = (CONFIG.get(0), CLASSES.get(class)) else {
        return NO_CLASS;
    };
    // The bit of `Unit::Connections` is that of an attempt.
    let units = Unit::Packets.bit() | Unit::Bytes.bit() | (load & 1) as u32;
    let (buckets, precise) = survey(class, units);
    let packet = Packet {
        source: Address { high, low },
        tokens: [1, load >> 33, load >> 1 & 0xffff_ffff],
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
                let outcome = match put(&request(secret, level, unit, packet)) {
                    Answer::Admitted => CONFORMING,
                    Answer::Denied => unit + 1,
                    Answer::Contended => CONTENDED,
                };
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

/// What the packet asks of the bucket of one level and unit.
#[inline(always)]
fn request(secret: Secret, level: &Level, unit: u32, packet: &Packet) -> Request {
    let (unit, tokens, limit) = match unit {
        0 => (Unit::Connections, packet.tokens[0], &level.limits[0]),
        1 => (Unit::Packets, packet.tokens[1], &level.limits[1]),
        _ => (Unit::Bytes, packet.tokens[2], &level.limits[2]),
    };
    let mask = if packet.source.is_v4() {
        level.mask_v4
    } else {
        level.mask_v6
    };
    let source = packet.source.masked(mask);
    Request {
        key: storable(bucket_key(secret, level.unit_seed(unit), source)),
        now: if level.coarse & unit.bit() == 0 {
            packet.precise
        } else {
            packet.coarse
        },
        cost: limit.cost(tokens),
        tolerance: limit.tolerance,
    }
}

/// Index of a class in [`CLASSES`].
#[inline(always)]
pub(crate) const fn class_index(generation: u32, class: u32) -> u32 {
    Config::index(generation, MAX_CLASSES, class)
}
