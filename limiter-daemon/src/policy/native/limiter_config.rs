//! `LimiterConfig`: the daemon's own settings.

use std::net::SocketAddr;
use std::path::{Component, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{AttachMode, DaemonConfig, Interface, OnExit};
use crate::policy::resource::Meta;
use crate::policy::units;

const MAX_INTERFACES: usize = 64;
/// `IFNAMSIZ` less the zero at the end.
const MAX_INTERFACE_NAME: usize = 15;
const MAX_SOURCES: u64 = 1 << 24;
const MAX_BUCKETS: u64 = 1 << 26;
const MAX_WORKERS: u64 = 1024;
const MAX_DRAIN: Duration = Duration::from_secs(3_600);

#[derive(Debug, Deserialize)]
pub(crate) struct RawLimiterConfig {
    interfaces: Option<At<Vec<RawInterface>>>,
    kernel: Option<RawKernel>,
    admin: Option<RawAdmin>,
    http: Option<RawHttp>,
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
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawKernel {
    pin_path: Option<At<String>>,
    on_exit: Option<Exit>,
    max_sources: Option<At<u64>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Exit {
    Detach,
    Keep,
}

#[derive(Debug, Deserialize)]
struct RawAdmin {
    address: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    workers: Option<At<u64>>,
    max_buckets: Option<At<u64>>,
    drain_timeout: Option<At<String>>,
}

/// A LimiterConfig, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) meta: Meta,
    pub(crate) daemon: DaemonConfig,
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
    if let Some(kernel) = raw.kernel {
        lower_kernel(kernel, &mut daemon, scope);
    }
    if let Some(address) = raw.admin.and_then(|admin| admin.address) {
        lower_admin(&address, &mut daemon, scope);
    }
    if let Some(http) = raw.http {
        lower_http(http, &mut daemon, scope);
    }
    Config { meta, daemon, mark }
}

fn lower_interface(raw: RawInterface, interfaces: &mut Vec<Interface>, scope: &mut Scope<'_>) {
    let name = &raw.name;
    let printable = name
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if !printable
        || !(1..=MAX_INTERFACE_NAME).contains(&name.len())
        || matches!(name.as_str(), "." | "..")
    {
        let message = format!("`{}` is not the name of an interface", name.value);
        scope.error(
            &name.mark,
            message,
            format!("write one of 1 to {MAX_INTERFACE_NAME} characters, as `eth0`"),
        );
    } else if interfaces.iter().any(|other| other.name == name.value) {
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
    };
    interfaces.push(Interface {
        name: raw.name.value,
        mode,
    });
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
    if let Some(number) = bounded(raw.max_sources.as_ref(), MAX_SOURCES, scope) {
        daemon.max_sources = number;
    }
}

fn lower_admin(text: &At<String>, daemon: &mut DaemonConfig, scope: &mut Scope<'_>) {
    let Some(address) = text
        .parse::<SocketAddr>()
        .ok()
        .filter(|address| address.port() != 0)
    else {
        let message = format!("`{}` is not an address with a port", text.value);
        scope.error(
            &text.mark,
            message,
            "write it as `127.0.0.1:9901` or `[::1]:9901`",
        );
        return;
    };
    if !address.ip().to_canonical().is_loopback() {
        let message = format!("the admin address {address} can be reached from other hosts");
        scope.warning(
            &text.mark,
            message,
            "it asks nobody who they are: write a loopback address",
        );
    }
    daemon.admin = address;
}

fn lower_http(raw: RawHttp, daemon: &mut DaemonConfig, scope: &mut Scope<'_>) {
    if let Some(number) = bounded(raw.workers.as_ref(), MAX_WORKERS, scope) {
        daemon.workers = Some(number);
    }
    if let Some(number) = bounded(raw.max_buckets.as_ref(), MAX_BUCKETS, scope) {
        daemon.max_buckets = number;
    }
    let Some(text) = raw.drain_timeout else {
        return;
    };
    if let Some(drain) = units::duration(&text, scope).map(Duration::from_nanos) {
        if drain > MAX_DRAIN {
            let message = format!("`{}` is too long", text.value);
            scope.error(
                &text.mark,
                message,
                format!("it may be `0s` to `{}s`", MAX_DRAIN.as_secs()),
            );
        }
        daemon.drain_timeout = drain;
    }
}

/// A number from 1 to `most`, or an error at it.
fn bounded<T: TryFrom<u64>>(
    number: Option<&At<u64>>,
    most: u64,
    scope: &mut Scope<'_>,
) -> Option<T> {
    let number = number?;
    if !(1..=most).contains(&number.value) {
        let message = format!("{} is out of range", number.value);
        scope.error(&number.mark, message, format!("it may be 1 to {most}"));
        return None;
    }
    T::try_from(number.value).ok()
}
