//! Accepting on one socket, and leaving it so that no client is turned away that was let in.
//!
//! A listening socket that is closed resets the connections in its queue, whose clients believe to be
//! connected. So where nobody else accepts from a socket, it is left in steps: no more connection
//! attempts reach it ([`super::listener::let_nobody_in`], before workers are told), handshakes under
//! way come to their end, the queue is emptied, and then it is closed. Rejected: a socket filter that
//! drops SYNs, which takes `CAP_NET_ADMIN` on some kernels and makes clients wait; and
//! `net.ipv4.tcp_migrate_req`, which moves the queue to another socket of the `SO_REUSEPORT` group,
//! but is a setting of the whole network namespace and does nothing for the last of a group.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::arrival::converse;
use super::drain::{Draining, Stage};
use super::eviction::{Peers, Told};
use super::metrics::OpenConnection;
use super::pipeline::Pipeline;

/// After `accept` failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For handshakes of TCP that are under way when a socket is left: a round trip, and what is beyond
/// this is lost.
const HANDSHAKES: Duration = Duration::from_millis(500);

/// Takes connections from one socket.
pub(super) struct Acceptor {
    bind: SocketAddr,
    pipeline: Arc<Pipeline>,
    /// Connections that the worker may still have.
    room: Arc<Semaphore>,
    stage: watch::Receiver<Stage>,
    connections: JoinSet<Option<()>>,
    peers: Peers,
    evictions: Told,
}

impl Acceptor {
    pub(super) fn new(
        bind: SocketAddr,
        pipeline: Arc<Pipeline>,
        room: Arc<Semaphore>,
        stage: watch::Receiver<Stage>,
    ) -> Self {
        Self {
            bind,
            peers: Peers::default(),
            evictions: pipeline.evictions.told(),
            pipeline,
            room,
            stage,
            connections: JoinSet::new(),
        }
    }

    /// Accepts until told to close, then finishes what is in flight. `accepting` is dropped between.
    pub(super) async fn run(mut self, socket: TcpListener, accepting: mpsc::Sender<Infallible>) {
        let bind = self.bind;
        let listener = match tokio::net::TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%bind, %error, "cannot serve");
                return;
            }
        };
        self.accept(&listener, None, Stage::is_closing).await;
        let Stage::Closing { within, shared } = *self.stage.borrow_and_update() else {
            return;
        };
        let deadline = Instant::now() + within;
        if shared {
            drop(listener);
        } else {
            self.leave(listener, deadline).await;
        }
        drop(accepting);
        self.finish(deadline).await;
    }

    /// Accepts until `deadline`, or until the stage is one that is waited for.
    async fn accept(
        &mut self,
        listener: &tokio::net::TcpListener,
        deadline: Option<Instant>,
        over: fn(&Stage) -> bool,
    ) {
        let mut stage = self.stage.clone();
        loop {
            if self.room.available_permits() == 0 {
                let full = &self.pipeline.counters.full;
                full.fetch_add(1, Ordering::Relaxed);
            }
            let room = Arc::clone(&self.room);
            let accepted = async {
                let permit = room.acquire_owned().await;
                (permit, listener.accept().await)
            };
            let late = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let (permit, accepted) = tokio::select! {
                biased;
                // The sender is gone if the worker is: that too is the end.
                _told = stage.wait_for(over) => return,
                () = late => return,
                Some(ended) = self.connections.join_next_with_id(), if !self.connections.is_empty() => {
                    self.peers.left(match ended {
                        Ok((id, _)) => id,
                        Err(error) => error.id(),
                    });
                    continue;
                }
                eviction = self.evictions.next() => {
                    let evicted = self.peers.evict(self.bind, &eviction);
                    self.pipeline.counters.evicted(evicted);
                    continue;
                }
                accepted = accepted => accepted,
            };
            // Nobody closes the semaphore.
            let Ok(permit) = permit else { return };
            match accepted {
                Ok((stream, peer)) => self.start(permit, stream, peer),
                Err(error) => {
                    self.failed(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(&mut self, permit: OwnedSemaphorePermit, stream: TcpStream, peer: SocketAddr) {
        let pipeline = Arc::clone(&self.pipeline);
        let draining = Draining::new(self.stage.clone());
        let bind = self.bind;
        let connection = self.connections.spawn(async move {
            let _permit = permit;
            let counters = Arc::clone(&pipeline.counters);
            let _open = OpenConnection::new(&counters);
            converse(pipeline, bind, stream, peer, draining).await
        });
        self.peers.entered(peer.ip(), connection);
    }

    fn failed(&self, error: &io::Error) {
        let errors = &self.pipeline.counters.accept_errors;
        errors.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(bind = %self.bind, %error, "accept failed");
    }

    /// Takes every client that was let in, and closes the socket.
    async fn leave(&mut self, listener: tokio::net::TcpListener, deadline: Instant) {
        let until = deadline.min(Instant::now() + HANDSHAKES);
        self.accept(&listener, Some(until), |stage| *stage == Stage::Cut)
            .await;
        match listener.into_std() {
            Ok(socket) => self.empty(&socket, deadline).await,
            Err(error) => self.failed(&error),
        }
    }

    /// Takes what is left in the queue: by the system's word, not by what the runtime has heard.
    async fn empty(&mut self, socket: &TcpListener, deadline: Instant) {
        loop {
            let room = Arc::clone(&self.room);
            let Ok(Ok(permit)) = timeout_at(deadline, room.acquire_owned()).await else {
                return;
            };
            let accepted = socket.accept().and_then(|(stream, peer)| {
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, peer))
            });
            match accepted {
                Ok((stream, peer)) => self.start(permit, stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Its client has gone again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return self.failed(&error),
            }
        }
    }

    /// Waits for the connections; those that are there at `deadline` are cut off.
    async fn finish(mut self, mut deadline: Instant) {
        loop {
            tokio::select! {
                biased;
                ended = self.connections.join_next() => {
                    if ended.is_none() {
                        return;
                    }
                }
                told = self.stage.changed() => match (told, *self.stage.borrow_and_update()) {
                    (Ok(()), Stage::Closing { within, .. }) => {
                        deadline = deadline.min(Instant::now() + within);
                    }
                    (Ok(()), Stage::Open | Stage::Leaving(_)) => {}
                    (_, Stage::Cut) | (Err(_), _) => break,
                },
                () = sleep_until(deadline) => break,
            }
        }
        let cut_off = self.connections.len();
        tracing::warn!(bind = %self.bind, cut_off, "connections did not end in time");
    }
}
