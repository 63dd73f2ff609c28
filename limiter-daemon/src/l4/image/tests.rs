//! The image of policies; no kernel needed.

use super::*;
use crate::policy::plan::SourceRule;

fn limit(tokens: u64) -> Limit {
    Limit::new(tokens, tokens, 1_000_000_000).unwrap()
}

fn level(scope: Scope, tokens: u64) -> NetworkLevel {
    NetworkLevel {
        scope,
        connections: Some(limit(tokens)),
        packets: None,
        bytes: None,
    }
}

const HOST: Scope = Scope::Source { v4: 32, v6: 64 };

fn policy(name: &str, port: u16) -> NetworkPolicy {
    NetworkPolicy {
        name: name.to_owned(),
        ports: vec![(Protocol::Tcp, port)],
        interfaces: Vec::new(),
        default: SourceLimits::Levels(vec![level(HOST, 100)]),
        rules: Vec::new(),
        allow: Vec::new(),
        deny: Vec::new(),
        shadow: false,
        written: None,
    }
}

fn compile(policies: &[NetworkPolicy]) -> Result<Compiled, L4Error> {
    let ids = (1..)
        .zip(policies)
        .map(|(id, policy)| (policy.name.as_str(), id));
    Compiled::new(policies, &ids.collect())
}

fn seeds(policy: NetworkPolicy) -> Vec<u64> {
    let classes = compile(&[policy]).unwrap().image.classes;
    let levels = classes.iter().flat_map(|class| &class.levels);
    levels
        .map(|level| level.seed)
        .filter(|seed| *seed != 0)
        .collect()
}

#[test]
fn seeds_follow_names_and_prefixes_and_not_limits() {
    let seed = seeds(policy("a", 80));
    let mut other = policy("a", 443);
    other.default = SourceLimits::Levels(vec![level(HOST, 5)]);
    assert_eq!(seeds(other), seed);
    assert_ne!(seeds(policy("b", 80)), seed);

    let mut levels = policy("a", 80);
    let rule = |name: &str| SourceRule {
        name: name.to_owned(),
        cidrs: Vec::new(),
        limits: levels.default.clone(),
    };
    let rules = vec![rule("x"), rule("y")];
    let wide = Scope::Source { v4: 24, v6: 48 };
    let scopes = [HOST, wide, Scope::Listener];
    levels.default = SourceLimits::Levels(scopes.map(|scope| level(scope, 1)).to_vec());
    levels.rules = rules;
    let all = seeds(levels);
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (5, 5));
    assert_eq!(all.first(), seed.first());
}

#[test]
fn a_listener_level_masks_every_source_to_the_same() {
    let mut listener = policy("a", 80);
    listener.default = SourceLimits::Levels(vec![level(Scope::Listener, 1)]);
    let level = compile(&[listener]).unwrap().image.classes[0].levels[0];
    let v4 = Address::v4([192, 0, 2, 1]).masked(level.mask_v4);
    let v6 = Address::v6([7; 16]).masked(level.mask_v6);
    assert_eq!((v4, v6), (Address::default(), Address::default()));
}

#[test]
fn only_slow_buckets_take_the_coarse_clock() {
    let coarse = |tokens, interval| {
        let mut policy = policy("a", 80);
        let mut level = level(HOST, 1);
        level.packets = Some(Limit::new(tokens, tokens, interval).unwrap());
        level.connections = None;
        policy.default = SourceLimits::Levels(vec![level]);
        let level = compile(&[policy]).unwrap().image.classes[0].levels[0];
        (level.units, level.coarse)
    };
    let bit = Unit::Packets.bit();
    assert_eq!(coarse(100, 100_000_000), (bit, bit));
    assert_eq!(coarse(100, 99_999_900), (bit, 0));
}

#[test]
fn one_limit_alone_is_told_from_several() {
    let sole = |levels: Vec<NetworkLevel>| {
        let mut policy = policy("a", 80);
        policy.default = SourceLimits::Levels(levels);
        compile(&[policy]).unwrap().image.classes[0].sole
    };
    let one = level(HOST, 1);
    let with = |unit: usize| {
        let mut limits = [None; 3];
        limits[unit] = Some(limit(1));
        let [connections, packets, bytes] = limits;
        NetworkLevel {
            scope: HOST,
            connections,
            packets,
            bytes,
        }
    };
    assert_eq!([0, 1, 2].map(|unit| sole(vec![with(unit)])), [1, 2, 3]);
    assert_eq!(sole(vec![one, one]), 0);
    let bytes = Some(limit(1));
    assert_eq!(sole(vec![NetworkLevel { bytes, ..one }]), 0);
    assert_eq!(sole(Vec::new()), 0);
}

#[test]
fn cidrs_lie_in_the_set_of_their_policy() {
    let mut lists = policy("a", 80);
    lists.allow = vec!["10.0.0.0/8".parse().unwrap()];
    lists.deny = vec!["2001:db8::/32".parse().unwrap()];
    let image = compile(&[lists]).unwrap().image;
    let v4 = Address::v4([10, 0, 0, 0]).octets();
    assert_eq!(image.cidrs.get(&(1, v4, 32 + 96 + 8)), Some(&0));
    let mut v6 = [0; 16];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    assert_eq!(image.cidrs.get(&(1, v6, 32 + 32)), Some(&1));
    assert_eq!(image.policies[&1].flags, FLAG_CIDRS);
}

#[test]
fn what_two_policies_target_is_refused() {
    let error = compile(&[policy("a", 80), policy("b", 80)]).unwrap_err();
    assert!(
        matches!(&error, L4Error::PortTaken { port: 80, .. }),
        "{error}"
    );
    let mut udp = policy("b", 80);
    udp.ports = vec![(Protocol::Udp, 80)];
    assert!(compile(&[policy("a", 80), udp]).is_ok());
    let on = |name| {
        let mut policy = policy(name, 80);
        policy.ports = Vec::new();
        policy.interfaces = vec!["eth0".to_owned()];
        policy
    };
    let error = compile(&[on("a"), on("b")]).unwrap_err();
    assert!(matches!(&error, L4Error::InterfaceTaken { .. }), "{error}");
}

#[test]
fn more_than_fits_is_refused() {
    let mut many = policy("a", 80);
    let net = |n: u32| IpNet::new(std::net::Ipv4Addr::from(n).into(), 32).unwrap();
    many.deny = (0..=MAX_CIDRS / 2).map(net).collect();
    let error = compile(&[many]).unwrap_err();
    assert!(matches!(error, L4Error::TooManyCidrs { .. }), "{error}");

    let mut four = policy("a", 80);
    four.default = SourceLimits::Levels(vec![level(HOST, 1); 4]);
    let error = compile(&[four]).unwrap_err();
    assert!(matches!(error, L4Error::TooManyLevels { .. }), "{error}");
}
