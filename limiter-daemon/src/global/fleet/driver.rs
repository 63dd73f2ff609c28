//! The task of the fleet: connects, catches up, beats, tells and hears.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::asking::{About, Beat, Error, tell};
use super::{BEAT, Connection, Order, Shared, feed};
use crate::engine::fleet::{Pending, ServerClock, StreamId};
use crate::global::connect::CONNECT;
use crate::global::guard::jittered;

/// Pause after an attempt that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Blocks that are caught up with before others on the thread have a turn.
const STEP: usize = 128;
/// What the store is told before it is looked whether a beat is due.
const TURN: usize = 64;

/// Runs this node's part in the fleet.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    started: u64,
}

/// Connections, and what is known of the store while they last.
struct Session {
    talk: Connection,
    feed: Connection,
    gone: Arc<Notify>,
}

/// This node has left.
struct Left;

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, orders: mpsc::Receiver<Order>) -> Self {
        let started = (shared.clock)().mono;
        Self {
            shared,
            orders,
            started,
        }
    }

    /// Runs until this node leaves.
    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        // The log says it once for each time that it goes away.
        let mut told = false;
        loop {
            let error = match self.connect().await {
                Ok(session) => match self.hold(session, &mut told, &mut pause).await {
                    Ok(Left) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.away(&error, &mut told);
            let until = Instant::now() + jittered(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            if let Some(done) = self.wait(until).await {
                // Nobody waits for one that is told already.
                let _gave_up = done.send(());
                return;
            }
        }
    }

    /// The store cannot be asked.
    fn away(&self, error: &Error, told: &mut bool) {
        let store = &self.shared.store;
        if let Error::Changed(what) = error {
            tracing::warn!(what, "the fleet's table of blocks is read anew");
        } else if !std::mem::replace(told, true) {
            tracing::warn!(
                store = store.address(),
                %error,
                "the fleet cannot be reached: blocks are for this node until it can"
            );
        }
        let mut view = self.shared.view();
        view.connected = false;
        view.away = Some(error.to_string());
    }

    /// Waits, and answers orders; `Some`: to leave.
    async fn wait(&mut self, until: Instant) -> Option<oneshot::Sender<()>> {
        loop {
            tokio::select! {
                () = sleep_until(until) => return None,
                order = self.orders.recv() => match order {
                    Some(Order::Leave(done)) => return Some(done),
                    // Whoever waits hears that nobody answers.
                    Some(Order::Push(done)) => drop(done),
                    None => std::future::pending().await,
                },
            }
        }
    }

    async fn connect(&self) -> Result<Session, Error> {
        let key = self.shared.asking.key();
        let server = self.shared.store.server_of(key).await;
        let connector = &server.ok_or(Error::Nobody)?.connector;
        let gone = Arc::new(Notify::new());
        let one = || timeout(CONNECT, connector.connect(&[], Arc::clone(&gone)));
        Ok(Session {
            talk: one().await??,
            feed: one().await??,
            gone,
        })
    }

    /// Catches up, and goes on for as long as the connections last.
    async fn hold(
        &mut self,
        session: Session,
        told: &mut bool,
        pause: &mut Duration,
    ) -> Result<Left, Error> {
        let Session {
            mut talk,
            mut feed,
            gone,
        } = session;
        let shared = Arc::clone(&self.shared);
        let first = self.beat(&mut talk).await?;
        let all = shared.asking.all(&mut talk).await?;
        let mut resync = shared.blocks.resync(&all, &first.epoch, first.last);
        while resync.step(STEP, &shared.server(), (shared.clock)()) {
            yield_now().await;
        }
        let changes = resync.changes();
        let count = first.count;
        self.see(first);
        tracing::info!(
            store = shared.store.address(),
            nodes = shared.alive.nodes(),
            changes,
            "part of the fleet, whose blocks are known"
        );
        (*told, *pause) = (false, FIRST_PAUSE);
        tokio::select! {
            ended = self.talk(&mut talk) => ended,
            ended = feed::follow(&shared, &mut feed, count) => ended.map(|never| match never {}),
            () = gone.notified() => Err(Error::Gone),
        }
    }

    /// Beats, and tells the store what is pending.
    async fn talk(&mut self, connection: &mut Connection) -> Result<Left, Error> {
        let mut due = beats();
        // Those who wait until the store has it all.
        let mut waiting = Vec::new();
        loop {
            let more = self.push(connection).await?;
            if !more {
                waiting.drain(..).for_each(|done: oneshot::Sender<()>| {
                    // Who does not wait any more need not be told.
                    let _gave_up = done.send(());
                });
            }
            tokio::select! {
                biased;
                _ = due.tick() => {
                    let position = self.shared.blocks.position();
                    let beat = self.beat(connection).await?;
                    self.still_known(&beat, position)?;
                    self.see(beat);
                }
                order = self.orders.recv() => match order {
                    Some(Order::Push(done)) => waiting.push(done),
                    Some(Order::Leave(done)) => {
                        self.shared.asking.leave(connection, &self.shared.id).await?;
                        self.shared.view().connected = false;
                        let _gave_up = done.send(());
                        return Ok(Left);
                    }
                    None => std::future::pending().await,
                },
                () = std::future::ready(()), if more => {}
            }
        }
    }

    /// Tells a turn of what is pending; whether there may be more.
    async fn push(&self, connection: &mut Connection) -> Result<bool, Error> {
        let Shared {
            asking,
            blocks,
            clock: now,
            ..
        } = &*self.shared;
        let pending = blocks.pending(TURN, now());
        for one in &pending {
            let stored = tell(asking, connection, one).await?;
            match one {
                Pending::Block { net, mark, .. } => {
                    let stored = stored.as_ref().map(|(remote, id)| (remote, *id));
                    blocks.sent(*net, *mark, stored, &self.shared.server());
                }
                Pending::Lift { net, until, .. } => blocks.sent_lift(*net, *until),
            }
        }
        Ok(pending.len() == TURN)
    }

    async fn beat(&self, connection: &mut Connection) -> Result<Beat, Error> {
        let shared = &self.shared;
        let (node, fleet) = shared.blocks.numbers();
        let about = About {
            name: shared.me.name.clone(),
            address: shared.me.address.clone(),
            version: shared.me.version.to_owned(),
            blocks: u64::try_from(node + fleet).unwrap_or(u64::MAX),
        };
        let before = (shared.clock)().mono;
        let running = Duration::from_nanos(before.saturating_sub(self.started));
        let beat = shared
            .asking
            .beat(
                connection,
                &shared.id,
                running,
                &about,
                shared.blocks.position(),
            )
            .await?;
        let after = (shared.clock)().mono;
        // It looked at its clock between the two.
        *shared.server.lock().unwrap_or_else(PoisonError::into_inner) = ServerClock {
            server_ms: beat.now,
            mono: before.midpoint(after),
        };
        Ok(beat)
    }

    /// Whether what this node knows, up to `position` before the beat, follows from what is there.
    fn still_known(&self, beat: &Beat, position: StreamId) -> Result<(), Error> {
        let blocks = &self.shared.blocks;
        if !blocks.knows(&beat.epoch) {
            return Err(Error::Changed("it has forgotten what it knew"));
        }
        if beat.last < position {
            return Err(Error::Changed("it went back to an earlier state"));
        }
        Ok(())
    }

    /// Who is there.
    fn see(&self, beat: Beat) {
        let shared = &self.shared;
        shared.alive.saw(beat.nodes.len());
        let heard = (shared.clock)().mono;
        let mut view = shared.view();
        view.connected = true;
        view.away = None;
        view.last = beat.last;
        view.stored = beat.stored;
        view.nodes = beat.nodes;
        view.heard = heard;
    }
}

fn beats() -> Interval {
    let mut due = interval(BEAT);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    due
}
