//! From a question to its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::{ArcSwap, ArcSwapOption};
use prost_types::{Duration, Struct};
use rustls::ServerConfig;
use smallvec::SmallVec;
use tonic::Status as Failure;

use super::counters::Counters;
use super::metadata;
use super::proto::{
    self, Code, DescriptorStatus, HeaderValue, RateLimit, RateLimitDescriptor, RateLimitRequest,
    RateLimitResponse,
};
use crate::engine::domain::{
    Asked, Decided, Decision, DomainStore, Domains, Hits, NoDomain, Outcome, Override, Status,
};
use crate::engine::time::Now;
use crate::policy::plan::RlsHeaders;
use crate::traces::Tracer;

const SECOND: u64 = 1_000_000_000;

/// Reads the clock.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

type Pairs<'a> = SmallVec<[(&'a str, &'a str); 4]>;

/// Answers by the domains in force.
#[derive(Clone)]
pub struct Service {
    pub domains: Arc<ArcSwap<Domains>>,
    pub clock: Clock,
    pub counters: Arc<Counters>,
    /// `None`: no TLS is spoken.
    pub tls: Arc<ArcSwapOption<ServerConfig>>,
    /// How answers are told.
    pub telling: Arc<Telling>,
    /// What counts, if it is not this node's memory: every thread joins it.
    pub store: Option<Arc<DomainStore>>,
    /// Traces questions that are part of a trace; `None`: none.
    pub tracer: Option<Arc<Tracer>>,
}

/// What answers tell besides codes and limits.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    /// Headers that Envoy is told to add to responses.
    pub response_headers: Option<RlsHeaders>,
    /// The same for requests.
    pub request_headers: Option<RlsHeaders>,
    /// The dynamic metadata repeat the question.
    pub echo: bool,
}

/// When a question is answered.
pub enum Answering {
    Ready(Answer),
    Pending(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl Answering {
    /// The answer, whenever it comes.
    pub async fn answer(self) -> Answer {
        match self {
            Self::Ready(answer) => answer,
            Self::Pending(answer) => answer.await,
        }
    }
}

/// What a question is answered with.
pub type Answer = Result<RateLimitResponse, Failure>;

impl std::fmt::Debug for Answering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answering").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Decides. Errors: what is no question; and `UNAVAILABLE` where the domain's files were never
    /// valid, or the store that counts does not answer.
    pub fn answer(&self, request: &RateLimitRequest) -> Answering {
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let began = (self.clock)();
        let decided = match self.decide(request, began) {
            Err(failure) => Err(failure),
            Ok(None) => Ok(nothing_is_limited(request.descriptors.len())),
            Ok(Some(Decision::Ready(decided))) => {
                self.compose(&request.domain, self.echo(request), decided)
            }
            Ok(Some(Decision::Pending(decided))) => {
                let (this, domain) = (self.clone(), request.domain.clone());
                let echo = self.echo(request);
                return Answering::Pending(Box::pin(async move {
                    let answer = this.compose(&domain, echo, decided.await);
                    this.told(began, answer)
                }));
            }
        };
        Answering::Ready(self.told(began, decided))
    }

    /// Counts an answer.
    fn told(&self, began: Now, answer: Answer) -> Answer {
        if answer.is_err() {
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        let now = (self.clock)();
        self.counters
            .times
            .took(now.mono.saturating_sub(began.mono));
        answer
    }

    fn echo(&self, request: &RateLimitRequest) -> Struct {
        if self.telling.echo {
            metadata::echo(request)
        } else {
            Struct::default()
        }
    }

    fn compose(&self, domain: &str, echo: Struct, decided: Decided) -> Answer {
        let outcome = decided.map_err(|undecided| {
            let counters = &self.counters;
            counters.store_errors.fetch_add(1, Ordering::Relaxed);
            Failure::unavailable(undecided.to_string())
        })?;
        if outcome.shadowed {
            let counters = &self.counters;
            counters.shadowed.fetch_add(1, Ordering::Relaxed);
        }
        let Telling {
            response_headers,
            request_headers,
            ..
        } = &*self.telling;
        Ok(RateLimitResponse {
            overall_code: code(outcome.over_limit),
            statuses: outcome.statuses.iter().map(status).collect(),
            response_headers_to_add: headers(response_headers.as_ref(), &outcome, true),
            request_headers_to_add: headers(request_headers.as_ref(), &outcome, false),
            dynamic_metadata: metadata::dynamic(domain, echo, &outcome),
            ..RateLimitResponse::default()
        })
    }

    /// `None`: nobody has the domain.
    fn decide(&self, request: &RateLimitRequest, now: Now) -> Result<Option<Decision>, Failure> {
        if request.domain.is_empty() {
            return Err(Failure::invalid_argument("the request names no domain"));
        }
        if request.descriptors.is_empty() {
            return Err(Failure::invalid_argument("the request has no descriptors"));
        }
        let entries: SmallVec<[Pairs<'_>; 4]> = request.descriptors.iter().map(pairs).collect();
        let asked: Result<SmallVec<[Asked<'_>; 4]>, Failure> = request
            .descriptors
            .iter()
            .zip(&entries)
            .map(|(descriptor, entries)| asked(descriptor, entries, request.hits_addend))
            .collect();
        let asked = asked?;
        let domains = self.domains.load();
        let domain = match domains.get(&request.domain) {
            Ok(domain) => domain,
            Err(NoDomain::Broken(why)) => return Err(Failure::unavailable(why)),
            Err(NoDomain::Unknown) => {
                self.counters
                    .domain_not_found
                    .fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
        };
        Ok(Some(domain.decide(&asked, now)))
    }
}

fn pairs(descriptor: &RateLimitDescriptor) -> Pairs<'_> {
    let entries = descriptor.entries.iter();
    entries
        .map(|entry| (entry.key.as_str(), entry.value.as_str()))
        .collect()
}

fn asked<'a>(
    descriptor: &RateLimitDescriptor,
    entries: &'a [(&'a str, &'a str)],
    hits_of_request: u32,
) -> Result<Asked<'a>, Failure> {
    let hits = match descriptor.hits_addend {
        Some(hits) => hits,
        None => u64::from(hits_of_request).max(1),
    };
    let limit = match descriptor.limit {
        None => None,
        Some(limit) => Some(Override {
            requests: limit.requests_per_unit,
            unit: proto::time_unit(limit.unit).ok_or_else(|| {
                Failure::invalid_argument(format!("there is no unit {} for a limit", limit.unit))
            })?,
        }),
    };
    Ok(Asked {
        entries,
        limit,
        hits: if descriptor.is_negative_hits {
            Hits::GiveBack(hits)
        } else {
            Hits::Take(hits)
        },
    })
}

fn code(over_limit: bool) -> i32 {
    let code = if over_limit {
        Code::OverLimit
    } else {
        Code::Ok
    };
    code.into()
}

fn nothing_is_limited(descriptors: usize) -> RateLimitResponse {
    let status = DescriptorStatus {
        code: Code::Ok.into(),
        ..DescriptorStatus::default()
    };
    RateLimitResponse {
        overall_code: Code::Ok.into(),
        statuses: vec![status; descriptors],
        ..RateLimitResponse::default()
    }
}

fn status(status: &Status) -> DescriptorStatus {
    let name = status.limited.as_ref().and_then(|limited| limited.name());
    DescriptorStatus {
        code: code(status.over_limit),
        current_limit: status.limit.map(|limit| RateLimit {
            requests_per_unit: limit.requests,
            unit: proto::unit(limit.unit).into(),
            name: name.unwrap_or_default().to_owned(),
        }),
        limit_remaining: u32::try_from(status.remaining).unwrap_or(u32::MAX),
        duration_until_reset: status.limit.map(|_| Duration {
            // Whole seconds, rounded up, as the reference service has them: Envoy cuts off the rest.
            seconds: i64::try_from(status.reset.div_ceil(SECOND)).unwrap_or(i64::MAX),
            nanos: 0,
        }),
    }
}

/// `RateLimit-*` of draft-polli-ratelimit-headers-03: of the status that decided, with the quotas of
/// all if `quotas`.
fn headers(names: Option<&RlsHeaders>, decision: &Outcome, quotas: bool) -> Vec<HeaderValue> {
    let status = decision.decisive.map(|index| &decision.statuses[index]);
    let (Some(names), Some(status)) = (names, status) else {
        return Vec::new();
    };
    let mut limits = status.limit.map_or(0, |limit| limit.requests).to_string();
    for other in decision.statuses.iter().filter(|_| quotas) {
        let Some(limit) = other.limit else { continue };
        limits.push_str(&format!(", {};w={}", limit.requests, limit.unit.seconds()));
        if let Some(name) = other.limited.as_ref().and_then(|limited| limited.name()) {
            limits.push_str(&format!(";name=\"{name}\""));
        }
    }
    let header = |key: &str, value: String| HeaderValue {
        key: key.to_owned(),
        value,
    };
    vec![
        header(&names.limit, limits),
        header(&names.remaining, status.remaining.to_string()),
        header(&names.reset, status.reset.div_ceil(SECOND).to_string()),
    ]
}
