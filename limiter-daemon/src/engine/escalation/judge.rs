//! Who counts the offences of a policy, and proposes sentences.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;

use super::offender::Finding;
use super::offenders::Offenders;
use super::{Court, Proposal};
use crate::engine::nets::network;
use crate::policy::plan::{Escalation, Offence, SourcePrefixes};

const SECOND: u64 = 1_000_000_000;

/// The judge of a policy.
#[derive(Debug)]
pub struct Judge {
    escalation: Escalation,
    /// Under what its offenders are known.
    id: u64,
    offenders: Arc<Offenders>,
    tallies: Arc<Tallies>,
}

/// What has come of a policy's offences; it outlives a plan.
#[derive(Debug)]
pub struct Tallies {
    /// `namespace/name`.
    pub policy: String,
    offences: [AtomicU64; Offence::ALL.len()],
    fates: [AtomicU64; Fate::ALL.len()],
}

/// What became of somebody over the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel drops what comes of it.
    Sentenced,
    /// It would be sentenced: the escalation is in shadow mode.
    Shadow,
    /// It is never sentenced.
    Protected,
    /// Too many sentences waited to be passed: its next offence brings it up again.
    Lost,
    /// There is no room for it, or nothing that enforces it, or the kernel refused.
    Failed,
}

impl Fate {
    pub const ALL: [Self; 5] = [
        Self::Sentenced,
        Self::Shadow,
        Self::Protected,
        Self::Lost,
        Self::Failed,
    ];

    /// For a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sentenced => "sentenced",
            Self::Shadow => "shadow",
            Self::Protected => "protected",
            Self::Lost => "lost",
            Self::Failed => "failed",
        }
    }
}

impl Tallies {
    /// Of the policy `namespace/name`.
    #[must_use]
    pub fn new(policy: String) -> Self {
        Self {
            policy,
            offences: Default::default(),
            fates: Default::default(),
        }
    }

    /// Offences that counted.
    #[must_use]
    pub fn offences(&self, offence: Offence) -> u64 {
        self.offences[offence as usize].load(Ordering::Relaxed)
    }

    /// Times that somebody was over the threshold, by what became of it.
    #[must_use]
    pub fn fates(&self, fate: Fate) -> u64 {
        self.fates[fate as usize].load(Ordering::Relaxed)
    }
}

impl Judge {
    pub(super) fn new(
        escalation: Escalation,
        offenders: Arc<Offenders>,
        tallies: Arc<Tallies>,
    ) -> Self {
        Self {
            id: offenders.policy(&escalation.policy),
            escalation,
            offenders,
            tallies,
        }
    }

    /// `namespace/name` of its policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.escalation.policy
    }

    /// What has come of its policy's offences.
    #[must_use]
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Counts an offence of `address` at `now`, in nanoseconds of a monotonic clock; who is over the
    /// threshold is proposed to the court.
    pub fn offend(
        self: &Arc<Self>,
        address: IpAddr,
        offence: Offence,
        now: u64,
        court: &dyn Court,
    ) {
        let cost = self.escalation.costs[offence as usize];
        self.count(address, offence, cost, now, court);
    }

    /// The same of a response of an upstream to `address`.
    pub fn responded(self: &Arc<Self>, address: IpAddr, status: u16, now: u64, court: &dyn Court) {
        let statuses = &self.escalation.statuses;
        if let Ok(at) = statuses.binary_search_by_key(&status, |(status, _)| *status) {
            self.count(address, Offence::UpstreamStatus, statuses[at].1, now, court);
        }
    }

    fn count(
        self: &Arc<Self>,
        address: IpAddr,
        offence: Offence,
        cost: u32,
        now: u64,
        court: &dyn Court,
    ) {
        if cost == 0 {
            return;
        }
        let Escalation {
            threshold, terms, ..
        } = &self.escalation;
        let net = self.net(address);
        let finding = self.offenders.of(self.id, net, |offender| {
            offender.offend(offence, cost, threshold, terms, now)
        });
        if finding != Finding::Served {
            self.tallies.offences[offence as usize].fetch_add(1, Ordering::Relaxed);
        }
        let Finding::Over {
            length,
            earlier,
            counts,
            within,
        } = finding
        else {
            return;
        };
        let proposal = Proposal {
            net,
            length,
            why: why(&counts, within),
            earlier,
            reach: self.escalation.reach,
            shadow: self.escalation.shadow,
            judge: Arc::clone(self),
        };
        if !court.propose(proposal) {
            self.became(net, Fate::Lost);
        }
    }

    /// What became of a proposal. Who is not sentenced is as if it had not been proposed, and may be
    /// again.
    pub fn became(&self, net: IpNet, fate: Fate) {
        self.tallies.fates[fate as usize].fetch_add(1, Ordering::Relaxed);
        match fate {
            Fate::Sentenced | Fate::Shadow => {}
            Fate::Protected | Fate::Lost | Fate::Failed => {
                self.offenders
                    .known_as(self.id, net, |offender| offender.acquit());
            }
        }
    }

    /// `net` is sentenced until `until`; if another node has done it, it counts as one of its sentences.
    pub fn heard(&self, net: IpNet, until: u64) {
        self.offenders
            .of(self.id, net, |offender| offender.sentenced(until));
    }

    /// The sentence of `net` gave way to others at `now`: it may be sentenced again.
    pub fn released(&self, net: IpNet, now: u64) {
        self.offenders
            .known_as(self.id, net, |offender| offender.released(now));
    }

    /// The sentence of `net` was lifted: all is forgotten.
    pub fn pardon(&self, net: IpNet) {
        self.offenders.pardon(self.id, net);
    }

    /// Whom an address stands for.
    fn net(&self, address: IpAddr) -> IpNet {
        let Escalation { v4, v6, .. } = self.escalation;
        network(address.to_canonical(), SourcePrefixes { v4, v6 })
    }
}

/// `21 RateLimited, 3 SlowClient in 12 s`.
fn why(counts: &[u32; Offence::ALL.len()], within: u64) -> String {
    let mut text = String::new();
    for (offence, count) in Offence::ALL
        .iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0)
    {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String does not fail.
        let _infallible = write!(text, "{comma}{count} {}", offence.name());
    }
    let _infallible = write!(text, " in {} s", within.div_ceil(SECOND));
    text
}
