//! How a limit counts: token bucket, fixed window or sliding window, each in one or two words that
//! cores share without a lock.
//!
//! | | state | a refusal lasts |
//! |---|---|---|
//! | token bucket | the TAT, by the monotonic clock | until enough tokens are back |
//! | fixed window | one word: end of the window, and count | until the window is over |
//! | sliding window | two such words, of even and of odd windows | until the last window weighs little enough |
//!
//! **Debt.** What a response costs is known when it is over, and is taken then whether or not it is
//! there; later requests pay. A token bucket's debt reaches at most [`DEBT_BUCKETS`] times what the
//! bucket holds, so that one absurd number denies a client for a bounded time; a window's count goes
//! on to count, and the window's end forgives it (of a sliding one, the next one's).

mod snapshot;
mod window;

use limiter_common::Limit;
use limiter_common::bucket::{self, MAX_TOLERANCE, Step};

use super::buckets::{Bucket, Change, Timeline};
use super::state::Admits;
use super::time::Now;
use crate::policy::plan::Algorithm;
pub use snapshot::{Reading, Snapshot};
pub use window::Window;

/// How far a token bucket may be in debt, in buckets.
pub const DEBT_BUCKETS: u64 = 16;

/// Tokens of `limit` that come back in a second.
#[must_use]
pub fn per_second(limit: &Limit) -> f64 {
    let interval = limit.interval as f64 / (1_u64 << limit.shift) as f64;
    SECOND as f64 / interval
}

/// The wait of a request that never conforms.
pub const NEVER: u64 = u64::MAX;

const SECOND: u64 = 1_000_000_000;

/// A limit, ready to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    Bucket {
        limit: Limit,
        /// Nanoseconds that the TAT may be ahead at most.
        deepest: u64,
    },
    Fixed(Window),
    Sliding(Window),
}

/// Where a meter's words are.
pub trait Words {
    /// The word with this index, below [`Meter::words`]; a place is made for it if need be.
    fn word(&self, index: usize, now: Now) -> Bucket<'_>;
    /// The same, as it is.
    fn existing(&self, index: usize, now: Now) -> Bucket<'_>;
}

/// What a meter says of a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Conforms. If tokens were taken, `mark` is what [`Meter::give_back`] needs to know.
    Admit { mark: u64 },
    /// Does not; after `wait` nanoseconds it would ([`NEVER`]: never). Nothing was taken.
    Deny { wait: u64 },
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whole tokens left.
    pub remaining: u64,
    /// Nanoseconds until all of them are.
    pub reset: u64,
}

impl Meter {
    /// A meter for `limit`; of windows, which are `seconds` long, only its capacity counts. `debts`:
    /// it will be charged for more than there is.
    #[must_use]
    pub fn new(limit: Limit, algorithm: Algorithm, seconds: u64, debts: bool) -> Self {
        let length = seconds.max(1).saturating_mul(SECOND);
        match algorithm {
            Algorithm::TokenBucket => Self::Bucket {
                limit,
                deepest: if debts {
                    limit.tolerance.saturating_mul(DEBT_BUCKETS)
                } else {
                    limit.tolerance
                },
            },
            Algorithm::FixedWindow => Self::Fixed(Window::new(limit.capacity, length, 0)),
            Algorithm::SlidingWindow => Self::Sliding(Window::new(limit.capacity, length, length)),
        }
    }

    /// The share that one of `nodes` (at least 1) has of the limit, if nobody counts for all of them:
    /// of a token bucket, as many tokens as all together hold no more than the limit does, refilled
    /// at exactly that part of the rate; of a window, that part of its tokens. `least` tokens, but no
    /// more than the limit has, fit in any case, so that a request can conform: where they are more
    /// than the share, nodes together admit more at once than the limit says.
    ///
    /// The state is that of all nodes, if each did what this one does: a token weighs as many times
    /// as there are nodes, in a bucket that takes as long to fill. So it may be kept when their number
    /// changes: what is used of a share stays used of the next one.
    #[must_use]
    pub fn divided(self, nodes: u32, least: u64) -> Self {
        let nodes = u64::from(nodes.max(1));
        let least = least.clamp(1, self.capacity().max(1));
        if nodes == 1 {
            return self;
        }
        match self {
            Self::Bucket { limit, deepest } => {
                let capacity = (limit.capacity / nodes).max(least);
                // A bucket that would fill for longer than any may is as slow as one can be.
                let slowest = MAX_TOLERANCE / capacity;
                let interval = limit.interval.saturating_mul(nodes).min(slowest);
                let share = Limit {
                    interval,
                    capacity,
                    tolerance: 0,
                    shift: limit.shift,
                };
                let tolerance = worth(&share, capacity);
                let depth = if deepest > limit.tolerance {
                    DEBT_BUCKETS
                } else {
                    1
                };
                Self::Bucket {
                    limit: Limit { tolerance, ..share },
                    deepest: tolerance.saturating_mul(depth),
                }
            }
            Self::Fixed(window) => Self::Fixed(window.divided(nodes, least)),
            Self::Sliding(window) => Self::Sliding(window.divided(nodes, least)),
        }
    }

    /// How many words it needs.
    #[must_use]
    pub const fn words(&self) -> usize {
        match self {
            Self::Bucket { .. } | Self::Fixed(_) => 1,
            Self::Sliding(_) => 2,
        }
    }

    /// The clock that its words are instants of.
    #[must_use]
    pub const fn timeline(&self) -> Timeline {
        match self {
            Self::Bucket { .. } => Timeline::Mono,
            Self::Fixed(_) | Self::Sliding(_) => Timeline::Wall,
        }
    }

    /// Seconds of its windows; 0 of a token bucket.
    #[must_use]
    pub const fn window(&self) -> u64 {
        match self {
            Self::Bucket { .. } => 0,
            Self::Fixed(window) | Self::Sliding(window) => window.length() / SECOND,
        }
    }

    /// Tokens that it admits at once at most.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        match self {
            Self::Bucket { limit, .. } => limit.capacity,
            Self::Fixed(window) | Self::Sliding(window) => window.capacity(),
        }
    }

    /// What it admits, for people.
    #[must_use]
    pub fn admits(&self) -> Admits {
        let per_second = match self {
            Self::Bucket { limit, .. } => per_second(limit),
            Self::Fixed(window) | Self::Sliding(window) => {
                window.capacity() as f64 / (window.length() as f64 / SECOND as f64)
            }
        };
        Admits {
            tokens: self.capacity(),
            per_second,
        }
    }

    /// What a state must agree in to be taken over from another meter: limits may change under it,
    /// the length of windows may not.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Bucket { .. } => "bucket".to_owned(),
            Self::Fixed(window) => format!("fixed/{}", window.length()),
            Self::Sliding(window) => format!("sliding/{}", window.length()),
        }
    }

    /// Whether `tokens` could be taken; takes none. For none it is asked whether there is one.
    pub fn peek(&self, words: &impl Words, tokens: u64, now: Now) -> Verdict {
        self.ask(words, tokens, 0, now)
    }

    /// Takes `tokens` if they conform. None are taken where there is one.
    pub fn take(&self, words: &impl Words, tokens: u64, now: Now) -> Verdict {
        self.ask(words, tokens, tokens, now)
    }

    fn ask(&self, words: &impl Words, tokens: u64, taken: u64, now: Now) -> Verdict {
        let tokens = tokens.max(1);
        match self {
            Self::Bucket { limit, deepest } => {
                let step = |tat| take_from_bucket(limit, *deepest, tat, tokens, taken, now.mono);
                let verdict = words.word(0, now).change(now, step);
                // There is no room for the bucket any more: nothing passes uncounted.
                verdict.unwrap_or_else(|| Verdict::Deny {
                    wait: limit.cost(1),
                })
            }
            Self::Fixed(window) => {
                let (tokens, taken) = (window.units(tokens), window.units(taken));
                let step = |word| window.take_fixed(word, tokens, taken, now.unix);
                let verdict = words.word(0, now).change(now, step);
                verdict.unwrap_or(Verdict::Deny { wait: SECOND })
            }
            Self::Sliding(window) => {
                let (tokens, taken) = (window.units(tokens), window.units(taken));
                let now_in = window.now_in(words, now);
                let last = window.last(words, now_in, now);
                let step = |word| window.take_sliding(word, last, tokens, taken, now_in);
                let verdict = words.word(window.index(now_in), now).change(now, step);
                verdict.unwrap_or(Verdict::Deny { wait: SECOND })
            }
        }
    }

    /// Takes `tokens` whether or not they are there, into debt.
    pub fn charge(&self, words: &impl Words, tokens: u64, now: Now) {
        // `None`: no room for the bucket any more. It was full, so what is forgotten is this one
        // response, in a table that is full of buckets that are not.
        let _no_room = match self {
            Self::Bucket { limit, deepest } => {
                let cost = worth(limit, tokens).min(*deepest);
                let most = now.mono.saturating_add(*deepest);
                words.word(0, now).change(now, |tat| {
                    let next = tat.max(now.mono).saturating_add(cost).min(most);
                    if next > tat {
                        Change::Write(next, ())
                    } else {
                        Change::Leave(())
                    }
                })
            }
            Self::Fixed(window) => words.word(0, now).change(now, |word| {
                Change::Write(
                    window.charged_fixed(word, window.units(tokens), now.unix),
                    (),
                )
            }),
            Self::Sliding(window) => {
                let now_in = window.now_in(words, now);
                let word = words.word(window.index(now_in), now);
                word.change(now, |word| {
                    Change::Write(
                        window.charged_sliding(word, window.units(tokens), now_in),
                        (),
                    )
                })
            }
        };
    }

    /// Takes over that of the limit no more is left than `standing` says, which somebody else counted:
    /// a state that says less already stays.
    pub fn assume(&self, words: &impl Words, standing: Standing, now: Now) {
        if standing.reset == 0 {
            return;
        }
        let used = self.capacity().saturating_sub(standing.remaining);
        let more = |word: u64, next: u64| {
            if next > word {
                Change::Write(next, ())
            } else {
                Change::Leave(())
            }
        };
        // `None`: no room for it, as in `charge`.
        let _no_room = match self {
            Self::Bucket { deepest, .. } => {
                let next = now.mono.saturating_add(standing.reset.min(*deepest));
                words.word(0, now).change(now, |tat| more(tat, next))
            }
            Self::Fixed(window) => words.word(0, now).change(now, |word| {
                more(word, window.assumed_fixed(word, used, now.unix))
            }),
            Self::Sliding(window) => {
                let now_in = window.now_in(words, now);
                let last = window.last(words, now_in, now);
                let word = words.word(window.index(now_in), now);
                word.change(now, |word| {
                    more(word, window.assumed_sliding(word, last, used, now_in))
                })
            }
        };
    }

    /// Gives `tokens` back that were taken with this `mark`.
    ///
    /// What time has given back already is not given back again: of a token bucket at most what is
    /// still owed of that charge, of windows nothing once the window is over.
    pub fn give_back(&self, words: &impl Words, tokens: u64, mark: u64, now: Now) {
        match self {
            Self::Bucket { limit, .. } => {
                let owed = mark.saturating_sub(now.mono);
                let cost = worth(limit, tokens).min(owed);
                words.existing(0, now).amend(|tat| tat.saturating_sub(cost));
            }
            Self::Fixed(window) => words
                .existing(0, now)
                .amend(|word| window.given_back(word, window.units(tokens), mark)),
            Self::Sliding(window) => words
                .existing(window.index_of(mark), now)
                .amend(|word| window.given_back(word, window.units(tokens), mark)),
        }
    }

    /// Gives `tokens` back of which nobody knows when they were taken: a token bucket gets no fuller
    /// than full, and a window forgets no more than was counted in it.
    pub fn refund(&self, words: &impl Words, tokens: u64, now: Now) {
        match self {
            Self::Bucket { limit, .. } => {
                let cost = worth(limit, tokens);
                words.existing(0, now).amend(|tat| {
                    let owed = tat.saturating_sub(now.mono);
                    tat.saturating_sub(cost.min(owed))
                });
            }
            Self::Fixed(window) => words
                .existing(0, now)
                .amend(|word| window.refunded_fixed(word, window.units(tokens), now.unix)),
            Self::Sliding(window) => {
                let now_in = window.now_in(words, now);
                words
                    .existing(window.index(now_in), now)
                    .amend(|word| window.refunded_sliding(word, window.units(tokens), now_in));
            }
        }
    }

    /// Makes it a full bucket, or windows in which nothing was counted.
    pub fn refill(&self, words: &impl Words, now: Now) {
        for index in 0..self.words() {
            words.existing(index, now).amend(|_state| 0);
        }
    }

    /// What is left.
    #[must_use]
    pub fn standing(&self, words: &impl Words, now: Now) -> Standing {
        match self {
            Self::Bucket { limit, deepest } => {
                let tat = words.existing(0, now).get();
                Standing {
                    remaining: limit.remaining(tat, now.mono),
                    reset: tat.saturating_sub(now.mono).min(*deepest),
                }
            }
            Self::Fixed(window) => window.standing_fixed(words.existing(0, now).get(), now.unix),
            Self::Sliding(window) => {
                let now_in = window.now_in(words, now);
                let last = window.last(words, now_in, now);
                let word = words.existing(window.index(now_in), now).get();
                window.standing_sliding(word, last, now_in)
            }
        }
    }
}

/// Nanoseconds by which a reading of the clock may be old when it decides: its thread was interrupted
/// in between. A bucket that is ahead of it by no more than that has been drawn from since, and is not
/// set back.
const LATE: u64 = 1_000_000_000;

/// A step of GCRA, in a bucket that may be in debt.
fn take_from_bucket(
    limit: &Limit,
    deepest: u64,
    tat: u64,
    tokens: u64,
    taken: u64,
    now: u64,
) -> Change<Verdict> {
    let cost = limit.cost(tokens);
    let ahead = tat.saturating_sub(now);
    if ahead > limit.tolerance && cost <= limit.tolerance {
        let owed = ahead.min(deepest);
        let wait = owed - limit.tolerance + cost;
        let verdict = Verdict::Deny { wait };
        return if ahead > deepest.saturating_add(LATE) {
            // The limit was lowered: nobody waits longer than the limit in force says, but for that.
            Change::Write(now.saturating_add(deepest), verdict)
        } else {
            Change::Leave(verdict)
        };
    }
    match bucket::step(tat, now, cost, limit.tolerance) {
        Step::Deny { wait } => Change::Leave(Verdict::Deny { wait }),
        Step::Admit { .. } if taken == 0 => Change::Leave(Verdict::Admit { mark: tat }),
        Step::Admit { tat: next } => Change::Write(next, Verdict::Admit { mark: next }),
    }
}

/// Nanoseconds that any number of tokens are worth.
#[must_use]
pub fn worth(limit: &Limit, tokens: u64) -> u64 {
    let fine = u128::from(tokens) * u128::from(limit.interval);
    u64::try_from((fine + ((1 << limit.shift) - 1)) >> limit.shift).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
