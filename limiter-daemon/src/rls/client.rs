//! Asks a rate limit service elsewhere.
//!
//! Each thread that asks has a connection of its own (HTTP/2), driven by a task in its own runtime: no
//! answer wakes another thread, and questions of one thread are on their way together. The task makes
//! the connection anew when it ends, with pauses that grow; while there is none after an attempt that
//! failed, questions fail at once. Who asks bounds the wait, and a question that is given up is reset
//! by itself and holds nothing else up. A service that is silent is found out by pings.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic_prost::ProstCodec;

use super::proto::{RateLimitRequest, RateLimitResponse, SHOULD_RATE_LIMIT};
use super::translate;
use crate::engine::ask::{Answer, Failure, Question, RateLimitService, Reply};
use crate::engine::time::Now;
use crate::names;
use crate::policy::plan::RlsPeer;

/// For a connection, and for TLS on it.
const CONNECT: Duration = Duration::from_secs(2);
/// Pause after the first attempt to connect that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection on which nothing comes for so long is asked whether it lives, and has as long to say.
const PING: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_ANSWER: usize = 256 << 10;

thread_local! {
    static LINKS: RefCell<Vec<(Weak<Peer>, Link)>> = const { RefCell::new(Vec::new()) };
}

/// A rate limit service elsewhere.
#[derive(Debug)]
pub struct Client {
    peer: Arc<Peer>,
}

/// Where it is, and what is counted of it.
#[derive(Debug)]
struct Peer {
    plan: Arc<RlsPeer>,
    origin: Uri,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    connections: AtomicU64,
    connect_failures: AtomicU64,
    /// Gone when nobody asks the service any more, which its tasks wait for.
    asked: watch::Sender<()>,
    /// A thread has got a connection.
    found: Arc<Notify>,
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("`{0}` is no name that a certificate can have")]
    ServerName(String),
    #[error("`{0}` is no address that can be asked")]
    Address(String),
}

impl Client {
    /// A client of `plan`, with `tls` if it speaks TLS. Nothing is connected before it is asked.
    ///
    /// # Errors
    /// [`PeerError`]
    pub fn new(plan: Arc<RlsPeer>, tls: Option<Arc<ClientConfig>>) -> Result<Self, PeerError> {
        let host = plan.host.to_string();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin = Uri::try_from(format!("{scheme}://{host}"));
        let origin = origin.map_err(|_invalid| PeerError::Address(host))?;
        let tls = match (tls, &plan.tls) {
            (Some(config), Some(wanted)) => {
                let name = wanted.server_name.as_ref().unwrap_or(&plan.host.host);
                let parsed = ServerName::try_from(name.clone());
                let parsed = parsed.map_err(|_invalid| PeerError::ServerName(name.clone()))?;
                Some((config, parsed))
            }
            _ => None,
        };
        Ok(Self {
            peer: Arc::new(Peer {
                plan,
                origin,
                tls,
                connections: AtomicU64::new(0),
                connect_failures: AtomicU64::new(0),
                asked: watch::Sender::new(()),
                found: Arc::default(),
            }),
        })
    }

    /// Whom it asks.
    #[must_use]
    pub fn plan(&self) -> &RlsPeer {
        &self.peer.plan
    }

    /// Connections that are up, of all threads.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.peer.connections.load(Ordering::Relaxed)
    }

    /// Attempts to connect that failed.
    #[must_use]
    pub fn connect_failures(&self) -> u64 {
        self.peer.connect_failures.load(Ordering::Relaxed)
    }
}

impl RateLimitService for Client {
    fn ask(&self, question: &Question<'_>, _now: Now) -> Answer {
        let Some(link) = here(&self.peer) else {
            return Answer::Ready(Err(Failure::Disconnected));
        };
        let origin = self.peer.origin.clone();
        let request = translate::request(question);
        Answer::Pending(Box::pin(async move { call(link, origin, request).await }))
    }
}

async fn call(link: Link, origin: Uri, request: RateLimitRequest) -> Result<Reply, Failure> {
    let channel = link.channel().await.ok_or(Failure::Disconnected)?;
    let mut client = Grpc::with_origin(channel, origin).max_decoding_message_size(MAX_ANSWER);
    let refused = |status: tonic::Status| {
        Failure::Refused(format!("{:?}: {}", status.code(), status.message()))
    };
    client
        .ready()
        .await
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let codec: ProstCodec<RateLimitRequest, RateLimitResponse> = ProstCodec::default();
    let path = PathAndQuery::from_static(SHOULD_RATE_LIMIT);
    let answer = client
        .unary(tonic::Request::new(request), path, codec)
        .await;
    answer
        .map(|answer| translate::reply(answer.into_inner()))
        .map_err(refused)
}

/// A connection, as the gRPC client takes it.
#[derive(Clone, Debug)]
struct Channel(SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// What a thread has of a service.
#[derive(Clone, Debug)]
enum State {
    /// The first attempt is under way, or one after a connection that worked.
    Connecting,
    Up(Channel),
    /// The last attempt failed.
    Down,
}

/// A thread's connection, which comes and goes.
#[derive(Clone, Debug)]
struct Link(watch::Receiver<State>);

impl Link {
    /// The connection, when there is one; `None`: there is none.
    async fn channel(&self) -> Option<Channel> {
        let mut watched = self.0.clone();
        let settled = |state: &State| !matches!(state, State::Connecting);
        let state = watched.wait_for(settled).await.ok()?;
        match &*state {
            State::Up(channel) => Some(channel.clone()),
            State::Connecting | State::Down => None,
        }
    }

    fn ended(&self) -> bool {
        self.0.has_changed().is_err()
    }
}

/// This thread's link, made if there is none; `None` outside a runtime.
fn here(peer: &Arc<Peer>) -> Option<Link> {
    LINKS.with_borrow_mut(|links| {
        links.retain(|(peer, link)| peer.strong_count() > 0 && !link.ended());
        let same = |(known, _): &&(Weak<Peer>, Link)| Weak::as_ptr(known) == Arc::as_ptr(peer);
        if let Some((_, link)) = links.iter().find(same) {
            return Some(link.clone());
        }
        let runtime = Handle::try_current().ok()?;
        let (sender, state) = watch::channel(State::Connecting);
        // Ends with the runtime, or when the service is not asked any more.
        let _ends_by_itself =
            runtime.spawn(keep(Arc::downgrade(peer), peer.asked.subscribe(), sender));
        let link = Link(state);
        links.push((Arc::downgrade(peer), link.clone()));
        Some(link)
    })
}

/// Keeps a connection up.
async fn keep(peer: Weak<Peer>, mut asked: watch::Receiver<()>, state: watch::Sender<State>) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        let Some(connecting) = peer.upgrade() else {
            return;
        };
        let attempt = timeout(CONNECT, connect(&connecting)).await;
        let attempt = attempt.unwrap_or_else(|_elapsed| Err("no connection in time".into()));
        match attempt {
            Ok((sender, connection)) => {
                let service = connecting.plan.host.to_string();
                connecting.found.notify_waiters();
                let up = Up::new(connecting);
                told = false;
                pause = FIRST_PAUSE;
                state.send_replace(State::Up(Channel(sender)));
                let ended = tokio::select! {
                    ended = connection => ended,
                    _gone = asked.changed() => return,
                    () = state.closed() => return,
                };
                drop(up);
                state.send_replace(State::Connecting);
                tracing::info!(
                    service,
                    ?ended,
                    "the connection to a rate limit service has ended"
                );
            }
            Err(error) => {
                connecting.connect_failures.fetch_add(1, Ordering::Relaxed);
                if !told {
                    let service = connecting.plan.host.to_string();
                    tracing::warn!(service, error, "a rate limit service cannot be reached");
                    told = true;
                }
                let found = Arc::clone(&connecting.found);
                drop(connecting);
                state.send_replace(State::Down);
                tokio::select! {
                    () = sleep(pause) => {}
                    () = found.notified() => {
                        state.send_replace(State::Connecting);
                    }
                    _gone = asked.changed() => return,
                    () = state.closed() => return,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Counts a connection for as long as it is up.
struct Up(Weak<Peer>);

impl Up {
    fn new(peer: Arc<Peer>) -> Self {
        peer.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::downgrade(&peer))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(peer) = self.0.upgrade() {
            peer.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

type Opened = (
    SendRequest<Body>,
    Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
);

async fn connect(peer: &Peer) -> Result<Opened, String> {
    let host = &peer.plan.host;
    let stream = names::connect(&host.host, host.port).await;
    let stream = stream.map_err(|error| error.to_string())?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    match &peer.tls {
        None => handshake(stream).await,
        Some((config, name)) => {
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect(name.clone(), stream).await;
            handshake(stream.map_err(|error| error.to_string())?).await
        }
    }
}

async fn handshake<S>(stream: S) -> Result<Opened, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let opened = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = opened.map_err(|error| error.to_string())?;
    Ok((sender, Box::pin(connection)))
}
