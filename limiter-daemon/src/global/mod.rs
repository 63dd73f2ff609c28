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
//!
//! A cluster is several such servers, and a map of what each of them counts (`cluster`).

mod cluster;
mod connect;
pub mod counters;
pub mod fleet;
mod guard;
mod link;
mod script;
mod sentinels;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::engine::store::breaker::Condition;
use crate::engine::store::ledger::{Asking, Change, Item, Ledger, Question, Reply, Unanswered};
use crate::engine::time::Now;
use crate::policy::plan::{StoreAddress, StoreConfig, StoreHost};
use cluster::Cluster;
use guard::{Attempt, Guard};
pub use guard::{Counts, Failure};
use script::Script;
pub use windows::Windows;

/// An adjustment is waited for so long; nobody else waits for it.
const ADJUST: Duration = Duration::from_secs(1);

/// Counts in a Redis or Valkey.
#[derive(Debug)]
pub struct RedisLedger {
    address: String,
    servers: Servers,
    counts: Arc<Counts>,
}

#[derive(Debug)]
enum Servers {
    One(Arc<Inner>),
    Cluster(Arc<Cluster>),
}

/// A server.
#[derive(Debug)]
struct Inner {
    /// `None`: it is found otherwise.
    host: Option<StoreHost>,
    budget: Duration,
    time: Time,
    charge: Script,
    adjust: Script,
    guard: Arc<Guard>,
    connector: connect::Connector,
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
        let counts = Arc::<Counts>::default();
        let shared = Arc::clone(&counts);
        let servers = match &config.address {
            StoreAddress::Cluster(hosts) => {
                Servers::Cluster(Cluster::new(config, hosts, time, shared)?)
            }
            _ => Servers::One(Arc::new(Inner::new(config, time, shared)?)),
        };
        Ok(Self {
            address: config.address.to_string(),
            servers,
            counts,
        })
    }

    /// Waits until no change is under way any more, for as long as one may take at most.
    pub async fn settled(&self) {
        self.counts.settled().await;
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Servers that are not in the settings: those of a cluster, the master that Sentinels named.
    #[must_use]
    pub fn found(&self) -> Vec<StoreHost> {
        match &self.servers {
            Servers::One(inner) => inner.connector.master().into_iter().collect(),
            Servers::Cluster(cluster) => cluster.hosts(),
        }
    }

    /// The server that has `key`; `None`: that is not known. Waits for no longer than connecting may
    /// take.
    async fn server_of(&self, key: &str) -> Option<Arc<Inner>> {
        match &self.servers {
            Servers::One(inner) => Some(Arc::clone(inner)),
            Servers::Cluster(cluster) => cluster.server_of(key).await,
        }
    }

    /// What has been counted of it.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether it is asked; of a cluster, whether the worst of its servers is.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match &self.servers {
            Servers::One(inner) => inner.guard.condition(),
            Servers::Cluster(cluster) => cluster.condition(),
        }
    }
}

impl Ledger for RedisLedger {
    fn ask(&self, question: Question, now: Now) -> Option<Asking> {
        match &self.servers {
            Servers::One(inner) => inner.ask(question, now),
            Servers::Cluster(cluster) => cluster.ask(question, now),
        }
    }

    fn change(&self, changes: Vec<Change>, now: Now) {
        match &self.servers {
            Servers::One(inner) => inner.change(&changes, now),
            Servers::Cluster(cluster) => cluster.change(&changes, now),
        }
    }

    fn join(&self) {
        match &self.servers {
            Servers::One(inner) => drop(link::here(inner)),
            Servers::Cluster(cluster) => cluster.join(),
        }
    }
}

impl Inner {
    fn new(config: &StoreConfig, time: Time, counts: Arc<Counts>) -> Result<Self, StoreError> {
        let connector = connect::Connector::new(config).map_err(|cause| StoreError {
            address: config.address.to_string(),
            cause,
        })?;
        let host = match &config.address {
            StoreAddress::Tcp(host) => Some(host.clone()),
            _ => None,
        };
        Ok(Self {
            host,
            budget: config.budget,
            time,
            charge: Script::charge(),
            adjust: Script::adjust(),
            guard: Arc::new(Guard::new(config.address.to_string(), counts)),
            connector,
        })
    }

    fn ask(self: &Arc<Self>, question: Question, now: Now) -> Option<Asking> {
        let attempt = Attempt::begin(&self.guard, now)?;
        let Some(link) = link::here(self) else {
            attempt.fail(Failure::Disconnected);
            return None;
        };
        let arguments = script::charge(&question, self.time, now);
        let inner = Arc::clone(self);
        Some(Box::pin(async move {
            let run = link.run(&inner.charge, &arguments, false);
            match read(timeout(inner.budget, run).await, &question.items) {
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

    fn change(self: &Arc<Self>, changes: &[Change], now: Now) {
        let (Some(attempt), Some(link), Ok(runtime)) = (
            Attempt::begin(&self.guard, now),
            link::here(self),
            Handle::try_current(),
        ) else {
            self.guard.lost_adjustment();
            return;
        };
        let arguments = script::adjust(changes, self.time, now);
        let inner = Arc::clone(self);
        let changing = inner.guard.begin_change();
        // Bounded by its timeout, and by the requests that end within it.
        let _ends_by_itself = runtime.spawn(async move {
            let _until_then = changing;
            match timeout(ADJUST, link.run(&inner.adjust, &arguments, false)).await {
                Ok(Ok(_done)) => attempt.succeed(),
                Ok(Err(error)) => {
                    attempt.fail(error.into());
                    inner.guard.lost_adjustment();
                }
                Err(_late) => {
                    link.failed(attempt.is_probe());
                    attempt.fail(Failure::Timeout);
                    inner.guard.lost_adjustment();
                }
            }
        });
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
    asking: bool,
) -> Result<Value, RedisError> {
    let answer = send(connection, script.by_digest(arguments), asking).await;
    match answer {
        Err(error) if script::is_unknown(&error) => {
            send(connection, script.whole(arguments), asking).await
        }
        answer => answer,
    }
}

async fn send(
    connection: &mut MultiplexedConnection,
    command: Cmd,
    asking: bool,
) -> Result<Value, RedisError> {
    if !asking {
        return flat(connection.send_packed_command(&command).await);
    }
    // It holds for the one command after it.
    let mut both = redis::pipe();
    both.cmd("ASKING").add_command(command);
    let mut answers = connection.send_packed_commands(&both, 0, 2).await?;
    flat(answers.pop().ok_or_else(|| {
        let nothing = (redis::ErrorKind::UnexpectedReturnType, "no answer");
        RedisError::from(nothing)
    }))
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
