//! Two CPUs on one bucket.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use limiter_common::Reason;
use limiter_daemon::l4::trial::{Program, Trial};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::packet::{ACK, tcp_v4};
use crate::support::{PORT, limit, policy, rises, total, trial};

const SOURCE: [u8; 4] = [192, 0, 2, 1];

/// Gives the program `count` packets of one source on each of two CPUs at once; how many conformed.
fn hammer(trial: &Trial, count: u32) -> u64 {
    let packet = tcp_v4(SOURCE, PORT, ACK);
    let start = Barrier::new(2);
    let before = trial.counters().unwrap();
    thread::scope(|scope| {
        for cpu in 0..2 {
            let (packet, start) = (&packet, &start);
            scope.spawn(move || {
                let mut only = CpuSet::new();
                only.set(cpu);
                sched_setaffinity(None, &only).expect("the machine has two CPUs");
                start.wait();
                trial.run(Program::Limiter, packet, count).unwrap();
            });
        }
    });
    let rises = rises(&before, &trial.counters().unwrap());
    assert_eq!(
        total(&rises, |_| true),
        2 * u64::from(count),
        "every packet is counted: {rises:?}"
    );
    println!("{rises:?}");
    total(&rises, |reason| reason == Reason::Conforming)
}

#[test]
fn two_cpus_admit_exactly_what_one_would() {
    let hour = Duration::from_secs(3600);
    let few = trial(&[policy(None, Some(limit(1000, 1000, hour)))]);
    assert_eq!(hammer(&few, 1_000_000), 1000);
    // The bucket lasts for most of the run, so both CPUs write to it all the time.
    let many = trial(&[policy(None, Some(limit(1_000_000, 1_000_000, hour)))]);
    assert_eq!(hammer(&many, 1_000_000), 1_000_000);
}
