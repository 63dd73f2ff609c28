//! Workers: one thread and one single-threaded runtime each, with sockets and upstream connections
//! of their own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::active::Active;
use super::clock::Clock;
use super::fault::Faults;
use super::metrics::{Counters, OpenConnection};
use super::mirror::Mirrors;
use super::pipeline::{Pipeline, converse};
use super::record::Sink;
use super::request_id::Random;
use super::upstream::Upstreams;

/// Connections that a worker serves at once; more wait in the backlog.
const MAX_CONNECTIONS: usize = 16 << 10;
/// After `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often idle connections to upstreams are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// For the connections of an address that is served no more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sockets for one worker.
type Sockets = HashMap<SocketAddr, TcpListener>;

enum Command {
    /// Serve these addresses in addition.
    Listen(Sockets),
    /// Stop serving these addresses; finish what they have.
    Close(Vec<SocketAddr>),
    /// Stop accepting and finish what is in flight, for at most this long.
    Drain(Duration),
}

/// The data plane.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    commands: mpsc::Sender<Command>,
    thread: JoinHandle<()>,
    died: oneshot::Receiver<Infallible>,
}

/// What every worker shares.
#[derive(Clone, Debug)]
pub struct Shared {
    pub active: Arc<ArcSwap<Active>>,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    /// Takes a record of each request; `None`: none is made.
    pub sink: Option<Arc<dyn Sink>>,
}

impl Workers {
    /// Starts `count` workers without sockets.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be made.
    pub fn start(count: usize, shared: &Shared) -> io::Result<Self> {
        let start = |index| Worker::start(index, shared.clone());
        Ok(Self {
            workers: (0..count).map(start).collect::<io::Result<_>>()?,
        })
    }

    /// Serves `address` with `listeners`, one for each worker (see [`super::listener::bind`]).
    pub async fn listen(&self, address: SocketAddr, listeners: Vec<TcpListener>) {
        for (worker, listener) in self.workers.iter().zip(listeners) {
            worker
                .send(Command::Listen(HashMap::from([(address, listener)])))
                .await;
        }
    }

    /// Stops serving `addresses`; requests in flight on them are finished.
    pub async fn close(&self, addresses: &[SocketAddr]) {
        for worker in &self.workers {
            worker.send(Command::Close(addresses.to_vec())).await;
        }
    }

    /// Returns when a worker has ended that was not told to.
    pub async fn died(&mut self) {
        let died = self
            .workers
            .iter_mut()
            .map(|worker| Box::pin(&mut worker.died));
        let mut died: Vec<_> = died.collect();
        std::future::poll_fn(|cx| {
            let ended = died
                .iter_mut()
                .any(|died| died.as_mut().poll(cx).is_ready());
            if ended {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }

    /// Stops accepting, finishes requests in flight for at most `timeout`, and ends the workers.
    /// `false` if a worker panicked; requests that were cut off are logged.
    pub async fn drain(self, timeout: Duration) -> bool {
        for worker in &self.workers {
            worker.send(Command::Drain(timeout)).await;
        }
        let join = move || {
            self.workers
                .into_iter()
                .all(|worker| worker.thread.join().is_ok())
        };
        tokio::task::spawn_blocking(join).await.unwrap_or(false)
    }
}

impl Worker {
    fn start(index: usize, shared: Shared) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (commands, inbox) = mpsc::channel(16);
        let (alive, died) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let _alive: oneshot::Sender<Infallible> = alive;
                runtime.block_on(run(inbox, shared));
            })?;
        Ok(Self {
            commands,
            thread,
            died,
        })
    }

    /// A worker that is gone is noticed by [`Workers::died`], not here.
    async fn send(&self, command: Command) {
        let _gone = self.commands.send(command).await;
    }
}

async fn run(mut inbox: mpsc::Receiver<Command>, shared: Shared) {
    let pipeline = Arc::new(Pipeline {
        active: shared.active,
        upstreams: Arc::new(Upstreams::new(shared.clock)),
        mirrors: Mirrors::default(),
        faults: Faults::default(),
        clock: shared.clock,
        counters: shared.counters,
        random: Random::default(),
        sink: shared.sink,
    });
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stops: HashMap<SocketAddr, oneshot::Sender<Duration>> = HashMap::new();
    let mut loops = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Without a command to drain, the process is going down: stop at once.
    let mut timeout = Duration::ZERO;
    loop {
        let command = tokio::select! {
            command = inbox.recv() => command,
            _ = sweep.tick() => {
                pipeline.upstreams.sweep();
                continue;
            }
        };
        match command {
            Some(Command::Listen(sockets)) => {
                for (bind, socket) in sockets {
                    let (stop, stopped) = oneshot::channel();
                    stops.insert(bind, stop);
                    let (pipeline, room) = (Arc::clone(&pipeline), Arc::clone(&room));
                    loops.spawn(accept(bind, socket, pipeline, room, stopped));
                }
            }
            // Dropping the sender stops the loop with time enough to finish.
            Some(Command::Close(addresses)) => {
                addresses.iter().for_each(|bind| drop(stops.remove(bind)));
            }
            Some(Command::Drain(limit)) => {
                timeout = limit;
                break;
            }
            None => break,
        }
    }
    for (_, stop) in stops {
        let _ended = stop.send(timeout);
    }
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "accept loop failed");
        }
    }
}

/// Accepts on one socket until told to stop, then finishes what is in flight.
async fn accept(
    bind: SocketAddr,
    socket: TcpListener,
    pipeline: Arc<Pipeline>,
    room: Arc<Semaphore>,
    stopped: oneshot::Receiver<Duration>,
) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%bind, %error, "cannot serve");
            return;
        }
    };
    let (drain, draining) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stopped = pin!(stopped);
    let timeout = loop {
        if room.available_permits() == 0 {
            pipeline.counters.full.fetch_add(1, Ordering::Relaxed);
        }
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            timeout = &mut stopped => break timeout.unwrap_or(CLOSE_TIMEOUT),
            Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let pipeline = Arc::clone(&pipeline);
                let draining = draining.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    let counters = Arc::clone(&pipeline.counters);
                    let _open = OpenConnection::new(&counters);
                    converse(pipeline, bind, stream, peer, draining).await
                });
            }
            Err(error) => {
                pipeline
                    .counters
                    .accept_errors
                    .fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%bind, %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    drop(listener);
    drain.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(timeout, ended).await.is_err() {
        tracing::warn!(%bind, cut_off = connections.len(), "connections did not end in time");
    }
}
