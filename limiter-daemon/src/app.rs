//! The composition root: the one place that knows every part, starts them in order, reloads the
//! policy and ends them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::admin::{self, Admin, L4, Metrics, Status, metrics::Sources};
use crate::engine::Engine;
use crate::engine::state::State;
use crate::l4::offenders::Offenders;
use crate::l4::{self, Events, Kernel};
use crate::l7::clock::Clock;
use crate::l7::metrics::Counters;
use crate::l7::worker::Shared;
use crate::l7::{Active, Workers, listener};
use crate::policy::plan::{DaemonConfig, Plan};
use crate::policy::{self, Outcome, Severity};

/// Runs the daemon on the policy files of `dir` until SIGTERM or SIGINT. SIGHUP reloads them.
///
/// # Errors
/// When the files are invalid or something cannot be set up (nothing stays attached then), and when
/// a part of the daemon dies.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    let outcome = load(dir, None);
    let Some(plan) = outcome.plan.clone() else {
        let findings = errors(&outcome);
        bail!("the policy files are not valid, nothing was started:\n{findings}");
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?
        .block_on(control(dir.to_owned(), plan, outcome))
}

/// Reads the policy files; findings are logged. What is not valid stays as it was in `previous`.
fn load(dir: &Path, previous: Option<&Outcome>) -> Outcome {
    let outcome = match previous {
        Some(previous) => policy::reload(dir, previous),
        None => policy::load(dir),
    };
    for finding in &outcome.diagnostics {
        match finding.severity {
            Severity::Warning => tracing::warn!("{finding}"),
            Severity::Error => tracing::error!("{finding}"),
        }
    }
    outcome
}

/// The errors of an outcome, a line each.
fn errors(outcome: &Outcome) -> String {
    let mut text = String::new();
    for finding in &outcome.diagnostics {
        if finding.severity == Severity::Error {
            // Writing to a String does not fail.
            let _infallible = writeln!(text, "{finding}");
        }
    }
    text
}

/// The running daemon.
struct Daemon {
    dir: PathBuf,
    /// What the files came to when they were last read.
    outcome: Outcome,
    config: DaemonConfig,
    state: Arc<State>,
    active: Arc<ArcSwap<Active>>,
    workers: Workers,
    worker_count: usize,
    served: HashSet<SocketAddr>,
    kernel: Option<Arc<Mutex<Kernel>>>,
    status: Arc<Status>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// How often the kernel half is looked after.
const TICK: Duration = Duration::from_secs(1);
/// How often the samples of dropped packets are looked at.
const SAMPLING: Duration = Duration::from_millis(50);

async fn control(dir: PathBuf, plan: Plan, outcome: Outcome) -> anyhow::Result<()> {
    // Signals first: one that comes during the start is not lost.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let mut daemon = Daemon::start(dir, plan, outcome).await?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hangup.recv() => daemon.reload().await,
            () = daemon.workers.died() => break Err(anyhow::anyhow!("a worker died")),
            Some(ended) = daemon.tasks.join_next() => {
                break Err(anyhow::anyhow!("a part of the daemon died: {ended:?}"));
            }
            _ = tick.tick() => daemon.look_after_kernel(),
        }
    };
    daemon.stop(result).await
}

impl Daemon {
    async fn start(dir: PathBuf, plan: Plan, outcome: Outcome) -> anyhow::Result<Self> {
        let config = plan.daemon.clone();
        let status = Arc::new(Status::default());
        let counters = Arc::new(Counters::default());
        let clock = Clock::start();
        let worker_count = match config.workers {
            Some(count) => count,
            None => std::thread::available_parallelism()
                .context("cannot count CPUs")?
                .get(),
        };

        // Everything that can be refused comes before the kernel is touched.
        let admin_socket = admin::bind(config.admin)?;
        let served = binds(&plan);
        let sockets = served
            .iter()
            .map(|bind| Ok((*bind, listener::bind(*bind, worker_count)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;

        let state = Arc::new(State::new(config.max_buckets));
        let active = Active::new(&plan, Engine::compile(&plan, &state));
        let active = Arc::new(ArcSwap::from_pointee(active));
        let shared = Shared {
            active: Arc::clone(&active),
            clock,
            counters: Arc::clone(&counters),
        };
        let workers = Workers::start(worker_count, &shared).context("cannot start the workers")?;
        let kernel = start_kernel(&config, &plan)?;

        for (bind, listeners) in sockets {
            workers.listen(bind, listeners).await;
        }
        let sources = Sources {
            status: Arc::clone(&status),
            state: Arc::clone(&state),
            counters,
            clock,
            kernel: kernel.clone(),
        };
        let mut tasks = JoinSet::new();
        let l4 = kernel.as_ref().map(|kernel| L4 {
            kernel: Arc::clone(kernel),
            offenders: Arc::default(),
        });
        if let Some(l4) = &l4
            && let Some(events) = lock(&l4.kernel).events()
        {
            tasks.spawn(sample(events, Arc::clone(&l4.offenders)));
        }
        let admin = Arc::new(Admin {
            status: Arc::clone(&status),
            metrics: Metrics::new(sources),
            l4,
        });
        let admin_socket = tokio::net::TcpListener::from_std(admin_socket)?;
        tasks.spawn(async move {
            admin::serve(admin_socket, admin).await;
            Ok(())
        });

        let notes = kernel.as_deref().map(describe).unwrap_or_default();
        let mut addresses: Vec<_> = served.iter().map(ToString::to_string).collect();
        addresses.sort();
        tracing::info!(listeners = addresses.join(" "), admin = %config.admin, workers = worker_count, "ready");
        status.serving(notes);
        Ok(Self {
            dir,
            outcome,
            config,
            state,
            active,
            workers,
            worker_count,
            served,
            kernel,
            status,
            tasks,
        })
    }

    /// Says that the daemon lives, ends sentences that are served, and attaches to interfaces that
    /// have come back.
    fn look_after_kernel(&self) {
        let Some(kernel) = &self.kernel else {
            return;
        };
        let mut kernel = lock(kernel);
        let mut look_after = || {
            kernel.beat()?;
            kernel.expire(l4::clock::now())?;
            kernel.reattach()
        };
        if let Err(error) = look_after() {
            tracing::error!(%error, "the kernel half cannot be looked after");
        }
    }

    /// Puts the policy files as they are now in force; of what is not valid, what is in force stays.
    async fn reload(&mut self) {
        match self.try_reload().await {
            Ok(()) => {
                self.status.reloaded();
                tracing::info!("policy reloaded");
            }
            Err(error) => {
                let reason = format!("{error:#}");
                tracing::error!(%reason, "reload with errors: what is not valid stays as it was");
                self.status.rejected(reason);
            }
        }
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        let outcome = load(&self.dir, Some(&self.outcome));
        let Some(plan) = outcome.plan.clone() else {
            bail!("{}", errors(&outcome).trim_end());
        };
        if plan.daemon != self.config {
            tracing::warn!("changes of the LimiterConfig take effect at the next start");
        }
        if self.kernel.is_none() && !self.config.interfaces.is_empty() {
            bail!("the kernel half is not running");
        }
        let served = binds(&plan);
        let sockets = served
            .difference(&self.served)
            .map(|bind| Ok((*bind, listener::bind(*bind, self.worker_count)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if let Some(kernel) = &self.kernel {
            lock(kernel).apply(&plan.network)?;
        }
        self.active.store(Arc::new(Active::new(
            &plan,
            Engine::compile(&plan, &self.state),
        )));
        for (bind, listeners) in sockets {
            self.workers.listen(bind, listeners).await;
        }
        let gone: Vec<_> = self.served.difference(&served).copied().collect();
        self.workers.close(&gone).await;
        self.served = served;
        let errors = errors(&outcome);
        self.outcome = outcome;
        if !errors.is_empty() {
            bail!("{}", errors.trim_end());
        }
        Ok(())
    }

    /// Drains, leaves in the kernel what the policy says, and passes `result` on.
    async fn stop(self, result: anyhow::Result<()>) -> anyhow::Result<()> {
        if result.is_err() {
            self.status.failed();
        } else {
            self.status.draining();
        }
        tracing::info!(timeout = ?self.config.drain_timeout, "draining");
        let drained = self.workers.drain(self.config.drain_timeout).await;
        if let Some(kernel) = self.kernel {
            let mut kernel = lock(&kernel);
            kernel
                .stop(self.config.on_exit)
                .context("cannot clean up in the kernel")?;
        }
        result?;
        if !drained {
            bail!("a worker panicked");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the samples of dropped packets. The ring holds far more than come between two looks.
async fn sample(mut events: Events, offenders: Arc<Mutex<Offenders>>) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(SAMPLING);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let mut offenders = offenders.lock().unwrap_or_else(PoisonError::into_inner);
        events.drain(|event| offenders.record(event));
    }
}

fn binds(plan: &Plan) -> HashSet<SocketAddr> {
    plan.listeners
        .iter()
        .flat_map(|listener| listener.binds.iter().copied())
        .collect()
}

fn start_kernel(config: &DaemonConfig, plan: &Plan) -> anyhow::Result<Option<Arc<Mutex<Kernel>>>> {
    if config.interfaces.is_empty() {
        return Ok(None);
    }
    let kernel = Kernel::start(config, &plan.network)?;
    Ok(Some(Arc::new(Mutex::new(kernel))))
}

fn describe(kernel: &Mutex<Kernel>) -> Vec<String> {
    let kernel = lock(kernel);
    let describe = |a: &l4::Attachment| {
        let adopted = if a.adopted {
            ", adopted from an earlier run"
        } else {
            ""
        };
        format!("xdp: {} {}{adopted}", a.interface, a.mode.name())
    };
    kernel.attachments().iter().map(describe).collect()
}
