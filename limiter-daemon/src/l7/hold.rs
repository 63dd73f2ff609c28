//! What a request waits for before anything of it goes on: faults made on purpose, and its body where
//! that is to be whole.
//!
//! Nothing of the upstream is in use meanwhile: a request that waits takes no place of a circuit
//! breaker.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request};
use http_body::Body as _;
use hyper::body::Incoming;

use super::body::{self, Upload};
use super::connection::Conn;
use super::forward::Forward;
use super::record::Ending;
use super::respond::Refusal;

/// Returns when `request` may be sent. If its body is to be whole, `forward` has it then.
///
/// # Errors
/// [`Refusal::Aborted`]; what is wrong with the body.
pub(super) async fn hold(
    conn: &Conn,
    forward: &mut Forward,
    request: &mut Request<Incoming>,
    ending: &mut Ending,
) -> Result<(), Refusal> {
    let traffic = &forward.rule.traffic;
    if traffic.fault.is_none() && traffic.request_buffer.is_none() {
        return Ok(());
    }
    // Rare: other requests do not carry the size of it.
    Box::pin(wait(conn, forward, request, ending)).await
}

async fn wait(
    conn: &Conn,
    forward: &mut Forward,
    request: &mut Request<Incoming>,
    ending: &mut Ending,
) -> Result<(), Refusal> {
    let traffic = Arc::clone(&forward.rule.traffic);
    let pipeline = &conn.pipeline;
    if let Some(fault) = &traffic.fault {
        let injected = pipeline
            .faults
            .inject(fault, &pipeline.random, &pipeline.counters);
        if let Err(abort) = injected.await {
            let refusal = Refusal::Aborted(abort);
            let (status, now) = (refusal.status(), pipeline.clock.both());
            ending.settlement.answered(status, &HeaderMap::new(), now);
            return Err(refusal);
        }
    }
    if let Some(limit) = traffic.request_buffer {
        let buffered = buffer(limit, forward, request, ending).await?;
        forward.buffered = buffered.map(Box::new);
    }
    Ok(())
}

/// `None`: the request has no body.
async fn buffer(
    limit: u64,
    forward: &Forward,
    request: &mut Request<Incoming>,
    ending: &mut Ending,
) -> Result<Option<body::Buffered>, Refusal> {
    let incoming = request.body_mut();
    if incoming.is_end_stream() {
        return Ok(None);
    }
    let mut bounds = forward.bounds();
    bounds.size = Some(bounds.size.map_or(limit, |size| size.min(limit)));
    let upload = Arc::new(Upload::default());
    ending.uploads(Some(Arc::clone(&upload)));
    let buffered = body::buffer(incoming, bounds, upload).await?;
    if let Some(length) = buffered.length() {
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    Ok(Some(buffered))
}
