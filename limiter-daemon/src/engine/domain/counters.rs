//! The counts that descriptors lead to, for those who look after them: looked at, and filled again.

use super::Domain;
use super::explain::{asked, words};
use crate::engine::buckets::Bucket;
use crate::engine::counters::{Found, StoredBucket, state_of};
use crate::engine::meter::Words as _;
use crate::engine::state::Place;
use crate::engine::store::ledger::Form;
use crate::engine::time::Now;

/// Seconds are what keys of the reference's form have.
const SECOND: u64 = 1_000_000_000;

/// A limit that descriptors meet.
#[derive(Debug)]
pub struct DomainCount {
    /// `domain.key_value.key`
    pub rule: String,
    /// As `5 a minute`.
    pub quota: String,
    /// `None`: it admits all, or nothing.
    pub found: Option<Found>,
    /// It is to be filled, and shares an aggregate bucket with others.
    pub shared: bool,
}

impl Domain {
    /// The counts that apply to descriptors with one hit each. With `fill`, those in this node's memory
    /// are made full first; what the store has is told, to be forgotten there.
    #[must_use]
    pub fn counts(
        &self,
        descriptors: &[Vec<(&str, &str)>],
        fill: bool,
        now: Now,
    ) -> Vec<DomainCount> {
        let asked = asked(descriptors);
        let met = self.meet(&asked).into_iter().flatten();
        met.map(|met| {
            let mut shared = false;
            let found = met.account().map(|(meter, account)| {
                let keyed = matches!(account.place, Place::Keyed(_));
                shared = keyed && matches!(account.existing(0, now), Bucket::Shared(_));
                if fill && !shared {
                    meter.refill(&account, now);
                }
                let Some(key) = &met.key else {
                    return Found::Here(meter.capacity(), state_of(meter, &account, 1, now));
                };
                let begins = self.stored.as_ref().and_then(|stored| match stored.form() {
                    Form::Own => None,
                    Form::Plain { .. } => {
                        let length = meter.window().max(1);
                        Some(now.unix / SECOND / length * length)
                    }
                });
                Found::Stored(StoredBucket {
                    key: begins.map_or_else(|| key.clone(), |begins| format!("{key}{begins}")),
                    meter: *meter,
                    cost: 1,
                    begins,
                })
            });
            DomainCount {
                rule: met.limited.rule().to_owned(),
                quota: words(&met.limited),
                shared: shared && matches!(found, Some(Found::Here(..))),
                found,
            }
        })
        .collect()
    }
}
