//! What the packet tests share: a loaded program with a policy, and counters that can be compared.

use std::time::Duration;

use limiter_common::{Limit, Reason};
use limiter_daemon::l4::Counter;
use limiter_daemon::l4::trial::{Action, Program, Settings, Trial};
use limiter_daemon::policy::plan::NetworkPolicy;

/// The policy that most tests use, and the port that it targets.
pub(crate) const WEB: &str = "infra/web";
pub(crate) const PORT: u16 = 443;

/// Where the tests' clock starts.
pub(crate) const START: u64 = 1_000_000_000_000;

pub(crate) fn limit(tokens: u64, fill: u64, every: Duration) -> Limit {
    Limit::new(tokens, fill, u64::try_from(every.as_nanos()).unwrap()).unwrap()
}

pub(crate) fn policy(connections: Option<Limit>, packets: Option<Limit>) -> NetworkPolicy {
    NetworkPolicy {
        name: WEB.to_owned(),
        ports: vec![PORT],
        connections,
        packets,
    }
}

pub(crate) fn trial(policies: &[NetworkPolicy]) -> Trial {
    let mut trial = Trial::new(Settings::default()).expect("the tests of l4 run as root");
    trial.set_clock(START).unwrap();
    trial.apply(policies).unwrap();
    trial
}

/// Gives the program one packet and says what became of it, by the one counter that rose.
pub(crate) fn send(trial: &Trial, packet: &[u8]) -> (Action, Option<String>, Reason) {
    let before = trial.counters().unwrap();
    let outcome = trial.run(Program::Limiter, packet, 1).unwrap();
    let rises = rises(&before, &trial.counters().unwrap());
    let [
        Counter {
            policy,
            reason,
            packets: 1,
        },
    ] = rises.as_slice()
    else {
        panic!("one packet is to be counted once: {rises:?}");
    };
    (outcome.action, policy.clone(), *reason)
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
    let mut rises = Vec::new();
    for (before, after) in before.iter().zip(after) {
        assert_eq!(
            (&before.policy, before.reason),
            (&after.policy, after.reason)
        );
        if after.packets != before.packets {
            rises.push(Counter {
                packets: after.packets - before.packets,
                ..after.clone()
            });
        }
    }
    rises
}
