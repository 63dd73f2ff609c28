//! Time bounds of a body, made only when something is waited for.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

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

    /// Nothing came; wakes the task of `cx` when a bound is over.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>) -> Option<Over> {
        if let Some(whole) = &mut self.whole
            && whole.as_mut().poll(cx).is_ready()
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
        idling.as_mut().poll(cx).is_ready().then_some(Over::Idle)
    }
}
