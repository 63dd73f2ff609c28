//! `GET /node`: how this node is. `GET /fleet`: who else there is. `limiterd status` speaks both.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::{Deserialize, Serialize};

use super::blocks::time;
use super::listeners::ListenerView;
use super::{Admin, FindingView, l4, text};
use crate::global::fleet::{Fleet, Member};
use crate::l4::Kernel;
use crate::policy::plan::{DaemonConfig, Interface};

const SECOND: u64 = 1_000_000_000;

/// This node.
#[derive(Debug, Deserialize, Serialize)]
pub struct NodeView {
    pub name: String,
    pub version: String,
    /// RFC 3339, UTC.
    #[serde(default)]
    pub started: String,
    #[serde(default)]
    pub uptime_seconds: u64,
    /// `starting`, `serving`, `draining` or `failed`.
    #[serde(default)]
    pub phase: String,
    pub ready: bool,
    /// What `/ready` says, by line: where the kernel half is attached and how, and what the last
    /// reload found if not all of it is in force.
    pub report: Vec<String>,
    pub policy: PolicyView,
    /// Where somebody can connect.
    #[serde(default)]
    pub listeners: Vec<ListenerView>,
    /// `None`: there is no kernel half.
    #[serde(default)]
    pub kernel: Option<KernelView>,
    /// `None`: no store is shared.
    pub store: Option<StoreView>,
    /// Blocks in force.
    pub blocks: BlocksView,
}

/// The policy in force.
#[derive(Debug, Deserialize, Serialize)]
pub struct PolicyView {
    pub directory: String,
    /// The same on nodes with the same policy: 64 bits of SHA-256 of what `/config` shows of it.
    pub fingerprint: String,
    /// RFC 3339, UTC.
    pub in_force_since: String,
    /// Policies put in force since the start, 1 for that of the start.
    #[serde(default)]
    pub generation: u64,
    /// Whether changes of the files are noticed.
    #[serde(default)]
    pub watching: bool,
    /// Whether the files configure the daemon otherwise than it was started: that takes a restart.
    #[serde(default)]
    pub restart_pending: bool,
    #[serde(default)]
    pub last_read: LastReadView,
}

/// How the policy files were last read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct LastReadView {
    /// RFC 3339, UTC.
    pub at: String,
    /// `start`, `signal` or `file change`.
    pub trigger: String,
    /// Whether what was read is in force.
    pub applied: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    pub errors: usize,
    pub warnings: usize,
    /// Resources that are not valid now and whose last good version goes on.
    pub kept: Vec<String>,
    /// Twenty at most, errors first; `GET /config` has all.
    pub findings: Vec<FindingView>,
}

/// The kernel half.
#[derive(Debug, Deserialize, Serialize)]
pub struct KernelView {
    /// Those that the policy names.
    pub interfaces: Vec<InterfaceView>,
}

/// An interface that the policy names.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct InterfaceView {
    pub name: String,
    /// How the program is on it, as `native`; `None`: it is not.
    pub mode: Option<String>,
    /// What it is called now, if it was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed: Option<String>,
}

/// The store.
#[derive(Debug, Deserialize, Serialize)]
pub struct StoreView {
    pub address: String,
    /// `closed`: it is asked; `half_open`: one request at a time; `open`: it is not asked.
    pub breaker: String,
    pub connections: u64,
    /// Whether the fleet can be reached.
    pub fleet_connected: bool,
    /// Nodes last seen alive.
    pub nodes: u32,
}

/// Numbers of blocks.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct BlocksView {
    pub node: usize,
    pub fleet: usize,
}

/// All nodes.
#[derive(Debug, Deserialize, Serialize)]
pub struct FleetView {
    /// Whether the store answers; what follows is as it was last heard.
    pub connected: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away: Option<String>,
    /// Blocks of the fleet in the store.
    pub blocks: u64,
    /// Place of the last event there.
    pub last_event: String,
    pub nodes: Vec<MemberView>,
}

/// A node.
#[derive(Debug, Deserialize, Serialize)]
pub struct MemberView {
    pub id: String,
    pub name: String,
    pub address: String,
    pub version: String,
    /// RFC 3339, UTC, by the store's clock.
    pub since: String,
    pub seconds_since_beat: f64,
    /// In force there, of the fleet and of its own.
    pub blocks: u64,
    /// Whether it had heard of all blocks at its last beat.
    pub caught_up: bool,
    /// The node that was asked.
    pub here: bool,
}

/// What the program is on, of the interfaces that `config` names.
fn interfaces(kernel: &Kernel, config: &DaemonConfig) -> Vec<InterfaceView> {
    let view = |interface: &Interface| {
        let attachments = kernel.attachments().iter();
        let mut on = attachments.filter(|one| one.interface == interface.name);
        let on = on.next();
        InterfaceView {
            name: interface.name.clone(),
            mode: on.map(|one| one.mode.name().to_owned()),
            renamed: on.and_then(|one| one.renamed.clone()),
        }
    };
    config.interfaces.iter().map(view).collect()
}

impl Admin {
    pub(super) fn node(&self) -> l4::Answer {
        let (ready, report) = self.status.report();
        let (directory, fingerprint, since) = self.loads.in_force().map_err(l4::internal)?;
        let blocking = self.blocking.as_ref();
        let fleet = blocking.and_then(|blocking| blocking.fleet.as_deref());
        let store = self.store.as_ref().map(|store| StoreView {
            address: store.address().to_owned(),
            breaker: store.condition().name().to_owned(),
            connections: store.counts().connections(),
            fleet_connected: fleet.is_some_and(|fleet| fleet.view().connected),
            nodes: fleet.map_or(1, Fleet::nodes),
        });
        let (started, config) = self.loads.started();
        let changed = self.loads.with_plan(|plan| plan.daemon != *config);
        let listeners = self
            .loads
            .with_plan(|plan| ListenerView::all(&plan.listeners, &plan.tcp, config));
        let (node, of_fleet) = blocking.map_or((0, 0), |blocking| blocking.blocks.numbers());
        l4::json(&NodeView {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            uptime_seconds: self.clock.elapsed() / SECOND,
            phase: self.status.phase().to_owned(),
            ready,
            report: report.lines().map(str::to_owned).collect(),
            policy: PolicyView {
                directory,
                fingerprint,
                in_force_since: since,
                generation: self.loads.generation(),
                watching: self.loads.watching(),
                restart_pending: changed,
                last_read: self.loads.last_read(),
            },
            listeners,
            kernel: self.l4.as_ref().map(|l4| KernelView {
                interfaces: interfaces(&l4.kernel(), config),
            }),
            store,
            blocks: BlocksView {
                node,
                fleet: of_fleet,
            },
        })
    }

    pub(super) fn fleet(&self) -> Response<Full<Bytes>> {
        let fleet = self.blocking.as_ref().and_then(|one| one.fleet.as_ref());
        let Some(fleet) = fleet else {
            let why = "there is no store that nodes share: name one in rateLimit of the \
                       LimiterConfig or EnvoyGateway\n";
            return text(StatusCode::NOT_FOUND, why.to_owned());
        };
        let view = fleet.view();
        let member = |node: &Member| MemberView {
            id: node.id.clone(),
            name: node.name.clone(),
            address: node.address.clone(),
            version: node.version.clone(),
            since: time(node.since),
            seconds_since_beat: std::time::Duration::from_millis(node.silent).as_secs_f64(),
            blocks: node.blocks,
            caught_up: node.caught_up,
            here: node.id == view.id,
        };
        let answer = l4::json(&FleetView {
            connected: view.connected,
            away: view.away.clone(),
            blocks: view.stored,
            last_event: view.last.to_string(),
            nodes: view.nodes.iter().map(member).collect(),
        });
        answer.unwrap_or_else(|(status, why)| text(status, format!("{why}\n")))
    }
}
