//! A Redis Cluster: which of its servers counts which keys, and following it where keys move.
//!
//! Each server is as a store of its own: with its own breaker and, for each worker, its own
//! connection. So one that fails keeps nobody waiting for the others. A map of slots says whom to ask
//! (`map`); it is asked for anew when an answer or a failure says that it is not true any more, at
//! most every 0.1 s, and never by who waits for a decision.
//!
//! **What is sent again.** Only what a server says that it has not done (`MOVED`, `ASK`, `TRYAGAIN`),
//! and only within the budget. What was sent on a connection that broke may have been counted, so it
//! is not sent again: the question is unanswered.
//!
//! Rejected: the cluster client of the `redis` crate (1.8). It sends a command again whose connection
//! broke, so a request could be charged twice; told not to, it follows no `MOVED` either. And it goes
//! on with what nobody waits for any more.

mod map;
mod redirection;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connect::{CONNECT, Connector};
use super::guard::{Attempt, Counts, Guard, jitter, jittered};
use super::link::{self, Link};
use super::script::Arguments;
use super::{ADJUST, Failure, Inner, StoreError, Time, command, flat, script};
use crate::engine::store::breaker::Condition;
use crate::engine::store::ledger::{Asking, Change, Question, Unanswered};
use crate::engine::store::slot::slot;
use crate::engine::time::Now;
use crate::policy::plan::{StoreAddress, StoreConfig, StoreHost};
use map::Map;
use redirection::{Redirection, redirection};

/// Between two looks at the map, while it changes; each further one that says the same doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A server that is asked for the map answers within this.
const TELL: Duration = Duration::from_millis(500);
/// Before what is being moved is asked again.
const TRY_AGAIN: Duration = Duration::from_millis(5);
/// Redirections that are followed without a pause between them.
const STRAIGHT: usize = 3;
/// Servers that are known at once at most.
const SERVERS: usize = 1024;

/// The servers of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    config: StoreConfig,
    time: Time,
    seeds: Vec<StoreHost>,
    counts: Arc<Counts>,
    /// Of finding the map.
    guard: Arc<Guard>,
    servers: Mutex<HashMap<StoreHost, Arc<Inner>>>,
    routes: watch::Sender<Option<Arc<Routes>>>,
    pace: Mutex<Pace>,
    looking: AtomicBool,
    /// It was said that there is no map to be had.
    told: AtomicBool,
}

/// The map, and the servers that it is about.
#[derive(Debug)]
struct Routes {
    map: Map,
    masters: Vec<Arc<Inner>>,
}

/// When the map may be looked for.
#[derive(Debug)]
struct Pace {
    next: Instant,
    pause: Duration,
}

/// A server that is about to be asked.
struct Turn {
    server: Arc<Inner>,
    attempt: Attempt,
    link: Link,
}

/// Whom to ask first.
enum First {
    Known(Turn),
    /// There is no map yet.
    Unknown(Attempt),
}

/// No answer, and when that was known.
struct Lost(Now);

impl Cluster {
    pub(super) fn new(
        config: &StoreConfig,
        seeds: &[StoreHost],
        time: Time,
        counts: Arc<Counts>,
    ) -> Result<Arc<Self>, StoreError> {
        let cluster = Self {
            config: config.clone(),
            time,
            seeds: seeds.to_vec(),
            guard: Arc::new(Guard::new(config.address.to_string(), Arc::clone(&counts))),
            counts,
            servers: Mutex::default(),
            routes: watch::Sender::new(None),
            pace: Mutex::new(Pace {
                next: Instant::now(),
                pause: FIRST_PAUSE,
            }),
            looking: AtomicBool::new(false),
            told: AtomicBool::new(false),
        };
        // So that what is wrong is said at the start.
        for seed in seeds {
            cluster.make(seed)?;
        }
        Ok(Arc::new(cluster))
    }

    /// Its servers, as far as they are known.
    pub(super) fn hosts(&self) -> Vec<StoreHost> {
        self.lock().keys().cloned().collect()
    }

    /// The worst of all its servers.
    pub(super) fn condition(&self) -> Condition {
        let servers = self.lock();
        let conditions = servers.values().map(|server| server.guard.condition());
        let worst = |condition: &Condition| match condition {
            Condition::Closed => 0,
            Condition::HalfOpen => 1,
            Condition::Open => 2,
        };
        conditions
            .max_by_key(worst)
            // Nobody is known yet.
            .unwrap_or_else(|| self.guard.condition())
    }

    /// Connects this thread to all masters, as soon as they are known.
    pub(super) fn join(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        self.look();
        let mut routes = self.routes.subscribe();
        // Ends with the first map, or with the cluster.
        let _ends_by_itself = runtime.spawn(async move {
            let found = routes.wait_for(Option::is_some).await;
            if let Some(routes) = found.ok().and_then(|found| found.clone()) {
                for server in &routes.masters {
                    link::here(server);
                }
            }
        });
    }

    pub(super) fn ask(self: &Arc<Self>, question: Question, now: Now) -> Option<Asking> {
        let slot = question.items.first().map_or(0, |item| slot(&item.key));
        let first = self.first(slot, now)?;
        let arguments = script::charge(&question, self.time, now);
        let cluster = Arc::clone(self);
        Some(Box::pin(async move {
            let deadline = Instant::now() + cluster.config.budget;
            let asked = cluster.run(first, slot, Which::Charge, &arguments, deadline);
            let (turn, answer) = asked.await.map_err(|Lost(now)| Unanswered { now })?;
            if let Some(reply) = script::reply(&question.items, &answer) {
                turn.attempt.succeed();
                return Ok(reply);
            }
            let Lost(now) = turn.lose(Failure::Error);
            Err(Unanswered { now })
        }))
    }

    /// All keys are in one slot.
    pub(super) fn change(self: &Arc<Self>, changes: &[Change], now: Now) {
        let slot = changes.first().map_or(0, |change| slot(&change.key));
        let (Some(first), Ok(runtime)) = (self.first(slot, now), Handle::try_current()) else {
            self.counts.lost_adjustment();
            return;
        };
        let arguments = script::adjust(changes, self.time, now);
        let cluster = Arc::clone(self);
        let changing = self.counts.begin_change();
        // Bounded by its timeout, and by the requests that end within it.
        let _ends_by_itself = runtime.spawn(async move {
            let _until_then = changing;
            let deadline = Instant::now() + ADJUST;
            match cluster
                .run(first, slot, Which::Adjust, &arguments, deadline)
                .await
            {
                Ok((turn, _done)) => turn.attempt.succeed(),
                Err(Lost(_)) => cluster.counts.lost_adjustment(),
            }
        });
    }

    /// Runs a script where `slot` is, wherever that is found to be.
    async fn run(
        self: &Arc<Self>,
        first: First,
        slot: u16,
        script: Which,
        arguments: &Arguments,
        deadline: Instant,
    ) -> Result<(Turn, Value), Lost> {
        let mut turn = match first {
            First::Known(turn) => turn,
            First::Unknown(attempt) => self.find(attempt, slot, deadline).await?,
        };
        let mut asking = false;
        for hop in 0usize.. {
            let script = match script {
                Which::Charge => &turn.server.charge,
                Which::Adjust => &turn.server.adjust,
            };
            let answer = timeout_at(deadline, turn.link.run(script, arguments, asking)).await;
            let error = match answer {
                Ok(Ok(value)) => return Ok((turn, value)),
                Ok(Err(error)) => error,
                Err(_late) => {
                    self.look();
                    return Err(turn.lose(Failure::Timeout));
                }
            };
            let Some(redirection) = redirection(&error, &turn.server) else {
                self.look();
                return Err(turn.lose(error.into()));
            };
            let now = turn.attempt.redirected();
            if hop >= STRAIGHT || matches!(redirection, Redirection::TryAgain) {
                let paused = timeout_at(deadline, sleep(TRY_AGAIN)).await;
                if paused.is_err() {
                    self.counts.late();
                    return Err(Lost(now));
                }
            }
            let next = match redirection {
                Redirection::Moved(host) => {
                    self.look();
                    asking = false;
                    self.server(&host)
                }
                Redirection::Ask(host) => {
                    asking = true;
                    self.server(&host)
                }
                Redirection::TryAgain => {
                    asking = false;
                    self.owner(slot)
                }
            };
            turn = self.turn(next, now).ok_or(Lost(now))?;
        }
        Err(turn.lose(Failure::Error))
    }

    /// Waits for the map.
    async fn find(
        self: &Arc<Self>,
        attempt: Attempt,
        slot: u16,
        deadline: Instant,
    ) -> Result<Turn, Lost> {
        let mut routes = self.routes.subscribe();
        let found = timeout_at(deadline, routes.wait_for(Option::is_some)).await;
        let found = matches!(found, Ok(Ok(_)));
        if !found {
            let now = attempt.now();
            attempt.fail(Failure::Disconnected);
            return Err(Lost(now));
        }
        let now = attempt.known();
        self.turn(self.owner(slot), now).ok_or(Lost(now))
    }

    /// Whom to ask about `slot`; `None`: it is known that nobody would answer.
    fn first(self: &Arc<Self>, slot: u16, now: Now) -> Option<First> {
        if self.routes.borrow().is_none() {
            self.look();
            return Some(First::Unknown(Attempt::begin(&self.guard, now)?));
        }
        self.turn(self.owner(slot), now).map(First::Known)
    }

    /// `None`: there is no such server, or it is not to be asked now.
    fn turn(self: &Arc<Self>, server: Option<Arc<Inner>>, now: Now) -> Option<Turn> {
        let Some(server) = server else {
            // A slot that nobody has.
            self.look();
            self.counts.nobody();
            return None;
        };
        let Some(attempt) = Attempt::begin(&server.guard, now) else {
            self.look();
            return None;
        };
        let Some(link) = link::here(&server) else {
            attempt.fail(Failure::Disconnected);
            return None;
        };
        Some(Turn {
            server,
            attempt,
            link,
        })
    }

    fn owner(&self, slot: u16) -> Option<Arc<Inner>> {
        let routes = self.routes.borrow();
        let routes = routes.as_ref()?;
        let owner = routes.map.owner(slot)?;
        routes.masters.get(owner).cloned()
    }

    /// The server that has `key`, when that is known.
    pub(super) async fn server_of(self: &Arc<Self>, key: &str) -> Option<Arc<Inner>> {
        self.look();
        let mut routes = self.routes.subscribe();
        let found = timeout(CONNECT, routes.wait_for(Option::is_some)).await;
        found.ok()?.ok()?;
        self.owner(slot(key))
    }

    /// All masters, when they are known.
    pub(super) async fn masters(self: &Arc<Self>) -> Option<Vec<Arc<Inner>>> {
        self.look();
        let mut routes = self.routes.subscribe();
        let found = timeout(CONNECT, routes.wait_for(Option::is_some)).await;
        let routes = found.ok()?.ok()?.clone()?;
        Some(routes.masters.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StoreHost, Arc<Inner>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self, host: &StoreHost) -> Option<Arc<Inner>> {
        if let Some(server) = self.lock().get(host) {
            return Some(Arc::clone(server));
        }
        let made = self.make(host).ok()?;
        let mut servers = self.lock();
        if servers.len() >= SERVERS {
            return None;
        }
        let server = servers.entry(host.clone());
        Some(Arc::clone(server.or_insert_with(|| Arc::new(made))))
    }

    fn make(&self, host: &StoreHost) -> Result<Inner, StoreError> {
        let config = StoreConfig {
            address: StoreAddress::Tcp(host.clone()),
            ..self.config.clone()
        };
        Inner::new(&config, self.time, Arc::clone(&self.counts))
    }

    /// Has the map looked for, if that is due and nobody does.
    fn look(self: &Arc<Self>) {
        let now = Instant::now();
        let due = self.pace().next <= now;
        if !due || self.looking.swap(true, Ordering::AcqRel) {
            return;
        }
        let looking = Looking(Arc::clone(self));
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        // Each server is asked for a bounded time.
        let _ends_by_itself = runtime.spawn(async move {
            let cluster = &looking.0;
            let changed = match cluster.discover().await {
                Ok(map) => cluster.install(map),
                Err(error) => {
                    if !cluster.told.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            store = %cluster.config.address,
                            error,
                            "no server of the cluster says where keys are; they are asked again"
                        );
                    }
                    false
                }
            };
            let mut pace = cluster.pace();
            pace.pause = if changed {
                FIRST_PAUSE
            } else {
                (pace.pause * 2).min(LONGEST_PAUSE)
            };
            pace.next = Instant::now() + jittered(pace.pause);
        });
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a map in force; whether it says something new.
    fn install(&self, map: Map) -> bool {
        self.told.store(false, Ordering::Relaxed);
        let same = |routes: &Arc<Routes>| routes.map == map;
        if self.routes.borrow().as_ref().is_some_and(same) {
            return false;
        }
        // Who is still being asked stays until that is over.
        self.lock().retain(|host, _| map.masters().contains(host));
        let masters = map.masters().iter().map(|host| self.server(host));
        let Some(masters) = masters.collect() else {
            return false;
        };
        tracing::info!(
            store = %self.config.address,
            masters = map.masters().len(),
            "where the keys of the cluster are is known"
        );
        let routes = Arc::new(Routes { map, masters });
        self.routes.send_replace(Some(routes));
        true
    }

    /// Asks the servers that are known, beginning with any of them, until one says where slots are.
    async fn discover(&self) -> Result<Map, String> {
        let mut places = self.seeds.clone();
        if let Some(routes) = &*self.routes.borrow() {
            let others = routes.map.all().iter();
            places.extend(others.filter(|host| !self.seeds.contains(host)).cloned());
        }
        let first = usize::try_from(jitter()).unwrap_or(0) % places.len().max(1);
        places.rotate_left(first);
        let mut failed = "it has no servers".to_owned();
        for host in places {
            match timeout(TELL.min(CONNECT), self.slots_of(&host)).await {
                Ok(Ok(map)) => return Ok(map),
                Ok(Err(error)) => failed = format!("{host}: {error}"),
                Err(_late) => failed = format!("{host} does not answer"),
            }
        }
        Err(failed)
    }

    async fn slots_of(&self, host: &StoreHost) -> Result<Map, String> {
        let config = StoreConfig {
            address: StoreAddress::Tcp(host.clone()),
            ..self.config.clone()
        };
        let said = async {
            let connector = Connector::new(&config)?;
            let mut connection = connector.connect(&[], Arc::new(Notify::new())).await?;
            let ask = command("CLUSTER", &["SLOTS"]);
            flat(connection.send_packed_command(&ask).await)
        };
        let said = said.await.map_err(|error: RedisError| error.to_string())?;
        Map::read(&said, host).ok_or_else(|| "it knows nobody who has slots".to_owned())
    }
}

/// Which script.
#[derive(Clone, Copy)]
enum Which {
    Charge,
    Adjust,
}

/// Somebody looks for the map, until this is dropped.
struct Looking(Arc<Cluster>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.looking.store(false, Ordering::Release);
    }
}

impl Turn {
    /// There is no answer.
    fn lose(self, failure: Failure) -> Lost {
        let now = self.attempt.now();
        self.link.failed(self.attempt.is_probe());
        self.attempt.fail(failure);
        Lost(now)
    }
}
