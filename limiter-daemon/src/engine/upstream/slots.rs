//! Connections to a backend: so many, and who waits for one, first come, first served.
//!
//! A [`Slot`] stands for a connection from before it is made until after it is closed. Dropped, it
//! passes to the one that waits longest, so nobody who comes later can be quicker.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::breaker::{Breaker, take_one};
use super::stats::Stat;

/// Somebody who waits for a connection.
pub trait Waiter: Send + Sized {
    /// Gives it a slot.
    ///
    /// # Errors
    /// The slot, if nobody waits any more.
    fn grant(self, slot: Slot<Self>) -> Result<(), Slot<Self>>;
}

/// The connections of one backend, over all workers.
#[derive(Debug)]
pub struct Slots<W: Waiter> {
    breaker: Arc<Breaker>,
    /// As the plan in force has it.
    max: AtomicU32,
    waiting: Mutex<VecDeque<W>>,
    /// As many as wait, to be looked at without the lock.
    length: AtomicUsize,
}

/// The right to one connection.
#[derive(Debug)]
#[must_use = "it passes to the next one when it is dropped"]
pub struct Slot<W: Waiter> {
    /// `None`: it has passed on.
    slots: Option<Arc<Slots<W>>>,
    /// The connections of the endpoint that it is used for.
    endpoint: Option<Arc<AtomicU32>>,
}

impl<W: Waiter> Slots<W> {
    #[must_use]
    pub fn new(breaker: Arc<Breaker>, max: u32) -> Self {
        Self {
            breaker,
            max: AtomicU32::new(max),
            waiting: Mutex::default(),
            length: AtomicUsize::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<W>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue<T>(&self, change: impl FnOnce(&mut VecDeque<W>) -> T) -> T {
        let mut waiting = self.waiting();
        let changed = change(&mut waiting);
        self.length.store(waiting.len(), Ordering::SeqCst);
        changed
    }

    /// Changes how many there may be. Those that are there stay.
    pub fn set_max(self: &Arc<Self>, max: u32) {
        self.max.store(max, Ordering::Relaxed);
        self.serve();
    }

    fn take_one(&self) -> bool {
        take_one(&self.breaker.connections, self.max.load(Ordering::Relaxed))
    }

    fn slot(self: &Arc<Self>) -> Slot<W> {
        Slot {
            slots: Some(Arc::clone(self)),
            endpoint: None,
        }
    }

    /// A slot, if there is one and nobody waits for it.
    pub fn take(self: &Arc<Self>) -> Option<Slot<W>> {
        (!self.has_waiting() && self.take_one()).then(|| self.slot())
    }

    /// Puts `waiter` at the end of the queue. One that gives up need not be taken out: what is
    /// granted to it passes on.
    pub fn wait(&self, waiter: W) {
        self.queue(|waiting| waiting.push_back(waiter));
    }

    /// Gives slots to those that wait, as long as there are any. To be called when somebody has
    /// begun to wait: what came free just before is not lost then.
    pub fn serve(self: &Arc<Self>) {
        loop {
            let next = self.queue(|waiting| {
                let served = !waiting.is_empty() && self.take_one();
                served.then(|| waiting.pop_front()).flatten()
            });
            match next {
                // If it waits no more, the slot passes on by being dropped.
                Some(next) => drop(next.grant(self.slot())),
                None => return,
            }
        }
    }

    /// Whether somebody waits.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.length.load(Ordering::SeqCst) > 0
    }

    /// The one that waits longest. It must be granted something, or be dropped if it waits no more.
    pub fn next(&self) -> Option<W> {
        self.queue(VecDeque::pop_front)
    }

    /// Takes out of the queue those that `gone` says have given up.
    pub fn forget(&self, gone: impl Fn(&W) -> bool) {
        self.queue(|waiting| waiting.retain(|waiter| !gone(waiter)));
    }
}

impl<W: Waiter> Slot<W> {
    /// Uses the slot for an endpoint, whose `connections` may be `max`.
    ///
    /// # Errors
    /// The slot, if the endpoint has as many.
    pub fn at(mut self, connections: &Arc<AtomicU32>, max: u32) -> Result<Self, Self> {
        self.leave();
        if !take_one(connections, max) {
            return Err(self);
        }
        self.endpoint = Some(Arc::clone(connections));
        Ok(self)
    }

    fn leave(&mut self) {
        if let Some(connections) = self.endpoint.take() {
            connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether more slots are taken than may be: the limit has become lower.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.slots.as_ref().is_some_and(|slots| {
            let max = slots.max.load(Ordering::Relaxed);
            slots.breaker.connections.load(Ordering::Relaxed) > max
        })
    }

    /// Whether somebody waits for one.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.slots.as_ref().is_some_and(|slots| slots.has_waiting())
    }

    /// The one that waits longest, as [`Slots::next`].
    #[must_use]
    pub fn next_waiting(&self) -> Option<W> {
        let slots = self.slots.as_ref()?;
        slots.has_waiting().then(|| slots.next()).flatten()
    }

    /// Counts the connection that it was taken for.
    pub fn connected(&self, failed: bool) {
        self.count(if failed {
            Stat::CxConnectFail
        } else {
            Stat::CxTotal
        });
    }

    /// Counts what happened to that connection.
    pub fn count(&self, stat: Stat) {
        if let Some(slots) = &self.slots {
            slots.breaker.stats.count(stat);
        }
    }
}

impl<W: Waiter> Drop for Slot<W> {
    fn drop(&mut self) {
        self.leave();
        let Some(slots) = self.slots.take() else {
            return;
        };
        // Not one after the other by way of `drop`: the queue may be full of those that gave up.
        let mut free = slots;
        loop {
            let next = {
                let mut waiting = free.waiting();
                let connections = &free.breaker.connections;
                // The limit may have become lower.
                let max = free.max.load(Ordering::Relaxed);
                let stays = connections.load(Ordering::Relaxed) <= max;
                let next = stays.then(|| waiting.pop_front()).flatten();
                free.length.store(waiting.len(), Ordering::SeqCst);
                if next.is_none() {
                    // Within the lock: who begins to wait now finds it free.
                    connections.fetch_sub(1, Ordering::SeqCst);
                }
                next
            };
            let Some(next) = next else {
                return;
            };
            let slot = Self {
                slots: Some(free),
                endpoint: None,
            };
            match next.grant(slot) {
                Ok(()) => return,
                Err(mut refused) => match refused.slots.take() {
                    Some(slots) => free = slots,
                    None => return,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests;
