//! The one with fewer requests under way, of two chosen by chance (Mitzenmacher: The Power of Two
//! Choices in Randomized Load Balancing).
//!
//! A host in slow start that wins gives its place to the other one as often as its weight is below
//! the other's: its share is its weight times what it would get otherwise.

use std::sync::atomic::Ordering;

use super::{CHANCES, View};
use crate::engine::upstream::mix::{below, happens, splitmix64};

pub(super) fn pick(view: &View<'_>, random: u64) -> Option<usize> {
    let one = view.any(random)?;
    let Some(other) = another(view, one, splitmix64(random)) else {
        return Some(one);
    };
    let active = |index| view.host(index).active.load(Ordering::Relaxed);
    let (wins, loses) = if active(other) < active(one) {
        (other, one)
    } else {
        (one, other)
    };
    let weight = |index| view.hosts.slow_start.weight(view.host(index), view.now);
    let (own, others) = (weight(wins), weight(loses));
    if own < others && !happens(splitmix64(!random), own / others) {
        return Some(loses);
    }
    Some(wins)
}

/// One of the others by chance; `None`, also if there are few among many that may not be taken.
fn another(view: &View<'_>, one: usize, random: u64) -> Option<usize> {
    let others = view.count() - 1;
    if others == 0 {
        return None;
    }
    let mut random = random;
    for _ in 0..CHANCES {
        let index = (one + 1 + below(random, others)) % view.count();
        if view.takes(index) {
            return Some(index);
        }
        random = splitmix64(random);
    }
    None
}
