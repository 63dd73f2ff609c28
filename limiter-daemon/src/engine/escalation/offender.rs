//! What is known of one offender. Instants are nanoseconds of one monotonic clock.

use std::time::Duration;

use limiter_common::Limit;
use limiter_common::bucket::{Step, step};

use crate::policy::plan::{Offence, Terms};

/// Ends that differ by less are that of one sentence, as two clocks have it.
const SAME: u64 = 1_000_000_000;

/// An address, or a network, that has offended.
#[derive(Clone, Debug, Default)]
pub(super) struct Offender {
    /// Of the threshold's bucket.
    tat: u64,
    /// When the bucket was last full, about: since then offences are counted.
    since: u64,
    /// Offences since, in the order of [`Offence::ALL`].
    counts: [u32; Offence::ALL.len()],
    /// Sentences that are not forgotten.
    sentences: u32,
    /// The end of the last one.
    until: u64,
}

/// What comes of an offence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is sentenced already.
    Served,
    Tolerated,
    /// It is over the threshold.
    Over {
        length: Duration,
        /// Sentences before, that are not forgotten.
        earlier: u32,
        counts: [u32; Offence::ALL.len()],
        /// Nanoseconds since the first of the offences.
        within: u64,
    },
}

impl Offender {
    pub(super) fn offend(
        &mut self,
        offence: Offence,
        cost: u32,
        threshold: &Limit,
        terms: &Terms,
        now: u64,
    ) -> Finding {
        if now < self.until {
            return Finding::Served;
        }
        self.forget(terms, now);
        if self.tat <= now {
            self.counts = Default::default();
            self.since = now;
        }
        let count = &mut self.counts[offence as usize];
        *count = count.saturating_add(1);
        let cost = threshold.cost(u64::from(cost));
        if let Step::Admit { tat } = step(self.tat, now, cost, threshold.tolerance) {
            self.tat = tat;
            return Finding::Tolerated;
        }
        let earlier = self.sentences;
        let length = length(terms, earlier);
        let over = Finding::Over {
            length,
            earlier,
            counts: self.counts,
            within: now.saturating_sub(self.since),
        };
        self.sentences = earlier.saturating_add(1);
        self.until = now.saturating_add(nanos(length));
        self.tat = 0;
        over
    }

    /// Its last sentence is not served: it is as if it had not been passed.
    pub(super) fn acquit(&mut self) {
        self.sentences = self.sentences.saturating_sub(1);
        self.until = 0;
    }

    /// Its last sentence ends now, before its time.
    pub(super) fn released(&mut self, now: u64) {
        self.until = self.until.min(now);
    }

    /// It is sentenced until `until`; where that is not known here already, by another node.
    pub(super) fn sentenced(&mut self, until: u64) {
        if until > self.until.saturating_add(SAME) {
            self.sentences = self.sentences.saturating_add(1);
            self.until = until;
            self.tat = 0;
        }
    }

    /// For each `decay` since the last sentence's end one is forgotten.
    fn forget(&mut self, terms: &Terms, now: u64) {
        if self.sentences == 0 {
            return;
        }
        let decay = nanos(terms.decay).max(1);
        let passed = now.saturating_sub(self.until) / decay;
        self.sentences = self
            .sentences
            .saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX));
        self.until = self.until.saturating_add(passed.saturating_mul(decay));
    }
}

/// How long the sentence after `earlier` ones lasts.
fn length(terms: &Terms, earlier: u32) -> Duration {
    let growth = f64::from(terms.growth) / 1_000.0;
    let times = growth.powi(i32::try_from(earlier).unwrap_or(i32::MAX));
    let seconds = terms.block_for.as_secs_f64() * times;
    let longest = terms.max_block;
    if seconds < longest.as_secs_f64() {
        Duration::from_secs_f64(seconds)
    } else {
        longest
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
