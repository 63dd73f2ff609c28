//! limiterd asks itself: the domains of its own files, in its own process.

use std::sync::Arc;

use arc_swap::ArcSwap;
use smallvec::SmallVec;

use super::{Answer, Failure, Question, RateLimitService, Reply, ReplyLimit, ReplyStatus};
use crate::engine::domain::{Asked, Decided, Decision, Domains, Hits, NoDomain, Override, Status};
use crate::engine::time::Now;
use crate::policy::plan::HitsAddend;

const SECOND: u64 = 1_000_000_000;

type Pairs<'a> = SmallVec<[(&'a str, &'a str); 4]>;

/// Answers by the domains in force.
#[derive(Clone, Debug)]
pub struct OwnService {
    pub domains: Arc<ArcSwap<Domains>>,
}

impl RateLimitService for OwnService {
    fn ask(&self, question: &Question<'_>, now: Now) -> Answer {
        let domains = self.domains.load();
        let domain = match domains.get(&question.domain) {
            Ok(domain) => domain,
            Err(NoDomain::Broken(why)) => return Answer::Ready(Err(Failure::Refused(why))),
            // As the reference service has it.
            Err(NoDomain::Unknown) => {
                let nothing = question.descriptors.iter().map(|_| ReplyStatus::default());
                return Answer::Ready(Ok(Reply {
                    statuses: nothing.collect(),
                    ..Reply::default()
                }));
            }
        };
        let entries: SmallVec<[Pairs<'_>; 2]> = question
            .descriptors
            .iter()
            .map(|one| {
                one.entries
                    .iter()
                    .map(|(key, value)| (&**key, &**value))
                    .collect()
            })
            .collect();
        let asked: SmallVec<[Asked<'_>; 2]> = question
            .descriptors
            .iter()
            .zip(&entries)
            .map(|(descriptor, entries)| Asked {
                entries,
                limit: descriptor.limit.map(|limit| Override {
                    requests: limit.requests,
                    unit: limit.unit,
                }),
                hits: hits(descriptor.hits),
            })
            .collect();
        match domain.decide(&asked, now) {
            Decision::Ready(decided) => Answer::Ready(reply(decided)),
            Decision::Pending(decided) => {
                Answer::Pending(Box::pin(async move { reply(decided.await) }))
            }
        }
    }
}

fn hits(said: Option<HitsAddend>) -> Hits {
    match said {
        None => Hits::Take(1),
        Some(hits) if hits.negative => Hits::GiveBack(hits.number),
        Some(hits) => Hits::Take(hits.number),
    }
}

fn reply(decided: Decided) -> Result<Reply, Failure> {
    let outcome = decided.map_err(|undecided| Failure::Refused(undecided.to_string()))?;
    Ok(Reply {
        over_limit: outcome.over_limit,
        statuses: outcome.statuses.iter().map(status).collect(),
        ..Reply::default()
    })
}

fn status(status: &Status) -> ReplyStatus {
    let name = status.limited.as_ref().and_then(|limited| limited.name());
    ReplyStatus {
        over_limit: status.over_limit,
        limit: status.limit.map(|limit| ReplyLimit {
            requests: limit.requests,
            unit: Some(limit.unit),
            name: name.unwrap_or_default().to_owned(),
        }),
        remaining: status.remaining,
        reset: status.reset.div_ceil(SECOND),
    }
}
