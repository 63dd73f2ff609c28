//! The composition root: the one place that knows every part, starts them in order, reloads the
//! policy and ends them.

mod privileges;
mod reload;
mod watch;

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::admin::{self, Admin, L4, Loads, Metrics, Status, Trigger, metrics::Sources};
use crate::engine::Engine;
use crate::engine::state::State;
use crate::l4::offenders::Offenders;
use crate::l4::{self, Events, Kernel};
use crate::l7::access_log::{self, AccessLog};
use crate::l7::clock::{Clock, wall};
use crate::l7::dns::{self, Resolver};
use crate::l7::metrics::Counters;
use crate::l7::record::Sink;
use crate::l7::worker::Shared;
use crate::l7::{Active, Workers, listener};
use crate::policy::Outcome;
use crate::policy::plan::{DaemonConfig, Plan};
use watch::Watch;

/// Runs the daemon on the policy files of `dir` until SIGTERM or SIGINT. They are read again when
/// they change, and on SIGHUP.
///
/// # Errors
/// When the files are invalid or something cannot be set up (nothing stays attached then), and when
/// a part of the daemon dies.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    privileges::at_start()?;
    let fingerprint = watch::fingerprint(dir);
    let outcome = reload::load(dir, None);
    let plan = outcome.plan.clone().with_context(|| {
        format!(
            "the policy files are not valid, nothing was started:\n{}",
            reload::errors(&outcome)
        )
    })?;
    let first = First {
        dir: dir.to_owned(),
        fingerprint,
        plan,
        outcome,
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?
        .block_on(control(first))
}

/// The policy that the daemon starts with.
struct First {
    dir: PathBuf,
    fingerprint: u64,
    plan: Plan,
    outcome: Outcome,
}

/// The running daemon.
struct Daemon {
    dir: PathBuf,
    /// What the files were like when they were last read.
    fingerprint: u64,
    /// What they came to.
    outcome: Outcome,
    loads: Arc<Loads>,
    config: DaemonConfig,
    state: Arc<State>,
    clock: Clock,
    active: Arc<ArcSwap<Active>>,
    resolver: Arc<Resolver>,
    workers: Workers,
    worker_count: usize,
    served: HashSet<SocketAddr>,
    kernel: Option<Arc<Mutex<Kernel>>>,
    offenders: Arc<Mutex<Offenders>>,
    status: Arc<Status>,
    log: Option<access_log::Owner>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// How often the kernel half is looked after.
const TICK: Duration = Duration::from_secs(1);
/// How often the samples of dropped packets are looked at.
const SAMPLING: Duration = Duration::from_millis(50);

/// How long the writer of the access log may take for the last lines.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

async fn control(first: First) -> anyhow::Result<()> {
    // Signals first: one that comes during the start is not lost.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let mut daemon = Daemon::start(first).await?;
    let changed = daemon.watch();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hangup.recv() => daemon.hung_up().await,
            () = changed.notified() => daemon.files_changed().await,
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
    async fn start(first: First) -> anyhow::Result<Self> {
        let First {
            dir,
            fingerprint,
            plan,
            outcome,
        } = first;
        reload::warn_of_global_limits(&plan);
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
        let admin_socket =
            admin::bind(config.admin).map_err(|error| privileges::explain(error, config.admin))?;
        let served = binds(&plan);
        let sockets = listen(served.iter(), worker_count)?;

        let (sink, log) = access_log(&config)?;

        let state = Arc::new(State::new(config.max_buckets));
        let active = Active::new(
            &plan,
            Engine::compile(&plan, &state),
            &state,
            clock.now(),
            None,
        )?;
        let active = Arc::new(ArcSwap::from_pointee(active));
        let resolver = Resolver::new(dns::Source::System, clock, Box::new(|_change| {}));
        resolver.apply(&plan);
        let shared = Shared {
            active: Arc::clone(&active),
            clock,
            counters: Arc::clone(&counters),
            sink,
        };
        let workers = privileges::without(|| Workers::start(worker_count, &shared))
            .context("cannot start the workers")?;
        let kernel = start_kernel(&config, &plan)?;
        privileges::after_set_up(kernel.is_some())?;
        let loads = Arc::new(Loads::new(&dir, plan, &outcome, wall()));

        for (bind, listeners) in sockets {
            workers.listen(bind, listeners).await;
        }
        let sources = Sources {
            status: Arc::clone(&status),
            loads: Arc::clone(&loads),
            state: Arc::clone(&state),
            active: Arc::clone(&active),
            counters,
            resolver: Arc::clone(&resolver),
            clock,
            kernel: kernel.clone(),
            log: log.as_ref().map(access_log::Owner::shared),
        };
        let mut tasks = JoinSet::new();
        let offenders: Arc<Mutex<Offenders>> = Arc::default();
        let l4 = kernel.as_ref().map(|kernel| L4 {
            kernel: Arc::clone(kernel),
            offenders: Arc::clone(&offenders),
        });
        if let Some(l4) = &l4
            && let Some(events) = lock(&l4.kernel).events()
        {
            tasks.spawn(sample(events, Arc::clone(&l4.offenders)));
        }
        let admin = Arc::new(Admin {
            status: Arc::clone(&status),
            loads: Arc::clone(&loads),
            state: Arc::clone(&state),
            clock,
            metrics: Metrics::new(sources),
            l4,
        });
        let admin_socket = tokio::net::TcpListener::from_std(admin_socket)?;
        tasks.spawn(async move {
            admin::serve(admin_socket, admin).await;
            Ok(())
        });

        let names = Arc::clone(&resolver);
        tasks.spawn(async move {
            let died = names.run().await;
            Err(anyhow::Error::from(died).context("a lookup died"))
        });

        let notes = kernel.as_deref().map(describe).unwrap_or_default();
        let mut addresses: Vec<_> = served.iter().map(ToString::to_string).collect();
        addresses.sort();
        tracing::info!(listeners = addresses.join(" "), admin = %config.admin, workers = worker_count, "ready");
        status.serving(notes);
        Ok(Self {
            dir,
            fingerprint,
            outcome,
            loads,
            config,
            state,
            clock,
            active,
            resolver,
            workers,
            worker_count,
            served,
            kernel,
            offenders,
            status,
            log,
            tasks,
        })
    }

    /// Says that the daemon lives, ends sentences that are served, and attaches to interfaces that
    /// have come back.
    fn look_after_kernel(&self) {
        let Some(kernel) = &self.kernel else {
            return;
        };
        let notes = describe(kernel);
        let mut locked = lock(kernel);
        let mut look_after = || {
            locked.beat()?;
            locked.expire(l4::clock::now())?;
            let lost = locked.samples_lost()?;
            let mut offenders = self
                .offenders
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            offenders.note_lost(lost);
            locked.reattach()
        };
        if let Err(error) = look_after() {
            tracing::error!(%error, "the kernel half cannot be looked after");
        }
        drop(locked);
        let now = describe(kernel);
        if now != notes {
            self.status.note(now);
        }
    }

    /// SIGHUP: reads the policy files, and opens the access log again.
    async fn hung_up(&mut self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
        self.reload(Trigger::Signal).await;
    }

    /// Watches the policy files; tells of changes. Where that cannot be, SIGHUP still works.
    fn watch(&mut self) -> Arc<Notify> {
        let changed = Arc::new(Notify::new());
        let watch = match Watch::start(&self.dir) {
            Ok(watch) => watch,
            Err(error) => {
                warn_unwatched(&error);
                return changed;
            }
        };
        self.loads.set_watching(true);
        // What changed since the files were read is not missed.
        changed.notify_one();
        let loads = Arc::clone(&self.loads);
        let tell = Arc::clone(&changed);
        self.tasks.spawn(async move {
            if let Err(error) = watch.run(&tell).await {
                loads.set_watching(false);
                warn_unwatched(&error);
            }
            // The daemon goes on without it.
            std::future::pending().await
        });
        changed
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
        if let Some(log) = self.log
            && !log.finish(LOG_PATIENCE)
        {
            tracing::warn!("the last lines of the access log were not written");
        }
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

fn warn_unwatched(error: &std::io::Error) {
    tracing::warn!(
        %error,
        "changes of the policy files are not noticed; send SIGHUP after each, or raise \
         fs.inotify.max_user_instances and fs.inotify.max_user_watches and restart"
    );
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

/// Binds each address once for each worker.
fn listen<'a>(
    addresses: impl Iterator<Item = &'a SocketAddr>,
    workers: usize,
) -> anyhow::Result<Vec<(SocketAddr, Vec<TcpListener>)>> {
    addresses
        .map(|address| {
            let sockets = listener::bind(*address, workers)
                .map_err(|error| privileges::explain(error.into(), *address))?;
            Ok((*address, sockets))
        })
        .collect()
}

/// Starts the access log, if there is to be one.
fn access_log(config: &DaemonConfig) -> anyhow::Result<Log> {
    let Some(log) = &config.access_log else {
        return Ok((None, None));
    };
    let (sink, owner) = AccessLog::start(log).with_context(|| {
        format!(
            "cannot open the access log ({:?}); set spec.accessLog.path of the LimiterConfig",
            log.target
        )
    })?;
    Ok((Some(sink), Some(owner)))
}

/// Takes the records of requests, and whom that belongs to.
type Log = (Option<Arc<dyn Sink>>, Option<access_log::Owner>);

fn start_kernel(config: &DaemonConfig, plan: &Plan) -> anyhow::Result<Option<Arc<Mutex<Kernel>>>> {
    match Kernel::start(config, &plan.network) {
        Ok(_nothing) if config.interfaces.is_empty() => Ok(None),
        Ok(kernel) => Ok(Some(Arc::new(Mutex::new(kernel)))),
        Err(error) if config.interfaces.is_empty() => {
            tracing::warn!(%error, "what an earlier run left in the kernel cannot be removed");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn describe(kernel: &Mutex<Kernel>) -> Vec<String> {
    let kernel = lock(kernel);
    let describe = |a: &l4::Attachment| {
        let adopted = if a.adopted {
            ", adopted from an earlier run"
        } else {
            ""
        };
        let renamed = a.renamed.as_ref();
        let renamed = renamed.map_or_else(String::new, |now| format!(", now called {now}"));
        format!("xdp: {} {}{adopted}{renamed}", a.interface, a.mode.name())
    };
    kernel.attachments().iter().map(describe).collect()
}
