//! The admin listener: health and metrics, on the control thread, so that a saturated data plane
//! does not silence it.

mod access;
mod ask;
mod asks;
mod audit;
pub mod blocks;
pub mod config;
pub mod counters;
mod domain;
mod drain;
mod escalation;
mod explain;
mod findings;
mod fleet;
mod guard;
mod held;
pub mod l4;
mod limits;
pub mod listeners;
mod logging;
pub mod metrics;
pub mod node;
pub mod offenders;
mod page;
mod plan;
mod runtime;
mod service;
pub mod socket;
pub mod status;
mod store;
mod tcp;
mod upstreams;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub use access::Guard;
pub use ask::{Question, QuestionError};
pub use audit::{Audit, AuditView, EntryView, Outcome};
pub use blocks::Blocking;
pub use config::{Loads, Trigger};
pub use counters::Counted;
pub use domain::{DomainQuestion, DomainQuestionError};
pub use findings::FindingView;
pub use held::Holdings;
pub use l4::L4;
pub use logging::LoggingView;
pub use metrics::{Format, Metrics};
pub use status::Status;

use guard::Connection;
use socket::{Accepted, Listener};

use crate::engine::domain::Domains;
use crate::engine::state::State;
use crate::global::RedisLedger;
use crate::l7::clock::Clock;
use crate::log::Log;

/// Connections served at once; further ones wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a question for `POST /explain`.
const MAX_QUESTION: usize = 256 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin listener can tell.
#[derive(Debug)]
pub struct Admin {
    pub status: Arc<Status>,
    pub loads: Arc<Loads>,
    pub state: Arc<State>,
    /// In force.
    pub domains: Arc<ArcSwap<Domains>>,
    pub clock: Clock,
    pub metrics: Metrics,
    /// `None`: no interface is configured.
    pub l4: Option<L4>,
    /// `None`: there is neither a kernel half nor a store.
    pub blocking: Option<Blocking>,
    pub store: Option<Arc<RedisLedger>>,
    /// What counts there; `None`: there is no store.
    pub counted: Option<Counted>,
    /// This node's.
    pub name: String,
    /// Who may ask.
    pub guard: Arc<Guard>,
    pub audit: Arc<Audit>,
    pub log: Log,
    /// Tells the control thread to go out of service.
    pub drain: Arc<Notify>,
}

/// Serves until `stop` says `true`; then it lets go of the socket, for which another process may be
/// there, and finishes what it was asked.
pub(crate) async fn serve(listener: Listener, admin: Arc<Admin>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                connections.spawn(converse(accepted, Arc::clone(&admin), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "admin: accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender is gone if the daemon is.
    drop(stop.wait_for(|stop| *stop).await);
}

async fn converse(accepted: Accepted, admin: Arc<Admin>, mut stop: watch::Receiver<bool>) {
    let Some((stream, connection)) = admin.guard.greet(accepted).await else {
        return;
    };
    let connection: Arc<Connection> = Arc::new(connection);
    let service = service_fn(|request| {
        let (admin, connection) = (Arc::clone(&admin), Arc::clone(&connection));
        async move { Ok::<_, Infallible>(admin.guarded(&connection, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = &mut served => result,
        () = stopped(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "admin: connection ended");
    }
}

impl Admin {
    /// `reads`: whoever asks may look at everything.
    async fn answer(&self, request: Request<Incoming>, reads: bool) -> Response<Full<Bytes>> {
        if request.uri().path().starts_with("/l4/") {
            let none = "the kernel half is not in use: no interface is configured\n";
            return match &self.l4 {
                Some(l4) => l4.answer(&request),
                None => text(StatusCode::NOT_FOUND, none.to_owned()),
            };
        }
        if matches!(request.uri().path(), "/counters" | "/counters/one") {
            return self.counters(request).await;
        }
        if request.uri().path() == "/blocks" {
            let none =
                "nothing can be blocked: no interface is configured, and no store is shared\n";
            return match &self.blocking {
                Some(blocking) => blocking.answer(request).await,
                None => text(StatusCode::NOT_FOUND, none.to_owned()),
            };
        }
        if request.uri().path() == "/explain" {
            return self
                .explain(request)
                .await
                .unwrap_or_else(|(status, why)| text(status, format!("{why}\n")));
        }
        if request.uri().path() == "/explain/domain" {
            return self
                .explain_domain(request)
                .await
                .unwrap_or_else(|(status, why)| text(status, format!("{why}\n")));
        }
        if request.uri().path() == "/runtime_modify" {
            if request.method() != Method::POST {
                return text(StatusCode::METHOD_NOT_ALLOWED, "POST only\n".to_owned());
            }
            return match runtime::modify(self.state.runtime(), request.uri().query()) {
                Ok(()) => text(StatusCode::OK, "OK\n".to_owned()),
                Err((status, why)) => text(status, format!("{why}\n")),
            };
        }
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/drain_listeners") => return self.drain_listeners(),
            (&Method::POST, "/logging") => {
                return match logging::change(&self.log, request.uri().query()) {
                    Ok(()) => answered(l4::json(&logging::view(&self.log))),
                    Err((status, why)) => text(status, format!("{why}\n")),
                };
            }
            _ => {}
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
        }
        match request.uri().path() {
            "/" | "/dashboard" => page::answer(),
            "/live" => text(StatusCode::OK, "live\n".to_owned()),
            "/ready" => {
                let (ready, report) = self.status.report();
                let status = if ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                text(status, if reads { report } else { first_line(&report) })
            }
            "/metrics" => {
                let accept = request.headers().get(ACCEPT);
                let format = Format::wanted(accept.and_then(|accept| accept.to_str().ok()));
                let kind = HeaderValue::from_static(format.content_type());
                let mut response = text(StatusCode::OK, self.metrics.encode(format));
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/config" => match self.loads.json() {
                Ok(document) => json(document),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/runtime" => match runtime::json(self.state.runtime()) {
                Ok(document) => json(document),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/status" => match self.loads.statuses() {
                Ok(document) => json(document),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/node" => answered(self.node()),
            "/fleet" => self.fleet(),
            "/audit" => answered(l4::json(&self.audit.view())),
            "/logging" => answered(l4::json(&logging::view(&self.log))),
            "/drain_listeners" => text(StatusCode::METHOD_NOT_ALLOWED, "POST only\n".to_owned()),
            "/offenders" => self.offenders(),
            _ => text(
                StatusCode::NOT_FOUND,
                "try / with a browser, or /live, /ready, /metrics, /config, /status, /node, /fleet, /offenders, /blocks, /counters, /runtime, POST /runtime_modify, \
                 /logging, POST /drain_listeners, /audit, POST /explain or /l4/...\n"
                    .to_owned(),
            ),
        }
    }

    /// What becomes of a request, by the policy in force and its buckets.
    async fn explain(&self, request: Request<Incoming>) -> l4::Answer {
        if request.method() != Method::POST {
            let why =
                "POST a request as JSON: {\"method\": \"GET\", \"url\": \"http://host/path\"}";
            return Err((StatusCode::METHOD_NOT_ALLOWED, why.to_owned()));
        }
        let question: Question = l4::body(request, MAX_QUESTION).await?;
        let now = self.clock.both();
        let explained = self
            .loads
            .with_plan(|plan| question.ask(plan, self.state.as_ref(), now));
        let explained = explained.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        let document = serde_json::to_string_pretty(&explained)
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        Ok(json(document))
    }

    /// What becomes of descriptors, by the domains in force and their counts.
    async fn explain_domain(&self, request: Request<Incoming>) -> l4::Answer {
        if request.method() != Method::POST {
            let why = "POST descriptors as JSON: {\"domain\": \"d\", \"descriptors\": [\"k=v\"]}";
            return Err((StatusCode::METHOD_NOT_ALLOWED, why.to_owned()));
        }
        let question: DomainQuestion = l4::body(request, MAX_QUESTION).await?;
        let domains = self.domains.load_full();
        let said = question.ask(&domains, true, self.clock.both()).await;
        let said = said.map_err(|error| {
            let status = match error {
                DomainQuestionError::Undecided(_) => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, error.to_string())
        })?;
        let document = serde_json::to_string_pretty(&said)
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        Ok(json(document))
    }
}

fn answered(answer: l4::Answer) -> Response<Full<Bytes>> {
    answer.unwrap_or_else(|(status, why)| text(status, format!("{why}\n")))
}

/// What is not said of why, to who is not known.
fn first_line(report: &str) -> String {
    report
        .lines()
        .take(1)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn json(mut document: String) -> Response<Full<Bytes>> {
    document.push('\n');
    let mut response = text(StatusCode::OK, document);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
