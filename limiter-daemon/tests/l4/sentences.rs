//! Sentences, on made-up packets.

use limiter_common::{Protocol, Reason};
use limiter_daemon::l4::trial::Trial;
use limiter_daemon::policy::plan::NetworkPolicy;

use crate::packet::*;
use crate::support::{HOUR, MS, PORT, START, limit, policy, reason, trial};

const ALICE: [u8; 4] = [192, 0, 2, 1];
const BOB: [u8; 4] = [192, 0, 2, 2];
/// A second.
const ONE: u64 = 1000 * MS;

fn plenty() -> NetworkPolicy {
    policy(None, Some(limit(1 << 20, 1, HOUR)))
}

fn fate(trial: &Trial, source: [u8; 4]) -> Reason {
    reason(trial, &tcp_v4(source, PORT, ACK))
}

fn block(trial: &mut Trial, net: &str, seconds: u64) {
    let until = START + seconds * ONE;
    trial.block(net.parse().unwrap(), until).unwrap();
}

#[test]
fn a_sentence_is_served_and_over() {
    let mut trial = trial(&[plenty()]);
    block(&mut trial, "192.0.2.1/32", 10);
    assert_eq!(fate(&trial, ALICE), Reason::Sentenced);
    assert_eq!(fate(&trial, BOB), Reason::Conforming);
    let elsewhere = tcp_v4(ALICE, PORT + 1, ACK);
    assert_eq!(reason(&trial, &elsewhere), Reason::Untargeted);
    let explanation = trial
        .explain(ALICE.into(), Protocol::Tcp, PORT, START)
        .unwrap();
    assert_eq!(explanation.sentenced_until, Some(START + 10 * ONE));

    trial.set_clock(START + 10 * ONE).unwrap();
    assert_eq!(fate(&trial, ALICE), Reason::Conforming);
    assert_eq!(trial.sentences().len(), 1);
    assert_eq!(trial.expire(START + 10 * ONE).unwrap(), 1);
    assert!(trial.sentences().is_empty());
}

#[test]
fn a_network_is_blocked_and_unblocked() {
    let mut trial = trial(&[plenty()]);
    block(&mut trial, "2001:db8:0:1::/64", 10);
    let from = |trial: &Trial, net| reason(trial, &tcp_v6(net, 7, PORT, ACK));
    assert_eq!(from(&trial, 1), Reason::Sentenced);
    assert_eq!(from(&trial, 2), Reason::Conforming);
    let net = "2001:db8:0:1::/64".parse().unwrap();
    assert_eq!(trial.sentences()[0].net, net);
    assert!(trial.unblock(net).unwrap());
    assert!(!trial.unblock(net).unwrap());
    assert_eq!(from(&trial, 1), Reason::Conforming);
}

#[test]
fn the_allow_list_is_above_a_sentence() {
    let mut trial = trial(&[NetworkPolicy {
        allow: vec!["192.0.2.1/32".parse().unwrap()],
        ..plenty()
    }]);
    block(&mut trial, "192.0.2.0/24", 10);
    assert_eq!(fate(&trial, ALICE), Reason::Allowed);
    assert_eq!(fate(&trial, BOB), Reason::Sentenced);
}

/// The kernel looks at the longest prefix only, over or not.
#[test]
fn a_short_sentence_does_not_hide_a_long_one() {
    for order in [
        ["192.0.2.1/32", "192.0.2.0/24"],
        ["192.0.2.0/24", "192.0.2.1/32"],
    ] {
        let mut trial = trial(&[plenty()]);
        for net in order {
            block(&mut trial, net, if net.ends_with("/24") { 60 } else { 10 });
        }
        trial.set_clock(START + 20 * ONE).unwrap();
        assert_eq!(fate(&trial, ALICE), Reason::Sentenced, "{order:?}");
    }
}

#[test]
fn a_long_sentence_outlives_a_short_one_around_it() {
    let mut trial = trial(&[plenty()]);
    block(&mut trial, "192.0.2.1/32", 60);
    block(&mut trial, "192.0.2.0/24", 10);
    block(&mut trial, "192.0.2.1/32", 5);
    assert_eq!(trial.sentences().len(), 2);
    assert_eq!(fate(&trial, BOB), Reason::Sentenced);
    trial.set_clock(START + 20 * ONE).unwrap();
    assert_eq!(fate(&trial, ALICE), Reason::Sentenced);
    assert_eq!(fate(&trial, BOB), Reason::Conforming);
}

#[test]
fn the_longest_sentence_is_for_everybody() {
    let mut trial = trial(&[plenty()]);
    block(&mut trial, "0.0.0.0/0", 10);
    assert_eq!(fate(&trial, ALICE), Reason::Sentenced);
    assert_eq!(reason(&trial, &tcp_v6(1, 1, PORT, ACK)), Reason::Conforming);
    block(&mut trial, "::/0", 10);
    assert_eq!(reason(&trial, &tcp_v6(1, 1, PORT, ACK)), Reason::Sentenced);
    assert_eq!(trial.sentences().len(), 1, "::/0 is around all of IPv4");
}
