//! Whether a request is sent again, and the pause before.

use http::Request;
use tokio::time::sleep;

use super::attempt::{Template, Times, Tried};
use super::body::{RequestBody, Upload};
use super::forward::Forward;
use super::request_id::Random;
use crate::engine::retry::{Next, Retries};
use crate::engine::time::Now;
use crate::engine::upstream::{Permit, Resource, Stat};

/// What is needed to decide about another attempt.
pub(super) struct Retrying<'a> {
    pub(super) forward: &'a Forward,
    pub(super) upload: Option<&'a Upload>,
    pub(super) template: &'a Template,
    pub(super) times: &'a Times<'a>,
    pub(super) random: &'a Random,
}

/// A request that is being retried, and its share of what retries may take up.
#[derive(Debug)]
pub(super) struct Ongoing {
    retries: Retries,
    permit: Option<Permit>,
}

impl Retrying<'_> {
    /// Waits for the pause before the next attempt, and gives the request for it.
    ///
    /// # Errors
    /// What was tried, if that is what the client is to see.
    pub(super) async fn wait(
        &self,
        tried: Tried,
        ongoing: &mut Option<Ongoing>,
        now: Now,
    ) -> Result<Request<RequestBody>, Tried> {
        let cluster = &self.forward.cluster;
        let stats = &cluster.breaker.stats;
        let Some(policy) = &self.forward.rule.traffic.retry else {
            return Err(tried);
        };
        let mut retries = match ongoing.as_mut() {
            Some(ongoing) => {
                // The attempt that it was for is over.
                ongoing.permit = None;
                ongoing.retries
            }
            None => Retries::of(self.template.method()),
        };
        let next = match tried.attempt(now.unix / 1_000_000_000) {
            Some(attempt) => retries.next(policy, attempt, self.random.next()),
            None => Next::Done,
        };
        let (pause, asked) = match next {
            Next::Done => return Err(tried),
            Next::Exhausted => {
                stats.count(Stat::RqRetryLimitExceeded);
                return Err(tried);
            }
            Next::Again { pause, asked } => (pause, asked),
        };
        // The client is to blame, or there is no time for another attempt.
        let faulty = self.upload.is_some_and(|upload| upload.fault().is_some());
        if faulty || self.times.left(now.mono).is_some_and(|left| left <= pause) {
            return Err(tried);
        }
        if !self.template.is_whole() {
            stats.count(Stat::RetryOrShadowAbandoned);
            return Err(tried);
        }
        let settings = &cluster.settings.circuit_breaker;
        let Ok(permit) = cluster.breaker.take(Resource::Retries, settings) else {
            return Err(tried);
        };
        *ongoing = Some(Ongoing {
            retries,
            permit: Some(permit),
        });
        stats.count(Stat::RqRetry);
        stats.count(if asked {
            Stat::RqRetryBackoffRatelimited
        } else {
            Stat::RqRetryBackoffExponential
        });
        let Some(request) = self.template.again() else {
            return Err(tried);
        };
        // While it waits it is not under way.
        tried.let_go();
        sleep(pause).await;
        Ok(request)
    }
}
