//! The composition root: the one place that knows every part, starts them in order, reloads the
//! policy and ends them.

mod asked;
mod backends;
mod buckets;
mod drain;
mod escalation;
mod fd_store;
mod fleet;
mod handover;
mod held;
mod kernel;
mod linger;
mod notify;
mod observe;
mod privileges;
mod reload;
mod service;
mod signals;
mod sockets;
mod stop;
mod store;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch as tell};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::admin::socket::Socket;
use crate::admin::{
    self, Admin, Audit, Blocking, Guard, L4, Loads, Metrics, Status, Trigger, metrics::Sources,
};
use crate::engine::state::State;
use crate::l4::Kernel;
use crate::l4::offenders::Offenders;
use crate::l7::access_log;
use crate::l7::clock::{Clock, wall};
use crate::l7::metrics::Counters;
use crate::l7::worker::Shared;
use crate::l7::{Active, Workers};
use crate::log::Log;
use crate::policy::Outcome;
use crate::policy::plan::{DaemonConfig, Plan};
use crate::traces;
use asked::Asked;
use backends::Backends;
use escalation::{Escalation, Sentencing};
use fd_store::FdStore;
use handover::{Event, HandOver, Taken};
use held::Held;
use kernel::{describe, lock, sample};
use notify::Watchdog;
use service::RateLimitService;
use signals::Signals;
use sockets::{Passed, Sockets, binds};

/// How a process follows another one, and is followed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Succession {
    /// Listen on the sockets of the limiterd that runs with the same admin address, which then drains
    /// and ends.
    pub takeover: bool,
    /// When another process has taken this one's place, stay until told to stop, or until nobody serves.
    pub linger: bool,
}

/// Runs the daemon on the policy files of `dir` until SIGTERM or SIGINT. They are read again when
/// they change, and on SIGHUP. It listens on the sockets that systemd passes, if it does. Call it
/// before there are other threads.
///
/// # Errors
/// When the files are invalid or something cannot be set up (nothing stays attached then), and when
/// a part of the daemon dies.
pub fn run(dir: &Path, succession: Succession, lines: Log) -> anyhow::Result<()> {
    let passed = Passed::by_systemd()?;
    privileges::at_start()?;
    let fingerprint = watch::fingerprint(dir);
    let outcome = reload::load(dir, None);
    let plan = outcome.plan.clone().with_context(|| {
        format!(
            "the policy files are not valid, nothing was started:\n{}",
            reload::errors(&outcome)
        )
    })?;
    lines.follow(&plan.daemon.log);
    let first = First {
        dir: dir.to_owned(),
        lines,
        fingerprint,
        plan,
        outcome,
        passed,
        succession,
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
    lines: Log,
    fingerprint: u64,
    plan: Plan,
    outcome: Outcome,
    passed: Passed,
    succession: Succession,
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
    backends: Backends,
    workers: Workers,
    worker_count: usize,
    sockets: Sockets,
    service: RateLimitService,
    admin_socket: Socket,
    fd_store: FdStore,
    watchdog: Watchdog,
    /// `true`: the admin listener lets go of its socket.
    stop_admin: tell::Sender<bool>,
    hand_over: HandOver,
    kernel: Option<Arc<Mutex<Kernel>>>,
    blocking: Option<Blocking>,
    sentencing: Sentencing,
    offenders: Arc<Mutex<Offenders>>,
    /// Samples of dropped packets are another process' to take.
    not_sampling: Arc<AtomicBool>,
    status: Arc<Status>,
    /// Who may ask the admin listener.
    guard: Arc<Guard>,
    /// Somebody there wants it out of service.
    draining: Arc<Notify>,
    /// Since when it is, by the clock; `None`: it is not.
    left: Option<u64>,
    log: Option<access_log::Owner>,
    traces: Option<traces::Owner>,
    /// The daemon's own log.
    lines: Log,
    /// `None`: each node counts for itself.
    held: Option<Held>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// How often the kernel half is looked after.
const TICK: Duration = Duration::from_secs(1);

/// Why the daemon stops.
#[derive(Debug)]
enum Ended {
    Told,
    /// A part of it died.
    Failed(anyhow::Error),
    /// Another process has taken its place.
    Taken(Taken),
}

async fn control(first: First) -> anyhow::Result<()> {
    // Signals first: one that comes during the start is not lost.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut signals = Signals::listen()?;
    let lingers = first.succession.linger;
    let mut daemon = Daemon::start(first).await?;
    let changed = daemon.watch();
    let draining = Arc::clone(&daemon.draining);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // To stop, as soon as it is known whether another process takes over.
    let mut told = false;
    let ended = loop {
        // Whoever takes over has read the files for itself.
        let alone = !daemon.hand_over.is_under_way();
        tokio::select! {
            () = signals.stop() => {
                if alone || told {
                    break Ended::Told;
                }
                told = true;
            }
            _ = hangup.recv(), if alone => daemon.hung_up().await,
            () = changed.notified(), if alone => daemon.files_changed().await,
            () = draining.notified(), if alone => daemon.drain().await,
            event = daemon.hand_over.event() => match daemon.handing_over(event) {
                Some(taken) => break Ended::Taken(taken),
                None if told => break Ended::Told,
                None => {}
            },
            () = daemon.service.died() => {
                break Ended::Failed(anyhow::anyhow!("a thread of the rate limit service died"));
            }
            () = daemon.workers.died() => break Ended::Failed(anyhow::anyhow!("a worker died")),
            Some(ended) = daemon.tasks.join_next() => {
                break Ended::Failed(anyhow::anyhow!("a part of the daemon died: {ended:?}"));
            }
            event = daemon.backends.event() => match event {
                Ok(()) => daemon.look_after_backends(),
                Err(error) => break Ended::Failed(error),
            },
            _ = tick.tick() => {
                daemon.watchdog.alive();
                daemon.lines.tell_left_out();
                daemon.look_after_kernel();
                daemon.look_after_leases();
            }
        }
    };
    let taken = matches!(ended, Ended::Taken(_));
    let admin = daemon.config.admin;
    daemon.stop(ended, &mut signals).await?;
    if taken && lingers {
        linger::linger(admin, &mut signals).await;
    }
    Ok(())
}

impl Daemon {
    async fn start(first: First) -> anyhow::Result<Self> {
        let First {
            dir,
            lines,
            fingerprint,
            plan,
            outcome,
            passed,
            succession,
        } = first;
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
        let guard = Arc::new(Guard::start(&plan)?);
        let mut taking = if succession.takeover {
            handover::take_over(config.admin)?
        } else {
            None
        };
        let mut passed = passed;
        let mut fd_store = FdStore::by_systemd(&passed);
        let (mut given_hand_over, mut given_lock) = (None, None);
        if let Some(taking) = &mut taking {
            passed.add(std::mem::take(&mut taking.passed));
            given_hand_over = taking.hand_over.take();
            given_lock = taking.kernel.take();
        }
        let given_buckets = passed.buckets.take();
        let mut sockets = Sockets::new(passed);
        let admin_socket = sockets.admin(config.admin)?;
        let opened = sockets.open(&binds(&plan), worker_count)?;

        let (sink, log) = observe::access_log(&config)?;
        let (tracer, traces) = observe::traces(&config)?;

        let table = buckets::open(given_buckets, config.max_buckets, clock.both());
        let mut state = State::of(table);
        let (mut shared_store, mut held, mut main) = (None, None, None);
        let mut counted = None;
        if let Some(stores) = store::store(&config)? {
            counted = Some(stores.counted(&config));
            shared_store = Some((stores.ledgers, Arc::clone(stores.requests.without())));
            main = Some((stores.main, stores.alive));
            held = Some(stores.held);
            state = state
                .with_store(Arc::new(stores.requests))
                .with_domain_store(Arc::new(stores.domains));
        } else {
            reload::warn_of_global_limits(&plan);
            service::warn_of_domains(&plan);
        }
        let (domains, asked) = (Arc::default(), Arc::default());
        let services = Asked::new(Arc::clone(&domains), Arc::clone(&asked));
        let state = Arc::new(state.with_services(Arc::new(services)));
        state.runtime().follow(&plan.runtime);
        let (backends, active) = Backends::start(&plan, &state, clock)?;
        let escalation = Escalation::new();
        let shared = Shared {
            active: Arc::clone(&active),
            clock,
            counters: Arc::clone(&counters),
            store: Arc::clone(state.store()),
            sink,
            tracer: tracer.clone(),
            court: escalation.court(&config),
            evictions: escalation.evictions.clone(),
        };
        let workers = privileges::without(|| Workers::start(worker_count, &shared))
            .context("cannot start the workers")?;
        let told = (&state, domains, tracer);
        let service =
            RateLimitService::start(&plan, &config, &mut sockets, worker_count, told, clock)
                .await?;
        let kernel = kernel::start(&config, &plan, given_lock)?;
        privileges::after_set_up(kernel.is_some())?;
        sockets.serve(opened, &workers).await;
        let mut tasks = JoinSet::new();
        let shared = main
            .as_ref()
            .map(|(ledger, alive)| fleet::Shared { ledger, alive });
        let ledgers = shared_store.iter().flat_map(|(ledgers, _)| ledgers);
        let ledgers = ledgers.map(|(_, ledger)| Arc::clone(ledger)).collect();
        let (sentencing, hearing) = escalation.follow(&plan, &active, ledgers, clock);
        let told = Arc::clone(&sentencing.told);
        let blocking = fleet::start(&config, shared, kernel.as_ref(), told, &mut tasks)?;
        hearing.begin(blocking.clone(), &mut tasks);
        let loads = Arc::new(Loads::new(&dir, plan, &outcome, wall()));
        let audit: Arc<Audit> = Arc::default();
        let draining: Arc<Notify> = Arc::default();
        let sources = Sources {
            status: Arc::clone(&status),
            loads: Arc::clone(&loads),
            state: Arc::clone(&state),
            active: Arc::clone(&active),
            counters,
            resolver: Arc::clone(backends.resolver()),
            service: Arc::clone(service.counters()),
            store: shared_store,
            held: held.as_ref().map(Held::watched),
            asked,
            blocking: blocking.clone(),
            clock,
            kernel: kernel.clone(),
            log: log.as_ref().map(access_log::Owner::shared),
            audit: Arc::clone(&audit),
            traces: traces.as_ref().map(traces::Owner::shared),
            lines: Arc::clone(lines.sites()),
        };
        let offenders: Arc<Mutex<Offenders>> = Arc::default();
        let not_sampling = Arc::new(AtomicBool::new(false));
        let l4 = kernel.as_ref().map(|kernel| L4 {
            kernel: Arc::clone(kernel),
            offenders: Arc::clone(&offenders),
        });
        if let Some(l4) = &l4
            && let Some(events) = lock(&l4.kernel).events()
        {
            let offenders = Arc::clone(&l4.offenders);
            tasks.spawn(sample(events, offenders, Arc::clone(&not_sampling)));
        }
        let admin = Arc::new(Admin {
            status: Arc::clone(&status),
            loads: Arc::clone(&loads),
            state: Arc::clone(&state),
            domains: Arc::clone(service.domains()),
            clock,
            metrics: Metrics::new(sources),
            l4,
            blocking: blocking.clone(),
            store: main.map(|(ledger, _)| ledger),
            counted,
            name: fleet::name(),
            guard: Arc::clone(&guard),
            audit,
            log: lines.clone(),
            drain: Arc::clone(&draining),
        });
        let (stop_admin, stopped) = tell::channel(false);
        let listener = admin_socket.try_clone()?.listen()?;
        tasks.spawn(async move {
            admin::serve(listener, admin, stopped).await;
            Ok(())
        });
        let hand_over = HandOver::start(config.admin, given_hand_over);

        let names = Arc::clone(backends.resolver());
        tasks.spawn(async move {
            let died = names.run().await;
            Err(anyhow::Error::from(died).context("a lookup died"))
        });

        let notes = kernel.as_deref().map(describe).unwrap_or_default();
        let addresses: Vec<_> = sockets
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        tracing::info!(listeners = addresses.join(" "), admin = %admin_socket, workers = worker_count, "ready");
        status.serving(notes);
        let taken = Taken {
            kernel: kernel.is_some(),
            left_over: sockets.left_over(),
        };
        if let Some(taking) = taking
            && let Err(error) = taking.ready(&taken)
        {
            tracing::warn!(%error, "the daemon whose place this one takes cannot be told");
        }
        sockets.warn_of_unused();
        fd_store.follow(&sockets, &admin_socket);
        fd_store.keep_buckets(state.table().as_file());
        notify::ready();
        Ok(Self {
            dir,
            fingerprint,
            outcome,
            loads,
            config,
            state,
            clock,
            active,
            backends,
            workers,
            worker_count,
            sockets,
            service,
            admin_socket,
            fd_store,
            watchdog: Watchdog::by_systemd(TICK),
            stop_admin,
            hand_over,
            kernel,
            blocking,
            sentencing,
            offenders,
            not_sampling,
            status,
            guard,
            draining,
            left: None,
            log,
            traces,
            lines,
            held,
            tasks,
        })
    }

    /// What another process wants that takes this one's place; `Some`: it has taken it.
    fn handing_over(&mut self, event: Event) -> Option<Taken> {
        match event {
            Event::Asked(stream) => {
                let kernel = self.kernel.as_deref().map(lock);
                let offered = self.hand_over.offer(
                    stream,
                    &self.sockets,
                    &self.admin_socket,
                    kernel.as_ref().and_then(|kernel| kernel.lock()),
                    self.state.table().as_file(),
                );
                match offered {
                    Ok(()) => {
                        self.not_sampling.store(true, Ordering::Relaxed);
                        tracing::info!("another process is starting on the sockets");
                    }
                    Err(error) => tracing::warn!(%error, "the sockets are not handed over"),
                }
            }
            Event::Failed(reason) => {
                self.not_sampling.store(false, Ordering::Relaxed);
                tracing::warn!(
                    reason,
                    "the other process did not take over, this one goes on"
                );
            }
            Event::Taken(taken) => {
                tracing::info!("another process has taken over");
                return Some(taken);
            }
        }
        None
    }

    /// SIGHUP: reads the policy files, and opens the access log again.
    async fn hung_up(&mut self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
        self.reload(Trigger::Signal).await;
    }
}
