//! Futures that are rarely ready, beside one that often is: they are only polled when they have been
//! woken themselves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// Wakes a task, and remembers that it did.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    woken: AtomicBool,
    task: Mutex<Option<Waker>>,
}

/// The waker to poll such futures with.
#[derive(Debug)]
pub(super) struct QuietWaker {
    quiet: Arc<Quiet>,
    waker: Waker,
    /// Whom it wakes.
    task: Option<Waker>,
}

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &*task {
            task.wake_by_ref();
        }
    }
}

impl QuietWaker {
    pub(super) fn new() -> Self {
        let quiet = Arc::<Quiet>::default();
        Self {
            waker: Waker::from(Arc::clone(&quiet)),
            quiet,
            task: None,
        }
    }

    /// Whether the futures are to be polled: for the first time, because one of them was woken, or
    /// because the task of `cx` is another one than before.
    pub(super) fn is_due(&mut self, cx: &Context<'_>) -> bool {
        let same = self
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()));
        if !same {
            self.task = Some(cx.waker().clone());
            let task = self.quiet.task.lock();
            let mut task = task.unwrap_or_else(PoisonError::into_inner);
            *task = Some(cx.waker().clone());
        }
        let woken = self.quiet.woken.load(Ordering::Acquire);
        if woken {
            self.quiet.woken.store(false, Ordering::Release);
        }
        !same || woken
    }

    /// To poll them with.
    pub(super) const fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Told(AtomicBool);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn futures_are_due_at_first_when_they_are_woken_and_for_another_task() {
        let mut quiet = QuietWaker::new();
        let (told, other) = (Arc::<Told>::default(), Arc::<Told>::default());
        let (waker, another) = (Waker::from(Arc::clone(&told)), Waker::from(other));
        let cx = Context::from_waker(&waker);
        assert!(quiet.is_due(&cx));
        assert!(!quiet.is_due(&cx));
        quiet.context().waker().wake_by_ref();
        assert!(told.0.load(Ordering::SeqCst), "the task is woken as well");
        assert!(quiet.is_due(&cx));
        assert!(!quiet.is_due(&cx));
        assert!(quiet.is_due(&Context::from_waker(&another)));
    }
}
