//! Everything that a policy can say, on made-up packets.

use std::time::Duration;

use limiter_common::{Protocol, Reason};
use limiter_daemon::l4::trial::{Action, Program, Settings, Trial};
use limiter_daemon::policy::plan::{
    NetworkLevel, NetworkPolicy, OnDaemonLost, Scope, SourceLimits, SourceRule,
};

use crate::packet::*;
use crate::support::{
    HOST, HOUR, MS, PORT, SECOND, START, WEB, conforming, level, levels, limit, packets, policy,
    reason, send, send_by, trial,
};

const ALICE: [u8; 4] = [192, 0, 2, 1];
const BOB: [u8; 4] = [192, 0, 2, 2];
const CAROL: [u8; 4] = [203, 0, 113, 9];

fn ack(source: [u8; 4]) -> Vec<u8> {
    tcp_v4(source, PORT, ACK)
}

/// Two packets an hour from each source.
fn two() -> NetworkPolicy {
    policy(None, Some(limit(2, 1, HOUR)))
}

#[test]
fn all_sources_of_a_listener_share_one_bucket() {
    let listener = packets(Scope::Listener, limit(5, 1, HOUR));
    let trial = trial(&[levels(vec![listener])]);
    assert_eq!(conforming(&trial, &ack(ALICE), 3), 3);
    assert_eq!(conforming(&trial, &ack(CAROL), 3), 2);
    assert_eq!(conforming(&trial, &tcp_v6(1, 1, PORT, ACK), 3), 0);
}

#[test]
fn bytes_are_counted_from_the_link_layer_on() {
    let bytes = NetworkLevel {
        bytes: Some(limit(1000, 1, HOUR)),
        ..level(HOST)
    };
    let trial = trial(&[levels(vec![bytes])]);
    let packet = ack(ALICE);
    let fit = 1000 / u64::try_from(packet.len()).unwrap();
    assert_eq!(conforming(&trial, &packet, 100), fit);
    assert_eq!(reason(&trial, &packet), Reason::OverBytes);
}

#[test]
fn of_a_super_packet_every_segment_counts() {
    let trial = trial(&[policy(None, Some(limit(10, 1, HOUR)))]);
    let run = || trial.run_segments(&ack(ALICE), 4, 6000).unwrap().action;
    assert_eq!(
        [run(), run(), run()],
        [Action::Pass, Action::Pass, Action::Drop]
    );
    let action = |program| trial.run(program, &ack(ALICE), 1).unwrap().action;
    assert_eq!(action(Program::LimiterTc), Action::Pass);
    assert_eq!(
        action(Program::Limiter),
        Action::Pass,
        "buckets are the same"
    );
    assert_eq!(action(Program::Limiter), Action::Drop);
}

#[test]
fn the_longest_prefix_decides_between_rules_allow_and_deny() {
    let rule = |name: &str, cidr: &str, tokens| SourceRule {
        name: name.to_owned(),
        cidrs: vec![cidr.parse().unwrap()],
        limits: SourceLimits::Levels(vec![packets(HOST, limit(tokens, 1, HOUR))]),
    };
    let policy = NetworkPolicy {
        rules: vec![
            rule("wide", "10.0.0.0/8", 5),
            rule("narrow", "10.1.0.0/16", 7),
            SourceRule {
                limits: SourceLimits::Unlimited,
                ..rule("free", "10.1.2.0/24", 1)
            },
        ],
        allow: vec![
            "10.9.0.0/16".parse().unwrap(),
            "2001:db8::/48".parse().unwrap(),
        ],
        deny: vec![
            "10.9.9.0/24".parse().unwrap(),
            "2001:db8:0:7::/64".parse().unwrap(),
        ],
        ..two()
    };
    let trial = trial(&[policy]);
    for (source, tokens) in [
        ([10, 0, 0, 1], 5),
        ([10, 1, 0, 1], 7),
        ([10, 1, 2, 1], 20),
        (ALICE, 2),
        ([11, 0, 0, 0], 2),
    ] {
        assert_eq!(conforming(&trial, &ack(source), 20), tokens, "{source:?}");
    }
    for (packet, expected) in [
        (ack([10, 9, 0, 1]), Reason::Allowed),
        (ack([10, 9, 9, 1]), Reason::Denied),
        (tcp_v6(1, 1, PORT, ACK), Reason::Allowed),
        (tcp_v6(7, 1, PORT, ACK), Reason::Denied),
    ] {
        assert_eq!(reason(&trial, &packet), expected);
    }
}

#[test]
fn shadow_counts_what_would_be_dropped_and_drops_nothing() {
    for program in [Program::Limiter, Program::LimiterTc] {
        let policy = NetworkPolicy {
            deny: vec!["203.0.113.0/24".parse().unwrap()],
            shadow: true,
            ..two()
        };
        let trial = trial(&[policy]);
        let fates: Vec<_> = (0..3)
            .map(|_| send_by(&trial, program, &ack(ALICE)))
            .collect();
        assert!(fates.iter().all(|(action, counter)| {
            *action == Action::Pass && counter.shadow && counter.policy.as_deref() == Some(WEB)
        }));
        assert_eq!(fates[2].1.reason, Reason::OverPackets);
        let (action, counter) = send_by(&trial, program, &ack(CAROL));
        assert_eq!((action, counter.reason), (Action::Pass, Reason::Denied));
    }
}

#[test]
fn protocols_are_targeted_each_for_itself() {
    let policy = NetworkPolicy {
        ports: vec![(Protocol::Udp, PORT), (Protocol::Icmp, 0)],
        ..two()
    };
    let trial = trial(&[policy]);
    assert_eq!(reason(&trial, &ack(ALICE)), Reason::Untargeted);
    assert_eq!(conforming(&trial, &udp_v4(ALICE, PORT), 5), 2);
    assert_eq!(reason(&trial, &udp_v4(BOB, PORT + 1)), Reason::Untargeted);
    assert_eq!(
        conforming(&trial, &icmp_v4(BOB, 8, 0), 5),
        2,
        "echo requests"
    );
    assert_eq!(conforming(&trial, &icmp_v6(128), 5), 2);
}

#[test]
fn what_the_network_needs_is_never_limited() {
    let policy = NetworkPolicy {
        ports: vec![(Protocol::Icmp, 0)],
        deny: vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()],
        ..two()
    };
    let trial = trial(&[policy]);
    for packet in [
        icmp_v4(ALICE, 3, 4),
        icmp_v6(2),
        icmp_v6(133),
        icmp_v6(134),
        icmp_v6(135),
        icmp_v6(136),
    ] {
        assert_eq!(send(&trial, &packet), (Action::Pass, None, Reason::Vital));
    }
    assert_eq!(reason(&trial, &icmp_v4(ALICE, 8, 0)), Reason::Denied);
}

/// Test runs come in on the loopback interface.
#[test]
fn an_interface_takes_what_no_port_does() {
    let mut all = NetworkPolicy {
        name: "infra/all".to_owned(),
        ports: Vec::new(),
        interfaces: vec!["lo".to_owned(), "absent0".to_owned()],
        ..two()
    };
    let mut trial = trial(&[all.clone(), two()]);
    let policy_of = |trial: &Trial, packet: &[u8]| send(trial, packet).1.unwrap_or_default();
    assert_eq!(policy_of(&trial, &ack(ALICE)), WEB);
    assert_eq!(policy_of(&trial, &tcp_v4(ALICE, 22, ACK)), "infra/all");
    assert_eq!(policy_of(&trial, &udp_v4(ALICE, 53)), "infra/all");
    assert_eq!(reason(&trial, &udp_v4(ALICE, 53)), Reason::OverPackets);
    all.interfaces = vec!["absent0".to_owned()];
    trial.apply(&[all, two()]).unwrap();
    assert_eq!(reason(&trial, &udp_v4(ALICE, 53)), Reason::Untargeted);
}

#[test]
fn a_silent_daemon_lets_everything_pass_if_that_is_wanted() {
    let settings = Settings {
        on_daemon_lost: OnDaemonLost::Pass {
            after: Duration::from_secs(3),
        },
        ..Settings::default()
    };
    let mut trial = Trial::new(settings).unwrap();
    trial.apply(&[two()]).unwrap();
    trial.beat(START).unwrap();
    trial.set_clock(START + 3000 * MS).unwrap();
    assert_eq!(conforming(&trial, &ack(ALICE), 5), 2);
    trial.set_clock(START + 3000 * MS + 1).unwrap();
    assert_eq!(reason(&trial, &ack(ALICE)), Reason::DaemonLost);
    trial.beat(START + 3000 * MS).unwrap();
    assert_eq!(reason(&trial, &ack(ALICE)), Reason::OverPackets);
}

#[test]
fn drops_are_sampled() {
    let mut trial = trial(&[policy(None, Some(limit(1, 1, SECOND)))]);
    let mut events = trial.events().unwrap();
    conforming(&trial, &ack(ALICE), 3);
    let mut samples = Vec::new();
    events.drain(|event| samples.push(event));
    assert_eq!(samples.len(), 2);
    let sample = samples[0];
    assert_eq!(sample.source, limiter_common::Address::v4(ALICE));
    assert_eq!(
        (sample.port, sample.at, sample.reason),
        (PORT, START, Reason::OverPackets as u32)
    );
    conforming(&trial, &ack(ALICE), 1000);
    let mut more = 0;
    events.drain(|_| more += 1);
    assert_eq!(more + trial.samples_lost().unwrap(), 1000);
    assert!(more < 100, "{more} samples at one moment");
}
