//! Time bounds of a body, made only when something is waited for.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::Context;
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep};

/// A bound on the time between two pieces, and one on the whole.
#[derive(Debug, Default)]
pub(super) struct Timer {
    idle: Option<Duration>,
    idling: Option<Pin<Box<Sleep>>>,
    whole: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

/// A bound is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Idle,
    Whole,
}

impl Timer {
    /// `left` is what is left of the time for the whole.
    pub(super) fn new(idle: Option<Duration>, left: Option<Duration>) -> Self {
        Self {
            idle,
            idling: None,
            whole: left.map(|left| Box::pin(sleep(left))),
            waits: false,
        }
    }

    /// A piece came.
    pub(super) const fn progress(&mut self) {
        self.waits = false;
    }

    /// Whether the time for the whole is over, by the clock. To be asked for each piece: of a flood
    /// every piece is there at once, so that nothing is ever waited for, and the runtime is too busy to
    /// look at its timers.
    pub(super) fn is_over(&self) -> bool {
        let whole = self.whole.as_ref();
        whole.is_some_and(|whole| whole.deadline() <= Instant::now())
    }

    /// Nothing came; wakes the task of `cx` when a bound is over.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>) -> Option<Over> {
        if let Some(whole) = &mut self.whole
            && has_passed(whole, cx)
        {
            return Some(Over::Whole);
        }
        let idle = self.idle?;
        let idling = match &mut self.idling {
            Some(idling) => {
                if !self.waits {
                    let now = Instant::now();
                    idling.as_mut().reset(now + idle);
                }
                idling
            }
            None => self.idling.insert(Box::pin(sleep(idle))),
        };
        self.waits = true;
        has_passed(idling, cx).then_some(Over::Idle)
    }
}

/// Also where the task has used up its turn: what takes up all of it is what a bound is for.
fn has_passed(sleep: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>) -> bool {
    pin!(unconstrained(sleep.as_mut())).poll(cx).is_ready()
}
