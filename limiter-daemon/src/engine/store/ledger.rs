//! What a place that nodes share is asked, and what it answers: buckets by their names, and nothing
//! of the rules that they are of.

use std::fmt::Debug;
use std::pin::Pin;

use crate::engine::charge::Few;
use crate::engine::meter::{Meter, Reading, Snapshot, Verdict};
use crate::engine::time::Now;

const SECOND: u64 = 1_000_000_000;

/// Counts in a place that nodes share.
pub trait Ledger: Debug + Send + Sync {
    /// Takes what every enforced item wants, if all have it, and then asks those that are not
    /// enforced. `None`: it is known that it would not answer. Nothing is asked before the answer is
    /// waited for.
    fn ask(&self, question: Question, now: Now) -> Option<Asking>;

    /// Changes buckets. Does not wait: what cannot be done at once is done later, or lost.
    fn change(&self, changes: Vec<Change>, now: Now);

    /// As [`super::Store::join`].
    fn join(&self) {}
}

/// The answer, when it comes.
pub type Asking = Pin<Box<dyn Future<Output = Result<Reply, Unanswered>> + Send>>;

/// All that one request asks.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// So many limits deny the request whatever is counted.
    pub denials: usize,
    /// A candidate comes after the item that it is one of.
    pub items: Few<Item>,
}

/// One bucket that is asked.
#[derive(Clone, Debug)]
pub struct Item {
    /// The same on every node. What is between its first `{` and the `}` after it decides where it
    /// lies in a cluster (Redis Cluster specification, hash tags).
    pub key: String,
    pub meter: Meter,
    /// 0: it is only asked whether there is one.
    pub tokens: u64,
    pub role: Role,
    /// Tokens of it may be held by this node ([`super::lease`]). Never without tokens, nor of what
    /// has candidates or is not enforced.
    pub lease: Option<Lease>,
    /// Of an enforced item that admits, with all others: how many times more the same tokens are taken,
    /// as often as they are there.
    pub again: u64,
    pub form: Form,
}

/// How many tokens of a bucket a node may hold beyond what it uses at once, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Tokens, at least 1.
    pub size: u64,
    /// Nanoseconds.
    pub max_age: u64,
}

/// What lies under a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// The state of the meter, as limiterd writes it.
    #[default]
    Own,
    /// The count of one fixed window, as `INCRBY` makes it. The second at which the window begins
    /// (since 1970) is the end of the key; `None`: it is still to be added to it.
    Plain { begins: Option<u64> },
}

/// What depends on an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Denies the request.
    Enforced,
    /// Asked and charged when all that are enforced admit.
    Shadow,
    /// As one in shadow mode, and also where only the limit that it is a candidate of denies.
    Candidate,
    /// Denies the request if all of this role do; charged as one that is enforced, unless it is over.
    Quota,
    /// Gives its tokens back before anything is asked, whatever becomes of the request; as
    /// [`Meter::refund`] does.
    Refund,
}

/// What became of all items, in their order.
#[derive(Clone, Debug)]
pub struct Reply {
    /// By the clock that was gone by; `mono` and `unix` are the same.
    pub now: Now,
    pub said: Few<Said>,
    /// Of each item, where not all were counted by one clock; empty: `now` is that of all.
    pub clocks: Few<Now>,
}

impl Reply {
    /// The time that this item was counted at, by its own clock.
    #[must_use]
    pub fn now_of(&self, item: usize) -> Now {
        self.clocks.get(item).copied().unwrap_or(self.now)
    }
}

/// What is said of one item.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    pub conforms: Conforms,
    /// The bucket, after that.
    pub reading: Reading,
    /// What a refund of the item's tokens must know.
    pub mark: u64,
    /// How many times more its tokens were taken ([`Item::again`]).
    pub granted: u64,
    /// Nobody was asked: it was known.
    pub remembered: bool,
}

/// Whether an item conforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conforms {
    No,
    Yes,
    NotAsked,
    /// The key is of another window than the one that it is by the reply's clock; nothing was asked
    /// or charged of the whole question.
    OtherWindow,
}

/// There is no answer.
#[derive(Clone, Copy, Debug)]
pub struct Unanswered {
    /// When that was known.
    pub now: Now,
}

/// A change of one bucket after the decision.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: String,
    pub meter: Meter,
    pub tokens: u64,
    pub form: Form,
    pub kind: ChangeKind,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Tokens come back that were taken with this mark ([`Meter::give_back`]).
    GiveBack { mark: u64 },
    /// Tokens are taken, into debt if need be.
    Charge,
}

impl Said {
    /// What is said of an item whose tokens were taken once, if they were.
    #[must_use]
    pub const fn new(conforms: Conforms, reading: Reading) -> Self {
        Self {
            conforms,
            reading,
            mark: match reading {
                Reading::Tat(tat) => tat,
                Reading::Counts { end, .. } => end,
                Reading::Unknown => 0,
            },
            granted: 0,
            remembered: false,
        }
    }

    /// The same, of an item whose tokens were taken so many times more. Of tokens that were taken at
    /// once, those of the item count as the first.
    #[must_use]
    pub fn granted(self, item: &Item, times: u64) -> Self {
        let mark = match &item.meter {
            Meter::Bucket { limit, .. } => {
                let more = limit.cost(item.tokens).saturating_mul(times);
                self.mark.saturating_sub(more)
            }
            Meter::Fixed(_) | Meter::Sliding(_) => self.mark,
        };
        Self {
            mark,
            granted: times,
            ..self
        }
    }

    /// Nanoseconds after which an item that was denied would conform.
    #[must_use]
    pub fn wait(&self, item: &Item, now: Now) -> u64 {
        let snapshot = Snapshot::new(&item.meter, self.reading);
        match item.meter.peek(&snapshot, item.tokens, now) {
            Verdict::Deny { wait } => wait,
            // Only where weights were rounded up to grains: a moment.
            Verdict::Admit { .. } => SECOND,
        }
    }
}
