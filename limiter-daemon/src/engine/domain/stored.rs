//! Limits of a domain, counted in a ledger that nodes share.

use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::decide::{
    Decided, Decision, Meets, Outcome, Standings, Undecided, conclude, denies, here,
};
use super::{Hits, Limited};
use crate::engine::charge::Few;
use crate::engine::fleet::Alive;
use crate::engine::meter::{Meter, Snapshot, Verdict};
use crate::engine::state::State;
use crate::engine::store::hex_of;
use crate::engine::store::ledger::{Conforms, Form, Item, Ledger, Question, Reply, Role};
use crate::engine::time::Now;
use crate::policy::plan::{self, DomainKeys, OnDomainFailure};

/// Counts the limits of domains in a ledger.
#[derive(Debug)]
pub struct DomainStore {
    ledger: Arc<dyn Ledger>,
    prefix: String,
    alive: Arc<Alive>,
    /// Descriptors decided without it, by [`OnDomainFailure`].
    without: [AtomicU64; 4],
}

impl DomainStore {
    /// Keys of limiterd's own form begin with `prefix`; this node is the only one.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, prefix: &str) -> Self {
        Self {
            ledger,
            prefix: prefix.to_owned(),
            alive: Arc::default(),
            without: Default::default(),
        }
    }

    /// The same of a node among others: where it goes on by itself without the ledger, limits are
    /// divided by those that are `alive`.
    #[must_use]
    pub fn among(self, alive: Arc<Alive>) -> Self {
        Self { alive, ..self }
    }

    /// As [`crate::engine::store::Store::join`].
    pub fn join(&self) {
        self.ledger.join();
    }

    /// Descriptors with a limit that were decided without the ledger, by what held.
    #[must_use]
    pub fn without(&self) -> [(&'static str, u64); 4] {
        OnDomainFailure::ALL.map(|mode| {
            let count = &self.without[mode as usize];
            (mode.name(), count.load(Ordering::Relaxed))
        })
    }
}

/// How one domain is counted there.
#[derive(Debug)]
pub(super) struct Stored {
    store: Arc<DomainStore>,
    names: Names,
    on_failure: OnDomainFailure,
    domain: String,
}

/// How keys are made.
#[derive(Debug)]
pub(super) enum Names {
    /// `<prefix>{<domain>}<path>#<algorithm>:<digest of values>`
    Own { prefix: String, domain: String },
    /// `<prefix><domain>_<key>_<value>_`, to which the window's beginning is added.
    Reference { prefix: String, domain: String },
}

impl Names {
    /// A key of limiterd's form; `values` feeds what counts are apart by.
    pub(super) fn own(
        &self,
        path: &str,
        meter: &Meter,
        values: Option<impl FnOnce(&mut dyn Hasher)>,
    ) -> String {
        let (Self::Own { prefix, domain } | Self::Reference { prefix, domain }) = self;
        let kind = meter.kind();
        let values = values.map(hex_of).unwrap_or_default();
        format!("{prefix}{{{domain}}}{path}#{kind}:{values}")
    }

    /// A key of the reference's form, but for the window; `shares`: what is written in place of a
    /// value.
    pub(super) fn reference<'a>(
        &self,
        entries: &[(&str, &'a str)],
        shares: impl Iterator<Item = Option<&'a str>>,
    ) -> String {
        let (Self::Own { prefix, domain } | Self::Reference { prefix, domain }) = self;
        let mut key = format!("{prefix}{domain}_");
        for ((name, value), shared) in entries.iter().zip(shares) {
            // Writing to a String does not fail.
            let _infallible = write!(key, "{name}_{}_", shared.unwrap_or(value));
        }
        key
    }

    pub(super) const fn form(&self) -> Form {
        match self {
            Self::Own { .. } => Form::Own,
            Self::Reference { .. } => Form::Plain { begins: None },
        }
    }
}

impl Stored {
    /// `None`: this node counts by itself.
    pub(super) fn of(domain: &plan::Domain, state: &State) -> Option<Arc<Self>> {
        let store = Arc::clone(state.domain_store()?);
        let names = match &domain.keys {
            DomainKeys::Own => Names::Own {
                prefix: store.prefix.clone(),
                // What is in braces decides where a key lies in a cluster.
                domain: domain.name.replace('{', "%7B").replace('}', "%7D"),
            },
            DomainKeys::Reference { prefix } => Names::Reference {
                prefix: prefix.clone(),
                domain: domain.name.clone(),
            },
        };
        Some(Arc::new(Self {
            store,
            names,
            on_failure: domain.on_store_failure,
            domain: domain.name.clone(),
        }))
    }

    /// What lies under its keys.
    pub(super) const fn form(&self) -> Form {
        self.names.form()
    }

    /// The key of what is limited so; `None`: there is nothing to count.
    pub(super) fn key(&self, limited: &Limited, entries: &[(&str, &str)]) -> Option<String> {
        let meter = limited.meter()?;
        Some(limited.key(&self.names, &meter, entries))
    }

    /// Asks the ledger what is left, takes nothing, and tells by which clock.
    pub(super) async fn look(
        &self,
        met: &mut Meets,
        now: Now,
    ) -> Result<(Standings, Now), Undecided> {
        let mut standings: Standings = met.iter().map(|_| None).collect();
        let (origins, mut question) = self.question(met);
        if origins.is_empty() {
            return Ok((standings, now));
        }
        question.denials = 0;
        for item in &mut question.items {
            (item.role, item.tokens) = (Role::Shadow, 0);
        }
        let items = question.items.clone();
        let unanswered = || Undecided {
            domain: self.domain.clone(),
        };
        let asking = self.store.ledger.ask(question, now);
        let reply = asking.ok_or_else(unanswered)?.await;
        let reply = reply.map_err(|_unanswered| unanswered())?;
        for ((origin, item), said) in origins.iter().zip(&items).zip(&reply.said) {
            let snapshot = Snapshot::new(&item.meter, said.reading);
            standings[*origin] = Some(item.meter.standing(&snapshot, reply.now));
        }
        Ok((standings, reply.now))
    }

    /// Asks the ledger.
    pub(super) fn decide(self: &Arc<Self>, mut met: Meets, shadow: bool, now: Now) -> Decision {
        let (origins, question) = self.question(&mut met);
        if origins.is_empty() {
            // Blocked and unlimited: there is nothing to count.
            return Decision::Ready(Ok(here(met, shadow, now)));
        }
        let items = question.items.clone();
        let Some(asking) = self.store.ledger.ask(question, now) else {
            return Decision::Ready(self.without(met, shadow, now));
        };
        let this = Arc::clone(self);
        Decision::Pending(Box::pin(async move {
            match asking.await {
                Ok(reply) if is_other(&reply) => this.without(met, shadow, reply.now),
                Ok(reply) => Ok(judge(met, &origins, &items, &reply, shadow)),
                // By the time that it is now: others may have been charged since.
                Err(unanswered) => this.without(met, shadow, unanswered.now),
            }
        }))
    }

    /// What is to be asked, and which limit each item is of.
    fn question(&self, met: &mut Meets) -> (Few<usize>, Question) {
        let mut origins = Few::new();
        let mut question = Question::default();
        // Quotas that have nothing whatever is counted, and that it is counted of.
        let (mut none, mut counted) = (false, false);
        for (index, met) in met.iter_mut().enumerate() {
            let Some(met) = met else { continue };
            let (tokens, role) = match met.hits {
                Hits::GiveBack(hits) => (hits, Role::Refund),
                Hits::Take(hits) if met.limited.shadow() => (hits, Role::Shadow),
                Hits::Take(hits) if met.limited.quota() => (hits, Role::Quota),
                Hits::Take(hits) => (hits, Role::Enforced),
            };
            let (Some((meter, _)), Some(key)) = (&met.counted, met.key.take()) else {
                let nothing = met.limited.amount().is_some();
                none |= nothing && role == Role::Quota;
                question.denials += usize::from(nothing && role == Role::Enforced);
                continue;
            };
            counted |= role == Role::Quota;
            origins.push(index);
            question.items.push(Item {
                key,
                meter: *meter,
                tokens,
                role,
                form: met.limited.form(&self.names),
                lease: None,
                again: 0,
            });
        }
        question.denials += usize::from(none && !counted);
        (origins, question)
    }

    /// What holds while the ledger does not answer.
    fn without(&self, mut met: Meets, shadow: bool, now: Now) -> Decided {
        let counted = met.iter().flatten().filter(|met| met.counted.is_some());
        let count = u64::try_from(counted.count()).unwrap_or(u64::MAX);
        self.store.without[self.on_failure as usize].fetch_add(count, Ordering::Relaxed);
        match self.on_failure {
            OnDomainFailure::Error => {
                return Err(Undecided {
                    domain: self.domain.clone(),
                });
            }
            OnDomainFailure::Local => {
                let nodes = self.store.alive.nodes();
                for met in met.iter_mut().flatten() {
                    let tokens = match met.hits {
                        Hits::Take(hits) | Hits::GiveBack(hits) => hits,
                    };
                    if let Some((meter, _)) = &mut met.counted {
                        *meter = meter.divided(nodes, tokens);
                    }
                }
            }
            OnDomainFailure::Allow => {
                for met in &mut met {
                    met.take_if(|met| met.counted.is_some());
                }
            }
            OnDomainFailure::Deny => {
                for met in met.iter_mut().flatten() {
                    met.counted = None;
                }
            }
        }
        Ok(here(met, shadow, now))
    }
}

/// Whether it says nothing but that the keys were of other windows.
fn is_other(reply: &Reply) -> bool {
    let mut said = reply.said.iter();
    said.any(|one| one.conforms == Conforms::OtherWindow)
}

/// What the answer comes to.
fn judge(
    mut met: Meets,
    origins: &[usize],
    items: &[Item],
    reply: &Reply,
    shadow: bool,
) -> Outcome {
    let now = reply.now;
    let mut standings: Standings = met.iter().map(|_| None).collect();
    for met in met.iter_mut().flatten() {
        met.over = met.never().filter(|_| !met.limited.shadow());
    }
    for (index, ((origin, item), said)) in origins.iter().zip(items).zip(&reply.said).enumerate() {
        let now = reply.now_of(index);
        if let Some(met) = met[*origin].as_mut() {
            let snapshot = Snapshot::new(&item.meter, said.reading);
            standings[*origin] = Some(item.meter.standing(&snapshot, now));
            met.over = (said.conforms == Conforms::No).then(|| said.wait(item, now));
            if let (true, Hits::Take(hits)) = (said.remembered, met.hits) {
                met.stats.remembered(hits);
            }
        }
    }
    let denied = denies(&met);
    if denied {
        for (index, origin) in origins.iter().enumerate() {
            let met = met[*origin].as_mut();
            if let Some(over) = met.and_then(|met| met.over.as_mut()) {
                *over = wait_after(index, items, reply).unwrap_or(*over);
            }
        }
    } else {
        for met in met.iter_mut().flatten() {
            met.over = met.over.or_else(|| met.never());
        }
    }
    conclude(met, &standings, denied, shadow, now)
}

/// How long an item has to wait that would conform by itself: earlier items of the question have its
/// key as well, and were taken before it was found to be over, and then given back. `None`: it would
/// not conform by itself.
fn wait_after(index: usize, items: &[Item], reply: &Reply) -> Option<u64> {
    let (item, now) = (&items[index], reply.now_of(index));
    let snapshot = Snapshot::new(&item.meter, reply.said.get(index)?.reading);
    if matches!(
        item.meter.peek(&snapshot, item.tokens, now),
        Verdict::Deny { .. }
    ) {
        return None;
    }
    for (other, said) in items[..index].iter().zip(&reply.said) {
        let takes = matches!(other.role, Role::Enforced | Role::Quota);
        if takes && other.key == item.key && said.conforms == Conforms::Yes {
            other.meter.charge(&snapshot, other.tokens, now);
        }
    }
    match item.meter.peek(&snapshot, item.tokens, now) {
        Verdict::Deny { wait } => Some(wait),
        Verdict::Admit { .. } => None,
    }
}
