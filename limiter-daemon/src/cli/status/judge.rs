//! What of a daemon's state needs somebody. Pure: the same facts, the same conditions.
//!
//! That a limit denies, a source is blocked or a packet is dropped is no condition: it is what the
//! daemon is for. Warnings in policy files are none either: `limiterd check` is for those.

use serde::Serialize;

use super::facts::{Backend, Facts, Kernel};
use super::{State, count};

/// Something that needs somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Condition {
    /// Names the kind, for scripts; what is written here stays.
    pub code: &'static str,
    /// What it makes of the whole.
    pub state: State,
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// The worst of them.
#[must_use]
pub(super) fn state(conditions: &[Condition]) -> State {
    let states = conditions.iter().map(|condition| condition.state);
    states.max().unwrap_or(State::Well)
}

/// All there are, the worst first.
#[must_use]
pub(super) fn judge(facts: &Facts) -> Vec<Condition> {
    let mut found = Vec::new();
    readiness(facts, &mut found);
    policy(facts, &mut found);
    if let Some(kernel) = &facts.kernel {
        self::kernel(kernel, &mut found);
    }
    backends(&facts.backends, &mut found);
    stores(facts, &mut found);
    bounds(facts, &mut found);
    found.sort_by_key(|condition| std::cmp::Reverse(condition.state));
    found
}

fn degraded(code: &'static str, message: String, remedy: &str) -> Condition {
    Condition {
        code,
        state: State::Degraded,
        message,
        remedy: remedy.to_owned(),
    }
}

fn readiness(facts: &Facts, found: &mut Vec<Condition>) {
    if facts.ready {
        return;
    }
    let (code, message, remedy) = match facts.phase.as_str() {
        "starting" => ("starting", "it is starting", "wait"),
        "draining" => (
            "draining",
            "it was told to stop, and takes its leave of clients",
            "wait for its end; systemd or Kubernetes starts it again if it is to run",
        ),
        _ => (
            "failed",
            "a part of it died, and it ends",
            "see its log for why: journalctl -u limiterd",
        ),
    };
    found.push(Condition {
        code,
        state: State::NotReady,
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    });
}

fn policy(facts: &Facts, found: &mut Vec<Condition>) {
    let policy = &facts.policy;
    let last = &policy.last_read;
    let check = format!(
        "limiterd check {}, and mend what it names",
        policy.directory
    );
    if let Some(reason) = &last.rejected {
        let first = reason.lines().next().unwrap_or_default();
        let message = format!("the policy files are refused, what was in force goes on: {first}");
        found.push(degraded("policy_rejected", message, &check));
    } else if last.errors > 0 {
        let errors = last.errors as u64;
        let message = match last.kept.as_slice() {
            [] => format!(
                "{} in the policy files: what is not valid is not in force",
                count(errors, "error")
            ),
            kept => format!(
                "{} in the policy files; as they were go on: {}",
                count(errors, "error"),
                some(kept.iter().map(String::as_str))
            ),
        };
        found.push(degraded("policy_errors", message, &check));
    }
    // An older daemon does not tell of the last reading, nor of whether it watches.
    if !policy.watching && !last.at.is_empty() {
        let message = "changes of the policy files are not noticed".to_owned();
        let remedy = "send SIGHUP after each change; see its log for why";
        found.push(degraded("policy_not_watched", message, remedy));
    }
    if policy.restart_pending {
        let message = "the LimiterConfig or EnvoyGateway is another than it runs with".to_owned();
        found.push(degraded("restart_pending", message, "restart limiterd"));
    }
}

fn kernel(kernel: &Kernel, found: &mut Vec<Condition>) {
    let off = kernel.interfaces.iter().filter(|one| one.mode.is_none());
    let off: Vec<_> = off.map(|one| one.name.as_str()).collect();
    if !off.is_empty() {
        let message = format!("no limits in the kernel on {}", some(off.into_iter()));
        let remedy =
            "see that the interface is there: ip link; its log and limiterd probe say more";
        found.push(degraded("interface_not_attached", message, remedy));
    }
    if kernel.sketched_per_second > Some(0.0) {
        let message = format!(
            "the kernel's table of sources is full ({} of {} places in use): newcomers share buckets",
            kernel.live, kernel.places
        );
        let remedy =
            "a flood of sources, or spec.kernel.maxSources of the LimiterConfig is too small";
        found.push(degraded("kernel_table_full", message, remedy));
    }
}

fn backends(backends: &[Backend], found: &mut Vec<Condition>) {
    let names = |wanted: &dyn Fn(&Backend) -> bool| {
        let names = backends.iter().filter(|one| wanted(one)).map(name);
        let names: Vec<_> = names.collect();
        (!names.is_empty()).then(|| some(names.iter().map(String::as_str)))
    };
    if let Some(names) = names(&|one| !one.open.is_empty()) {
        let message = format!("circuit breakers are open: {names}");
        let remedy = "the backend is too slow for its load, or its circuitBreaker too tight";
        found.push(degraded("breaker_open", message, remedy));
    }
    if let Some(names) = names(&|one| one.endpoints > 0 && one.healthy == 0) {
        let message = format!("no endpoint is healthy: {names}");
        let remedy = "see why the backend fails: limiterd top --section upstreams";
        found.push(degraded("no_healthy_endpoint", message, remedy));
    }
    if let Some(names) = names(&|one| one.healthy > 0 && one.healthy < one.endpoints) {
        let message = format!("endpoints are ejected or fail their checks: {names}");
        let remedy = "see why they fail: limiterd top --section upstreams";
        found.push(degraded("endpoints_out", message, remedy));
    }
}

fn name(backend: &Backend) -> String {
    match backend.policy.as_str() {
        "" => backend.backend.clone(),
        policy => format!("{} ({policy})", backend.backend),
    }
}

fn stores(facts: &Facts, found: &mut Vec<Condition>) {
    let away = |one: &&super::facts::Store| one.state != "asked" || one.connections == 0;
    for store in facts.stores.iter().filter(away) {
        let place = store.address.as_ref().unwrap_or(&store.name);
        let message = match store.state {
            "asked" => format!("there is no connection to the store {place}"),
            _ => format!("the store {place} fails: global limits go by onStoreFailure"),
        };
        let remedy = "see that it runs and can be reached from here";
        found.push(degraded("store_away", message, remedy));
    }
    if let Some(fleet) = &facts.fleet {
        if !fleet.connected {
            let why = fleet.away.as_deref().unwrap_or("not yet");
            let message = format!("the other nodes cannot be reached through the store ({why})");
            let remedy = "blocks do not reach them meanwhile; see that the store runs";
            found.push(degraded("fleet_away", message, remedy));
        } else if !fleet.behind.is_empty() {
            let behind = fleet.behind.iter().map(String::as_str);
            let message = format!("nodes have not heard of all blocks: {}", some(behind));
            let remedy = "it takes seconds; if it lasts, see their logs";
            found.push(degraded("fleet_behind", message, remedy));
        }
    }
    let services = facts.asked_services.iter();
    let unreached = services.filter(|one| one.connections == 0 && one.connect_failures > 0);
    for service in unreached {
        let message = format!(
            "the rate limit service {} cannot be reached",
            service.service
        );
        let remedy = "see that it runs; filters go by their failure mode meanwhile";
        found.push(degraded("asked_service_away", message, remedy));
    }
}

fn bounds(facts: &Facts, found: &mut Vec<Condition>) {
    let some = |rate: Option<f64>| rate > Some(0.0);
    if some(facts.buckets.refused_per_second) {
        let message = format!(
            "no room for buckets of new values ({} of {}): they share some",
            facts.buckets.live, facts.buckets.capacity
        );
        let remedy = "a flood of values, or spec.http.maxBuckets of the LimiterConfig is too small";
        found.push(degraded("buckets_full", message, remedy));
    }
    if some(facts.traffic.workers_full_per_second) {
        let message = "workers have all the connections they may, and do not accept".to_owned();
        let remedy = "bound connections by source, or add nodes or workers";
        found.push(degraded("workers_full", message, remedy));
    }
    if some(facts.log_lines_lost_per_second) {
        let message = "lines of the access log are lost".to_owned();
        let remedy = "see that its disk has room and keeps up";
        found.push(degraded("access_log_lost", message, remedy));
    }
}

/// A few of them.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SOME: usize = 3;
    let names: Vec<_> = names.collect();
    let told = names.iter().take(SOME).copied().collect::<Vec<_>>();
    match names.len().saturating_sub(SOME) {
        0 => told.join(", "),
        more => format!("{}, and {more} more", told.join(", ")),
    }
}
