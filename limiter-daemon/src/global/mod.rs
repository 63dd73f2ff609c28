//! Global limits, counted by a Redis or Valkey that nodes share.
//!
//! **One round trip a request.** All limits of a request go to the server in one script
//! (`lua/charge.lua`), which charges all or none, by the server's clock; so nodes may disagree about
//! the time. The numbers are those of `limiter_common::bucket`; what follows from them (waits, what
//! is left) is worked out here by the same code as for limits of this node.
//!
//! **A connection for each worker**, driven by a task in the worker's own runtime: what the requests
//! of a core ask is pipelined together, and the task that reads an answer wakes the request on the
//! thread where both are. Rejected: one connection owned by the control thread. Each answer would
//! wake another thread, and that thread would be what all cores wait for.
//!
//! **Nobody waits longer than the budget.** What comes later is not heard: the request is decided
//! without the store (`engine::store::fallback`), and what the server charged for it stays charged. So a slow
//! store makes limits stricter, never looser. After some failures in a row nobody waits at all
//! (`engine::store::breaker`).

mod connect;
mod guard;
mod link;
mod script;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::engine::store::breaker::Condition;
use crate::engine::store::ledger::{Asking, Change, Item, Ledger, Question, Reply, Unanswered};
use crate::engine::time::Now;
use crate::policy::plan::StoreConfig;
use guard::{Attempt, Guard};
pub use guard::{Counts, Failure};
use script::Script;

/// An adjustment is waited for so long; nobody else waits for it.
const ADJUST: Duration = Duration::from_secs(1);

/// Counts in a Redis or Valkey.
#[derive(Debug)]
pub struct RedisLedger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    budget: Duration,
    time: Time,
    charge: Script,
    adjust: Script,
    guard: Guard,
    connector: connect::Connector,
    /// Changes that are under way.
    changing: watch::Sender<usize>,
}

/// Whose clock limits go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Time {
    /// The server's.
    #[default]
    Server,
    /// That of who asks ([`Now::unix`]): for tests that state the time.
    Told,
}

/// Why a store cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the store {address} cannot be set up: {cause}; check url and tls of rateLimit")]
pub struct StoreError {
    address: String,
    cause: RedisError,
}

impl RedisLedger {
    /// A store with these settings. Nothing is connected before a thread joins it.
    ///
    /// # Errors
    /// When the settings are no good, as a certificate that cannot be read.
    pub fn new(config: &StoreConfig) -> Result<Self, StoreError> {
        Self::by(config, Time::Server)
    }

    /// The same, by another clock.
    ///
    /// # Errors
    /// As [`RedisLedger::new`].
    pub fn by(config: &StoreConfig, time: Time) -> Result<Self, StoreError> {
        let connector = connect::Connector::new(config).map_err(|cause| StoreError {
            address: config.address.to_string(),
            cause,
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                budget: config.budget,
                time,
                charge: Script::charge(),
                adjust: Script::adjust(),
                guard: Guard::new(config.address.to_string()),
                connector,
                changing: watch::Sender::new(0),
            }),
        })
    }

    /// Waits until no change is under way any more, for as long as one may take at most.
    pub async fn settled(&self) {
        let mut changing = self.inner.changing.subscribe();
        // The sender is here, so there is an end to hear of.
        let _told = changing.wait_for(|under_way| *under_way == 0).await;
    }

    /// What has been counted of it.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.inner.guard.counts()
    }

    /// Whether it is asked.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.inner.guard.condition()
    }
}

impl Ledger for RedisLedger {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        let inner = &self.inner;
        let attempt = Attempt::begin(inner, now)?;
        let Some(link) = link::here(inner) else {
            attempt.fail(Failure::Disconnected);
            return None;
        };
        let arguments = script::charge(&question, inner.time, now);
        let inner = Arc::clone(inner);
        Some(Box::pin(async move {
            let answer = timeout(inner.budget, link.run(&inner.charge, &arguments)).await;
            match read(answer, &question.items) {
                Ok(reply) => {
                    attempt.succeed();
                    Ok(reply)
                }
                Err(failure) => {
                    let now = attempt.now();
                    link.failed(attempt.is_probe());
                    attempt.fail(failure);
                    Err(Unanswered { now })
                }
            }
        }))
    }

    fn change(&self, changes: Vec<Change>, now: Now) {
        let inner = &self.inner;
        let (Some(attempt), Some(link), Ok(runtime)) = (
            Attempt::begin(inner, now),
            link::here(inner),
            Handle::try_current(),
        ) else {
            inner.guard.counts().lost_adjustment();
            return;
        };
        let arguments = script::adjust(&changes, inner.time, now);
        let inner = Arc::clone(inner);
        let changing = Changing::begin(&inner);
        // Bounded by its timeout, and by the requests that end within it.
        let _ends_by_itself = runtime.spawn(async move {
            let _until_then = changing;
            match timeout(ADJUST, link.run(&inner.adjust, &arguments)).await {
                Ok(Ok(_done)) => attempt.succeed(),
                Ok(Err(error)) => {
                    attempt.fail(error.into());
                    inner.guard.counts().lost_adjustment();
                }
                Err(_late) => {
                    link.failed(attempt.is_probe());
                    attempt.fail(Failure::Timeout);
                    inner.guard.counts().lost_adjustment();
                }
            }
        });
    }

    fn join(&self) {
        link::here(&self.inner);
    }
}

/// A change that is under way, until it is dropped: with its runtime at the latest.
struct Changing(Arc<Inner>);

impl Changing {
    fn begin(inner: &Arc<Inner>) -> Self {
        inner.changing.send_modify(|under_way| *under_way += 1);
        Self(Arc::clone(inner))
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.changing.send_modify(|under_way| *under_way -= 1);
    }
}

/// What an answer says, if it came and says something.
fn read(
    answer: Result<Result<Value, link::Error>, tokio::time::error::Elapsed>,
    items: &[Item],
) -> Result<Reply, Failure> {
    let Ok(answer) = answer else {
        return Err(Failure::Timeout);
    };
    script::reply(items, &answer?).ok_or(Failure::Error)
}

/// Runs a script by its digest, and as a whole where the server does not know it (any more).
async fn run(
    connection: &mut MultiplexedConnection,
    script: &Script,
    arguments: &script::Arguments,
) -> Result<Value, RedisError> {
    let answer = connection
        .send_packed_command(&script.by_digest(arguments))
        .await;
    match flat(answer) {
        Err(error) if script::is_unknown(&error) => flat(
            connection
                .send_packed_command(&script.whole(arguments))
                .await,
        ),
        answer => answer,
    }
}

/// An error of the server is an error.
fn flat(answer: Result<Value, RedisError>) -> Result<Value, RedisError> {
    answer.and_then(Value::extract_error)
}

/// A command of no arguments but these.
fn command(name: &str, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}
