//! Taking what a request asks for from all limits that its descriptors meet, or from none.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use smallvec::SmallVec;

use super::sets::Entries;
use super::stats::LimitStats;
use super::{Asked, Domain, Hits, Limit, Limited, Override};
use crate::engine::meter::{Meter, NEVER, Standing, Verdict};
use crate::engine::state::{Account, Place};
use crate::engine::time::Now;

/// Descriptors that a request usually has at most; more of them allocate.
const INLINE: usize = 4;

/// When it is decided.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and is not to be allocated"
)]
pub enum Decision {
    Ready(Decided),
    /// When the store that counts answers, or its time is over.
    Pending(Pin<Box<dyn Future<Output = Decided> + Send>>),
}

/// What is said of a request, if anything can be.
pub type Decided = Result<Outcome, Undecided>;

/// Nothing can be said: the store does not answer, and the domain is not decided without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store that counts the limits of the domain `{domain}` does not answer")]
pub struct Undecided {
    pub domain: String,
}

/// What is said of a request.
#[derive(Debug)]
pub struct Outcome {
    /// It may not pass.
    pub over_limit: bool,
    /// It would not, if the domain were not in shadow mode.
    pub shadowed: bool,
    /// One for each descriptor, in their order.
    pub statuses: SmallVec<[Status; INLINE]>,
    /// Index of the status that decided: the one that makes the request wait longest, or the one
    /// with the fewest tokens left of a request that may pass; `None`: none with a limit.
    pub decisive: Option<usize>,
}

/// What is said of one descriptor.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The limit has nothing (or not enough) left for it, and is not in shadow mode.
    pub over_limit: bool,
    /// What it is limited by; `None`: nothing.
    pub limited: Option<Limited>,
    /// Requests and their unit; `None`: there is no limit, or it admits everything.
    pub limit: Option<Override>,
    /// Whole tokens left.
    pub remaining: u64,
    /// Nanoseconds until it would conform, or for one that does, until all tokens are there again.
    pub reset: u64,
}

/// A limit for each descriptor that meets one; behind them, what sets meet besides.
pub(super) type Meets = SmallVec<[Option<Met>; INLINE]>;

/// What is left of each.
pub(super) type Standings = SmallVec<[Option<Standing>; INLINE]>;

/// A limit that a descriptor meets.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) limited: Limited,
    /// Index of the descriptor.
    pub(super) of: usize,
    /// Its key in the store, until it is asked.
    pub(super) key: Option<String>,
    /// `None`: it admits all, or nothing.
    pub(super) counted: Option<(Meter, Place)>,
    pub(super) hits: Hits,
    /// Nanoseconds until it would conform, if it does not.
    pub(super) over: Option<u64>,
    /// What is to be known to give back what was taken.
    taken: Option<u64>,
    pub(super) stats: Arc<LimitStats>,
    /// Tokens in use beyond which it is nearly over.
    near: u64,
}

impl Decision {
    /// The outcome, whenever it comes.
    ///
    /// # Errors
    /// [`Undecided`]
    pub async fn outcome(self) -> Decided {
        match self {
            Self::Ready(decided) => decided,
            Self::Pending(decided) => decided.await,
        }
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(decided) => f.debug_tuple("Ready").field(decided).finish(),
            Self::Pending(_) => f.write_str("Pending"),
        }
    }
}

impl Domain {
    /// Charges a request at `now` for all its descriptors, or for none if it is over a limit.
    pub fn decide(&self, asked: &[Asked<'_>], now: Now) -> Decision {
        let met = self.meet(asked);
        match &self.stored {
            None => Decision::Ready(Ok(here(met, self.shadow, now))),
            Some(stored) => stored.decide(met, self.shadow, now),
        }
    }

    /// The limits that descriptors meet, without those that others of them replace or outweigh.
    pub(super) fn meet(&self, asked: &[Asked<'_>]) -> Meets {
        let mut limits: SmallVec<[Option<Limited>; INLINE]> =
            asked.iter().map(|asked| self.limit(asked)).collect();
        replace(&mut limits);
        outweigh(&mut limits);
        let met = |(of, (limited, asked)): (usize, (Option<Limited>, &Asked<'_>))| {
            Some(self.met(limited?, of, asked.entries, asked.hits))
        };
        let mut all: Meets = limits.into_iter().zip(asked).enumerate().map(met).collect();
        if self.sets.is_some() {
            self.meet_sets(asked, &mut all);
        }
        all
    }

    /// Adds what sets meet. A count that several sets of a request lead to is one limit.
    fn meet_sets(&self, asked: &[Asked<'_>], all: &mut Meets) {
        let mut counts: SmallVec<[(&Arc<Limit>, Entries<'_>, Hits); INLINE]> = SmallVec::new();
        for (of, asked) in asked.iter().enumerate() {
            let Some((sets, set)) = self.set(asked) else {
                continue;
            };
            for found in sets.find(set) {
                let known = counts.iter().any(|(limit, entries, hits)| {
                    Arc::ptr_eq(limit, found.limit)
                        && *entries == found.entries
                        && *hits == asked.hits
                });
                if known {
                    continue;
                }
                let limited = Limited::ByDomain(Arc::clone(found.limit));
                let met = self.met(limited, of, &found.entries, asked.hits);
                counts.push((found.limit, found.entries, asked.hits));
                match &mut all[of] {
                    free @ None => *free = Some(met),
                    Some(_) => all.push(Some(met)),
                }
            }
        }
    }

    fn met(&self, limited: Limited, of: usize, entries: &[(&str, &str)], hits: Hits) -> Met {
        let requests = limited.amount().map_or(0, |limit| limit.requests);
        let stored = self.stored.as_ref();
        Met {
            of,
            key: stored.and_then(|stored| stored.key(&limited, entries)),
            counted: limited.counted(entries),
            stats: limited.stats(entries),
            near: self.near(u64::from(requests)),
            limited,
            hits,
            over: None,
            taken: None,
        }
    }
}

/// Leaves out the limits that others replace.
fn replace(limits: &mut [Option<Limited>]) {
    let any = |limited: &Option<Limited>| {
        limited
            .as_ref()
            .is_some_and(|one| !one.replaces().is_empty())
    };
    if !limits.iter().any(any) {
        return;
    }
    let replaced = |name: &str| {
        let replaces = limits.iter().flatten().flat_map(Limited::replaces);
        replaces.into_iter().any(|other| other == name)
    };
    let gone: Vec<bool> = limits
        .iter()
        .map(|limited| {
            limited
                .as_ref()
                .and_then(Limited::name)
                .is_some_and(replaced)
        })
        .collect();
    for (limited, gone) in limits.iter_mut().zip(gone) {
        // One without number is asked nothing anyway, and says that it is there.
        if gone && limited.as_ref().is_some_and(|one| one.amount().is_some()) {
            *limited = None;
        }
    }
}

/// Leaves out the limits that weigh less than others, but those that apply always. What requests
/// bring along is in no order with them.
fn outweigh(limits: &mut [Option<Limited>]) {
    let weights = limits.iter().flatten().filter_map(Limited::weight);
    let most = weights.map(|(weight, _)| weight).max().unwrap_or_default();
    if most == 0 {
        return;
    }
    for limited in limits {
        let weight = limited.as_ref().and_then(Limited::weight);
        if weight.is_some_and(|(weight, always)| weight < most && !always) {
            *limited = None;
        }
    }
}

/// Decides in this node's memory. What comes back comes first; then all are asked before any is
/// charged, and if another core takes the last token in between, what was taken is given back.
pub(super) fn here(mut met: Meets, shadow: bool, now: Now) -> Outcome {
    for met in met.iter().flatten() {
        if let (Hits::GiveBack(hits), Some((meter, account))) = (met.hits, met.account()) {
            meter.refund(&account, hits, now);
        }
    }
    for met in met.iter_mut().flatten() {
        if let Hits::Take(hits) = met.hits
            && !met.limited.shadow()
        {
            met.over = met.wait(|meter, account| meter.peek(account, hits, now));
        }
    }
    let denied = denies(&met) || !take_all(&mut met, now);
    for met in met.iter_mut().flatten() {
        if let Hits::Take(hits) = met.hits
            && met.limited.shadow()
            && !denied
        {
            met.take(hits, now);
        }
    }
    let standing = |met: &Option<Met>| met.as_ref()?.standing(now);
    let standings: Standings = met.iter().map(standing).collect();
    conclude(met, &standings, denied, shadow, now)
}

/// Whether those that are over deny the request together.
pub(super) fn denies(met: &[Option<Met>]) -> bool {
    let (mut quotas, mut left) = (false, false);
    for met in met.iter().flatten() {
        if met.limited.shadow() || matches!(met.hits, Hits::GiveBack(_)) {
            continue;
        }
        match (met.limited.quota(), met.over) {
            (false, Some(_)) => return true,
            (false, None) => {}
            (true, over) => {
                // What admits everything is no quota.
                if met.limited.amount().is_some() {
                    quotas = true;
                    left |= over.is_none();
                }
            }
        }
    }
    quotas && !left
}

/// Takes from all that are not over; `false`: not all had it any more, and nothing is taken.
fn take_all(met: &mut [Option<Met>], now: Now) -> bool {
    for at in 0..met.len() {
        let Some(one) = &mut met[at] else {
            continue;
        };
        let Hits::Take(hits) = one.hits else {
            continue;
        };
        if one.over.is_some() || one.limited.shadow() {
            continue;
        }
        one.take(hits, now);
        if one.over.is_some() && denies(met) {
            for one in met.iter_mut().flatten() {
                one.give_back(now);
            }
            return false;
        }
    }
    true
}

/// Counts what was decided, and says it.
pub(super) fn conclude(
    met: Meets,
    standings: &Standings,
    denied: bool,
    shadow: bool,
    now: Now,
) -> Outcome {
    let mut statuses: SmallVec<[Status; INLINE]> = SmallVec::new();
    for (index, (met, standing)) in met.into_iter().zip(standings).enumerate() {
        let Some(met) = met else {
            statuses.push(Status::default());
            continue;
        };
        met.count(*standing, denied);
        let of = met.of;
        let status = met.status(*standing, now);
        if of == index {
            statuses.push(status);
        } else if status.is_stricter(&statuses[of]) {
            statuses[of] = status;
        }
    }
    Outcome {
        over_limit: denied && !shadow,
        shadowed: denied && shadow,
        decisive: decisive(&statuses, denied),
        statuses,
    }
}

fn decisive(statuses: &[Status], over_limit: bool) -> Option<usize> {
    let limited = statuses
        .iter()
        .enumerate()
        .filter(|(_, s)| s.limit.is_some());
    if over_limit {
        let over = limited.filter(|(_, status)| status.over_limit);
        // Of equals the first.
        over.rev().max_by_key(|(_, status)| status.reset)
    } else {
        limited.min_by_key(|(_, status)| status.remaining)
    }
    .map(|(index, _)| index)
}

impl Status {
    /// Whether it says more of a descriptor than another status of it.
    fn is_stricter(&self, other: &Self) -> bool {
        match (self.over_limit, other.over_limit) {
            (true, true) => self.reset > other.reset,
            (false, false) => {
                self.limit.is_some() && (other.limit.is_none() || self.remaining < other.remaining)
            }
            (over, _) => over,
        }
    }
}

impl Met {
    pub(super) fn account(&self) -> Option<(&Meter, Account<'_>)> {
        let (meter, place) = self.counted.as_ref()?;
        let scope = self.limited.scope()?;
        Some((meter, Account { scope, place }))
    }

    /// Why it denies whatever is counted: it admits nothing.
    pub(super) fn never(&self) -> Option<u64> {
        let takes = matches!(self.hits, Hits::Take(_));
        let nothing = self.counted.is_none() && self.limited.amount().is_some();
        (takes && nothing).then_some(NEVER)
    }

    fn wait(&self, ask: impl FnOnce(&Meter, &Account<'_>) -> Verdict) -> Option<u64> {
        match self.account() {
            Some((meter, account)) => match ask(meter, &account) {
                Verdict::Deny { wait } => Some(wait),
                Verdict::Admit { .. } => None,
            },
            None => self.never(),
        }
    }

    fn take(&mut self, hits: u64, now: Now) {
        let mut mark = None;
        self.over = self.wait(|meter, account| {
            let verdict = meter.take(account, hits, now);
            if let Verdict::Admit { mark: taken } = verdict {
                mark = Some(taken);
            }
            verdict
        });
        self.taken = mark;
    }

    fn give_back(&mut self, now: Now) {
        let mark = self.taken.take();
        if let (Some(mark), Some((meter, account)), Hits::Take(hits)) =
            (mark, self.account(), self.hits)
        {
            meter.give_back(&account, hits, mark, now);
        }
    }

    fn count(&self, standing: Option<Standing>, denied: bool) {
        let Hits::Take(hits) = self.hits else {
            return;
        };
        self.stats.asked(hits);
        if self.over.is_some() {
            self.stats.over(hits, self.limited.shadow());
        } else if !denied {
            let limit = self.limited.amount();
            let limit = limit.map_or(0, |limit| u64::from(limit.requests));
            let remaining = standing.map_or(limit, |standing| standing.remaining);
            let used = limit.saturating_sub(remaining);
            self.stats.within(hits, used, self.near);
        }
    }

    pub(super) fn standing(&self, now: Now) -> Option<Standing> {
        let (meter, account) = self.account()?;
        Some(meter.standing(&account, now))
    }

    pub(super) fn status(self, standing: Option<Standing>, now: Now) -> Status {
        let over = self.over.filter(|_| !self.limited.shadow());
        let limit = self.limited.amount();
        let window = match &self.counted {
            Some((Meter::Fixed(window), _)) => window.left(now.unix),
            _ => 0,
        };
        let (remaining, reset) = match (standing, limit) {
            (Some(standing), _) => (standing.remaining, standing.reset.max(window)),
            (None, Some(_)) => (0, 0),
            (None, None) => (u64::MAX, 0),
        };
        Status {
            over_limit: over.is_some(),
            limited: Some(self.limited),
            limit,
            remaining,
            reset: over.filter(|wait| *wait != NEVER).unwrap_or(reset),
        }
    }
}
