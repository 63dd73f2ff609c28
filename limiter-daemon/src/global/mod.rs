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
//! without the store ([`fallback`]), and what the server charged for it stays charged. So a slow
//! store makes limits stricter, never looser. After some failures in a row nobody waits at all
//! (`engine::store::breaker`).

mod connect;
pub mod fleet;
mod guard;
mod key;
mod link;
mod script;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::engine::charge::{Draw, Few, Receipt, Verdicts};
use crate::engine::fleet::Alive;
use crate::engine::rule::Rule;
use crate::engine::store::breaker::Condition;
use crate::engine::store::{Adjustment, Answer, ChargeRequest, Store, fallback};
use crate::engine::time::Now;
use crate::policy::plan::{OnStoreFailure, StoreConfig};
use guard::{Attempt, Guard};
pub use guard::{Counts, Failure};
use key::Names;
use script::{Asked, Script};

/// An adjustment is waited for so long; nobody else waits for it.
const ADJUST: Duration = Duration::from_secs(1);

/// Counts global limits in a Redis or Valkey.
#[derive(Debug)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    names: Names,
    budget: Duration,
    on_failure: OnStoreFailure,
    time: Time,
    charge: Script,
    adjust: Script,
    guard: Guard,
    connector: connect::Connector,
    alive: Arc<Alive>,
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

impl RedisStore {
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
    /// As [`RedisStore::new`].
    pub fn by(config: &StoreConfig, time: Time) -> Result<Self, StoreError> {
        let connector = connect::Connector::new(config).map_err(|cause| StoreError {
            address: config.address.to_string(),
            cause,
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                names: Names::new(&config.prefix),
                budget: config.budget,
                on_failure: config.on_failure,
                time,
                charge: Script::charge(),
                adjust: Script::adjust(),
                guard: Guard::new(config.address.to_string()),
                connector,
                alive: Arc::default(),
            }),
        })
    }

    /// What has been counted of it.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.inner.guard.counts()
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        self.inner.guard.address()
    }

    /// Whether it is asked.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.inner.guard.condition()
    }
}

impl Store for RedisStore {
    fn charge(&self, request: &ChargeRequest<'_>) -> Answer {
        let &ChargeRequest {
            draws,
            request,
            now,
        } = request;
        let inner = &self.inner;
        let Some(attempt) = Attempt::begin(inner, now) else {
            return Answer::Ready(inner.without(draws, now));
        };
        let Some(link) = link::here(inner) else {
            attempt.fail(Failure::Disconnected);
            return Answer::Ready(inner.without(draws, now));
        };
        let (asked, arguments) = script::ask(draws, request, &inner.names, inner.time, now);
        let owned: Few<_> = draws.iter().cloned().map(Draw::owned).collect();
        if asked.is_empty() {
            // Blocked and unlimited: there is nothing to count.
            attempt.abandon();
            return Answer::Ready(asked.uncounted(&owned));
        }
        let inner = Arc::clone(inner);
        Answer::Pending(Box::pin(async move {
            let answer = timeout(inner.budget, link.run(&inner.charge, &arguments)).await;
            match read(answer, &owned, &asked) {
                Ok(verdicts) => {
                    inner.remember(&owned, &verdicts, attempt.now());
                    attempt.succeed();
                    verdicts
                }
                Err(failure) => {
                    // By the time that it is now: others may have been charged since.
                    let late = attempt.now();
                    link.failed(attempt.is_probe());
                    attempt.fail(failure);
                    inner.without(&owned, late)
                }
            }
        }))
    }

    fn adjust(&self, rule: &Arc<Rule>, receipt: &Receipt, adjustment: Adjustment, now: Now) {
        let inner = &self.inner;
        let Some(arguments) = script::adjust(rule, receipt, adjustment, inner.time, now) else {
            // Counted here, when the store did not answer.
            crate::engine::store::MemoryStore.adjust(rule, receipt, adjustment, now);
            return;
        };
        let (Some(attempt), Some(link), Ok(runtime)) = (
            Attempt::begin(inner, now),
            link::here(inner),
            Handle::try_current(),
        ) else {
            inner.guard.counts().lost_adjustment();
            return;
        };
        let inner = Arc::clone(inner);
        // Bounded by its timeout, and by the requests that end within it.
        let _ends_by_itself = runtime.spawn(async move {
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

impl Inner {
    /// What the store counted is where this node goes on without it.
    fn remember(&self, draws: &[Draw<Arc<Rule>>], verdicts: &Verdicts, now: Now) {
        for (draw, drawn) in draws.iter().zip(&verdicts.drawn) {
            if fallback::mode(&draw.rule, self.on_failure) == OnStoreFailure::Local
                && let Some(standing) = drawn.standing
            {
                draw.remember(standing, now);
            }
        }
    }

    /// Decides without the store.
    fn without<R>(&self, draws: &[Draw<R>], now: Now) -> Verdicts
    where
        R: std::borrow::Borrow<Arc<Rule>> + Clone,
    {
        for draw in draws {
            let mode = fallback::mode(draw.rule.borrow(), self.on_failure);
            self.guard.counts().decided_without(mode);
        }
        fallback::decide(draws, self.on_failure, self.alive.nodes(), now)
    }
}

/// What an answer says, if it came and says something.
fn read(
    answer: Result<Result<Value, link::Error>, tokio::time::error::Elapsed>,
    draws: &[Draw<Arc<Rule>>],
    asked: &Asked,
) -> Result<Verdicts, Failure> {
    let Ok(answer) = answer else {
        return Err(Failure::Timeout);
    };
    asked.verdicts(draws, &answer?).ok_or(Failure::Error)
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
