//! Sentences: an address that keeps offending is dropped in the kernel for a time.
//!
//! Offences (requests over a limit, malformed ones, failed handshakes, slow clients, statuses of
//! upstreams) take tokens from a bucket of the address that they came from. Who is over it is proposed
//! for a sentence to a [`Court`], which knows who is never sentenced and has it served. What is here is
//! pure: it knows of addresses and instants, and of no connection and no map.
//!
//! - **What is tolerated** is the threshold: with `maxTokens: 20` the twenty-first offence is one too
//!   many. A sentence is served for all that led to it: the bucket is full afterwards.
//! - **Repeat offenders.** Each sentence lasts `growth` times as long as the one before it, up to
//!   `maxBlock`; for each `decay` that passes after the end of the last one without another, one is
//!   forgotten.
//! - **One sentence at a time.** Offences of an address that is sentenced already (its requests were
//!   under way) do not count.
//! - **Bounds.** [`MAX_OFFENDERS`] addresses are remembered, and of more the one that has not offended
//!   for longest is forgotten, so that nobody is sentenced for what others did.

mod judge;
mod offender;
mod offenders;
mod protected;
mod proxies;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::policy::plan;
pub use crate::policy::plan::Reach;
pub use judge::{Fate, Judge, Tallies};
pub use offenders::{MAX_OFFENDERS, Offenders};
pub use protected::Protected;
pub use proxies::{MAX_PROXIES, Proxies};

/// Passes sentences. It is called on the worker's thread: it must not wait.
pub trait Court: Debug + Send + Sync {
    /// Takes a proposal; `false`: too many wait for it to be heard.
    fn propose(&self, proposal: Proposal) -> bool;
}

/// That a network be dropped.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub net: IpNet,
    pub length: Duration,
    /// For people: what it is for.
    pub why: String,
    /// Sentences before this one that are not forgotten.
    pub earlier: u32,
    pub reach: Reach,
    /// Nobody is to be sentenced: it is only counted.
    pub shadow: bool,
    /// Who proposes it, and is told what came of it.
    pub judge: Arc<Judge>,
}

/// The judges of a plan, by the port of an offence.
#[derive(Debug)]
pub struct Judges {
    by_port: BTreeMap<u16, Arc<Judge>>,
    offenders: Arc<Offenders>,
}

impl Judges {
    /// Of `plan`; what is known of offenders lies in `offenders`.
    pub(super) fn compile(
        plan: &[plan::Escalation],
        offenders: &Arc<Offenders>,
        tallies: impl Fn(&str) -> Arc<Tallies>,
    ) -> Self {
        let mut judges = BTreeMap::new();
        for escalation in plan {
            let tallies = tallies(&escalation.policy);
            let judge = Judge::new(escalation.clone(), Arc::clone(offenders), tallies);
            let judge = Arc::new(judge);
            for port in &escalation.ports {
                judges.insert(*port, Arc::clone(&judge));
            }
        }
        Self {
            by_port: judges,
            offenders: Arc::clone(offenders),
        }
    }

    /// Who judges what comes to a port.
    #[must_use]
    pub fn of(&self, port: u16) -> Option<&Arc<Judge>> {
        self.by_port.get(&port)
    }

    /// Requests of others come by `peer`: nobody has it sentenced.
    pub fn saw_proxy(&self, peer: IpAddr) {
        if !self.by_port.is_empty() {
            self.offenders.proxies().saw(peer);
        }
    }

    /// Whether requests of others come from `net`.
    #[must_use]
    pub fn is_proxy(&self, net: IpNet) -> bool {
        self.offenders.proxies().any_in(net)
    }

    /// All of them, some more than once.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Judge>> {
        self.by_port.values()
    }

    /// The judge of a policy.
    #[must_use]
    pub fn by_policy(&self, policy: &str) -> Option<&Arc<Judge>> {
        self.by_port.values().find(|judge| judge.policy() == policy)
    }
}

#[cfg(test)]
mod tests;
