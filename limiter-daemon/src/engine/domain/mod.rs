//! Limits of Envoy's rate limit service: which of a domain a request's descriptors meet, and whether
//! it conforms to all of them.
//!
//! Matching is the reference service's (`tree.rs`). Deciding is limiterd's own, where the reference is
//! known to hurt: a denied request charges nothing, over all its descriptors together; there, each
//! is charged for itself. So `hits` more than there are left leave what is left to smaller requests.
//!
//! - **Shadow mode**: asked about every request that the others admit, and charged for those that it
//!   would admit. It never denies.
//! - **Quota mode**: denies only if all such limits that the request meets are over. Of a request
//!   that is admitted those that are not over are charged.
//! - A request that only asks (no hits) is over a limit that has nothing left; there, only over one
//!   that has been exceeded, which is never here.
//! - A refund is never denied, and is made whatever becomes of the request's other descriptors,
//!   before they are asked. It ends with the window that the tokens were taken in.
//!
//! Two things are not the reference's but Gloo's, and do nothing where no file asks for them. Limits
//! have **weights**: of those in the tree that a request meets over all its descriptors, the heaviest
//! apply, and those that always do. And descriptors may be **sets** (`sets.rs`).
//!
//! With a store that nodes share, all limits of a request are one question to its ledger
//! (`stored.rs`), which does the same there.

mod compiled;
mod counters;
mod decide;
mod explain;
mod sets;
mod stats;
mod stored;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;

use super::state::State;
use crate::policy::plan::{self, TimeUnit};
pub use compiled::{Brought, Domain, Limit, Limited};
pub use counters::DomainCount;
pub use decide::{Decided, Decision, Outcome, Status, Undecided};
pub use explain::{CountSaid, DescriptorSaid, DomainSaid};
pub(super) use stats::DetailedBound;
pub use stats::{Detailed, LimitStats, STATISTICS};
pub use stored::DomainStore;

/// The domains of a plan, ready to decide. Immutable; counts lie in the [`State`].
#[derive(Debug, Default)]
pub struct Domains {
    by_name: HashMap<String, Result<Domain, String>>,
}

/// What one descriptor of a request asks.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Keys and values.
    pub entries: &'a [(&'a str, &'a str)],
    /// Applies instead of what the domain says, if it is there.
    pub limit: Option<Override>,
    pub hits: Hits,
}

/// A limit that a request brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    pub requests: u32,
    pub unit: TimeUnit,
}

/// What is to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hits {
    /// 0: it is only asked whether there is one left.
    Take(u64),
    GiveBack(u64),
}

/// Why nothing can be said of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoDomain {
    /// No file has it: nothing is limited, as the reference service has it.
    Unknown,
    /// Its files were never valid.
    Broken(String),
}

impl Domains {
    /// Compiles the domains of a plan, taking over from `state` the counts of every limit that still
    /// exists by its place in the tree, and counts in the same way.
    #[must_use]
    pub fn compile(domains: &[plan::Domain], state: &State) -> Self {
        let compile = |domain: &plan::Domain| {
            let compiled = match &domain.broken {
                Some(why) => Err(why.clone()),
                None => Ok(Domain::compile(domain, state)),
            };
            (domain.name.clone(), compiled)
        };
        Self {
            by_name: domains.iter().map(compile).collect(),
        }
    }

    /// The domain of this name.
    ///
    /// # Errors
    /// [`NoDomain`]
    pub fn get(&self, name: &str) -> Result<&Domain, NoDomain> {
        match self.by_name.get(name) {
            Some(Ok(domain)) => Ok(domain),
            Some(Err(why)) => Err(NoDomain::Broken(why.clone())),
            None => Err(NoDomain::Unknown),
        }
    }
}

/// What is counted under a name of the reference service's.
pub type Statistics = Arc<LimitStats>;

#[cfg(test)]
mod tests;
