//! The buckets of the program, with a clock that the test moves.

use limiter_common::{Protocol, Reason};
use limiter_daemon::l4::BucketState;
use limiter_daemon::l4::trial::Trial;

use crate::packet::*;
use crate::support::{MS, PORT, SECOND, START, conforming, limit, policy, reason, trial};

const ALICE: [u8; 4] = [192, 0, 2, 1];
const BOB: [u8; 4] = [192, 0, 2, 2];

/// Places of the table that are in use.
fn places(trial: &Trial) -> u64 {
    trial.occupancy(START).unwrap().live
}

#[test]
fn connections_over_the_limit_are_dropped_until_a_token_is_back() {
    let mut trial = trial(&[policy(Some(limit(100, 10, SECOND)), None)]);
    let syn = tcp_v4(ALICE, PORT, SYN);
    assert_eq!(conforming(&trial, &syn, 120), 100);
    assert_eq!(reason(&trial, &syn), Reason::OverConnections);
    trial.set_clock(START + 100 * MS - 1).unwrap();
    assert_eq!(reason(&trial, &syn), Reason::OverConnections);
    trial.set_clock(START + 100 * MS).unwrap();
    assert_eq!(reason(&trial, &syn), Reason::Conforming);
    assert_eq!(reason(&trial, &syn), Reason::OverConnections);
    trial.set_clock(START + 3600 * 1000 * MS).unwrap();
    assert_eq!(
        conforming(&trial, &syn, 120),
        100,
        "a bucket fills to its capacity, not further"
    );
}

#[test]
fn packets_over_the_limit_are_dropped_whatever_their_flags() {
    let mut trial = trial(&[policy(None, Some(limit(10, 10, SECOND)))]);
    let (syn, ack) = (tcp_v4(ALICE, PORT, SYN), tcp_v4(ALICE, PORT, ACK));
    assert_eq!(conforming(&trial, &ack, 6), 6);
    assert_eq!(conforming(&trial, &syn, 6), 4);
    assert_eq!(reason(&trial, &ack), Reason::OverPackets);
    trial.set_clock(START + 500 * MS).unwrap();
    assert_eq!(conforming(&trial, &ack, 20), 5);
}

#[test]
fn a_clock_that_steps_back_refills_nothing() {
    let mut trial = trial(&[policy(None, Some(limit(10, 10, SECOND)))]);
    let ack = tcp_v4(ALICE, PORT, ACK);
    assert_eq!(conforming(&trial, &ack, 20), 10);
    trial.set_clock(START - 1).unwrap();
    assert_eq!(conforming(&trial, &ack, 20), 0);
    trial.set_clock(START).unwrap();
    assert_eq!(conforming(&trial, &ack, 20), 0);
}

#[test]
fn every_source_has_buckets_of_its_own() {
    let trial = trial(&[policy(Some(limit(5, 1, SECOND)), None)]);
    for packet in [
        tcp_v4(ALICE, PORT, SYN),
        tcp_v4(BOB, PORT, SYN),
        tcp_v6(1, 1, PORT, SYN),
    ] {
        assert_eq!(conforming(&trial, &packet, 8), 5);
    }
    assert_eq!(
        conforming(&trial, &tcp_v6(1, 2, PORT, SYN), 8),
        0,
        "a host of the same /64"
    );
    assert_eq!(
        conforming(&trial, &tcp_v6(2, 1, PORT, SYN), 8),
        5,
        "the next /64"
    );
    assert_eq!(places(&trial), 4);
}

#[test]
fn ports_of_one_policy_share_buckets_and_policies_do_not() {
    let two = |name: &str, ports: &[u16]| {
        let mut policy = policy(Some(limit(5, 1, SECOND)), None);
        policy.name = name.to_owned();
        policy.ports = ports.iter().map(|port| (Protocol::Tcp, *port)).collect();
        policy
    };
    let trial = trial(&[two("infra/a", &[80, 81]), two("infra/b", &[90])]);
    assert_eq!(conforming(&trial, &tcp_v4(ALICE, 80, SYN), 3), 3);
    assert_eq!(conforming(&trial, &tcp_v4(ALICE, 81, SYN), 3), 2);
    assert_eq!(conforming(&trial, &tcp_v4(ALICE, 90, SYN), 8), 5);
    assert_eq!(reason(&trial, &tcp_v4(ALICE, 91, SYN)), Reason::Untargeted);
}

#[test]
fn a_packet_that_needs_no_bucket_takes_no_entry() {
    let trial = trial(&[policy(Some(limit(5, 1, SECOND)), None)]);
    assert_eq!(conforming(&trial, &tcp_v4(ALICE, PORT, ACK), 100), 100);
    assert_eq!(
        reason(&trial, &tcp_v4(ALICE, PORT + 1, SYN)),
        Reason::Untargeted
    );
    assert_eq!(places(&trial), 0);
}

#[test]
fn what_one_bucket_denies_is_charged_to_neither() {
    let connections = limit(2, 1, SECOND);
    let mut trial = trial(&[policy(Some(connections), Some(limit(4, 1, SECOND)))]);
    let (syn, ack) = (tcp_v4(ALICE, PORT, SYN), tcp_v4(ALICE, PORT, ACK));
    let buckets = |trial: &Trial| -> Vec<u64> {
        let explanation = trial
            .explain(ALICE.into(), Protocol::Tcp, PORT, START)
            .unwrap();
        let states = explanation.policy.unwrap().buckets;
        states
            .iter()
            .map(|bucket: &BucketState| bucket.tat)
            .collect()
    };

    assert_eq!(conforming(&trial, &syn, 2), 2);
    let before = buckets(&trial);
    assert_eq!(reason(&trial, &syn), Reason::OverConnections);
    assert_eq!(
        buckets(&trial),
        before,
        "connections denied it: packets are not charged"
    );

    assert_eq!(conforming(&trial, &ack, 4), 2);
    trial.set_clock(START + 999 * MS).unwrap();
    trial
        .apply(&[policy(
            Some(limit(100, 1, SECOND)),
            Some(limit(4, 1, SECOND)),
        )])
        .unwrap();
    let before = buckets(&trial);
    assert_eq!(reason(&trial, &syn), Reason::OverPackets);
    assert_eq!(
        buckets(&trial),
        before,
        "packets denied it: connections are not charged"
    );
}

#[test]
fn a_reload_keeps_the_buckets_while_the_limit_changes() {
    let web = |tokens, fill| policy(Some(limit(tokens, fill, SECOND)), None);
    let mut trial = trial(&[web(10, 10)]);
    let syn = tcp_v4(ALICE, PORT, SYN);
    assert_eq!(conforming(&trial, &syn, 10), 10);
    trial.apply(&[web(10, 10)]).unwrap();
    assert_eq!(conforming(&trial, &syn, 10), 0, "the same limit again");
    trial.apply(&[web(20, 10)]).unwrap();
    assert_eq!(conforming(&trial, &syn, 20), 10, "10 tokens more room");
    trial.apply(&[web(1, 1)]).unwrap();
    assert_eq!(conforming(&trial, &syn, 1), 0);
    trial.set_clock(START + 1000 * MS).unwrap();
    assert_eq!(
        conforming(&trial, &syn, 5),
        1,
        "nobody waits longer than the new limit says"
    );
}

#[test]
fn a_lowered_limit_binds_waits_where_both_buckets_are_in_force() {
    let web = |tokens| {
        policy(
            Some(limit(tokens, 1, SECOND)),
            Some(limit(1000, 1000, SECOND)),
        )
    };
    let mut trial = trial(&[web(100)]);
    let syn = tcp_v4(ALICE, PORT, SYN);
    assert_eq!(conforming(&trial, &syn, 100), 100);
    trial.apply(&[web(2)]).unwrap();
    assert_eq!(reason(&trial, &syn), Reason::OverConnections);
    trial.set_clock(START + 1000 * MS).unwrap();
    assert_eq!(conforming(&trial, &syn, 5), 1);
}

#[test]
fn a_policy_that_goes_and_comes_back_finds_its_buckets() {
    let web = policy(Some(limit(5, 1, SECOND)), None);
    let mut trial = trial(std::slice::from_ref(&web));
    let syn = tcp_v4(ALICE, PORT, SYN);
    assert_eq!(conforming(&trial, &syn, 8), 5);
    trial.apply(&[]).unwrap();
    assert_eq!(reason(&trial, &syn), Reason::Untargeted);
    trial.apply(&[web]).unwrap();
    assert_eq!(reason(&trial, &syn), Reason::OverConnections);
}

#[test]
fn an_id_that_changes_hands_brings_no_buckets_and_no_counts_along() {
    let named = |name: String, port| {
        let mut policy = policy(Some(limit(5, 1, SECOND)), None);
        policy.name = name;
        policy.ports = vec![(Protocol::Tcp, port)];
        policy
    };
    let all: Vec<_> = (0..255)
        .map(|n| named(format!("infra/p{n}"), 1000 + n))
        .collect();
    let mut trial = trial(&all);
    assert_eq!(conforming(&trial, &tcp_v4(ALICE, 1000, SYN), 8), 5);
    let mut next = all[1..].to_vec();
    next.push(named("infra/new".to_owned(), 1000));
    trial.apply(&next).unwrap();
    let counters = trial.counters().unwrap();
    assert!(
        counters.iter().all(|counter| counter.packets == 0),
        "{counters:?}"
    );
    assert_eq!(conforming(&trial, &tcp_v4(ALICE, 1000, SYN), 8), 5);
}
