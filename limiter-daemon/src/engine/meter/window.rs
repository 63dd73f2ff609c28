//! Counts in windows that begin at multiples of their length since 1970.
//!
//! A word is the end of a window and the count in it, as one number of nanoseconds: `end + keep +
//! count`, where a count is at most a window's length in nanoseconds, and `keep` is how long the
//! count still matters after the window's end. So a word, like a TAT, is an instant from which on it
//! comes to nothing, and the table may give its place away then. Zero is a count of zero.
//!
//! **The wall clock steps back, or another core's reading is a little ahead.** A count in the window
//! after this one is taken for that of now, and counting goes on there: what was charged stays
//! charged. A count further ahead is moved to this window: nobody is denied for longer than two
//! windows, and a step back gives nobody anything.

use super::{NEVER, Standing, Verdict, Words};
use crate::engine::buckets::Change;
use crate::engine::time::Now;

/// A limit of so many tokens in each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    capacity: u64,
    /// Nanoseconds.
    length: u64,
    keep: u64,
    /// What a token counts: the nodes that the limit is divided by.
    unit: u64,
}

/// The count of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    /// End of the window; 0 without a count.
    end: u64,
    count: u64,
}

/// An instant, and the window that it is counted in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    now: u64,
    /// End of the window.
    end: u64,
}

impl Window {
    /// At most 10^9 tokens a second are counted; a greater capacity counts as that.
    pub(super) const fn new(capacity: u64, length: u64, keep: u64) -> Self {
        let capacity = if capacity < length { capacity } else { length };
        Self {
            capacity,
            length,
            keep,
            unit: 1,
        }
    }

    /// The share of one of so many nodes: a token counts as one on each of them. `least` tokens fit
    /// in any case.
    pub(super) const fn divided(self, nodes: u64, least: u64) -> Self {
        let fits = least.saturating_mul(nodes);
        let capacity = if self.capacity > fits {
            self.capacity
        } else if fits < self.length {
            fits
        } else {
            self.length
        };
        Self {
            capacity,
            unit: nodes,
            ..self
        }
    }

    /// What so many tokens count.
    pub(super) const fn units(&self, tokens: u64) -> u64 {
        tokens.saturating_mul(self.unit)
    }

    /// Tokens of a window.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        match self.capacity.checked_div(self.unit) {
            Some(tokens) => tokens,
            None => 0,
        }
    }

    /// Whole tokens left when so much is counted.
    const fn remaining(&self, used: u64) -> u64 {
        match self.capacity.saturating_sub(used).checked_div(self.unit) {
            Some(tokens) => tokens,
            None => 0,
        }
    }

    /// Nanoseconds.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    const fn count(&self, word: u64) -> Count {
        let word = word.saturating_sub(self.keep);
        if word == 0 {
            return Count { end: 0, count: 0 };
        }
        let end = (word - 1) / self.length * self.length;
        Count {
            end,
            count: word - end,
        }
    }

    pub(super) const fn word(&self, end: u64, count: u64) -> u64 {
        if count == 0 {
            return 0;
        }
        let count = if count < self.length {
            count
        } else {
            self.length
        };
        end.saturating_add(self.keep).saturating_add(count)
    }

    const fn end_of(&self, now: u64) -> u64 {
        (now / self.length)
            .saturating_add(1)
            .saturating_mul(self.length)
    }

    /// The count that is in force at `now`, and the end of its window.
    fn current(&self, word: u64, now: u64) -> Count {
        let end = self.end_of(now);
        let Count { end: found, count } = self.count(word);
        if found < end {
            Count { end, count: 0 }
        } else if found <= end.saturating_add(self.length) {
            Count { end: found, count }
        } else {
            Count { end, count }
        }
    }

    /// The word after a refusal: where the count was moved, it stays moved.
    fn refused(&self, word: u64, current: Count, wait: u64) -> Change<Verdict> {
        let verdict = Verdict::Deny { wait };
        let settled = self.word(current.end, current.count);
        if current.count > 0 && settled < word {
            Change::Write(settled, verdict)
        } else {
            Change::Leave(verdict)
        }
    }

    pub(super) fn take_fixed(
        &self,
        word: u64,
        tokens: u64,
        taken: u64,
        now: u64,
    ) -> Change<Verdict> {
        let current = self.current(word, now);
        if current.count.saturating_add(tokens) > self.capacity {
            let wait = if tokens > self.capacity {
                NEVER
            } else {
                current.end.saturating_sub(now)
            };
            return self.refused(word, current, wait);
        }
        self.admitted(current, taken)
    }

    fn admitted(&self, current: Count, taken: u64) -> Change<Verdict> {
        let verdict = Verdict::Admit { mark: current.end };
        if taken == 0 {
            return Change::Leave(verdict);
        }
        Change::Write(self.word(current.end, current.count + taken), verdict)
    }

    pub(super) fn charged_fixed(&self, word: u64, tokens: u64, now: u64) -> u64 {
        let current = self.current(word, now);
        self.word(current.end, current.count.saturating_add(tokens))
    }

    /// The word where at least `used` is counted.
    pub(super) fn assumed_fixed(&self, word: u64, used: u64, now: u64) -> u64 {
        let current = self.current(word, now);
        self.word(current.end, current.count.max(used))
    }

    /// The word without `tokens` that were counted in the window that ends at `mark`.
    pub(super) const fn given_back(&self, word: u64, tokens: u64, mark: u64) -> u64 {
        let found = self.count(word);
        if found.end == mark {
            self.word(mark, found.count.saturating_sub(tokens))
        } else {
            word
        }
    }

    pub(super) fn refunded_fixed(&self, word: u64, tokens: u64, now: u64) -> u64 {
        self.given_back(word, tokens, self.current(word, now).end)
    }

    /// Nanoseconds until the window is over.
    #[must_use]
    pub const fn left(&self, now: u64) -> u64 {
        self.length - now % self.length
    }

    pub(super) fn standing_fixed(&self, word: u64, now: u64) -> Standing {
        let current = self.current(word, now);
        Standing {
            remaining: self.remaining(current.count),
            reset: if current.count == 0 {
                0
            } else {
                current.end.saturating_sub(now)
            },
        }
    }
}

/// Sliding windows: even and odd ones have a word each.
impl Window {
    /// Which word the window that ends at `end` has.
    pub(super) const fn index_of(&self, end: u64) -> usize {
        if (end / self.length).is_multiple_of(2) {
            0
        } else {
            1
        }
    }

    pub(super) const fn index(&self, at: Moment) -> usize {
        self.index_of(at.end)
    }

    /// The window that `now` is counted in: the one after it, if that is begun already.
    pub(super) fn now_in(&self, words: &impl Words, now: Now) -> Moment {
        let end = self.end_of(now.unix);
        let next = end.saturating_add(self.length);
        let other = self.count(words.existing(self.index_of(next), now).get());
        if other.end == next {
            Moment {
                now: end,
                end: next,
            }
        } else {
            Moment { now: now.unix, end }
        }
    }

    /// The count of the window before.
    pub(super) fn last(&self, words: &impl Words, at: Moment, now: Now) -> u64 {
        let before = at.end.saturating_sub(self.length);
        let found = self.count(words.existing(self.index_of(before), now).get());
        // One that is ahead (the clock stepped back) counts as well.
        if found.end >= before { found.count } else { 0 }
    }

    fn this(&self, word: u64, at: Moment) -> Count {
        let found = self.count(word);
        let count = if found.end >= at.end { found.count } else { 0 };
        Count { end: at.end, count }
    }

    /// What the last window still weighs, rounded up.
    fn weight(&self, last: u64, at: Moment) -> u64 {
        let left = u128::from(at.end.saturating_sub(at.now).min(self.length));
        let weight = (u128::from(last) * left).div_ceil(u128::from(self.length));
        u64::try_from(weight).unwrap_or(u64::MAX)
    }

    pub(super) fn take_sliding(
        &self,
        word: u64,
        last: u64,
        tokens: u64,
        taken: u64,
        at: Moment,
    ) -> Change<Verdict> {
        let this = self.this(word, at);
        let used = this.count.saturating_add(self.weight(last, at));
        if used.saturating_add(tokens) <= self.capacity {
            return self.admitted(this, taken);
        }
        let wait = if tokens > self.capacity {
            NEVER
        } else {
            self.sliding_wait(this.count, last, tokens, at)
        };
        self.refused(word, this, wait)
    }

    /// Nanoseconds until `tokens`, at most the capacity, conform if nobody else comes.
    fn sliding_wait(&self, this: u64, last: u64, tokens: u64, at: Moment) -> u64 {
        let room = self.capacity - tokens;
        // Until a window of `count` that ends `end` from now weighs at most `may`, and is the last.
        let until = |end: u64, count: u64, may: u64| {
            let share = u128::from(may) * u128::from(self.length) / u128::from(count.max(1));
            let share = u64::try_from(share).unwrap_or(u64::MAX).min(self.length);
            end.saturating_sub(share)
        };
        let left = at.end.saturating_sub(at.now);
        if this <= room {
            until(left, last, room - this)
        } else {
            left.saturating_add(until(self.length, this, room))
        }
    }

    pub(super) fn charged_sliding(&self, word: u64, tokens: u64, at: Moment) -> u64 {
        let this = self.this(word, at);
        self.word(this.end, this.count.saturating_add(tokens))
    }

    /// The word where, with what the last window weighs, at least `used` is counted.
    pub(super) fn assumed_sliding(&self, word: u64, last: u64, used: u64, at: Moment) -> u64 {
        let this = self.this(word, at);
        let used = used.saturating_sub(self.weight(last, at));
        self.word(this.end, this.count.max(used))
    }

    pub(super) const fn refunded_sliding(&self, word: u64, tokens: u64, at: Moment) -> u64 {
        self.given_back(word, tokens, at.end)
    }

    pub(super) fn standing_sliding(&self, word: u64, last: u64, at: Moment) -> Standing {
        let this = self.this(word, at).count;
        let used = this.saturating_add(self.weight(last, at));
        let left = at.end.saturating_sub(at.now);
        let reset = match (this, last) {
            (0, 0) => 0,
            (0, _) => left,
            _ => left.saturating_add(self.length),
        };
        Standing {
            remaining: self.remaining(used),
            reset,
        }
    }
}
