//! Many sources: prefixes, levels, and what becomes of those that find no place.

use limiter_common::{Protocol, Reason};
use limiter_daemon::l4::trial::{Program, Settings, Trial};
use limiter_daemon::l4::{Place, Standing};
use limiter_daemon::policy::plan::{NetworkPolicy, Scope};

use crate::packet::*;
use crate::support::{
    HOST, HOUR, PORT, START, conforming, levels, limit, packets, reason, send_by, trial,
};

const NETWORK: Scope = Scope::Source { v4: 24, v6: 48 };

fn ack(host: u8) -> Vec<u8> {
    tcp_v4([192, 0, 2, host], PORT, ACK)
}

/// Ten packets an hour from a source, and so many from its network.
fn both(network: u64) -> NetworkPolicy {
    levels(vec![
        packets(HOST, limit(10, 1, HOUR)),
        packets(NETWORK, limit(network, 1, HOUR)),
    ])
}

#[test]
fn every_level_must_admit() {
    let trial = trial(&[both(25)]);
    let admitted: Vec<_> = (1..=4)
        .map(|host| conforming(&trial, &ack(host), 20))
        .collect();
    assert_eq!(admitted, [10, 10, 5, 0]);
    let (_, counter) = send_by(&trial, Program::Limiter, &ack(1));
    assert_eq!((counter.reason, counter.level), (Reason::OverPackets, 0));
    let (_, counter) = send_by(&trial, Program::Limiter, &ack(9));
    assert_eq!((counter.reason, counter.level), (Reason::OverPackets, 1));
    let other = tcp_v4([192, 0, 3, 1], PORT, ACK);
    assert_eq!(conforming(&trial, &other, 20), 10, "the next /24");
}

#[test]
fn an_abuser_does_not_starve_its_neighbours() {
    let trial = trial(&[both(100)]);
    assert_eq!(conforming(&trial, &ack(66), 10_000), 10);
    for neighbour in 1..=9 {
        assert_eq!(conforming(&trial, &ack(neighbour), 10), 10);
    }
}

#[test]
fn addresses_of_one_v6_network_count_as_one_source() {
    let trial = trial(&[both(25)]);
    let from = |net, host| {
        let reason = reason(&trial, &tcp_v6(net, host, PORT, ACK));
        usize::from(reason == Reason::Conforming)
    };
    let rotating: usize = (0..100).map(|host| from(1, host)).sum();
    assert_eq!(rotating, 10, "a /64");
    let networks: usize = (2..50).map(|net| from(net, 1)).sum();
    assert_eq!(networks, 15, "a /48, whose limit is 25");
}

/// A table of one place for two sources: the second goes to the sketch, and brings its debt along
/// when a place is free.
#[test]
fn who_finds_no_place_is_limited_all_the_same() {
    let settings = Settings {
        max_sources: 1,
        ..Settings::default()
    };
    let mut trial = Trial::new(settings).unwrap();
    trial.set_clock(START).unwrap();
    trial
        .apply(&[levels(vec![packets(HOST, limit(5, 1, HOUR))])])
        .unwrap();
    for host in 1..=40 {
        assert_eq!(conforming(&trial, &ack(host), 8), 5, "source {host}");
    }
    let pressure = trial.pressure().unwrap();
    assert_eq!((pressure.placed, pressure.evicted), (4, 0));
    assert_eq!(pressure.sketched, 36 * 8);
    let occupancy = trial.occupancy(START).unwrap();
    assert_eq!((occupancy.slots, occupancy.live), (4, 4));

    let explain = |trial: &Trial, host: u8| {
        let source = [192, 0, 2, host].into();
        let explanation = trial.explain(source, Protocol::Tcp, PORT, START).unwrap();
        explanation.policy.unwrap()
    };
    let places: Vec<_> = [1, 40, 99]
        .map(|host| explain(&trial, host).buckets[0])
        .to_vec();
    assert_eq!(
        places.iter().map(|bucket| bucket.place).collect::<Vec<_>>(),
        [Place::Table, Place::Sketch, Place::Nowhere]
    );
    assert_eq!(
        places
            .iter()
            .map(|bucket| (bucket.remaining, bucket.admits))
            .collect::<Vec<_>>(),
        [(0, false), (0, false), (5, true)]
    );
    assert_eq!(
        explain(&trial, 1).standing,
        Standing::Limited { rule: None }
    );
}

#[test]
fn a_place_is_kept_a_while_after_its_bucket_is_full() {
    let settings = Settings {
        max_sources: 1,
        ..Settings::default()
    };
    let keep = u64::try_from(settings.keep.as_nanos()).unwrap();
    let mut trial = Trial::new(settings).unwrap();
    trial.set_clock(START).unwrap();
    trial
        .apply(&[levels(vec![packets(HOST, limit(5, 5, HOUR))])])
        .unwrap();
    for host in 1..=4 {
        assert_eq!(conforming(&trial, &ack(host), 5), 5);
    }
    let full = START + 3600 * 1_000_000_000;
    trial.set_clock(full + keep - 1).unwrap();
    assert_eq!(conforming(&trial, &ack(5), 5), 5);
    assert_eq!(trial.pressure().unwrap().evicted, 0);
    assert_eq!(trial.occupancy(full + 1).unwrap().kept, 4);
    trial.set_clock(full + keep).unwrap();
    assert_eq!(conforming(&trial, &ack(6), 5), 5);
    assert_eq!(trial.pressure().unwrap().evicted, 1);
}
