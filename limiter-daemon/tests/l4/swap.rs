//! Sets of policies in place of others, under packets.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use ipnet::IpNet;
use limiter_common::Reason;
use limiter_daemon::l4::trial::{Program, Trial};
use limiter_daemon::policy::plan::NetworkPolicy;

use crate::packet::*;
use crate::support::{HOUR, PORT, conforming, limit, policy, reason, rises, total, trial};

const ALICE: [u8; 4] = [192, 0, 2, 1];

const SWAPS: usize = 200;

fn plenty() -> NetworkPolicy {
    policy(None, Some(limit(1 << 30, 1 << 30, HOUR)))
}

/// Two sets that drop every packet of Alice, each in a way of its own: by a list of the policy on her
/// port, or by that of another policy there. A mixture of both would let her pass: the one's port
/// with the other's list, the one's list while the other's policy is not there yet.
#[test]
fn every_packet_is_judged_by_one_set_or_the_other() {
    let deny = |name: &str, cidr: &str| NetworkPolicy {
        name: name.to_owned(),
        deny: vec![cidr.parse().unwrap()],
        ..plenty()
    };
    let one = [deny("infra/one", "192.0.2.1/32")];
    let two = [deny("infra/two", "192.0.2.0/24")];
    let mut trial = trial(&one);
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    // Long enough for a whole round under what is in force now.
    let two_rounds = || {
        let before = rounds.load(Ordering::Relaxed);
        while rounds.load(Ordering::Relaxed) < before + 2 {
            thread::yield_now();
        }
    };
    let (runner, mut reloader) = trial.split();
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let packet = tcp_v4(ALICE, PORT, ACK);
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                runner.run(Program::Limiter, &packet, 10_000).unwrap();
                sent += 10_000;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            sent
        });
        two_rounds();
        for _ in 0..SWAPS / 2 {
            reloader.apply(&two).unwrap();
            reloader.apply(&one).unwrap();
        }
        reloader.apply(&two).unwrap();
        two_rounds();
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    let rises = rises(&[], &trial.counters().unwrap());
    assert_eq!(total(&rises, |_| true), sent);
    assert_eq!(
        total(&rises, |reason| reason == Reason::Denied),
        sent,
        "{rises:?}"
    );
    let of = |name: &str| {
        let counters = rises.iter().filter(|c| c.policy.as_deref() == Some(name));
        counters.map(|counter| counter.packets).sum::<u64>()
    };
    assert!(of("infra/one") > 0 && of("infra/two") > 0, "{rises:?}");
}

#[test]
fn a_hundred_thousand_networks_are_put_in_force_and_kept() {
    let nets = |first: u32| -> Vec<IpNet> {
        (first..first + 100_000)
            .map(|n| IpNet::new(Ipv4Addr::from(0x0b00_0000 + (n << 4)).into(), 28).unwrap())
            .collect()
    };
    let with = |deny| NetworkPolicy { deny, ..plenty() };
    let mut trial = trial(&[]);
    let timed = |trial: &mut Trial, policies: &[NetworkPolicy]| {
        #[expect(clippy::disallowed_methods, reason = "tells, and asserts nothing")]
        let start = Instant::now();
        trial.apply(policies).unwrap();
        start.elapsed()
    };
    let list = with(nets(0));
    let first = timed(&mut trial, std::slice::from_ref(&list));
    assert_eq!(
        reason(&trial, &tcp_v4([11, 0, 0, 5], PORT, ACK)),
        Reason::Denied
    );
    assert_eq!(
        reason(&trial, &tcp_v4(ALICE, PORT, ACK)),
        Reason::Conforming
    );
    let second = timed(&mut trial, std::slice::from_ref(&list));
    let third = timed(&mut trial, std::slice::from_ref(&list));
    let shifted = timed(&mut trial, &[with(nets(50_000))]);
    assert_eq!(
        reason(&trial, &tcp_v4([11, 0, 0, 5], PORT, ACK)),
        Reason::Conforming
    );
    println!(
        "100,000 CIDRs: {first:?}, again {second:?}, unchanged {third:?}, half new {shifted:?}"
    );
}

#[test]
fn policies_come_and_go_between_two_that_stay() {
    let on = |name: &str, port| NetworkPolicy {
        name: name.to_owned(),
        ports: vec![(limiter_common::Protocol::Tcp, port)],
        ..policy(None, Some(limit(3, 1, HOUR)))
    };
    let mut trial = trial(&[on("a", 1), on("b", 2), on("c", 3)]);
    let send = |trial: &Trial, port| conforming(trial, &tcp_v4(ALICE, port, ACK), 2);
    assert_eq!([send(&trial, 1), send(&trial, 3)], [2, 2]);
    trial.apply(&[on("a", 1), on("c", 3), on("d", 2)]).unwrap();
    assert_eq!(
        [send(&trial, 1), send(&trial, 3), send(&trial, 2)],
        [1, 1, 2]
    );
    trial.apply(&[on("c", 2)]).unwrap();
    assert_eq!(send(&trial, 2), 0, "another port, the same buckets");
    assert_eq!(reason(&trial, &tcp_v4(ALICE, 1, ACK)), Reason::Untargeted);
}
