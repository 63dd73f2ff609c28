//! Workers: one thread and one single-threaded runtime each, with sockets and upstream connections
//! of their own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::accept::Acceptor;
use super::active::Active;
use super::clock::Clock;
use super::drain::Stage;
use super::eviction::Evictions;
use super::fault::Faults;
use super::metrics::Counters;
use super::mirror::Mirrors;
use super::pipeline::Pipeline;
use super::record::Sink;
use super::request_id::Random;
use super::upstream::Upstreams;
use crate::engine::escalation::Court;
use crate::engine::store::Store;
use crate::traces::Tracer;

/// Connections that a worker serves at once; more wait in the backlog.
const MAX_CONNECTIONS: usize = 16 << 10;
/// Tasks that run before sockets and timers are looked at again. A task that passes on a flood takes
/// milliseconds; with tokio's 61 of them everybody else would wait for a quarter of a second.
const EVENT_INTERVAL: u32 = 16;
/// How often idle connections to upstreams are looked through.
const SWEEP: Duration = Duration::from_secs(10);
/// For the connections of an address that is served no more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

enum Command {
    /// Serve an address by one more socket.
    Listen {
        address: SocketAddr,
        socket: TcpListener,
        shared: bool,
    },
    /// The sockets of these addresses are somebody else's as well.
    Share(Vec<SocketAddr>),
    /// Stop serving an address; the sender is dropped when nothing is accepted there any more.
    Close(SocketAddr, mpsc::Sender<Infallible>),
    /// Ask clients to go, over this time.
    Leave(Duration),
    /// Stop accepting, finish what is in flight within this time, and end.
    Drain(Duration),
    /// End now.
    Cut,
}

/// An address that a worker serves, or that has connections left.
struct Address {
    stage: watch::Sender<Stage>,
    shared: bool,
}

/// Whoever accepts has a sender.
type Accepting = (mpsc::Sender<Infallible>, mpsc::Receiver<Infallible>);

impl Address {
    fn new(shared: bool) -> Self {
        let stage = watch::Sender::new(Stage::Open);
        Self { stage, shared }
    }

    fn close(&self, within: Duration) {
        let shared = self.shared;
        self.stage.send_replace(Stage::Closing { within, shared });
    }
}

/// The data plane.
#[derive(Debug, Default)]
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
    /// Counts global limits.
    pub store: Arc<dyn Store>,
    /// Takes a record of each request; `None`: none is made.
    pub sink: Option<Arc<dyn Sink>>,
    /// Traces some of the requests; `None`: none.
    pub tracer: Option<Arc<Tracer>>,
    /// Passes sentences; `None`: nobody is sentenced.
    pub court: Option<Arc<dyn Court>>,
    /// Tells of peers whose connections are to end.
    pub evictions: Evictions,
}

impl Workers {
    /// Starts `count` workers without sockets.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be made.
    pub fn start(count: usize, shared: &Shared) -> io::Result<Self> {
        let together = Together::new();
        let start = |index| Worker::start(index, shared.clone(), together.clone());
        Ok(Self {
            workers: (0..count).map(start).collect::<io::Result<_>>()?,
        })
    }

    /// Serves `address` with `sockets`, of which each worker takes its share. `shared`: another
    /// process has them as well, and nothing is lost in them when this one closes them.
    pub async fn listen(&self, address: SocketAddr, sockets: Vec<TcpListener>, shared: bool) {
        for (worker, socket) in self.workers.iter().cycle().zip(sockets) {
            let listen = Command::Listen {
                address,
                socket,
                shared,
            };
            worker.send(listen).await;
        }
    }

    /// Another process has the sockets of `addresses` now as well.
    pub async fn share(&self, addresses: &[SocketAddr]) {
        for worker in &self.workers {
            worker.send(Command::Share(addresses.to_vec())).await;
        }
    }

    /// Stops serving `addresses`; requests in flight on them are finished. Returns when all clients
    /// that were let in there are accepted and no more are.
    pub async fn close(&self, addresses: &[SocketAddr]) {
        let (accepting, mut left) = mpsc::channel::<Infallible>(1);
        for worker in &self.workers {
            for address in addresses {
                let close = Command::Close(*address, accepting.clone());
                worker.send(close).await;
            }
        }
        drop(accepting);
        left.recv().await;
    }

    /// Asks clients to go, over this time; new connections are taken all the while.
    pub async fn leave(&self, over: Duration) {
        for worker in &self.workers {
            worker.send(Command::Leave(over)).await;
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

    /// Stops accepting, finishes requests in flight for at most `within`, and ends the workers.
    pub async fn drain(self, within: Duration) -> Drained {
        let (commands, threads): (Vec<_>, Vec<_>) = self
            .workers
            .into_iter()
            .map(|worker| (worker.commands, worker.thread))
            .unzip();
        let join = move || threads.into_iter().all(|thread| thread.join().is_ok());
        let drained = Drained {
            commands,
            joined: tokio::task::spawn_blocking(join),
        };
        drained.tell(|| Command::Drain(within)).await;
        drained
    }
}

/// Workers that finish what they have.
#[derive(Debug)]
pub struct Drained {
    commands: Vec<mpsc::Sender<Command>>,
    joined: tokio::task::JoinHandle<bool>,
}

impl Drained {
    /// Waits until all have ended; `false` if one panicked. To be awaited once to its end. Requests
    /// that were cut off are logged.
    pub async fn ended(&mut self) -> bool {
        (&mut self.joined).await.unwrap_or(false)
    }

    /// Finishes nothing more.
    pub async fn cut(&self) {
        self.tell(|| Command::Cut).await;
    }

    async fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.commands {
            let _ended = worker.send(command()).await;
        }
    }
}

/// Ends workers together: a connection to an upstream may be in use by another worker than the one
/// whose runtime it is bound to.
#[derive(Clone, Debug)]
struct Together {
    all: Arc<watch::Sender<()>>,
    this: watch::Receiver<()>,
}

impl Together {
    fn new() -> Self {
        let (all, this) = watch::channel(());
        Self {
            all: Arc::new(all),
            this,
        }
    }

    /// Returns when all have come to their end, one way or the other.
    async fn ended(self) {
        drop(self.this);
        self.all.closed().await;
    }
}

impl Worker {
    fn start(index: usize, shared: Shared, together: Together) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .build()?;
        let (commands, inbox) = mpsc::channel(16);
        let (alive, died) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let _alive: oneshot::Sender<Infallible> = alive;
                runtime.block_on(async {
                    run(inbox, shared).await;
                    together.ended().await;
                });
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
    shared.store.join();
    let pipeline = Arc::new(Pipeline {
        active: shared.active,
        upstreams: Arc::new(Upstreams::new(shared.clock)),
        mirrors: Mirrors::default(),
        faults: Faults::default(),
        clock: shared.clock,
        decisions: shared.counters.of_worker(),
        limited: shared.counters.account(),
        counters: shared.counters,
        random: Random::default(),
        sink: shared.sink,
        tracer: shared.tracer,
        court: shared.court,
        evictions: shared.evictions,
    });
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut open: HashMap<SocketAddr, (Address, Accepting)> = HashMap::new();
    // Addresses that are served no more, with what they have left.
    let mut closed: Vec<Address> = Vec::new();
    let mut loops = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ending, mut alone) = (false, false);
    while !(ending && loops.is_empty()) {
        let command = tokio::select! {
            // Without anybody to give commands, the process is going down: stop at once.
            command = inbox.recv(), if !alone => {
                alone = command.is_none();
                command.unwrap_or(Command::Cut)
            }
            Some(ended) = loops.join_next(), if !loops.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "accept loop failed");
                }
                continue;
            }
            _ = sweep.tick() => {
                pipeline.upstreams.sweep();
                closed.retain(|address| address.stage.receiver_count() > 0);
                continue;
            }
        };
        match command {
            Command::Listen {
                address,
                socket,
                shared,
            } => {
                let (served, (accepting, _)) = open
                    .entry(address)
                    .or_insert_with(|| (Address::new(shared), mpsc::channel(1)));
                let (stage, accepting) = (served.stage.subscribe(), accepting.clone());
                let (pipeline, room) = (Arc::clone(&pipeline), Arc::clone(&room));
                let acceptor = Acceptor::new(address, pipeline, room, stage);
                loops.spawn(acceptor.run(socket, accepting));
            }
            Command::Share(addresses) => {
                for address in &addresses {
                    if let Some((served, _)) = open.get_mut(address) {
                        served.shared = true;
                    }
                }
            }
            Command::Close(address, told) => {
                if let Some((address, (accepting, mut left))) = open.remove(&address) {
                    address.close(CLOSE_TIMEOUT);
                    closed.push(address);
                    drop(accepting);
                    loops.spawn(async move {
                        left.recv().await;
                        drop(told);
                    });
                }
            }
            Command::Leave(over) => {
                for (address, _) in open.values() {
                    address.stage.send_replace(Stage::Leaving(over));
                }
            }
            Command::Drain(within) => {
                ending = true;
                for address in every(&open, &closed) {
                    address.close(within);
                }
            }
            Command::Cut => {
                ending = true;
                for address in every(&open, &closed) {
                    address.stage.send_replace(Stage::Cut);
                }
            }
        }
    }
}

fn every<'a>(
    open: &'a HashMap<SocketAddr, (Address, Accepting)>,
    closed: &'a [Address],
) -> impl Iterator<Item = &'a Address> {
    let open = open.values().map(|(address, _)| address);
    open.chain(closed)
}
