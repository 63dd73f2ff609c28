//! A connection that speaks HTTP/2, as gRPC does.
//!
//! Calls of the one method are answered as they come ([`super::unary`]), all that came together before
//! any answer is written, so that they share a system call. Everything else is a task.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Status as Failure;
use tonic::body::Body;

use super::body::RequestBody;
use super::http::{PATIENCE, Paths};
use super::proto::{RateLimitRequest, SHOULD_RATE_LIMIT};
use super::service::{Answer, Answering};
use super::trace::Tracing;
use super::unary::{self, Coming};

/// Requests at once on a connection.
const MAX_STREAMS: u32 = 1_024;
/// Calls that are answered together at most.
const BATCH: usize = 64;
/// Bytes of a request's head.
const MAX_HEAD: u32 = 16 << 10;
/// For what HTTP/2 begins with.
const GREETING: Duration = Duration::from_secs(10);
/// How often it is asked whether the client is alive, and how long that may take to say so.
const PING: Duration = Duration::from_secs(30);

type Call = (Request<RecvStream>, SendResponse<Bytes>);

/// Why a connection ended that should not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("{0}")]
    Http2(#[from] h2::Error),
    #[error("the client says nothing any more")]
    Silent,
}

/// Serves until the client leaves, or those in flight are answered once `leaving` is done.
///
/// # Errors
/// When the connection breaks, the client violates the protocol, or is not there any more.
pub(super) async fn serve<S>(
    stream: S,
    paths: Arc<Paths>,
    leaving: impl Future<Output = ()>,
) -> Result<(), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD);
    let greeting = timeout(GREETING, builder.handshake(stream)).await;
    let Ok(greeting) = greeting else {
        return Err(Broken::Silent);
    };
    let mut connection: Connection<S, Bytes> = greeting?;
    let mut alive = pin!(alive(connection.ping_pong()));
    let mut leaving = pin!(leaving);
    let mut left = false;
    let mut tasks = JoinSet::new();
    let mut calls = Vec::new();
    loop {
        let more = tokio::select! {
            more = poll_fn(|context| gather(&mut connection, &mut calls, context)) => more?,
            () = &mut leaving, if !left => {
                left = true;
                connection.graceful_shutdown();
                true
            }
            error = &mut alive => return Err(error),
        };
        for (request, respond) in calls.drain(..) {
            begin(&paths, request, respond, &mut tasks);
        }
        if !more {
            return Ok(());
        }
        while tasks.try_join_next().is_some() {}
    }
}

/// Takes the calls that have come; `false`: there will be no more, and none is in flight.
fn gather<S>(
    connection: &mut Connection<S, Bytes>,
    calls: &mut Vec<Call>,
    context: &mut Context<'_>,
) -> Poll<Result<bool, h2::Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while calls.len() < BATCH {
        match connection.poll_accept(context) {
            Poll::Ready(Some(Ok(call))) => calls.push(call),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => return Poll::Ready(Ok(false)),
            Poll::Pending if calls.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(Ok(true))
}

fn begin(
    paths: &Arc<Paths>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    tasks: &mut JoinSet<()>,
) {
    let paths = Arc::clone(paths);
    if request.uri().path() != SHOULD_RATE_LIMIT {
        tasks.spawn(async move {
            let head = request.method() == Method::HEAD;
            let response = paths.answer(request.map(RequestBody::Http2)).await;
            if let Err(error) = pipe(response, head, respond).await {
                tracing::debug!(%error, "rate limit service: an answer is not sent");
            }
        });
        return;
    }
    if !unary::is_grpc(request.headers(), &mut respond) {
        return;
    }
    let tracing = paths.service.tracing(request.headers());
    let mut coming = Coming::new(request.into_body());
    match coming.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(Err(failure))) => {
            let failure = Err(failure);
            told(tracing.as_deref(), None, &failure);
            unary::send(&mut respond, failure);
        }
        Poll::Ready(Ok(Ok(question))) => match paths.service.answer(&question) {
            Answering::Ready(answer) => {
                told(tracing.as_deref(), Some(&question), &answer);
                unary::send(&mut respond, answer);
            }
            Answering::Pending(answer) => {
                let question = tracing.is_some().then_some(question);
                tasks.spawn(async move {
                    let answer = answer.await;
                    told(tracing.as_deref(), question.as_ref(), &answer);
                    unary::send(&mut respond, answer);
                });
            }
        },
        Poll::Ready(Err(_gone)) => {}
        Poll::Pending => {
            tasks.spawn(async move {
                let question = timeout(PATIENCE, poll_fn(|context| coming.poll(context))).await;
                let (question, answer) = match question {
                    Ok(Ok(Ok(question))) => {
                        let answer = paths.service.answer(&question).answer().await;
                        (Some(question), answer)
                    }
                    Ok(Ok(Err(failure))) => (None, Err(failure)),
                    Ok(Err(_gone)) => return,
                    Err(_late) => {
                        let late = Failure::deadline_exceeded("the request did not come");
                        (None, Err(late))
                    }
                };
                told(tracing.as_deref(), question.as_ref(), &answer);
                unary::send(&mut respond, answer);
            });
        }
    }
}

/// Ends the span of a call, if it has one.
fn told(tracing: Option<&Tracing>, question: Option<&RateLimitRequest>, answer: &Answer) {
    if let Some(tracing) = tracing {
        tracing.answered(question, answer);
    }
}

/// Sends a response as its body comes, and as the client takes it.
async fn pipe(
    response: Response<Body>,
    head: bool,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (parts, mut body) = response.into_parts();
    let empty = head || body.is_end_stream();
    let mut stream = respond.send_response(Response::from_parts(parts, ()), empty)?;
    if empty {
        return Ok(());
    }
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _reset = poll_fn(|context| stream.poll_reset(context)) => return Ok(()),
        };
        match frame {
            None => return stream.send_data(Bytes::new(), true),
            Some(Err(error)) => {
                tracing::debug!(%error, "rate limit service: an answer breaks off");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => send_data(&mut stream, data).await?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return stream.send_trailers(trailers);
                    }
                }
            },
        }
    }
}

async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => poll_fn(|context| stream.poll_capacity(context)).await,
            room => Some(Ok(room)),
        };
        let room = room.unwrap_or_else(|| Err(Reason::CANCEL.into()))?;
        stream.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

/// Returns when the client is asked whether it is alive and does not say so.
async fn alive(pings: Option<PingPong>) -> Broken {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    let mut beat = interval(PING);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.tick().await;
    loop {
        beat.tick().await;
        match timeout(PING, pings.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => {}
            Ok(Err(error)) => return error.into(),
            Err(_late) => return Broken::Silent,
        }
    }
}
