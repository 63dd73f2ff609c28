//! Tasks that go on for as long as what they are for stays as it is.

use std::collections::HashMap;
use std::future::pending;

use tokio::task::{AbortHandle, JoinError, JoinSet};

/// How a task ended that should not.
#[derive(Debug, thiserror::Error)]
pub enum Died {
    #[error("it came to its end")]
    Ended,
    #[error(transparent)]
    Panicked(JoinError),
}

/// Tasks, each for one thing, found again by a key.
#[derive(Debug)]
pub(super) struct Owner<T> {
    tasks: JoinSet<()>,
    running: HashMap<usize, (T, AbortHandle)>,
}

impl<T> Default for Owner<T> {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            running: HashMap::new(),
        }
    }
}

impl<T: Clone> Owner<T> {
    /// Has a task for each key of `wanted` (what comes twice counts once): the one that runs, if `goes_on` says that it does what is
    /// wanted, or a new one. Gives back those that nothing is done for any more.
    pub(super) fn apply<F>(
        &mut self,
        wanted: impl IntoIterator<Item = (usize, T)>,
        goes_on: impl Fn(&T, &T) -> bool,
        mut task: impl FnMut(T) -> F,
    ) -> Vec<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut before = std::mem::take(&mut self.running);
        for (key, wanted) in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let running = match before.remove(&key) {
                Some((running, handle)) if goes_on(&running, &wanted) => (running, handle),
                other => {
                    if let Some((_, handle)) = other {
                        handle.abort();
                    }
                    let handle = self.tasks.spawn(task(wanted.clone()));
                    (wanted, handle)
                }
            };
            self.running.insert(key, running);
        }
        let stopped = before.into_values();
        let stopped = stopped.map(|(of, handle)| {
            handle.abort();
            of
        });
        stopped.collect()
    }

    /// Waits until a task ends that nobody has stopped.
    pub(super) async fn died(&mut self) -> Died {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) if error.is_cancelled() => {}
                Some(Ok(())) => return Died::Ended,
                Some(Err(error)) => return Died::Panicked(error),
                None => return pending().await,
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn tasks_stay_with_what_stays() {
        let mut owner: Owner<(usize, &str)> = Owner::default();
        let (begun, mut begins) = mpsc::channel(8);
        let mut apply = |wanted: &[(usize, &'static str)]| {
            let wanted = wanted.iter().map(|wanted| (wanted.0, *wanted));
            owner.apply(
                wanted,
                |running, wanted| running == wanted,
                |of| {
                    let begun = begun.clone();
                    async move {
                        begun.send(of).await.unwrap();
                        pending::<()>().await;
                    }
                },
            )
        };
        assert!(apply(&[(1, "a"), (2, "b")]).is_empty());
        assert_eq!(begins.recv().await, Some((1, "a")));
        assert_eq!(begins.recv().await, Some((2, "b")));
        assert_eq!(apply(&[(2, "b"), (3, "c"), (4, "d")]), [(1, "a")]);
        // Twice the same is one.
        assert!(apply(&[(2, "B"), (3, "c"), (2, "B"), (4, "d")]).is_empty());
        assert_eq!(begins.recv().await, Some((3, "c")));
        assert_eq!(begins.recv().await, Some((4, "d")));
        assert_eq!(begins.recv().await, Some((2, "B")));
        assert!(begins.try_recv().is_err());
        assert_eq!(owner.len(), 3);
    }

    #[tokio::test]
    async fn a_task_that_dies_is_told_and_one_that_was_stopped_is_not() {
        let mut owner: Owner<bool> = Owner::default();
        let apply = |owner: &mut Owner<bool>, panics: bool| {
            owner.apply(
                [(0, panics)],
                |_, _| false,
                |panics| async move {
                    assert!(!panics);
                    pending::<()>().await;
                },
            )
        };
        apply(&mut owner, false);
        apply(&mut owner, true);
        assert!(matches!(owner.died().await, Died::Panicked(_)));
    }
}
