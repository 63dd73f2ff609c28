//! Requests in the order in which they began. Logs have them in the order in which they ended; so
//! they wait here until enough later lines have been seen.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::entry::Entry;

/// Requests that wait.
pub(super) const WAITING: usize = 65_536;

/// Puts requests in order.
#[derive(Debug, Default)]
pub(super) struct InOrder {
    waiting: BinaryHeap<Waiting>,
    taken: u64,
    last: u64,
    /// Requests whose line came after so many later ones that they are decided late.
    pub(super) late: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    entry: Box<Entry>,
}

impl InOrder {
    /// Takes the next line of the log, and gives the next request of the order, once there is one.
    pub(super) fn push(&mut self, entry: Box<Entry>) -> Option<Box<Entry>> {
        let number = self.taken;
        self.taken += 1;
        self.waiting.push(Waiting { number, entry });
        (self.waiting.len() > WAITING).then(|| self.pop()).flatten()
    }

    /// The next request when no more lines come. Times never go back: one that is late is as if it
    /// had begun with the last one.
    pub(super) fn pop(&mut self) -> Option<Box<Entry>> {
        let mut entry = self.waiting.pop()?.entry;
        if entry.at < self.last {
            self.late += 1;
            entry.at = self.last;
        }
        self.last = entry.at;
        Some(entry)
    }
}

impl Waiting {
    fn key(&self) -> (u64, u64) {
        (self.entry.at, self.number)
    }
}

/// The earliest is the greatest: it comes out first.
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::simulate::entry::Answered;

    fn entry(at: u64, path: &str) -> Box<Entry> {
        Box::new(Entry {
            at,
            took: 0,
            client: [192, 0, 2, 1].into(),
            peer: None,
            local: None,
            method: Method::GET,
            path: path.to_owned(),
            query: None,
            host: None,
            headers: HeaderMap::new(),
            answer: Answered::Unknown,
            logged: None,
        })
    }

    fn drain(order: &mut InOrder) -> Vec<(u64, String)> {
        let rest = std::iter::from_fn(|| order.pop());
        rest.map(|entry| (entry.at, entry.path)).collect()
    }

    #[test]
    fn the_earliest_comes_first_and_of_equal_ones_the_first_line() {
        let mut order = InOrder::default();
        for (at, path) in [(3, "c"), (1, "a"), (3, "d"), (2, "b")] {
            assert!(order.push(entry(at, path)).is_none());
        }
        let wanted = [(1, "a"), (2, "b"), (3, "c"), (3, "d")];
        let wanted = wanted.map(|(at, path)| (at, path.to_owned()));
        assert_eq!(drain(&mut order), wanted);
        assert_eq!(order.late, 0);
    }

    #[test]
    fn what_comes_too_late_is_decided_late_and_counted() {
        let mut order = InOrder::default();
        let mut out = Vec::new();
        for at in 0..WAITING as u64 + 10 {
            out.extend(order.push(entry(1000 + at, "x")).map(|entry| entry.at));
        }
        assert_eq!(out.len(), 10);
        assert_eq!(order.waiting.len(), WAITING);
        let late = order.push(entry(5, "late")).unwrap();
        assert_eq!((late.at, &*late.path, order.late), (1009, "late", 1));
    }
}
