//! A daemon on policy files in a network namespace, and what clients there are told.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::daemon::{ADMIN, Daemon, Policies, binary, eventually};
use crate::http_client::{Answer, Speak, get, many};
use crate::metrics::Page;
use crate::netns::Netns;

/// A running daemon.
#[derive(Debug)]
pub struct Scene {
    pub daemon: Daemon,
    pub policies: Policies,
    pub netns: Netns,
    began: Instant,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the daemon goes by the same clock"
)]
fn now() -> Instant {
    Instant::now()
}

impl Scene {
    /// Starts the daemon on these files.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(netns: Netns, files: &[(&str, &str)]) -> Result<Self> {
        Self::start_by(Command::new(binary()), netns, files)
    }

    /// As [`Scene::start`], by `limiterd`, a command that takes its arguments.
    ///
    /// # Errors
    /// As there.
    pub fn start_by(limiterd: Command, netns: Netns, files: &[(&str, &str)]) -> Result<Self> {
        let policies = Policies::new(files)?;
        let daemon = Daemon::start_by(&netns, policies.path(), limiterd)?;
        Ok(Self {
            daemon,
            policies,
            netns,
            began: now(),
        })
    }

    /// Seconds since the start, rounded up: no bucket has been refilled for longer.
    #[must_use]
    pub fn elapsed(&self) -> u64 {
        self.began.elapsed().as_secs() + 1
    }

    /// One request for `http://HOST:PORT/PATH`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(
        &self,
        method: &str,
        address: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request: Request<Full<Bytes>> = request.body(Full::default())?;
        self.netns.enter(|| {
            many(Speak::Http1, vec![request])?
                .pop()
                .context("no answer")
        })
    }

    /// A GET for the host `NAME.test` on port 8080.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, name: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        let host = format!("{name}.test");
        let headers = [&[("host", host.as_str())], headers].concat();
        self.ask("GET", "127.0.0.1:8080", path, &headers)
    }

    /// The statuses of so many of them, one after the other.
    ///
    /// # Errors
    /// When one has no answer.
    pub fn statuses(&self, name: &str, headers: &[(&str, &str)], count: usize) -> Result<Vec<u16>> {
        (0..count)
            .map(|_| Ok(self.get(name, "/", headers)?.status.as_u16()))
            .collect()
    }

    /// Asserts what an answer says of the limits: its status, `X-RateLimit-Limit` and `-Remaining`,
    /// and `-Reset` and `Retry-After` as they would have been at the start. Empty: no such header.
    ///
    /// # Panics
    /// When it says something else.
    #[track_caller]
    pub fn expect(&self, answer: &Answer, status: u16, told: [&str; 4]) {
        let [limit, remaining, reset, retry] = told;
        let seen = [
            answer.header("x-ratelimit-limit"),
            answer.header("x-ratelimit-remaining"),
        ];
        assert_eq!(
            (answer.status.as_u16(), seen),
            (status, [limit, remaining]),
            "{answer:?}"
        );
        for (name, wanted) in [("x-ratelimit-reset", reset), ("retry-after", retry)] {
            let seen = answer.header(name);
            let exact = match (seen.parse::<u64>(), wanted.parse::<u64>()) {
                (Ok(seen), Ok(wanted)) => {
                    (wanted.saturating_sub(self.elapsed())..=wanted).contains(&seen)
                }
                _ => seen == wanted,
            };
            assert!(exact, "{name} is `{seen}`, not `{wanted}`: {answer:?}");
        }
    }

    /// The metrics now.
    ///
    /// # Errors
    /// When the admin listener does not answer.
    pub fn metrics(&self) -> Result<Page> {
        self.daemon.metrics(&self.netns)
    }

    /// Waits until the samples of `name` with these labels come to `wanted`.
    ///
    /// # Errors
    /// When they do not.
    pub fn counted(&self, name: &str, labels: &[(&str, &str)], wanted: f64) -> Result<()> {
        let mut seen = 0.0;
        eventually("a counter", || {
            seen = self.metrics()?.sum(name, labels);
            Ok((seen >= wanted).then_some(()))
        })
        .with_context(|| format!("{name} {labels:?} is {seen}, not {wanted}"))?;
        anyhow::ensure!(seen == wanted, "{name} {labels:?} is {seen}, not {wanted}");
        Ok(())
    }

    /// What `/status` says of a resource.
    ///
    /// # Errors
    /// When it says nothing of it.
    pub fn status(&self, kind: &str, name: &str) -> Result<serde_json::Value> {
        let page = self
            .netns
            .enter(|| get(&format!("http://{ADMIN}/status")))?;
        let all: Vec<serde_json::Value> = serde_json::from_slice(&page.body)?;
        all.into_iter()
            .find(|one| one["kind"] == kind && one["name"] == name)
            .with_context(|| format!("no status of {kind} {name}: {}", page.text()))
    }
}
