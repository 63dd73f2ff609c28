//! The connection of one thread to the store, and the task that keeps it up.
//!
//! A link belongs to the thread and the runtime where it was made. Who asks takes the connection as it
//! is, or waits for it as long as its budget lasts; the task makes it anew when it ends, and when
//! those who ask say that nothing comes back any more.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::connect::CONNECT;
use super::guard::{Failure, jittered};
use super::script::{Arguments, Script};
use super::{Inner, run};

/// Pause after the first attempt to connect that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Answers in a row that did not come, after which the connection is made anew.
const SILENCE: u32 = 5;

thread_local! {
    static LINKS: RefCell<Vec<(Weak<Inner>, Link)>> = const { RefCell::new(Vec::new()) };
}

/// A connection that comes and goes.
#[derive(Clone, Debug)]
pub(super) struct Link {
    connection: watch::Receiver<Option<MultiplexedConnection>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Makes the task connect anew.
    gone: Arc<Notify>,
    /// Answers in a row that did not come.
    silent: AtomicU32,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Error {
    /// The task has ended, with its runtime.
    Ended,
    Redis(RedisError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Ended => Self::Disconnected,
            Error::Redis(error) if error.is_io_error() || error.is_connection_dropped() => {
                Self::Disconnected
            }
            Error::Redis(error) => {
                tracing::debug!(%error, "the store answers with an error");
                Self::Error
            }
        }
    }
}

/// This thread's link, made if there is none; `None` outside a runtime.
pub(super) fn here(inner: &Arc<Inner>) -> Option<Link> {
    LINKS.with_borrow_mut(|links| {
        links.retain(|(store, link)| store.strong_count() > 0 && !link.ended());
        let same = |(store, _): &&(Weak<Inner>, Link)| Weak::as_ptr(store) == Arc::as_ptr(inner);
        if let Some((_, link)) = links.iter().find(same) {
            return Some(link.clone());
        }
        let link = Link::start(inner, &Handle::try_current().ok()?);
        links.push((Arc::downgrade(inner), link.clone()));
        Some(link)
    })
}

impl Link {
    fn start(inner: &Arc<Inner>, runtime: &Handle) -> Self {
        let (sender, connection) = watch::channel(None);
        let shared = Arc::new(Shared::default());
        // Ends with the runtime, or when the store and all links are gone.
        let _ends_by_itself =
            runtime.spawn(keep(Arc::downgrade(inner), sender, Arc::clone(&shared)));
        Self { connection, shared }
    }

    fn ended(&self) -> bool {
        self.connection.has_changed().is_err()
    }

    /// Runs a script, when there is a connection. `asking`: of a cluster's slot that is being moved to
    /// this server.
    pub(super) async fn run(
        &self,
        script: &Script,
        arguments: &Arguments,
        asking: bool,
    ) -> Result<Value, Error> {
        let mut watched = self.connection.clone();
        let found = watched.wait_for(Option::is_some).await;
        let mut connection = found
            .ok()
            .and_then(|found| found.clone())
            .ok_or(Error::Ended)?;
        let answer = run(&mut connection, script, arguments, asking).await;
        match &answer {
            Err(error) if error.is_unrecoverable_error() || moved(error) => {
                self.shared.gone.notify_one();
            }
            _ => self.shared.silent.store(0, Ordering::Relaxed),
        }
        answer.map_err(Error::Redis)
    }

    /// An answer did not come, or was none.
    pub(super) fn failed(&self, probe: bool) {
        let silent = self.shared.silent.fetch_add(1, Ordering::Relaxed) + 1;
        if probe || silent >= SILENCE {
            self.shared.silent.store(0, Ordering::Relaxed);
            self.shared.gone.notify_one();
        }
    }
}

/// Whether the server is not the one to write to any more.
fn moved(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN"))
}

/// Keeps a connection up.
async fn keep(
    store: Weak<Inner>,
    connection: watch::Sender<Option<MultiplexedConnection>>,
    shared: Arc<Shared>,
) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let Some(inner) = store.upgrade() else {
            return;
        };
        let scripts = [inner.charge.text(), inner.adjust.text()];
        let attempt = inner.connector.connect(&scripts, Arc::clone(&shared.gone));
        let attempt = timeout(CONNECT, attempt).await;
        match attempt {
            Ok(Ok(made)) => {
                let guard = Arc::clone(&inner.guard);
                guard.connected(1);
                told = false;
                pause = FIRST_PAUSE;
                drop(inner);
                connection.send_replace(Some(made));
                tokio::select! {
                    () = shared.gone.notified() => {}
                    () = connection.closed() => {}
                }
                connection.send_replace(None);
                guard.connected(-1);
            }
            failed => {
                if !told {
                    told = true;
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "it does not answer".to_owned(),
                    };
                    inner.guard.unreachable(&error);
                }
                drop(inner);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        if connection.is_closed() {
            return;
        }
        sleep(jittered(pause)).await;
    }
}
