//! The daemon's own settings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::StoreConfig;
use super::Tls;
use super::{LogConfig, TracingConfig};

/// `LimiterConfig`: the daemon's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// Where XDP is attached; empty: nowhere.
    pub interfaces: Vec<Interface>,
    /// Directory under bpffs for maps and links.
    pub pin_path: PathBuf,
    pub on_exit: OnExit,
    pub on_daemon_lost: OnDaemonLost,
    /// Sources with a place of their own in the kernel's table, at least.
    pub max_sources: u32,
    /// Cells of each of the two rows of the kernel's sketch, at least.
    pub sketch_cells: u32,
    /// How long a source keeps its place in the table after its bucket is full again.
    pub keep_sources: Duration,
    /// Admin listener (health, metrics).
    pub admin: SocketAddr,
    /// Data plane threads, each with a runtime of its own; `None`: one for each CPU.
    pub workers: Option<usize>,
    /// Buckets of HTTP limits kept in memory, over all rules.
    pub max_buckets: usize,
    /// After SIGTERM, how long the daemon goes on accepting while it is not ready any more.
    pub drain_delay: Duration,
    /// How long in-flight requests may take to finish after that.
    pub drain_timeout: Duration,
    pub log: LogConfig,
    /// Where spans of requests go; `None`: nothing is traced.
    pub tracing: Option<TracingConfig>,
    /// Where a line for each request goes; `None`: nowhere.
    pub access_log: Option<AccessLog>,
    /// Envoy's rate limit service; `None`: it is not served.
    pub rls: Option<RlsConfig>,
    /// Counts global limits for all nodes; `None`: each node counts for itself.
    pub store: Option<StoreConfig>,
    /// Counts those that are forgotten within a second, in place of `store`; never without that.
    pub per_second_store: Option<StoreConfig>,
    /// A store is named, and what it refers to cannot be used: nothing starts with that.
    pub store_unusable: bool,
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            pin_path: PathBuf::from("/sys/fs/bpf/limiterd"),
            on_exit: OnExit::Detach,
            on_daemon_lost: OnDaemonLost::Enforce,
            max_sources: 1 << 16,
            sketch_cells: 1 << 18,
            keep_sources: Duration::from_secs(60),
            admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
            workers: None,
            max_buckets: 1 << 20,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(10),
            log: LogConfig::default(),
            tracing: None,
            access_log: None,
            rls: None,
            store: None,
            per_second_store: None,
            store_unusable: false,
        }
    }
}

/// Where and how Envoy's rate limit service is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RlsConfig {
    /// gRPC (HTTP/2) and JSON (HTTP/1.1 or HTTP/2); with TLS if the plan has certificates for it.
    pub listen: SocketAddr,
    /// The headers that Envoy is told to add to responses; `None`: none.
    pub response_headers: Option<RlsHeaders>,
    /// The headers that Envoy is told to add to requests; `None`: none.
    pub request_headers: Option<RlsHeaders>,
    /// The dynamic metadata of answers repeat the question.
    pub echo: bool,
}

/// What headers that tell of limits are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RlsHeaders {
    pub limit: String,
    pub remaining: String,
    pub reset: String,
}

impl Default for RlsHeaders {
    /// As the reference service has them.
    fn default() -> Self {
        Self {
            limit: "RateLimit-Limit".to_owned(),
            remaining: "RateLimit-Remaining".to_owned(),
            reset: "RateLimit-Reset".to_owned(),
        }
    }
}

/// How a listener of the daemon's own (the rate limit service, admin) speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerTls {
    /// It does not.
    #[default]
    None,
    As(Tls),
    /// It should, and what it needs is not there.
    Broken(String),
}

/// An interface whose ingress packets the XDP program sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mode: AttachMode,
}

/// How the program may be attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// Native XDP where the driver can, generic XDP otherwise; where somebody else's XDP program is
    /// on the interface, tcx, or else clsact.
    #[default]
    Auto,
    /// XDP in the driver, or not at all.
    Native,
    /// XDP after the kernel built a socket buffer.
    Generic,
    /// Traffic control, by a link of its own (Linux 6.6 and later).
    Tcx,
    /// Traffic control, by a filter under the qdisc `clsact`.
    Clsact,
}

/// What a clean exit leaves in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExit {
    /// Detach the program and remove the pins.
    #[default]
    Detach,
    /// Leave the last policy enforced; the next start adopts it.
    Keep,
}

/// What the kernel does when the daemon has not been heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDaemonLost {
    /// Goes on enforcing the last policies.
    #[default]
    Enforce,
    /// Passes everything.
    Pass {
        /// After this long, at least 2 s.
        after: Duration,
    },
}

/// A line for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    pub format: LogFormat,
    pub target: LogTarget,
    /// Percent of the requests, 1 to 100.
    pub sample: u8,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// An object a line; of requests, with Envoy Gateway's names.
    Json,
    /// For people; requests in the order of Envoy's default format.
    Text,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    Stdout,
    Stderr,
    /// Opened again on SIGHUP.
    File(PathBuf),
}
