//! Threads, sockets and connections of the service.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::body::RequestBody;
use super::http::{Paths, handler};
use super::http2;
use super::proto::SERVICE;
use super::reflect;
use super::service::Service;

/// Connections of a thread; more wait in the backlog.
const MAX_CONNECTIONS: usize = 4_096;
/// Until a connection says something, and until an HTTP/1.1 request's head is there.
const SILENCE: Duration = Duration::from_secs(10);
/// TCP handshakes under way when a socket is closed.
const HANDSHAKE: Duration = Duration::from_millis(500);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Until a connection is looked at again that has said too little to be told.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("a thread or a runtime cannot be made: {0}")]
    Io(#[from] io::Error),
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Finish what is in flight. Shared: others have the sockets as well.
    Leaving {
        shared: bool,
    },
    Cut,
}

/// The running service.
#[derive(Debug)]
pub struct Server {
    stage: watch::Sender<Stage>,
    threads: Vec<JoinHandle<()>>,
    died: Vec<oneshot::Receiver<Infallible>>,
    health: HealthReporter,
}

impl Server {
    /// Serves on `sockets`, a thread each.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn start(sockets: Vec<TcpListener>, service: &Service) -> Result<Self, StartError> {
        let health = HealthReporter::new();
        let [v1, v1alpha] = reflect::handlers()?;
        let paths = Arc::new(Paths {
            service: service.clone(),
            health: handler(HealthServer::new(HealthService::from_health_reporter(
                health.clone(),
            ))),
            reflection: [
                ("/grpc.reflection.v1.ServerReflection/", v1),
                ("/grpc.reflection.v1alpha.ServerReflection/", v1alpha),
            ],
        });
        let stage = watch::Sender::new(Stage::Serving);
        let mut server = Self {
            stage,
            threads: Vec::new(),
            died: Vec::new(),
            health,
        };
        for (index, socket) in sockets.into_iter().enumerate() {
            server.thread(index, socket, &paths)?;
        }
        Ok(server)
    }

    fn thread(&mut self, index: usize, socket: TcpListener, paths: &Arc<Paths>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(socket)?
        };
        let (alive, died) = oneshot::channel();
        let (paths, stage) = (Arc::clone(paths), self.stage.subscribe());
        let thread = std::thread::Builder::new()
            .name(format!("rls-{index}"))
            .spawn(move || {
                let _alive: oneshot::Sender<Infallible> = alive;
                runtime.block_on(async {
                    if let Some(store) = &paths.service.store {
                        store.join();
                    }
                    serve(listener, paths, stage).await;
                });
            })?;
        self.threads.push(thread);
        self.died.push(died);
        Ok(())
    }

    /// Says by gRPC health that it serves, or that it is going to end.
    pub async fn say_serving(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in ["", SERVICE] {
            self.health.set_service_status(name, status).await;
        }
    }

    /// Returns when a thread has ended that was not told to.
    pub async fn died(&mut self) {
        let mut died: Vec<_> = self.died.iter_mut().map(Box::pin).collect();
        std::future::poll_fn(|context| {
            let ended = died
                .iter_mut()
                .any(|one| one.as_mut().poll(context).is_ready());
            if ended {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }

    /// Stops accepting, finishes what is in flight for at most `within` and until `cut`, and ends.
    /// `shared`: another
    /// process has the sockets, and whoever waits in them. `false`: a thread panicked.
    pub async fn drain(
        self,
        shared: bool,
        within: Duration,
        cut: impl Future<Output = ()>,
    ) -> bool {
        self.say_serving(false).await;
        self.stage.send_replace(Stage::Leaving { shared });
        let threads = self.threads;
        let join = move || threads.into_iter().all(|thread| thread.join().is_ok());
        let mut joined = tokio::task::spawn_blocking(join);
        tokio::select! {
            joined = &mut joined => return joined.unwrap_or(false),
            () = sleep(within) => {}
            () = cut => {}
        }
        self.stage.send_replace(Stage::Cut);
        joined.await.unwrap_or(false)
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    paths: Arc<Paths>,
    mut stage: watch::Receiver<Stage>,
) {
    let mut connections = JoinSet::new();
    let leaving = stage.clone();
    tokio::select! {
        () = accept(&listener, &paths, &leaving, &mut connections) => {}
        () = told(&mut stage, |stage| stage != Stage::Serving) => {}
    }
    if *stage.borrow() == (Stage::Leaving { shared: false }) {
        // Nobody comes to the socket any more; those whose handshake was under way are let in.
        let rest = accept(&listener, &paths, &leaving, &mut connections);
        let _over = timeout(HANDSHAKE, rest).await;
    }
    drop(listener);
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = told(&mut stage, |stage| stage == Stage::Cut) => {}
    }
}

/// The sender is gone if the daemon is: then it is time as well.
async fn told(stage: &mut watch::Receiver<Stage>, wanted: impl Fn(Stage) -> bool) {
    drop(stage.wait_for(|stage| wanted(*stage)).await);
}

/// Accepts for ever.
async fn accept(
    listener: &tokio::net::TcpListener,
    paths: &Arc<Paths>,
    stage: &watch::Receiver<Stage>,
    connections: &mut JoinSet<()>,
) {
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            paths.service.counters.full.fetch_add(1, Ordering::Relaxed);
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, Arc::clone(paths), stage.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "rate limit service: accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, paths: Arc<Paths>, mut stage: watch::Receiver<Stage>) {
    let counters = Arc::clone(&paths.service.counters);
    counters.connections.fetch_add(1, Ordering::Relaxed);
    counters.active.fetch_add(1, Ordering::Relaxed);
    let said_something = tokio::select! {
        said = timeout(SILENCE, stream.readable()) => matches!(said, Ok(Ok(()))),
        () = told(&mut stage, |stage| stage == Stage::Cut) => false,
    };
    if said_something {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "rate limit service: TCP_NODELAY");
        }
        match paths.service.tls.load_full() {
            None => match timeout(SILENCE, opens_http2(&stream)).await {
                Ok(Ok(http2)) => talk(stream, http2, paths, stage).await,
                _mute => {
                    counters.mute.fetch_add(1, Ordering::Relaxed);
                }
            },
            Some(config) => {
                let handshake = TlsAcceptor::from(config).accept(stream);
                match timeout(SILENCE, handshake).await {
                    Ok(Ok(stream)) => {
                        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        talk(stream, http2, paths, stage).await;
                    }
                    refused => {
                        counters.mute.fetch_add(1, Ordering::Relaxed);
                        if let Ok(Err(error)) = refused {
                            tracing::debug!(%error, "rate limit service: TLS handshake");
                        }
                    }
                }
            }
        }
    } else {
        counters.mute.fetch_add(1, Ordering::Relaxed);
    }
    counters.active.fetch_sub(1, Ordering::Relaxed);
}

/// Whether what comes first is how HTTP/2 begins (RFC 9113 section 3.4): no method of HTTP/1.1 is called
/// so.
async fn opens_http2(stream: &TcpStream) -> io::Result<bool> {
    const BEGIN: &[u8] = b"PRI";
    let mut seen = [0; BEGIN.len()];
    loop {
        let read = stream.peek(&mut seen).await?;
        let seen = &seen[..read];
        if seen == BEGIN || read == 0 || !BEGIN.starts_with(seen) {
            return Ok(seen == BEGIN);
        }
        sleep(PEEK_PAUSE).await;
    }
}

async fn talk<S>(stream: S, http2: bool, paths: Arc<Paths>, mut stage: watch::Receiver<Stage>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let leaving = told(&mut stage, |stage| stage != Stage::Serving);
    if http2 {
        if let Err(error) = http2::serve(stream, paths, leaving).await {
            tracing::debug!(%error, "rate limit service: connection ended");
        }
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let paths = Arc::clone(&paths);
        async move { Ok::<_, Infallible>(paths.answer(request.map(RequestBody::Http1)).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = &mut served => result,
        () = leaving => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "rate limit service: connection ended");
    }
}
