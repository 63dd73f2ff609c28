//! Taking what a request asks for from all limits that its descriptors meet, or from none.

use smallvec::SmallVec;

use super::{Asked, Domain, Hits, Limited, Override};
use crate::engine::meter::{Meter, NEVER, Standing, Verdict};
use crate::engine::state::Account;
use crate::engine::time::Now;

/// Descriptors that a request usually has at most; more of them allocate.
const INLINE: usize = 4;

/// What is said of a request.
#[derive(Debug)]
pub struct Decision<'d> {
    /// It may not pass.
    pub over_limit: bool,
    /// One for each descriptor, in their order.
    pub statuses: SmallVec<[Status<'d>; INLINE]>,
    /// Index of the status that decided: the one that makes the request wait longest, or the one
    /// with the fewest tokens left of a request that may pass; `None`: none with a limit.
    pub decisive: Option<usize>,
}

/// What is said of one descriptor.
#[derive(Clone, Debug, Default)]
pub struct Status<'d> {
    /// The limit has nothing (or not enough) left for it, and is not in shadow mode.
    pub over_limit: bool,
    /// What it is limited by; `None`: nothing.
    pub limited: Option<Limited<'d>>,
    /// Requests and their unit; `None`: there is no limit, or it admits everything.
    pub limit: Option<Override>,
    /// Whole tokens left.
    pub remaining: u64,
    /// Nanoseconds until it would conform, or for one that does, until all tokens are there again.
    pub reset: u64,
}

/// A limit that a descriptor meets.
struct Met<'a, 'd> {
    limited: &'a Limited<'d>,
    account: Option<(Meter, Account<'a>)>,
    hits: Hits,
    /// Nanoseconds until it would conform, if it does not.
    over: Option<u64>,
    /// What is to be known to give back what was taken.
    taken: Option<u64>,
}

impl Domain {
    /// Charges a request at `now` for all its descriptors, or for none if it is over a limit.
    pub fn decide(&self, asked: &[Asked<'_>], now: Now) -> Decision<'_> {
        let mut limits: SmallVec<[Option<Limited<'_>>; INLINE]> =
            asked.iter().map(|asked| self.limit(asked)).collect();
        replace(&mut limits);
        let mut met: SmallVec<[Option<Met<'_, '_>>; INLINE]> = limits
            .iter()
            .zip(asked)
            .map(|(limited, asked)| Some(Met::new(limited.as_ref()?, asked)))
            .collect();
        let over_limit = charge(&mut met, now);
        let statuses: SmallVec<[Status<'_>; INLINE]> = met
            .iter()
            .map(|met| {
                met.as_ref()
                    .map_or_else(Status::default, |met| met.status(now))
            })
            .collect();
        drop(met);
        let mut statuses = statuses;
        for (status, limited) in statuses.iter_mut().zip(limits) {
            status.limited = limited;
        }
        Decision {
            over_limit,
            decisive: decisive(&statuses, over_limit),
            statuses,
        }
    }
}

/// Leaves out the limits that others replace.
fn replace(limits: &mut [Option<Limited<'_>>]) {
    let any = |limited: &Option<Limited<'_>>| {
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

/// Whether the request is over a limit. All are asked before any is charged; if another core takes
/// the last token in between, what was taken is given back.
fn charge(met: &mut [Option<Met<'_, '_>>], now: Now) -> bool {
    for met in met.iter_mut().flatten() {
        match met.hits {
            Hits::GiveBack(hits) => {
                if let Some((meter, account)) = &met.account {
                    meter.refund(account, hits, now);
                }
            }
            Hits::Take(hits) => {
                met.limited.stats().asked(hits);
                if !met.limited.shadow() {
                    met.over = met.wait(|meter, account| meter.peek(account, hits, now));
                }
            }
        }
    }
    let denied = denies(met) || !take_all(met, now);
    for met in met.iter_mut().flatten() {
        met.finish(denied, now);
    }
    denied
}

/// Whether those that are over deny the request together.
fn denies(met: &[Option<Met<'_, '_>>]) -> bool {
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
fn take_all(met: &mut [Option<Met<'_, '_>>], now: Now) -> bool {
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

fn decisive(statuses: &[Status<'_>], over_limit: bool) -> Option<usize> {
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

impl<'a, 'd> Met<'a, 'd> {
    fn new(limited: &'a Limited<'d>, asked: &Asked<'_>) -> Self {
        Self {
            account: limited.account(asked.entries),
            limited,
            hits: asked.hits,
            over: None,
            taken: None,
        }
    }

    fn wait(&self, ask: impl FnOnce(&Meter, &Account<'_>) -> Verdict) -> Option<u64> {
        match &self.account {
            Some((meter, account)) => match ask(meter, account) {
                Verdict::Deny { wait } => Some(wait),
                Verdict::Admit { .. } => None,
            },
            None => self.limited.amount().map(|_nothing| NEVER),
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
        if let (Some(mark), Some((meter, account)), Hits::Take(hits)) =
            (self.taken.take(), &self.account, self.hits)
        {
            meter.give_back(account, hits, mark, now);
        }
    }

    /// Asks limits in shadow mode, and counts.
    fn finish(&mut self, denied: bool, now: Now) {
        let Hits::Take(hits) = self.hits else {
            return;
        };
        let shadow = self.limited.shadow();
        if shadow && !denied {
            self.take(hits, now);
        }
        let stats = self.limited.stats();
        if self.over.is_some() {
            stats.over(hits, shadow);
        } else if !denied {
            let limit = self
                .limited
                .amount()
                .map_or(0, |limit| u64::from(limit.requests));
            let remaining = self
                .standing(now)
                .map_or(limit, |standing| standing.remaining);
            stats.within(hits, remaining, limit);
        }
    }

    fn standing(&self, now: Now) -> Option<Standing> {
        let (meter, account) = self.account.as_ref()?;
        Some(meter.standing(account, now))
    }

    fn status<'s>(&self, now: Now) -> Status<'s> {
        let standing = self.standing(now);
        let over = self.over.filter(|_| !self.limited.shadow());
        let limit = self.limited.amount();
        let window = match &self.account {
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
            limited: None,
            limit,
            remaining,
            reset: over.filter(|wait| *wait != NEVER).unwrap_or(reset),
        }
    }
}
