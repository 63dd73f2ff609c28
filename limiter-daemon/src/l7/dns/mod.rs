//! Names of endpoints, kept resolved beside the data plane.
//!
//! One task looks up every name that the plan in force has, again and again (`set` says when, by
//! `resolver`); the data plane reads what is known and waits for nothing. A name whose lookups fail
//! or come to nothing keeps its last good addresses. Until there has been a first answer there are
//! none, and a name is resolved when it is connected to.
//!
//! Backends with the same name and the same settings share its lookups.

mod resolver;
mod set;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

use super::clock::Clock;
use super::request_id::Random;
use crate::policy::plan::{Dns, Endpoint, Plan};
pub use resolver::Source;
use resolver::{Answer, Failure, Lookups};
pub use set::{Addresses, Counts};
use set::{Names, Question, Set};

/// Lookups on their way at once; others wait for their turn.
const MAX_IN_FLIGHT: usize = 16;

/// A name has other addresses than before.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub host: &'a str,
    /// With these settings: they tell the backends that it is about.
    pub dns: &'a Dns,
    /// At least one and at most [`Addresses::MAX`], in ascending order.
    pub addresses: &'a [IpAddr],
}

/// Is told of changes, on the control runtime: it must not wait.
pub type OnChange = Box<dyn Fn(&Resolver, Change<'_>) + Send + Sync>;

/// What is known of the names of the plan in force.
pub struct Resolver {
    set: Mutex<Set>,
    /// There are other names.
    changed: Notify,
    lookups: Arc<Lookups>,
    clock: Clock,
    random: Random,
    on_change: OnChange,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// The lookups of one backend's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendCounts {
    /// `namespace/name`.
    pub backend: String,
    /// Of the policies that it is under.
    pub policy: String,
    pub counts: Counts,
}

impl Resolver {
    /// Without names, until there is a plan.
    #[must_use]
    pub fn new(source: Source, clock: Clock, on_change: OnChange) -> Arc<Self> {
        Arc::new(Self {
            set: Mutex::default(),
            changed: Notify::new(),
            lookups: Arc::new(Lookups::new(source)),
            clock,
            random: Random::default(),
            on_change,
        })
    }

    /// Resolves the names of `plan` from now on. What is known of those that stay is kept.
    pub fn apply(&self, plan: &Plan) {
        self.apply_at(plan, self.clock.now());
    }

    fn apply_at(&self, plan: &Plan, now: u64) {
        let mut backends: Names<&str> = BTreeMap::new();
        for backend in &plan.backends {
            for endpoint in &backend.endpoints {
                if let Endpoint::Fqdn(host, _) = endpoint {
                    let id = (&*backend.name, &*backend.policy);
                    let questions = backends.entry(id).or_default();
                    questions.insert(Question::new(host, backend.settings.dns));
                }
            }
        }
        self.set().apply(backends, now);
        self.changed.notify_one();
    }

    /// The addresses of an endpoint `host` of a backend with these settings, which are kept up to date
    /// for as long as the plan in force has it. `None`: no plan that was applied has it.
    #[must_use]
    pub fn addresses(&self, host: &str, dns: &Dns) -> Option<Arc<Addresses>> {
        self.set().addresses(&Question::new(host, *dns))
    }

    /// For each backend with names, in the order of their names.
    #[must_use]
    pub fn counts(&self) -> Vec<BackendCounts> {
        self.set().counts()
    }

    /// Looks names up when they are due. It returns only if a lookup dies; dropped, it ends all
    /// lookups.
    pub async fn run(self: Arc<Self>) -> JoinError {
        let mut lookups = JoinSet::new();
        loop {
            let now = self.clock.now();
            let due = self.set().due(now, MAX_IN_FLIGHT - lookups.len());
            for question in due {
                let by = Arc::clone(&self.lookups);
                lookups.spawn(async move {
                    let answer = by.lookup(&question, now).await;
                    (question, answer)
                });
            }
            let wake = self.set().wake().filter(|_| lookups.len() < MAX_IN_FLIGHT);
            let pause = wake.map(|at| Duration::from_nanos(at.saturating_sub(now)));
            tokio::select! {
                () = self.changed.notified() => {}
                Some(done) = lookups.join_next(), if !lookups.is_empty() => match done {
                    Ok((question, answer)) => self.answered(&question, answer, self.clock.now()),
                    Err(died) => return died,
                },
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    fn answered(&self, question: &Question, answer: Result<Answer, Failure>, now: u64) {
        match &answer {
            Ok(answer) if answer.left_out > 0 => {
                let (host, left_out) = (question.host(), answer.left_out);
                tracing::warn!(host, left_out, "a name has too many addresses");
            }
            Err(failure) => {
                tracing::warn!(host = question.host(), %failure, "a name cannot be resolved");
            }
            Ok(_) => {}
        }
        let random = self.random.next();
        // The lock is let go first: who is told may ask.
        let changed = self.set().answered(question, answer, now, random);
        if let Some(addresses) = changed {
            tracing::debug!(
                host = question.host(),
                ?addresses,
                "a name has new addresses"
            );
            let change = Change {
                host: question.host(),
                dns: question.dns(),
                addresses: &addresses,
            };
            (self.on_change)(self, change);
        }
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
