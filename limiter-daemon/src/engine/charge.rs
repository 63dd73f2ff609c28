//! Taking the tokens of one request from all its buckets, or from none.

use std::borrow::Borrow;
use std::sync::Arc;

use smallvec::SmallVec;

use super::buckets::Bucket;
use super::meter::{Meter, NEVER, Reading, Snapshot, Standing, Verdict, Words as _};
use super::request::RequestView;
use super::rule::{Measure, Rule};
use super::state::{Account, Place};
use super::time::Now;

/// Rules that a request usually meets at most; more of them allocate.
pub(super) const INLINE: usize = 4;

/// Few of something, one for each rule that a request meets.
pub type Few<T> = SmallVec<[T; INLINE]>;

/// A rule that a request meets, and the bucket that it draws from.
#[derive(Clone, Debug)]
pub struct Draw<R> {
    pub rule: R,
    pub place: Place,
    /// The buckets of the rule's candidates.
    pub tried: SmallVec<[Place; 1]>,
    /// Nodes that the limit is divided by, at least 1 ([`Meter::divided`]).
    pub nodes: u32,
}

/// What a draw came to.
#[derive(Clone, Debug, Default)]
pub struct Drawn {
    /// What is left of the limit; `None`: there is none to count.
    pub standing: Option<Standing>,
    /// What is to be known to give the tokens back; `None`: none were taken.
    pub taken: Option<Receipt>,
    /// The rule is in shadow mode and would have denied.
    pub shadow_over: bool,
    /// Bits of the candidates that were asked and would have admitted, and would have denied (of the
    /// first 64).
    pub tried: (u64, u64),
}

/// Where tokens were taken from, and what a refund must know.
#[derive(Clone, Debug)]
pub struct Receipt {
    pub account: Handle,
    /// See [`Meter::give_back`]; a store may put anything here.
    pub mark: u64,
    /// The same of the candidates that took tokens in this node's memory.
    pub tried: SmallVec<[(u8, Place, u64); 1]>,
    /// As [`Draw::nodes`]; of no interest to a store.
    pub nodes: u32,
}

impl Receipt {
    /// A receipt for tokens from this node's memory.
    #[must_use]
    pub fn here(place: Place, mark: u64, nodes: u32) -> Self {
        Self {
            account: Handle::Here(place),
            mark,
            tried: SmallVec::new(),
            nodes,
        }
    }
}

/// How a bucket is found again.
#[derive(Clone, Debug)]
pub enum Handle {
    /// In this node's memory.
    Here(Place),
    /// In a store: what took tokens there.
    Stored(Vec<Tally>),
}

/// A bucket of a store that tokens were taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Which of the rule's candidates drew; `None`: the rule itself.
    pub candidate: Option<u8>,
    /// The name that the store has for it.
    pub name: String,
    /// As [`Receipt::mark`].
    pub mark: u64,
}

/// What all draws of a request came to, in their order.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    pub drawn: Few<Drawn>,
    pub denied: Option<Denial>,
}

/// Why a request may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Index of the draw that makes it wait longest.
    pub by: usize,
    /// Nanoseconds after which the request would conform; [`NEVER`]: never.
    pub wait: u64,
    /// Nobody else denies it.
    pub alone: bool,
    /// It is not known whether it conforms: the store does not answer, and the rule denies then.
    pub unknown: bool,
}

impl Denial {
    /// Of `before` and that of the draw `by`, after which it would wait for `wait`, the one that waits
    /// longer; of equals the first.
    #[must_use]
    pub(super) fn longer(before: Option<Self>, by: usize, wait: u64) -> Self {
        match before {
            Some(other) if other.wait >= wait => Self {
                alone: false,
                ..other
            },
            other => Self {
                by,
                wait,
                alone: other.is_none(),
                unknown: false,
            },
        }
    }
}

impl<R: Borrow<Arc<Rule>>> Draw<R> {
    fn rule(&self) -> &Rule {
        self.rule.borrow()
    }

    fn account(&self) -> Account<'_> {
        Account {
            scope: &self.rule().scope,
            place: &self.place,
        }
    }

    /// What this node has of `meter`, the rule's or a candidate's.
    fn share(&self, meter: &Meter) -> Meter {
        meter.divided(self.nodes, self.rule().request_cost)
    }

    fn peek(&self, now: Now) -> Option<u64> {
        let rule = self.rule();
        match &rule.measure {
            Measure::Nothing => Some(NEVER),
            Measure::Everything => None,
            Measure::Metered(meter) => {
                let meter = self.share(meter);
                waits(meter.peek(&self.account(), rule.request_cost, now))
            }
        }
    }

    /// Writes down here what is left by the store's count, so that this node goes on from there when
    /// the store does not answer any more. Of values that have a bucket of their own, only when half
    /// of it is used, and where there is room: values without number are not to take the place of
    /// those that this node counts, nor to write in what they share.
    pub fn remember(&self, standing: Standing, now: Now) {
        let Measure::Metered(meter) = &self.rule().measure else {
            return;
        };
        let account = self.account();
        let remembered = matches!(self.place, Place::Single)
            || standing.remaining <= meter.capacity() / 2
                && matches!(account.existing(0, now), Bucket::Own { .. });
        if remembered {
            meter.assume(&account, standing, now);
        }
    }

    fn give_back(&self, receipt: &Receipt, now: Now) {
        if let Measure::Metered(meter) = &self.rule().measure {
            let meter = self.share(meter);
            meter.give_back(&self.account(), self.rule().request_cost, receipt.mark, now);
        }
    }
}

impl<'a> Draw<&'a Arc<Rule>> {
    pub(super) fn of(rule: &'a Arc<Rule>, request: &RequestView<'_>) -> Self {
        let place = match &rule.measure {
            Measure::Metered(meter) => rule.place(&rule.scope, meter, request),
            Measure::Nothing | Measure::Everything => Place::Single,
        };
        let tried = rule.candidates.iter();
        Self {
            rule,
            place,
            tried: tried
                .map(|tried| rule.place(&tried.scope, &tried.meter, request))
                .collect(),
            nodes: 1,
        }
    }

    /// The same, to be kept.
    #[must_use]
    pub fn owned(self) -> Draw<Arc<Rule>> {
        Draw {
            rule: Arc::clone(self.rule),
            place: self.place,
            tried: self.tried,
            nodes: self.nodes,
        }
    }
}

/// How long `request`, which `rule` is for, would have to wait; `None`: it would be admitted. Takes
/// nothing.
#[must_use]
pub fn wait(rule: &Arc<Rule>, request: &RequestView<'_>, now: Now) -> Option<u64> {
    Draw::of(rule, request).peek(now)
}

const fn waits(verdict: Verdict) -> Option<u64> {
    match verdict {
        Verdict::Deny { wait } => Some(wait),
        Verdict::Admit { .. } => None,
    }
}

/// Takes what the request costs from the buckets of every enforced draw, or from none.
///
/// All are asked before any is charged. If another core takes the last token in between, what was
/// taken is given back: for that moment others may be denied a token that nobody gets.
pub(super) fn charge<R: Borrow<Arc<Rule>>>(draws: &[Draw<R>], now: Now) -> Verdicts {
    let mut verdicts = Verdicts {
        drawn: draws.iter().map(|_| Drawn::default()).collect(),
        denied: None,
    };
    if draws.len() > 1 || draws.iter().any(|draw| !draw.tried.is_empty()) {
        verdicts.denied = longest(draws, now);
    }
    if verdicts.denied.is_none() {
        verdicts.denied = take_all(draws, &mut verdicts.drawn, now);
    }
    verdicts
}

/// Which of the enforced draws makes the request wait longest; of equals the first.
fn longest<R: Borrow<Arc<Rule>>>(draws: &[Draw<R>], now: Now) -> Option<Denial> {
    let mut longest: Option<Denial> = None;
    for (by, draw) in draws.iter().enumerate() {
        if draw.rule().shadow {
            continue;
        }
        let Some(wait) = draw.peek(now) else {
            continue;
        };
        longest = Some(Denial::longer(longest, by, wait));
    }
    longest
}

fn take_all<R: Borrow<Arc<Rule>>>(
    draws: &[Draw<R>],
    drawn: &mut [Drawn],
    now: Now,
) -> Option<Denial> {
    for (by, draw) in draws.iter().enumerate() {
        let rule = draw.rule();
        if rule.shadow {
            continue;
        }
        let wait = match &rule.measure {
            Measure::Everything => continue,
            Measure::Nothing => NEVER,
            Measure::Metered(meter) => {
                match draw
                    .share(meter)
                    .take(&draw.account(), rule.request_cost, now)
                {
                    Verdict::Deny { wait } => wait,
                    Verdict::Admit { mark } => {
                        drawn[by].taken = Some(Receipt::here(draw.place.clone(), mark, draw.nodes));
                        continue;
                    }
                }
            }
        };
        give_all_back(draws, drawn, now);
        return Some(Denial {
            by,
            wait,
            alone: true,
            unknown: false,
        });
    }
    None
}

/// Gives back what was taken from this node's buckets.
pub(super) fn give_all_back<R: Borrow<Arc<Rule>>>(
    draws: &[Draw<R>],
    drawn: &mut [Drawn],
    now: Now,
) {
    for (draw, drawn) in draws.iter().zip(drawn) {
        if let Some(receipt) = drawn.taken.take() {
            draw.give_back(&receipt, now);
        }
    }
}

/// Asks the limits that deny nothing, now that it is known whether the request passes: those in
/// shadow mode and the candidates; and looks at what is left of every limit.
///
/// Each is asked about the requests that it would have been asked about if it were enforced: a
/// candidate not about those that another rule than its own denies.
pub(super) fn observe<R: Borrow<Arc<Rule>>>(
    draws: &[Draw<R>],
    drawn: &mut [Drawn],
    denied: Option<Denial>,
    now: Now,
) {
    for (index, (draw, drawn)) in draws.iter().zip(drawn).enumerate() {
        let rule = draw.rule();
        if rule.shadow && denied.is_none() {
            drawn.shadow_over = match &rule.measure {
                Measure::Nothing => true,
                Measure::Everything => false,
                Measure::Metered(meter) => {
                    match draw
                        .share(meter)
                        .take(&draw.account(), rule.request_cost, now)
                    {
                        Verdict::Deny { .. } => true,
                        Verdict::Admit { mark } => {
                            drawn.taken = Some(Receipt::here(draw.place.clone(), mark, draw.nodes));
                            false
                        }
                    }
                }
            };
        }
        if denied.is_none_or(|denied| denied.alone && denied.by == index) {
            try_candidates(draw, drawn, now);
        }
        drawn.standing = match &rule.measure {
            Measure::Nothing => Some(Standing::default()),
            Measure::Everything => None,
            Measure::Metered(meter) => {
                let meter = draw.share(meter);
                Some(match (&meter, &drawn.taken) {
                    // As it was when these tokens were taken: others may have taken some since.
                    (Meter::Bucket { .. }, Some(receipt)) => {
                        let taken = Snapshot::new(&meter, Reading::Tat(receipt.mark));
                        meter.standing(&taken, now)
                    }
                    _ => meter.standing(&draw.account(), now),
                })
            }
        };
    }
}

fn try_candidates<R: Borrow<Arc<Rule>>>(draw: &Draw<R>, drawn: &mut Drawn, now: Now) {
    let rule = draw.rule();
    let places = rule.candidates.iter().zip(&draw.tried);
    for (index, (tried, place)) in (0u8..64).zip(places) {
        let account = Account {
            scope: &tried.scope,
            place,
        };
        let bit = 1 << index;
        match draw
            .share(&tried.meter)
            .take(&account, rule.request_cost, now)
        {
            Verdict::Admit { mark } => {
                drawn.tried.0 |= bit;
                if let Some(receipt) = &mut drawn.taken {
                    receipt.tried.push((index, place.clone(), mark));
                }
            }
            Verdict::Deny { .. } => drawn.tried.1 |= bit,
        }
    }
}
