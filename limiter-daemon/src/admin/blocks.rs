//! Blocks over the admin listener: who is blocked on this node and in the fleet, by whom and why;
//! passing and lifting them. JSON; `limiterd block`, `unblock` and `blocked` speak it.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::audit::Deed;
use super::l4::{Answer, Refused, bad, body, internal, json, parse_cidr};
use super::text;
use crate::engine::fleet::{Block, BlockError, Blocks, Cause, Scope};
use crate::global::fleet::{Clock, Fleet};

/// Bytes of a request's body at most.
const MAX_BODY: usize = 4096;
/// Longest block: a year.
const MAX_SECONDS: u64 = 365 * 86_400;
/// Characters of a reason.
const MAX_REASON: usize = 200;
const SECOND: u64 = 1_000_000_000;
/// The rule of what is blocked by hand.
const MANUAL: &str = "manual";

/// What blocks, as the admin listener sees it.
#[derive(Clone)]
pub struct Blocking {
    pub blocks: Arc<Blocks>,
    /// `None`: no store is shared.
    pub fleet: Option<Arc<Fleet>>,
    pub clock: Clock,
    /// This node's.
    pub name: String,
    /// Whether there is a kernel half to enforce it.
    pub enforced: bool,
}

impl std::fmt::Debug for Blocking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocking")
            .field("blocks", &self.blocks)
            .field("fleet", &self.fleet)
            .finish_non_exhaustive()
    }
}

/// A network to block, or to unblock.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    pub cidr: String,
    /// How long; not for unblocking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// By default the fleet's where there is a store; for unblocking, both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of it: who blocks that network now.
#[derive(Debug, Deserialize, Serialize)]
pub struct BlockAnswer {
    /// What is still to come, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub blocks: Vec<BlockView>,
}

/// A network that is blocked.
#[derive(Debug, Deserialize, Serialize)]
pub struct BlockView {
    pub cidr: String,
    pub scope: Scope,
    /// Whether the other nodes know; of the fleet's only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<bool>,
    /// RFC 3339, UTC, by the store's clock, or this node's of what does not come from there; `None`:
    /// from before this process, and not known.
    pub since: Option<String>,
    pub until: String,
    pub seconds_left: u64,
    /// The node that passed it; empty: not known.
    pub by: String,
    pub why: String,
    pub rule: String,
}

impl From<Block> for BlockView {
    fn from(block: Block) -> Self {
        Self {
            cidr: block.net.to_string(),
            scope: block.scope,
            told: (block.scope == Scope::Fleet).then_some(!block.unsent),
            since: block.since.map(time),
            until: time(block.until),
            seconds_left: block.left.div_ceil(SECOND),
            by: block.cause.by,
            why: block.cause.why,
            rule: block.cause.rule,
        }
    }
}

impl Blocking {
    /// Answers a request for `/blocks`.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = match *request.method() {
            Method::GET => json(&views(self.blocks.list((self.clock)()))),
            Method::POST => self.pass(body(request, MAX_BODY).await).await,
            Method::DELETE => self.lift(body(request, MAX_BODY).await).await,
            _ => Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "GET, POST or DELETE /blocks".to_owned(),
            )),
        };
        answer.unwrap_or_else(|(status, why)| text(status, format!("{why}\n")))
    }

    async fn pass(&self, request: Result<BlockRequest, Refused>) -> Answer {
        let BlockRequest {
            cidr,
            seconds,
            scope,
            reason,
        } = request?;
        let net = parse_cidr(&cidr).map_err(bad)?;
        let seconds = seconds
            .filter(|seconds| (1..=MAX_SECONDS).contains(seconds))
            .ok_or_else(|| bad(format!("seconds: from 1 to {MAX_SECONDS}")))?;
        let cause = self.cause(reason)?;
        let default = if self.blocks.shared() {
            Scope::Fleet
        } else {
            Scope::Node
        };
        let scope = scope.unwrap_or(default);
        if scope == Scope::Node && !self.enforced {
            return Err(bad(
                "this node has no kernel half (no interface is configured): it can block for the \
                 fleet, not for itself"
                    .to_owned(),
            ));
        }
        let now = (self.clock)();
        let on = on(Some(scope));
        let deed = format!("block {net} for {seconds} s {on}{}", because(&cause));
        self.blocks
            .pass(net, seconds * SECOND, scope, cause, now)
            .map_err(refused)?;
        self.tell(scope == Scope::Fleet, net, deed).await
    }

    async fn lift(&self, request: Result<BlockRequest, Refused>) -> Answer {
        let BlockRequest {
            cidr,
            scope,
            reason,
            ..
        } = request?;
        let net = parse_cidr(&cidr).map_err(bad)?;
        let by = self.cause(reason)?;
        let now = (self.clock)();
        let deed = format!("unblock {net} {}{}", on(scope), because(&by));
        self.blocks.lift(net, scope, &by, now).map_err(refused)?;
        let fleet = self.blocks.shared() && scope != Some(Scope::Node);
        self.tell(fleet, net, deed).await
    }

    fn cause(&self, reason: Option<String>) -> Result<Cause, Refused> {
        let why = reason.unwrap_or_default();
        if why.chars().count() > MAX_REASON || why.chars().any(char::is_control) {
            let most = format!("reason: at most {MAX_REASON} characters, on one line");
            return Err(bad(most));
        }
        Ok(Cause {
            by: self.name.clone(),
            why,
            rule: MANUAL.to_owned(),
        })
    }

    /// What there is to say now that this node has changed its mind about `net`; `deed`: for the
    /// audit log.
    async fn tell(&self, fleet: bool, net: IpNet, deed: String) -> Answer {
        let mut note = None;
        if fleet
            && let Some(fleet) = &self.fleet
            && let Err(away) = fleet.push().await
        {
            tracing::warn!(%net, "only this node knows: {away}");
            note = Some(format!("done on this node; {away}"));
        }
        let mut response = json(&BlockAnswer {
            note,
            blocks: views(self.blocks.of(net, (self.clock)())),
        })?;
        response.extensions_mut().insert(Deed(deed));
        Ok(response)
    }
}

const fn on(scope: Option<Scope>) -> &'static str {
    match scope {
        Some(Scope::Node) => "on this node",
        Some(Scope::Fleet) => "in the fleet",
        None => "everywhere",
    }
}

fn because(cause: &Cause) -> String {
    let why = &cause.why;
    if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    }
}

fn views(blocks: Vec<Block>) -> Vec<BlockView> {
    blocks.into_iter().map(BlockView::from).collect()
}

fn refused(error: BlockError) -> Refused {
    match error {
        BlockError::NotBlocked(_) => (StatusCode::NOT_FOUND, error.to_string()),
        BlockError::OfTheFleet(_) => (StatusCode::CONFLICT, error.to_string()),
        BlockError::NoStore => bad(error.to_string()),
        BlockError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, error.to_string()),
        BlockError::Gate(_) => internal(error),
    }
}

/// RFC 3339, of milliseconds since 1970.
pub(super) fn time(ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(ms.min(MAX_TIME)));
    at.map_or_else(String::new, |at| {
        humantime::format_rfc3339_seconds(at).to_string()
    })
}

/// The end of the year 9999, after which there are no such times.
const MAX_TIME: u64 = 253_402_300_799_000;
