//! Asking rate limit services about a request (Envoy's HTTP rate limit filter), after the limits of
//! its route have admitted it: what those took can be given back if a service says no; what a service
//! was asked to count cannot.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{HeaderName, Request, StatusCode};
use hyper::body::Incoming;
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::asked_headers::Told;
use super::client_address::Client;
use super::clock::Clock;
use super::connection::Conn;
use super::forward::Forward;
use super::headers;
use super::pipeline::view;
use super::record::Ending;
use super::respond::Refusal;
use crate::engine::ask::{Answer, AskStat, Asking, Failure, Question, RateLimitService, Reply};
use crate::engine::descriptors::Seen;
use crate::engine::settle::Settlement;
use crate::engine::time::Now;

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// A request that a service says is over a limit.
#[derive(Debug)]
pub(super) struct OverLimit {
    pub(super) status: StatusCode,
    /// Empty: the answer has none.
    pub(super) body: Bytes,
    /// gRPC calls get RESOURCE_EXHAUSTED.
    pub(super) resource_exhausted: bool,
}

/// What is asked when a response is over, and nobody waits for.
#[derive(Debug)]
pub(super) struct Later {
    service: Arc<dyn RateLimitService>,
    question: Question<'static>,
    timeout: Duration,
}

impl Later {
    pub(super) fn ask(self, now: Now) {
        let Answer::Pending(answer) = self.service.ask(&self.question, now) else {
            return;
        };
        if let Ok(runtime) = Handle::try_current() {
            // Bounded by its timeout, and by the requests that end within it.
            let _ends_by_itself = runtime.spawn(timeout(self.timeout, answer));
        }
    }
}

/// What the limits of a route have taken, until the services have answered. It comes back if one
/// denies, and if nobody waits any more.
struct Held {
    settlement: Settlement,
    clock: Clock,
}

impl Held {
    fn confirm(mut self) -> Settlement {
        let mut settlement = std::mem::take(&mut self.settlement);
        settlement.confirm();
        settlement
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.settlement.is_empty() {
            let settlement = std::mem::take(&mut self.settlement);
            settlement.withdraw(self.clock.both());
        }
    }
}

/// Asks every service that is to be asked about `request`, one after the other, and keeps what is to be
/// added to it and to its answer.
///
/// # Errors
/// If one denies it, or does not answer where that denies it.
pub(super) async fn ask(
    conn: &Conn,
    forward: &mut Forward,
    request: &mut Request<Incoming>,
    client: Client,
    told: &mut Told,
    ending: &mut Ending,
) -> Result<(), Refusal> {
    let held = Held {
        settlement: std::mem::take(&mut ending.settlement),
        clock: conn.pipeline.clock,
    };
    let rule = Arc::clone(&forward.rule);
    for asking in &rule.asks {
        let Some((answer, options)) = begin(asking, conn, forward, request, client, ending) else {
            continue;
        };
        let reply = match answer {
            Answer::Ready(reply) => reply,
            Answer::Pending(reply) => {
                let reply = timeout(asking.filter.timeout, reply).await;
                reply.unwrap_or(Err(Failure::Late))
            }
        };
        let random = conn.pipeline.random.next();
        take(asking, forward, reply, &options, told, random)?;
    }
    ending.settlement = held.confirm();
    Ok(())
}

/// Whether clients are told of each descriptor.
type Options = SmallVec<[Option<bool>; 2]>;

/// Asks one service; `None`: there is nothing to ask.
fn begin(
    asking: &Asking,
    conn: &Conn,
    forward: &Forward,
    request: &Request<Incoming>,
    client: Client,
    ending: &mut Ending,
) -> Option<(Answer, Options)> {
    let seen = Seen {
        request: view(request, client),
        tls: conn.sni.is_some(),
        source: &asking.source,
        destination: &forward.cluster.breaker.backend,
    };
    let internal = is_internal(request.headers(), client, conn.peer.ip());
    let mut random = || conn.pipeline.random.next();
    let questions = asking.questions(&seen, internal, &mut random);
    if let Some(question) = questions.last {
        ending.later.push(Later {
            service: Arc::clone(&asking.service),
            question: question.into_owned(),
            timeout: asking.filter.timeout,
        });
    }
    let question = questions.first?;
    let options = question.descriptors.iter().map(|one| one.headers).collect();
    let answer = asking.service.ask(&question, conn.pipeline.clock.both());
    Some((answer, options))
}

/// What an answer means to the request.
fn take(
    asking: &Asking,
    forward: &mut Forward,
    reply: Result<Reply, Failure>,
    options: &[Option<bool>],
    told: &mut Told,
    random: u64,
) -> Result<(), Refusal> {
    let filter = &asking.filter;
    let counts = forward.cluster.breaker.asks.of(&filter.stat_prefix);
    let mut reply = match reply {
        Ok(reply) => reply,
        Err(failure) => {
            counts.count(AskStat::Error);
            tracing::debug!(filter = filter.name, %failure, "a rate limit service does not answer");
            return match filter.error_status {
                Some(status) => Err(Refusal::AskFailed(status)),
                None => {
                    counts.count(AskStat::FailureModeAllowed);
                    Ok(())
                }
            };
        }
    };
    told.add(filter, &mut reply, options);
    if !reply.over_limit {
        counts.count(AskStat::Ok);
    } else {
        counts.count(AskStat::OverLimit);
        if asking.enforces(random) {
            told.denied(filter);
            return Err(Refusal::OverLimit(Box::new(OverLimit {
                status: filter.limited_status,
                body: reply.body,
                resource_exhausted: filter.resource_exhausted,
            })));
        }
    }
    for (name, value) in reply.request_headers {
        if headers::may_be_added(&name) {
            let added = forward.added.get_or_insert_with(Box::default);
            added.append(name, value);
        }
    }
    Ok(())
}

/// Whether a request is internal: it says so, and comes from where one may. An outsider's word would
/// let it choose its limits, which is why Envoy takes the header away from them.
fn is_internal(headers: &HeaderMap, client: Client, peer: IpAddr) -> bool {
    let says = headers.get(INTERNAL).is_some_and(|value| value == "true");
    says && (client.by_trusted || is_private(peer.to_canonical()))
}

/// The ranges that Envoy takes for internal unless told otherwise: RFC 1918, RFC 4193 and loopback.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn outsiders_are_never_internal() {
        for (said, trusted, peer, wanted) in [
            ("true", false, "10.1.2.3", true),
            ("true", false, "127.0.0.1", true),
            ("true", false, "::ffff:192.168.0.1", true),
            ("true", false, "fd00::1", true),
            ("true", false, "192.0.2.1", false),
            ("true", false, "2001:db8::1", false),
            ("true", true, "192.0.2.1", true),
            ("false", true, "10.1.2.3", false),
            ("1", true, "10.1.2.3", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(INTERNAL, HeaderValue::from_static(said));
            let peer: IpAddr = peer.parse().unwrap();
            let client = Client {
                address: peer,
                by_trusted: trusted,
            };
            assert_eq!(is_internal(&headers, client, peer), wanted, "{said} {peer}");
            assert!(!is_internal(&HeaderMap::new(), client, peer));
        }
    }
}
