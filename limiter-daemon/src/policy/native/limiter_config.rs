//! `LimiterConfig`: the daemon's own settings.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Component, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::access_log::{self, RawAccessLog};
use super::admin_access::{self, AdminSettings, RawAdmin};
use super::rate_limit_service::{self, DomainSettings, RawRls, TlsRefs};
use super::runtime;
use crate::policy::decode::At;
use crate::policy::envoy_gateway::store::{self, RawOwnRateLimit, StoreSettings};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{AttachMode, DaemonConfig, Interface, OnDaemonLost, OnExit};
use crate::policy::resource::Meta;
use crate::policy::units;

const MAX_INTERFACES: usize = 64;
/// `IFNAMSIZ` less the zero at the end.
const MAX_INTERFACE_NAME: usize = 15;
const SOURCES: RangeInclusive<u64> = 1..=1 << 24;
const CELLS: RangeInclusive<u64> = 1 << 10..=1 << 24;
const BUCKETS: RangeInclusive<u64> = 1..=1 << 26;
const WORKERS: RangeInclusive<u64> = 1..=1024;
const DRAIN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
const KEEP: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3_600);
/// The daemon is heard of every second or so.
const LOST: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(86_400);
const LOST_DEFAULT: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawLimiterConfig {
    access_log: Option<At<RawAccessLog>>,
    interfaces: Option<At<Vec<RawInterface>>>,
    kernel: Option<RawKernel>,
    admin: Option<RawAdmin>,
    http: Option<RawHttp>,
    rls: Option<RawRls>,
    rate_limit: Option<At<RawOwnRateLimit>>,
    runtime: Option<BTreeMap<String, At<u64>>>,
}

#[derive(Debug, Deserialize)]
struct RawInterface {
    name: At<String>,
    mode: Option<Mode>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Mode {
    Auto,
    Native,
    Generic,
    Tcx,
    Clsact,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawKernel {
    pin_path: Option<At<String>>,
    on_exit: Option<Exit>,
    on_daemon_lost: Option<Lost>,
    daemon_lost_after: Option<At<String>>,
    max_sources: Option<At<u64>>,
    sketch_cells: Option<At<u64>>,
    keep_sources: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Lost {
    Enforce,
    Pass,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Exit {
    Detach,
    Keep,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    workers: Option<At<u64>>,
    max_buckets: Option<At<u64>>,
    drain_delay: Option<At<String>>,
    drain_timeout: Option<At<String>>,
    on_invalid_policy: Option<OnInvalidPolicy>,
}

/// What is done with requests under limits that were never valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum OnInvalidPolicy {
    /// They are answered with 500.
    Reject,
    /// They pass, as if there were no policy.
    Unlimited,
}

/// A LimiterConfig, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) meta: Meta,
    pub(crate) daemon: DaemonConfig,
    /// Requests under a BackendTrafficPolicy that was never valid pass.
    pub(crate) unlimited_if_invalid: bool,
    pub(crate) domains: DomainSettings,
    /// `None`: the rate limit service speaks no TLS.
    pub(crate) rls_tls: Option<TlsRefs>,
    pub(crate) admin: AdminSettings,
    pub(crate) store: Option<StoreSettings>,
    /// Percentages by the names of settings.
    pub(crate) runtime: BTreeMap<String, u8>,
    pub(crate) mark: Mark,
}

/// Checks a LimiterConfig; what it does not say keeps its default.
pub(crate) fn lower(raw: At<RawLimiterConfig>, meta: Meta, scope: &mut Scope<'_>) -> Config {
    let At { value: raw, mark } = raw;
    let mut daemon = DaemonConfig::default();
    if let Some(list) = raw.interfaces {
        scope.at_most(&list.mark, list.len(), MAX_INTERFACES);
        for interface in list.value {
            lower_interface(interface, &mut daemon.interfaces, scope);
        }
    }
    daemon.access_log = raw.access_log.and_then(|raw| access_log::lower(raw, scope));
    if let Some(kernel) = raw.kernel {
        lower_kernel(kernel, &mut daemon, scope);
    }
    let admin = match raw.admin {
        Some(raw) => admin_access::lower(raw, &meta, &mut daemon, scope),
        None => AdminSettings::default(),
    };
    let on_invalid = raw.http.as_ref().and_then(|http| http.on_invalid_policy);
    if let Some(http) = raw.http {
        lower_http(http, &mut daemon, scope);
    }
    let (domains, rls_tls) = match raw.rls {
        Some(raw) => rate_limit_service::lower(raw, &meta.name.namespace, &mut daemon, scope),
        None => (DomainSettings::default(), None),
    };
    let store = raw
        .rate_limit
        .and_then(|raw| store::lower_own(raw, &meta.name.namespace, scope));
    let runtime = raw.runtime.map(|raw| runtime::lower(raw, scope));
    Config {
        meta,
        runtime: runtime.unwrap_or_default(),
        store,
        daemon,
        unlimited_if_invalid: on_invalid == Some(OnInvalidPolicy::Unlimited),
        domains,
        rls_tls,
        admin,
        mark,
    }
}

fn lower_interface(raw: RawInterface, interfaces: &mut Vec<Interface>, scope: &mut Scope<'_>) {
    let name = &raw.name;
    if check_interface_name(name, scope) && interfaces.iter().any(|other| other.name == name.value)
    {
        scope.error(
            &name.mark,
            format!("the interface `{}` is given twice", name.value),
            "keep one of them",
        );
    }
    let mode = match raw.mode {
        None | Some(Mode::Auto) => AttachMode::Auto,
        Some(Mode::Native) => AttachMode::Native,
        Some(Mode::Generic) => AttachMode::Generic,
        Some(Mode::Tcx) => AttachMode::Tcx,
        Some(Mode::Clsact) => AttachMode::Clsact,
    };
    interfaces.push(Interface {
        name: raw.name.value,
        mode,
    });
}

/// Whether it could be the name of an interface, or else an error at it.
pub(super) fn check_interface_name(name: &At<String>, scope: &mut Scope<'_>) -> bool {
    let printable = name
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    let valid = printable
        && (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && !matches!(name.as_str(), "." | "..");
    if !valid {
        scope.error(
            &name.mark,
            format!("`{}` is not the name of an interface", name.value),
            format!("write one of 1 to {MAX_INTERFACE_NAME} characters, as `eth0`"),
        );
    }
    valid
}

fn lower_kernel(raw: RawKernel, daemon: &mut DaemonConfig, scope: &mut Scope<'_>) {
    if let Some(text) = raw.pin_path {
        let path = PathBuf::from(&text.value);
        let plain = path
            .components()
            .skip(1)
            .all(|part| matches!(part, Component::Normal(_)));
        if !path.is_absolute() || !plain || path.components().count() < 2 || text.contains('\0') {
            let message = format!("`{}` is not a directory to pin maps in", text.value);
            scope.error(
                &text.mark,
                message,
                "write an absolute path under bpffs, as `/sys/fs/bpf/limiterd`",
            );
        }
        daemon.pin_path = path;
    }
    match raw.on_exit {
        Some(Exit::Detach) => daemon.on_exit = OnExit::Detach,
        Some(Exit::Keep) => daemon.on_exit = OnExit::Keep,
        None => {}
    }
    if let Some(number) = bounded(raw.max_sources.as_ref(), &SOURCES, scope) {
        daemon.max_sources = number;
    }
    if let Some(number) = bounded(raw.sketch_cells.as_ref(), &CELLS, scope) {
        daemon.sketch_cells = number;
    }
    if let Some(keep) = bounded_duration(raw.keep_sources.as_ref(), &KEEP, scope) {
        daemon.keep_sources = keep;
    }
    let after = bounded_duration(raw.daemon_lost_after.as_ref(), &LOST, scope);
    if raw.on_daemon_lost == Some(Lost::Pass) {
        let after = after.unwrap_or(LOST_DEFAULT);
        daemon.on_daemon_lost = OnDaemonLost::Pass { after };
    } else if let Some(text) = &raw.daemon_lost_after {
        scope.error(
            &text.mark,
            "without `onDaemonLost: Pass` the time has no meaning",
            "write that beside it, or remove this",
        );
    }
}

fn lower_http(raw: RawHttp, daemon: &mut DaemonConfig, scope: &mut Scope<'_>) {
    if let Some(number) = bounded(raw.workers.as_ref(), &WORKERS, scope) {
        daemon.workers = Some(number);
    }
    if let Some(number) = bounded(raw.max_buckets.as_ref(), &BUCKETS, scope) {
        daemon.max_buckets = number;
    }
    if let Some(delay) = bounded_duration(raw.drain_delay.as_ref(), &DRAIN, scope) {
        daemon.drain_delay = delay;
    }
    if let Some(drain) = bounded_duration(raw.drain_timeout.as_ref(), &DRAIN, scope) {
        daemon.drain_timeout = drain;
    }
}

/// A number within `range`, or an error at it.
fn bounded<T: TryFrom<u64>>(
    number: Option<&At<u64>>,
    range: &RangeInclusive<u64>,
    scope: &mut Scope<'_>,
) -> Option<T> {
    let number = number?;
    if !range.contains(&number.value) {
        let message = format!("{} is out of range", number.value);
        let remedy = format!("it may be {} to {}", range.start(), range.end());
        scope.error(&number.mark, message, remedy);
        return None;
    }
    T::try_from(number.value).ok()
}

/// A duration within `range`, or an error at it.
fn bounded_duration(
    text: Option<&At<String>>,
    range: &RangeInclusive<Duration>,
    scope: &mut Scope<'_>,
) -> Option<Duration> {
    let text = text?;
    let duration = units::duration(text, scope).map(Duration::from_nanos)?;
    if range.contains(&duration) {
        return Some(duration);
    }
    let fault = if duration < *range.start() {
        "short"
    } else {
        "long"
    };
    let (least, most) = (range.start().as_secs(), range.end().as_secs());
    scope.error(
        &text.mark,
        format!("`{}` is too {fault}", text.value),
        format!("it may be `{least}s` to `{most}s`"),
    );
    None
}
