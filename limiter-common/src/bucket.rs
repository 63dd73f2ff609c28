//! The token bucket: the generic cell rate algorithm (GCRA, ITU-T I.371) on one `u64`.
//!
//! The state is the *theoretical arrival time* (TAT) in nanoseconds: the instant at which the
//! bucket would be full again. A bucket whose TAT is not in the future is full, so the zero state
//! is a full bucket of any limit, no timer refills it, and a state that has come due can be
//! forgotten without anybody gaining a token.
//!
//! Rejected: a pair of words (tokens, last refill). It needs a lock or admits races; plain stores
//! were measured to admit up to 80 times the limit with two CPUs on one key.

use core::num::NonZeroU64;

/// The largest debt a bucket may hold, in nanoseconds (146 years): keeps `now + tolerance` inside a `u64`
/// for as long as a clock of nanoseconds can run.
pub const MAX_TOLERANCE: u64 = 1 << 62;

/// How often [`take`] tries again when another CPU changed the bucket under it.
pub const KERNEL_TRIES: u32 = 8;

/// A limit in the form that deciding needs: no division is left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Limit {
    /// Emission interval: what a token takes to come back, in units of `2^-shift` nanoseconds.
    pub interval: u64,
    /// Nanoseconds an empty bucket takes to fill.
    pub tolerance: u64,
    /// Tokens of a full bucket.
    pub capacity: u64,
    /// 0, or [`FINE_SHIFT`] where a token is worth less than [`COARSE_INTERVAL`] (bytes, mostly).
    pub shift: u64,
}

/// Intervals from here on, in nanoseconds, are kept in whole nanoseconds.
pub const COARSE_INTERVAL: u64 = 1 << 10;
/// Fractional bits of shorter ones.
pub const FINE_SHIFT: u64 = 20;

/// Why three numbers of a policy do not make a [`Limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// The bucket would hold no token, so nothing could ever pass.
    NoTokens,
    /// Nothing would ever be refilled.
    NoFill,
    /// The fill interval is zero.
    NoInterval,
    /// More than 2^20 tokens a nanosecond: finer than the bucket's arithmetic.
    TooFast,
    /// The bucket would take longer than [`MAX_TOLERANCE`] to fill.
    TooSlow,
}

impl Limit {
    /// A bucket of `max_tokens`, full at first, refilled continuously at `tokens_per_fill` every
    /// `fill_interval_ns`.
    ///
    /// A fill cannot add more than the bucket holds, so `tokens_per_fill` counts as `max_tokens`
    /// where it is larger (as in Envoy's `token_bucket`). Rounding is against the source, by less
    /// than 1 ns for each time that tokens are taken: never more than the stated rate and burst. (A
    /// bucket that takes no whole number of nanoseconds to fill counts as one that takes the next:
    /// what the fraction is worth, nothing for limits of up to 10^9 a second, comes on top once.)
    ///
    /// # Errors
    /// [`LimitError`] for any zero and for what a `u64` of nanoseconds cannot express.
    pub const fn new(
        max_tokens: u64,
        tokens_per_fill: u64,
        fill_interval_ns: u64,
    ) -> Result<Self, LimitError> {
        if max_tokens == 0 {
            return Err(LimitError::NoTokens);
        }
        let fill = if tokens_per_fill < max_tokens {
            tokens_per_fill
        } else {
            max_tokens
        };
        let Some(fill) = NonZeroU64::new(fill) else {
            return Err(LimitError::NoFill);
        };
        if fill_interval_ns == 0 {
            return Err(LimitError::NoInterval);
        }
        let shift = if fill_interval_ns / fill.get() < COARSE_INTERVAL {
            FINE_SHIFT
        } else {
            0
        };
        let scaled = (fill_interval_ns as u128) << shift;
        if (fill.get() as u128) > scaled {
            return Err(LimitError::TooFast);
        }
        let interval = scaled.div_ceil(fill.get() as u128);
        let full = match (max_tokens as u128).checked_mul(interval) {
            Some(full) if full <= MAX_TOLERANCE as u128 => full,
            _ => return Err(LimitError::TooSlow),
        };
        let (interval, full) = (low_half(interval), low_half(full));
        Ok(Self {
            interval,
            tolerance: ceil_shift(full, shift),
            capacity: max_tokens,
            shift,
        })
    }

    /// Nanoseconds of debt that `tokens` are worth; more than the bucket holds never conform.
    #[inline(always)]
    #[must_use]
    pub const fn cost(&self, tokens: u64) -> u64 {
        if tokens > self.capacity {
            return u64::MAX;
        }
        // No overflow: `capacity × interval` is at most `MAX_TOLERANCE`.
        ceil_shift(tokens.wrapping_mul(self.interval), self.shift & 63)
    }

    /// Whole tokens left at `now` in a bucket whose state is `tat`.
    #[must_use]
    pub const fn remaining(&self, tat: u64, now: u64) -> u64 {
        let free = self.tolerance.saturating_sub(tat.saturating_sub(now));
        match (free << self.shift).checked_div(self.interval) {
            Some(tokens) if tokens < self.capacity => tokens,
            Some(_) => self.capacity,
            None => 0,
        }
    }
}

/// `number / 2^shift`, rounded up.
#[inline(always)]
const fn ceil_shift(number: u64, shift: u64) -> u64 {
    number.wrapping_add((1 << shift) - 1) >> shift
}

/// The low 64 bits of a number that is known to fit in them.
#[expect(clippy::cast_possible_truncation, reason = "checked by the caller")]
const fn low_half(number: u128) -> u64 {
    number as u64
}

/// What one step of the algorithm says, before anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Conforms; the bucket's next state.
    Admit { tat: u64 },
    /// Does not conform; after `wait` nanoseconds it would (`u64::MAX`: never, the cost exceeds the
    /// bucket).
    Deny { wait: u64 },
}

/// One step of GCRA: may `cost` nanoseconds' worth of tokens be taken at `now` from a bucket in
/// state `tat` that holds `tolerance` nanoseconds' worth?
///
/// A clock that reads earlier than the TAT was set from is never a refill. A TAT further ahead than
/// an empty bucket's (the limit was lowered, or the clock stepped back) counts as an empty bucket,
/// so that nobody waits longer than the limit in force says.
#[inline(always)]
#[must_use]
pub const fn step(tat: u64, now: u64, cost: u64, tolerance: u64) -> Step {
    if cost > tolerance {
        return Step::Deny { wait: u64::MAX };
    }
    let base = if tat > now { tat } else { now };
    let debt = base - now;
    // One comparison decides, and it is one that a flood makes predictable: whether a debt exceeds an
    // empty bucket's as well is asked only by who wants to know how long to wait.
    if debt > tolerance - cost && cost > 0 {
        let room = tolerance.saturating_sub(debt);
        return Step::Deny { wait: cost - room };
    }
    match base.checked_add(cost) {
        Some(tat) => Step::Admit { tat },
        None => Step::Deny { wait: u64::MAX },
    }
}

/// A bucket's state in memory that several CPUs share.
pub trait Cell {
    /// The state now.
    fn load(&self) -> u64;
    /// Stores `next` if the state is still `seen`.
    ///
    /// # Errors
    /// The state found instead.
    fn compare_exchange(&self, seen: u64, next: u64) -> Result<(), u64>;
}

/// What became of one request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The tokens were taken; the bucket's new state.
    Admitted { tat: u64 },
    /// Over the limit; nothing was taken. After `wait` nanoseconds it would conform.
    Denied { wait: u64 },
    /// Other CPUs changed the bucket `tries` times in a row; nothing was taken.
    Contended,
}

/// Whether [`take`] would find that `cost` conforms; takes nothing.
///
/// For a request that several buckets must admit: asking first keeps a denied one from charging any.
#[inline(always)]
#[must_use]
pub fn conforms<C: Cell + ?Sized>(cell: &C, now: u64, cost: u64, tolerance: u64) -> bool {
    let seen = cell.load();
    match step(seen, now, cost, tolerance) {
        Step::Admit { .. } => true,
        Step::Deny { .. } => {
            settle(cell, seen, now, tolerance);
            false
        }
    }
}

/// Takes `cost` from `cell` if it conforms, with one compare-and-swap when nobody interferes.
///
/// Denials read only, so that an attacker's cache line stays shared; the one exception is a state
/// further ahead than an empty bucket's, which is set back to it (see [`step`]).
#[inline(always)]
pub fn take<C: Cell + ?Sized>(
    cell: &C,
    now: u64,
    cost: u64,
    tolerance: u64,
    tries: u32,
) -> Decision {
    let mut seen = cell.load();
    let mut left = tries;
    while left > 0 {
        left -= 1;
        match step(seen, now, cost, tolerance) {
            Step::Admit { tat } => match cell.compare_exchange(seen, tat) {
                Ok(()) => return Decision::Admitted { tat },
                Err(found) => seen = found,
            },
            Step::Deny { wait } => {
                settle(cell, seen, now, tolerance);
                return Decision::Denied { wait };
            }
        }
    }
    Decision::Contended
}

/// Gives back `cost` that was taken before (a later limit of the same request denied it).
#[inline(always)]
pub fn give_back<C: Cell + ?Sized>(cell: &C, cost: u64) {
    let mut seen = cell.load();
    while let Err(found) = cell.compare_exchange(seen, seen.saturating_sub(cost)) {
        seen = found;
    }
}

/// Sets a state that lies beyond an empty bucket's back to an empty bucket. Losing the race is fine:
/// whoever won wrote a newer state, and the next denial looks again.
#[inline(always)]
pub fn settle<C: Cell + ?Sized>(cell: &C, seen: u64, now: u64, tolerance: u64) {
    if seen > now && seen - now > tolerance {
        let _lost_race = cell.compare_exchange(seen, now.saturating_add(tolerance));
    }
}

#[cfg(test)]
mod tests;
