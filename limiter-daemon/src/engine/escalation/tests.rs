//! Judges, with times that are given and courts that take what they are proposed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use limiter_common::Limit;
use proptest::prelude::*;

use super::{Court, Fate, Judge, Judges, MAX_OFFENDERS, MAX_PROXIES, Offenders, Proposal};
use super::{Protected, Proxies, Tallies};
use crate::policy::plan::{Escalation, Offence, Reach, Terms};

const SECOND: u64 = 1_000_000_000;

/// Takes what it is proposed, for as long as it has room.
#[derive(Debug)]
struct Taking {
    proposals: Mutex<Vec<Proposal>>,
    room: usize,
}

impl Taking {
    fn new(room: usize) -> Self {
        let proposals = Mutex::default();
        Self { proposals, room }
    }

    fn taken(&self) -> Vec<Proposal> {
        std::mem::take(&mut self.proposals.lock().unwrap())
    }
}

impl Court for Taking {
    fn propose(&self, proposal: Proposal) -> bool {
        let mut proposals = self.proposals.lock().unwrap();
        let room = proposals.len() < self.room;
        if room {
            proposals.push(proposal);
        }
        room
    }
}

fn escalation(tokens: u64) -> Escalation {
    Escalation {
        policy: "d/edge".into(),
        ports: vec![443],
        costs: [1, 5, 1, 0, 0],
        statuses: vec![(401, 1), (403, 2)],
        threshold: Limit::new(tokens, 1, 10 * SECOND).unwrap(),
        v4: 32,
        v6: 64,
        terms: Terms {
            block_for: Duration::from_secs(30),
            growth: 2_000,
            max_block: Duration::from_secs(100),
            decay: Duration::from_secs(3_600),
        },
        reach: Reach::Node,
        shadow: false,
    }
}

fn judge(escalation: Escalation) -> (Arc<Judge>, Arc<Offenders>) {
    let offenders = Arc::default();
    let tallies = |policy: &str| Arc::new(Tallies::new(policy.into()));
    let judges = Judges::compile(&[escalation], &offenders, tallies);
    assert!(judges.of(80).is_none());
    (Arc::clone(judges.of(443).unwrap()), offenders)
}

#[test]
fn the_first_offence_over_the_threshold_is_proposed() {
    let (judge, offenders) = judge(escalation(20));
    let court = Taking::new(10);
    let address = "192.0.2.7".parse().unwrap();
    for n in 0..20 {
        judge.offend(address, Offence::RateLimited, n, &court);
    }
    // Another one, what does not count, and a status that does not.
    judge.offend(
        "192.0.2.8".parse().unwrap(),
        Offence::RateLimited,
        20,
        &court,
    );
    judge.offend(address, Offence::SlowClient, 20, &court);
    judge.responded(address, 404, 20, &court);
    assert_eq!(court.taken().len(), 0);
    judge.offend(address, Offence::RateLimited, 20, &court);
    let taken = court.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].net, "192.0.2.7/32".parse().unwrap());
    assert_eq!(taken[0].length, Duration::from_secs(30));
    assert_eq!(taken[0].why, "21 RateLimited in 1 s");
    assert_eq!(taken[0].earlier, 0);
    // What was under way does not count.
    for n in 21..1_000 {
        judge.offend(address, Offence::RateLimited, n, &court);
    }
    assert_eq!(court.taken().len(), 0);
    assert_eq!(judge.tallies().offences(Offence::RateLimited), 22);
    assert_eq!(offenders.known(), 2);
}

#[test]
fn mapped_and_neighbouring_addresses_are_one() {
    let (judge, _) = judge(escalation(1));
    let court = Taking::new(10);
    for (one, other, net) in [
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7/32"),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", "2001:db8::/64"),
    ] {
        judge.responded(one.parse().unwrap(), 401, 0, &court);
        judge.responded(other.parse().unwrap(), 401, 0, &court);
        let taken = court.taken();
        assert_eq!(taken.len(), 1, "{net}");
        assert_eq!(taken[0].net, net.parse::<IpNet>().unwrap());
    }
}

/// Offends at `now` until it is proposed, and how long the sentence is.
fn sentence(judge: &Arc<Judge>, court: &Taking, now: u64) -> u64 {
    for _ in 0..100 {
        judge.offend(
            "192.0.2.7".parse().unwrap(),
            Offence::MalformedRequest,
            now,
            court,
        );
        if let Some(proposal) = court.taken().pop() {
            return proposal.length.as_secs();
        }
    }
    panic!("never sentenced");
}

#[test]
fn sentences_grow_to_their_bound_and_are_forgotten() {
    let (judge, _) = judge(escalation(20));
    let court = Taking::new(10);
    let mut now = SECOND;
    for wanted in [30, 60, 100, 100] {
        let length = sentence(&judge, &court, now);
        assert_eq!(length, wanted);
        now += length * SECOND;
    }
    // Four are remembered. After two hours two of them are, with what is left of the third hour.
    now += 2 * 3_600 * SECOND + SECOND;
    assert_eq!(sentence(&judge, &court, now), 100);
    now += 100 * SECOND + 3 * 3_600 * SECOND;
    assert_eq!(sentence(&judge, &court, now), 30);
    now += 30 * SECOND + 3_600 * SECOND - 1;
    assert_eq!(sentence(&judge, &court, now), 60);
}

#[test]
fn who_is_not_sentenced_is_as_before() {
    let (judge, _) = judge(escalation(20));
    let court = Taking::new(10);
    let net = "192.0.2.7/32".parse().unwrap();
    for fate in [Fate::Protected, Fate::Failed, Fate::Lost] {
        assert_eq!(sentence(&judge, &court, SECOND), 30, "{fate:?}");
        judge.became(net, fate);
    }
    assert_eq!(sentence(&judge, &court, SECOND), 30);
    judge.became(net, Fate::Sentenced);
    judge.pardon(net);
    assert_eq!(sentence(&judge, &court, 2 * SECOND), 30);
}

#[test]
fn a_court_without_room_is_asked_again() {
    let (judge, _) = judge(escalation(5));
    let court = Taking::new(0);
    let address = "192.0.2.7".parse().unwrap();
    for _ in 0..12 {
        judge.offend(address, Offence::RateLimited, 0, &court);
    }
    assert_eq!(judge.tallies().fates(Fate::Lost), 2);
    let court = Taking::new(1);
    assert_eq!(sentence(&judge, &court, 0), 30);
}

#[test]
fn sentences_of_other_nodes_count() {
    let (judge, _) = judge(escalation(20));
    let court = Taking::new(10);
    let net = "192.0.2.7/32".parse().unwrap();
    judge.heard(net, 30 * SECOND);
    // The same again, by another way.
    judge.heard(net, 30 * SECOND);
    for _ in 0..100 {
        judge.offend(
            "192.0.2.7".parse().unwrap(),
            Offence::RateLimited,
            SECOND,
            &court,
        );
    }
    assert_eq!(court.taken().len(), 0);
    assert_eq!(sentence(&judge, &court, 31 * SECOND), 60);
}

#[test]
fn the_table_is_bounded_and_keeps_who_offends() {
    let (judge, offenders) = judge(escalation(1_000_000));
    let court = Taking::new(10);
    let regular = "192.0.2.7".parse().unwrap();
    let many = u32::try_from(2 * MAX_OFFENDERS).unwrap();
    for n in 0..many {
        let stranger = std::net::Ipv4Addr::from(0x0a00_0000 + n);
        judge.offend(stranger.into(), Offence::RateLimited, 0, &court);
        if n % 100 == 0 {
            judge.offend(regular, Offence::RateLimited, 0, &court);
        }
    }
    assert!(offenders.known() <= MAX_OFFENDERS);
    let known = u64::try_from(offenders.known()).unwrap();
    assert_eq!(offenders.forgotten() + known, u64::from(many) + 1);
    let (few, _) = self::judge(escalation(5));
    for n in 0..6 {
        few.offend(regular, Offence::RateLimited, n, &court);
    }
    assert_eq!(court.taken().len(), 1);
}

#[test]
fn proxies_are_remembered_within_bounds() {
    let proxies = Proxies::default();
    proxies.saw("::ffff:192.0.2.1".parse().unwrap());
    assert!(proxies.any_in("192.0.2.1/32".parse().unwrap()));
    assert!(proxies.any_in("192.0.2.0/24".parse().unwrap()));
    assert!(!proxies.any_in("192.0.2.2/32".parse().unwrap()));
    for n in 0..u32::try_from(MAX_PROXIES).unwrap() {
        proxies.saw(std::net::Ipv4Addr::from(n).into());
    }
    assert!(!proxies.any_in("192.0.2.1/32".parse().unwrap()));
    assert!(proxies.any_in("0.0.0.0/32".parse().unwrap()));
}

#[test]
fn nobody_protected_is_in_a_sentenced_network() {
    let protected = ["10.0.0.0/8", "192.0.2.9/32"].map(|net| net.parse().unwrap());
    let protected = Protected::new(&protected);
    for (net, wanted) in [
        ("10.1.2.3/32", true),
        ("192.0.2.0/24", true),
        ("192.0.2.8/32", false),
    ] {
        assert_eq!(protected.touches(net.parse().unwrap()), wanted, "{net}");
    }
}

/// A model: tokens as thousandths of a second, sentences as a list.
#[derive(Default)]
struct Model {
    debt_ms: u64,
    at_ms: u64,
    sentences: u32,
    until_ms: u64,
}

proptest! {
    /// Offences of a few addresses, at random moments: each is judged as a plain model says, whatever
    /// the others do.
    #[test]
    fn judged_as_the_model_says(
        steps in prop::collection::vec((0u8..4, 0u64..40_000, 1usize..3), 1..300),
        tokens in 1u64..8,
    ) {
        let (judge, _) = judge(Escalation {
            costs: [1, tokens.min(3) as u32, 0, 0, 0],
            ..escalation(tokens)
        });
        let court = Taking::new(10);
        let mut models: HashMap<u8, Model> = HashMap::new();
        let mut now_ms = 1u64;
        for (who, pause, what) in steps {
            now_ms += pause;
            let (offence, cost) = match what {
                1 => (Offence::RateLimited, 1),
                _ => (Offence::MalformedRequest, tokens.min(3)),
            };
            let address = std::net::Ipv4Addr::new(192, 0, 2, who);
            judge.offend(address.into(), offence, now_ms * 1_000_000, &court);
            let model = models.entry(who).or_default();
            let mut wanted = None;
            if now_ms >= model.until_ms {
                while model.sentences > 0 && now_ms >= model.until_ms + 3_600_000 {
                    model.sentences -= 1;
                    model.until_ms += 3_600_000;
                }
                model.debt_ms = model.debt_ms.saturating_sub(now_ms - model.at_ms);
                model.at_ms = now_ms;
                if model.debt_ms + cost * 10_000 > tokens * 10_000 {
                    let length = (30u64 << model.sentences.min(20)).min(100);
                    wanted = Some(length);
                    model.sentences += 1;
                    model.until_ms = now_ms + length * 1_000;
                    model.debt_ms = 0;
                } else {
                    model.debt_ms += cost * 10_000;
                }
            }
            let found = court.taken().pop().map(|proposal| proposal.length.as_secs());
            prop_assert_eq!(found, wanted);
        }
    }
}
