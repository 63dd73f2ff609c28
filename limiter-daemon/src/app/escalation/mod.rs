//! Sentences, between who proposes them (the workers) and what serves them (the table of blocks, and
//! with it the kernel and the fleet). One task on the control thread hears proposals; what comes of
//! blocks is told back to the judges, and to the workers that have connections of who is blocked.

mod safe;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::admin::Blocking;
use crate::engine::escalation::{Court, Fate, Proposal, Protected, Reach};
use crate::engine::fleet::{Cause, Event, Scope, Told};
use crate::global::RedisLedger;
use crate::global::fleet::Fleet;
use crate::l4;
use crate::l7::Active;
use crate::l7::clock::Clock;
use crate::l7::eviction::{Eviction, Evictions};
use crate::policy::plan::{DaemonConfig, Plan};
use safe::Safe;

/// Proposals that wait to be heard; one that finds no place comes up again with the next offence.
const WAITING: usize = 1_024;
/// What is heard before others on the thread have a turn.
const TURN: usize = 64;
/// Blocks whose connections are still to be ended; of more, they end by their bounds.
const EVICTED: usize = 4_096;

/// Takes proposals from the workers.
#[derive(Debug)]
struct Docket(mpsc::Sender<Proposal>);

impl Court for Docket {
    fn propose(&self, proposal: Proposal) -> bool {
        self.0.try_send(proposal).is_ok()
    }
}

/// What sentences need, before there is anything to serve them.
pub(super) struct Escalation {
    docket: Arc<Docket>,
    proposals: mpsc::Receiver<Proposal>,
    pub(super) evictions: Evictions,
}

impl Escalation {
    pub(super) fn new() -> Self {
        let (sender, proposals) = mpsc::channel(WAITING);
        Self {
            docket: Arc::new(Docket(sender)),
            proposals,
            evictions: Evictions::default(),
        }
    }

    /// Whom workers propose sentences to; `None`: there is neither a kernel half nor a fleet.
    pub(super) fn court(&self, config: &DaemonConfig) -> Option<Arc<dyn Court>> {
        let served = !config.interfaces.is_empty() || config.store.is_some();
        served.then(|| Arc::<Docket>::clone(&self.docket) as _)
    }

    /// Follows `plan`, and tells back what comes of blocks. Nothing is heard before
    /// [`Hearing::begin`].
    pub(super) fn follow(
        self,
        plan: &Plan,
        active: &Arc<ArcSwap<Active>>,
        ledgers: Vec<Arc<RedisLedger>>,
        clock: Clock,
    ) -> (Sentencing, Hearing) {
        let safe = Arc::new(Safe::new(plan, Arc::clone(active), ledgers));
        let (blocked, evicted) = mpsc::channel(EVICTED);
        let told = Arc::new(Outcome {
            active: Arc::clone(active),
            clock,
            blocked,
        });
        let hearing = Hearing {
            proposals: self.proposals,
            blocked: evicted,
            evictions: self.evictions,
            safe: Arc::clone(&safe),
            active: Arc::clone(active),
        };
        (Sentencing { safe, told }, hearing)
    }
}

/// What the daemon keeps of it.
pub(super) struct Sentencing {
    pub(super) safe: Arc<Safe>,
    pub(super) told: Arc<Outcome>,
}

/// Tells on what has come of blocks.
#[derive(Debug)]
pub(super) struct Outcome {
    active: Arc<ArcSwap<Active>>,
    clock: Clock,
    blocked: mpsc::Sender<IpNet>,
}

impl Outcome {
    /// The table of blocks is locked meanwhile.
    pub(super) fn saw(&self, event: Event, told: &Told<'_>) {
        let Told {
            net, cause, until, ..
        } = *told;
        let active = self.active.load();
        let judges = active.judges();
        match event {
            Event::Blocked => {
                if let (Some(judge), Some(until)) = (judges.by_policy(&cause.rule), until) {
                    let left = until.saturating_sub(l4::clock::now());
                    judge.heard(net, self.clock.now().saturating_add(left));
                }
                // Those that find no place end by the bounds on their time.
                let _full = self.blocked.try_send(net);
            }
            // By people, and by whom they told.
            Event::Lifted if !cause.by.is_empty() => {
                judges.all().for_each(|judge| judge.pardon(net))
            }
            Event::GaveWay => {
                let now = self.clock.now();
                judges.all().for_each(|judge| judge.released(net, now));
            }
            Event::Lifted | Event::Sent | Event::Resynced | Event::Failed => {}
        }
    }
}

/// Hears proposals.
pub(super) struct Hearing {
    proposals: mpsc::Receiver<Proposal>,
    blocked: mpsc::Receiver<IpNet>,
    evictions: Evictions,
    safe: Arc<Safe>,
    active: Arc<ArcSwap<Active>>,
}

impl Hearing {
    /// Begins; `blocking` has sentences served. `None`: nothing does.
    pub(super) fn begin(self, blocking: Option<Blocking>, tasks: &mut JoinSet<anyhow::Result<()>>) {
        let Some(blocking) = blocking else {
            return;
        };
        let safe = Arc::clone(&self.safe);
        tasks.spawn(async move {
            let news = Arc::new(Notify::new());
            let fleet = blocking.fleet.clone();
            let evicted = evict(
                self.blocked,
                self.evictions,
                Arc::clone(&safe),
                blocking.enforced,
            );
            tokio::select! {
                () = safe.keep_resolved() => {}
                () = tell(fleet, Arc::clone(&news)) => {}
                () = evicted => {}
                () = hear(self.proposals, &safe, &self.active, &blocking, &news) => {}
            }
            Ok(())
        });
    }
}

async fn hear(
    mut proposals: mpsc::Receiver<Proposal>,
    safe: &Safe,
    active: &ArcSwap<Active>,
    blocking: &Blocking,
    news: &Notify,
) {
    let mut turn = Vec::with_capacity(TURN);
    safe.resolved().await;
    while proposals.recv_many(&mut turn, TURN).await > 0 {
        let never = safe.of_now(&active.load());
        let mut of_fleet = false;
        for proposal in turn.drain(..) {
            of_fleet |= judge(&proposal, &never, safe, active, blocking) == Some(Scope::Fleet);
        }
        if of_fleet {
            news.notify_one();
        }
        tokio::task::yield_now().await;
    }
}

/// Decides on a proposal; `Some`: where it is served.
fn judge(
    proposal: &Proposal,
    never: &Protected,
    safe: &Safe,
    active: &ArcSwap<Active>,
    blocking: &Blocking,
) -> Option<Scope> {
    let Proposal {
        net,
        length,
        why,
        earlier,
        reach,
        shadow,
        judge,
    } = proposal;
    let (net, policy) = (*net, judge.policy());
    // A reload may have taken the policy away meanwhile.
    active.load().judges().by_policy(policy)?;
    if safe.always(net) || never.touches(net) || safe.is_proxy(net) {
        tracing::warn!(
            %net, policy, why,
            "over the threshold, and never sentenced: it is allowed, a trusted proxy, this node, or one of its upstreams or stores"
        );
        judge.became(net, Fate::Protected);
        return None;
    }
    if *shadow {
        tracing::info!(%net, policy, why, ?length, earlier, "would be sentenced");
        judge.became(net, Fate::Shadow);
        return None;
    }
    let scope = match reach {
        Reach::Fleet if blocking.blocks.shared() => Scope::Fleet,
        Reach::Fleet | Reach::Node => Scope::Node,
    };
    if scope == Scope::Node && !blocking.enforced {
        judge.became(net, Fate::Failed);
        return None;
    }
    let cause = Cause {
        by: blocking.name.clone(),
        why: sentence(why, *earlier),
        rule: policy.to_owned(),
    };
    let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    match blocking
        .blocks
        .pass(net, nanos, scope, cause, (blocking.clock)())
    {
        Ok(()) => {
            judge.became(net, Fate::Sentenced);
            Some(scope)
        }
        Err(error) => {
            tracing::warn!(%net, policy, %error, "not sentenced");
            judge.became(net, Fate::Failed);
            None
        }
    }
}

/// `21 RateLimited in 3 s, 2 sentences before`.
fn sentence(why: &str, earlier: u32) -> String {
    match earlier {
        0 => why.to_owned(),
        1 => format!("{why}, 1 sentence before"),
        more => format!("{why}, {more} sentences before"),
    }
}

/// Tells the store what is new; while it does not answer it is told when it is back.
async fn tell(fleet: Option<Arc<Fleet>>, news: Arc<Notify>) {
    loop {
        news.notified().await;
        if let Some(fleet) = &fleet
            && let Err(away) = fleet.push().await
        {
            tracing::debug!("{away}");
        }
    }
}

/// Ends the connections of who is blocked.
async fn evict(
    mut blocked: mpsc::Receiver<IpNet>,
    evictions: Evictions,
    safe: Arc<Safe>,
    enforced: bool,
) {
    /// For more of them to come.
    const GATHER: Duration = Duration::from_millis(5);
    let mut nets = Vec::new();
    while blocked.recv_many(&mut nets, EVICTED).await > 0 {
        tokio::time::sleep(GATHER).await;
        while let Ok(net) = blocked.try_recv() {
            nets.push(net);
        }
        let nets = std::mem::take(&mut nets);
        if enforced {
            let (ports, allowed) = safe.limited();
            evictions.tell(Eviction {
                nets,
                ports,
                allowed,
            });
        }
    }
}
