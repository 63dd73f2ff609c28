//! Limits on requests, counted in a [`Ledger`]: what it is asked about them, and what its answers come
//! to.

use std::borrow::Borrow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::key::{Names, Tags, Values};
use super::ledger::{
    Change, ChangeKind, Conforms, Form, Item, Ledger, Question, Reply, Role, Said,
};
use super::{Adjustment, Answer, ChargeRequest, MemoryStore, Store, fallback};
use crate::engine::charge::{Denial, Draw, Drawn, Few, Handle, Receipt, Tally, Verdicts};
use crate::engine::fleet::Alive;
use crate::engine::meter::{Meter, NEVER, Reading, Snapshot, Standing};
use crate::engine::request::RequestView;
use crate::engine::rule::{Measure, Rule};
use crate::engine::state::Scope;
use crate::engine::time::Now;
use crate::policy::plan::OnStoreFailure;

/// Counts limits on requests in a ledger, and without it while it does not answer.
#[derive(Debug)]
pub struct SharedStore {
    ledger: Arc<dyn Ledger>,
    names: Names,
    without: Arc<Without>,
}

/// What holds while the ledger does not answer, and how often it did.
#[derive(Debug)]
pub struct Without {
    /// Of rules that do not say.
    default: OnStoreFailure,
    /// Nodes that limits are divided by.
    alive: Arc<Alive>,
    local: AtomicU64,
    allow: AtomicU64,
    deny: AtomicU64,
}

/// What an item is of: the draw with this index, and of that the rule or one of its candidates.
#[derive(Clone, Copy, Debug)]
struct Origin {
    draw: usize,
    candidate: Option<u8>,
}

impl SharedStore {
    /// Keys begin with `prefix`; this node is the only one.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, prefix: &str, default: OnStoreFailure) -> Self {
        Self {
            ledger,
            names: Names::new(prefix),
            without: Arc::new(Without::new(default, Arc::default())),
        }
    }

    /// The same of a node among others: while the ledger does not answer, limits are divided by those
    /// that are `alive`.
    #[must_use]
    pub fn among(self, alive: Arc<Alive>) -> Self {
        let without = Arc::new(Without::new(self.without.default, alive));
        Self { without, ..self }
    }

    /// How often was decided without the ledger.
    #[must_use]
    pub const fn without(&self) -> &Arc<Without> {
        &self.without
    }
}

impl Store for SharedStore {
    fn charge(&self, request: &ChargeRequest<'_>) -> Answer {
        let &ChargeRequest {
            draws,
            request,
            now,
        } = request;
        let (origins, question) = question(draws, request, &self.names);
        let owned: Few<_> = draws.iter().cloned().map(Draw::owned).collect();
        if origins.is_empty() {
            // Blocked and unlimited: there is nothing to count.
            return Answer::Ready(judge(&owned, &origins, &question.items, None));
        }
        let items = question.items.clone();
        let Some(asking) = self.ledger.ask(question, now) else {
            return Answer::Ready(self.without.decide(draws, now));
        };
        let without = Arc::clone(&self.without);
        Answer::Pending(Box::pin(async move {
            match asking.await {
                Ok(reply) => {
                    let verdicts = judge(&owned, &origins, &items, Some(&reply));
                    without.remember(&owned, &verdicts, now);
                    verdicts
                }
                // By the time that it is now: others may have been charged since.
                Err(unanswered) => without.decide(&owned, unanswered.now),
            }
        }))
    }

    fn adjust(&self, rule: &Arc<Rule>, receipt: &Receipt, adjustment: Adjustment, now: Now) {
        let Handle::Stored(tallies) = &receipt.account else {
            // Counted here, when the ledger did not answer.
            MemoryStore.adjust(rule, receipt, adjustment, now);
            return;
        };
        let change = |tally: &Tally| {
            let (tokens, kind) = match adjustment {
                Adjustment::GiveBack => {
                    let mark = tally.mark;
                    (rule.request_cost, ChangeKind::GiveBack { mark })
                }
                Adjustment::Charge(tokens) => (tokens, ChangeKind::Charge),
            };
            Some(Change {
                key: tally.name.clone(),
                meter: *meter_of(rule, tally.candidate)?,
                tokens,
                form: Form::Own,
                kind,
            })
        };
        let changes: Vec<Change> = tallies.iter().filter_map(change).collect();
        if !changes.is_empty() {
            self.ledger.change(changes, now);
        }
    }

    fn join(&self) {
        self.ledger.join();
    }

    fn key_of(
        &self,
        rule: &Rule,
        scope: &Scope,
        meter: &Meter,
        request: &RequestView<'_>,
    ) -> Option<String> {
        let values = Values::of(rule, request, &mut Tags::default());
        Some(self.names.key(&rule.policy, &scope.name, meter, &values))
    }
}

impl Without {
    fn new(default: OnStoreFailure, alive: Arc<Alive>) -> Self {
        Self {
            default,
            alive,
            local: AtomicU64::new(0),
            allow: AtomicU64::new(0),
            deny: AtomicU64::new(0),
        }
    }

    fn decide<R: Borrow<Arc<Rule>> + Clone>(&self, draws: &[Draw<R>], now: Now) -> Verdicts {
        for draw in draws {
            let counter = match fallback::mode(draw.rule.borrow(), self.default) {
                OnStoreFailure::Local => &self.local,
                OnStoreFailure::Allow => &self.allow,
                OnStoreFailure::Deny => &self.deny,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        fallback::decide(draws, self.default, self.alive.nodes(), now)
    }

    /// What was counted is where this node goes on without the ledger.
    fn remember(&self, draws: &[Draw<Arc<Rule>>], verdicts: &Verdicts, now: Now) {
        for (draw, drawn) in draws.iter().zip(&verdicts.drawn) {
            if fallback::mode(&draw.rule, self.default) == OnStoreFailure::Local
                && let Some(standing) = drawn.standing
            {
                draw.remember(standing, now);
            }
        }
    }

    /// Limits that were decided without the ledger, by what held.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("local", read(&self.local)),
            ("allow", read(&self.allow)),
            ("deny", read(&self.deny)),
        ]
    }
}

/// What is to be asked about `draws`, and what each item is of.
fn question(
    draws: &[Draw<&Arc<Rule>>],
    request: &RequestView<'_>,
    names: &Names,
) -> (Few<Origin>, Question) {
    let mut origins = Few::new();
    let mut tags = Tags::default();
    let mut question = Question {
        denials: draws.iter().filter(|draw| blocks(draw.rule)).count(),
        items: Few::new(),
    };
    for (draw, Draw { rule, .. }) in draws.iter().enumerate() {
        let Measure::Metered(meter) = &rule.measure else {
            continue;
        };
        let values = Values::of(rule, request, &mut tags);
        let mut add = |scope, meter: &Meter, candidate: Option<u8>, role| {
            origins.push(Origin { draw, candidate });
            question.items.push(Item {
                key: names.key(&rule.policy, scope, meter, &values),
                meter: *meter,
                tokens: rule.request_cost,
                role,
                lease: rule.lease,
                again: 0,
                form: Form::Own,
            });
        };
        let role = if rule.shadow {
            Role::Shadow
        } else {
            Role::Enforced
        };
        add(&rule.scope.name, meter, None, role);
        for (index, tried) in (0u8..64).zip(&rule.candidates) {
            add(
                &tried.scope.name,
                &tried.meter,
                Some(index),
                Role::Candidate,
            );
        }
    }
    (origins, question)
}

fn blocks(rule: &Rule) -> bool {
    rule.measure == Measure::Nothing && !rule.shadow
}

/// What the answer comes to; `None`: nothing was to be asked.
fn judge(
    draws: &[Draw<Arc<Rule>>],
    origins: &[Origin],
    items: &[Item],
    reply: Option<&Reply>,
) -> Verdicts {
    let mut drawn: Few<Drawn> = draws.iter().map(|_| Drawn::default()).collect();
    let mut denied: Option<Denial> = None;
    let mut deny = |by: usize, wait: u64| denied = Some(Denial::longer(denied, by, wait));
    let said = reply.into_iter().flat_map(|reply| {
        let said = reply.said.iter().enumerate();
        said.map(|(index, said)| (said, reply.now_of(index)))
    });
    let mut told = origins.iter().zip(items).zip(said).peekable();
    for (by, (draw, drawn)) in draws.iter().zip(&mut drawn).enumerate() {
        let rule = &draw.rule;
        if rule.measure == Measure::Nothing {
            drawn.standing = Some(Standing::default());
            if !rule.shadow {
                deny(by, NEVER);
            }
        }
        while let Some(((origin, item), (said, now))) = told.next_if(|((of, _), _)| of.draw == by) {
            if let Some(wait) = tell(rule, origin.candidate, item, said, drawn, now) {
                deny(by, wait);
            }
        }
    }
    if denied.is_none() {
        for (draw, drawn) in draws.iter().zip(&mut drawn) {
            drawn.shadow_over |= draw.rule.shadow && draw.rule.measure == Measure::Nothing;
        }
    } else {
        // What candidates took stays: there is no request to give it back for.
        drawn.iter_mut().for_each(|drawn| drawn.taken = None);
    }
    Verdicts { drawn, denied }
}

/// Writes down what is said of one item; how long the request has to wait, if that denies it.
fn tell(
    rule: &Rule,
    candidate: Option<u8>,
    item: &Item,
    said: &Said,
    drawn: &mut Drawn,
    now: Now,
) -> Option<u64> {
    let tally = || Tally {
        candidate,
        name: item.key.clone(),
        mark: said.mark,
    };
    let over = said.conforms == Conforms::No;
    let admitted = said.conforms == Conforms::Yes;
    if let Some(index) = candidate {
        let bit = 1 << index;
        drawn.tried.0 |= if admitted { bit } else { 0 };
        drawn.tried.1 |= if over { bit } else { 0 };
        if let Some(Receipt {
            account: Handle::Stored(tallies),
            ..
        }) = drawn.taken.as_mut().filter(|_| admitted)
        {
            tallies.push(tally());
        }
        return None;
    }
    if said.reading != Reading::Unknown {
        let snapshot = Snapshot::new(&item.meter, said.reading);
        drawn.standing = Some(item.meter.standing(&snapshot, now));
    }
    if admitted && rule.settles() {
        drawn.taken = Some(Receipt {
            account: Handle::Stored(vec![tally()]),
            mark: 0,
            tried: smallvec::SmallVec::new(),
            nodes: 1,
        });
    }
    if !over || rule.shadow {
        drawn.shadow_over = over && rule.shadow;
        return None;
    }
    Some(said.wait(item, now))
}

fn meter_of(rule: &Rule, candidate: Option<u8>) -> Option<&Meter> {
    match (candidate, &rule.measure) {
        (None, Measure::Metered(meter)) => Some(meter),
        (None, Measure::Nothing | Measure::Everything) => None,
        (Some(index), _) => {
            let tried = rule.candidates.get(usize::from(index))?;
            Some(&tried.meter)
        }
    }
}
