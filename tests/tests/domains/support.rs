//! Daemons that serve the rate limit service.

use anyhow::Result;
use limiter_daemon::rls::proto::{Code, RateLimitRequest, RateLimitResponse};
use tests::daemon::{Daemon, Policies};
use tests::netns::Netns;
use tests::redis::Redis;
use tests::rls::ask;

/// What a question waits for the store at most; only where it is gone that is seen.
const TIMEOUT: &str = "3s";
pub(crate) const ADDRESS: &str = "127.0.0.1:8081";

/// A daemon in a namespace of its own.
pub(crate) struct Server {
    pub(crate) netns: Netns,
    pub(crate) policies: Policies,
    pub(crate) daemon: Daemon,
}

/// `spec` of a LimiterConfig: the service with these settings, and the store.
pub(crate) fn config(rls: &str, url: Option<&str>) -> String {
    let store = url.map(|url| {
        format!("rateLimit: {{ backend: {{ type: Redis, redis: {{ url: '{url}' }} }}, timeout: {TIMEOUT} }}")
    });
    let store = store.unwrap_or_default();
    format!(
        "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {{ name: limiterd }}\n\
         spec:\n  rls: {{ listen: '{ADDRESS}', {rls} }}\n  {store}\n"
    )
}

impl Server {
    pub(crate) fn start(rls: &str, redis: Option<&Redis>, limits: &str) -> Result<Self> {
        let url = redis.map(Redis::url);
        let config = config(rls, url.as_deref());
        Self::inside(Netns::new("domains")?, &config, limits)
    }

    /// The same in a namespace that has a way to the store.
    pub(crate) fn inside(netns: Netns, config: &str, limits: &str) -> Result<Self> {
        let policies = Policies::new(&[("0.yaml", config), ("limits.yaml", limits)])?;
        let daemon = Daemon::start(&netns, policies.path())?;
        Ok(Self {
            netns,
            policies,
            daemon,
        })
    }

    pub(crate) fn ask(
        &self,
        questions: Vec<RateLimitRequest>,
    ) -> Result<Vec<Result<RateLimitResponse, tonic::Status>>> {
        ask(&self.netns, ADDRESS, questions)
    }

    pub(crate) fn answers(
        &self,
        questions: Vec<RateLimitRequest>,
    ) -> Result<Vec<RateLimitResponse>> {
        let answers = self.ask(questions)?;
        Ok(answers.into_iter().collect::<Result<_, _>>()?)
    }
}

/// Overall, and of each descriptor whether it is over and what is left of it.
pub(crate) fn told(answer: &RateLimitResponse) -> (bool, Vec<(bool, u32)>) {
    let over = |code: Code| code == Code::OverLimit;
    let statuses = answer.statuses.iter();
    (
        over(answer.overall_code()),
        statuses
            .map(|one| (over(one.code()), one.limit_remaining))
            .collect(),
    )
}
