//! What the packet tests share: a loaded program with a policy, and counters that can be compared.

use std::time::Duration;

use limiter_common::{Limit, Protocol, Reason};
use limiter_daemon::l4::Counter;
use limiter_daemon::l4::trial::{Action, Program, Settings, Trial};
use limiter_daemon::policy::plan::{NetworkLevel, NetworkPolicy, Scope, SourceLimits};

/// The policy that most tests use, and the port that it targets.
pub(crate) const WEB: &str = "infra/web";
pub(crate) const PORT: u16 = 443;

/// Where the tests' clock starts.
pub(crate) const START: u64 = 1_000_000_000_000;
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// In nanoseconds.
pub(crate) const MS: u64 = 1_000_000;

/// One source: an IPv4 address or an IPv6 /64.
pub(crate) const HOST: Scope = Scope::Source { v4: 32, v6: 64 };

pub(crate) fn limit(tokens: u64, fill: u64, every: Duration) -> Limit {
    Limit::new(tokens, fill, u64::try_from(every.as_nanos()).unwrap()).unwrap()
}

/// A level that limits nothing yet.
pub(crate) fn level(scope: Scope) -> NetworkLevel {
    NetworkLevel {
        scope,
        connections: None,
        packets: None,
        bytes: None,
    }
}

/// A level on packets only.
pub(crate) fn packets(scope: Scope, limit: Limit) -> NetworkLevel {
    NetworkLevel {
        packets: Some(limit),
        ..level(scope)
    }
}

/// A policy on the port, for all sources alike.
pub(crate) fn levels(levels: Vec<NetworkLevel>) -> NetworkPolicy {
    NetworkPolicy {
        name: WEB.to_owned(),
        ports: vec![(Protocol::Tcp, PORT)],
        interfaces: Vec::new(),
        default: SourceLimits::Levels(levels),
        rules: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        shadow: false,
        written: None,
    }
}

/// A policy on the port with one level, that of a single source.
pub(crate) fn policy(connections: Option<Limit>, packets: Option<Limit>) -> NetworkPolicy {
    levels(vec![NetworkLevel {
        connections,
        packets,
        ..level(HOST)
    }])
}

pub(crate) fn trial(policies: &[NetworkPolicy]) -> Trial {
    let mut trial = Trial::new(Settings::default()).expect("the tests of l4 run as root");
    trial.set_clock(START).unwrap();
    trial.apply(policies).unwrap();
    trial
}

/// Gives the program one packet and says what became of it, by the one counter that rose.
pub(crate) fn send(trial: &Trial, packet: &[u8]) -> (Action, Option<String>, Reason) {
    let (action, counter) = send_by(trial, Program::Limiter, packet);
    (action, counter.policy, counter.reason)
}

/// As [`send`], to either program; all of the counter that rose.
pub(crate) fn send_by(trial: &Trial, program: Program, packet: &[u8]) -> (Action, Counter) {
    let before = trial.counters().unwrap();
    let outcome = trial.run(program, packet, 1).unwrap();
    let mut rises = rises(&before, &trial.counters().unwrap());
    match rises.pop() {
        Some(counter) if rises.is_empty() && counter.packets == 1 => (outcome.action, counter),
        last => panic!("one packet is to be counted once: {rises:?} {last:?}"),
    }
}

pub(crate) fn reason(trial: &Trial, packet: &[u8]) -> Reason {
    send(trial, packet).2
}

/// Gives the program a packet `count` times; how many of them conformed.
pub(crate) fn conforming(trial: &Trial, packet: &[u8], count: u32) -> u64 {
    let before = trial.counters().unwrap();
    trial.run(Program::Limiter, packet, count).unwrap();
    let rises = rises(&before, &trial.counters().unwrap());
    assert_eq!(
        total(&rises, |_| true),
        u64::from(count),
        "counters sum to the packets sent"
    );
    total(&rises, |reason| reason == Reason::Conforming)
}

pub(crate) fn total(counters: &[Counter], wanted: impl Fn(Reason) -> bool) -> u64 {
    counters
        .iter()
        .filter(|counter| wanted(counter.reason))
        .map(|counter| counter.packets)
        .sum()
}

/// The counters that rose, and by how much.
pub(crate) fn rises(before: &[Counter], after: &[Counter]) -> Vec<Counter> {
    let before_of = |after: &Counter| {
        let same = |before: &&Counter| {
            let packets = after.packets;
            **before == *after
                || Counter {
                    packets,
                    ..(*before).clone()
                } == *after
        };
        before.iter().find(same).map_or(0, |before| before.packets)
    };
    after
        .iter()
        .map(|after| Counter {
            packets: after.packets - before_of(after),
            ..after.clone()
        })
        .filter(|counter| counter.packets != 0)
        .collect()
}
