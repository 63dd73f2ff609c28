//! What good network policies and kernel settings compile to, and how much of them there may be.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::time::Duration;

use limiter_common::{Limit, Protocol};
use limiter_daemon::policy;
use limiter_daemon::policy::plan::{
    AttachMode, DaemonConfig, Interface, NetworkLevel, NetworkPolicy, OnDaemonLost, Scope,
    SourceLimits, SourceRule,
};

mod policy_support;

use policy_support::{Scratch, good};

const SHOP: &str = "tests/policy/good/shop.yaml";
const NETWORK: &str = "tests/policy/network-good";
const EDGE: &str = "../examples/edge";
const SECOND: u64 = 1_000_000_000;

#[test]
fn network_policies_have_the_ports_of_their_gateways() {
    let plan = good(SHOP);
    let [network] = &plan.network[..] else {
        panic!("{:?}", plan.network)
    };
    let level = NetworkLevel {
        scope: Scope::Source { v4: 32, v6: 64 },
        connections: Some(Limit::new(100, 10, SECOND).unwrap()),
        packets: Some(Limit::new(5000, 1, SECOND).unwrap()),
        bytes: None,
    };
    let expected = NetworkPolicy {
        name: "infra/syn".to_owned(),
        ports: vec![(Protocol::Tcp, 8080), (Protocol::Tcp, 8081)],
        interfaces: vec![],
        default: SourceLimits::Levels(vec![level]),
        rules: vec![],
        allow: vec![],
        deny: vec![],
        shadow: false,
        written: network.written.clone(),
    };
    assert_eq!(*network, expected);
    let written = network.written.as_ref().unwrap();
    assert_eq!(
        written.resource.as_deref(),
        Some("NetworkRateLimitPolicy infra/syn")
    );
}

fn level(scope: Scope) -> NetworkLevel {
    NetworkLevel {
        scope,
        connections: None,
        packets: None,
        bytes: None,
    }
}

fn bucket(max: u64, fill: u64, interval: u64) -> Option<Limit> {
    Some(Limit::new(max, fill, interval).unwrap())
}

fn cidrs(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_network_policy_in_full() {
    let plan = good(NETWORK);
    let policy = |name: &str| {
        plan.network
            .iter()
            .find(|policy| policy.name == name)
            .unwrap()
    };
    let full = NetworkPolicy {
        name: "default/full".to_owned(),
        ports: vec![
            (Protocol::Tcp, 53),
            (Protocol::Tcp, 8080),
            (Protocol::Udp, 53),
            (Protocol::Icmp, 0),
        ],
        interfaces: vec!["eth1".to_owned()],
        default: SourceLimits::Levels(vec![
            NetworkLevel {
                connections: bucket(100, 50, SECOND),
                packets: bucket(4000, 1, SECOND),
                bytes: bucket(10 << 20, 512_000, SECOND / 10),
                ..level(Scope::Source { v4: 32, v6: 64 })
            },
            NetworkLevel {
                connections: bucket(1000, 1, SECOND),
                ..level(Scope::Source { v4: 24, v6: 48 })
            },
            NetworkLevel {
                bytes: bucket(1_000_000_000, 1_000_000_000, SECOND),
                ..level(Scope::Listener)
            },
        ]),
        rules: vec![
            SourceRule {
                name: "partners".to_owned(),
                cidrs: cidrs(&["198.51.100.0/24", "2001:db8:1::/48"]),
                limits: SourceLimits::Levels(vec![NetworkLevel {
                    packets: bucket(100_000, 1, SECOND),
                    ..level(Scope::Source { v4: 28, v6: 64 })
                }]),
            },
            SourceRule {
                name: "1".to_owned(),
                cidrs: cidrs(&["198.51.100.7/32"]),
                limits: SourceLimits::Unlimited,
            },
            SourceRule {
                name: "2".to_owned(),
                cidrs: cidrs(&["0.0.0.0/0"]),
                limits: SourceLimits::Levels(vec![NetworkLevel {
                    connections: bucket(7, 1, SECOND),
                    ..level(Scope::Listener)
                }]),
            },
        ],
        // In place and from the file, sorted; the same said twice stands once.
        allow: cidrs(&[
            "10.0.0.0/8",
            "192.0.2.1/32",
            "192.0.2.9/32",
            "2001:db8::1/128",
        ]),
        deny: cidrs(&["203.0.113.0/25", "203.0.113.128/25", "2001:db8:bad::/48"]),
        shadow: true,
        written: policy("default/full").written.clone(),
    };
    assert_eq!(*policy("default/full"), full);

    let admin = policy("default/one-listener");
    assert_eq!(admin.ports, [(Protocol::Tcp, 8081)]);
    assert!(!admin.shadow && admin.interfaces.is_empty());

    // Only a list: everybody else is unlimited.
    let list = policy("default/only-a-list");
    assert_eq!(list.default, SourceLimits::Unlimited);
    assert_eq!(list.deny, cidrs(&["192.0.2.66/32"]));
    assert_eq!(list.ports, [(Protocol::Udp, 123)]);
}

#[test]
fn the_kernels_settings() {
    let daemon = good(NETWORK).daemon;
    let modes: Vec<_> = daemon
        .interfaces
        .iter()
        .map(|interface| interface.mode)
        .collect();
    assert_eq!(
        modes,
        [
            AttachMode::Auto,
            AttachMode::Native,
            AttachMode::Generic,
            AttachMode::Tcx,
            AttachMode::Clsact
        ]
    );
    let after = Duration::from_secs(30);
    let expected = DaemonConfig {
        interfaces: daemon.interfaces.clone(),
        on_daemon_lost: OnDaemonLost::Pass { after },
        max_sources: 1 << 24,
        sketch_cells: 1 << 20,
        keep_sources: Duration::from_secs(300),
        ..DaemonConfig::default()
    };
    assert_eq!(daemon, expected);
}

#[test]
fn a_lost_daemon_is_waited_for_ten_seconds_unless_told() {
    let dir = Scratch::new("lost");
    let text = "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: { name: d }\n\
                spec: { kernel: { onDaemonLost: Pass } }\n";
    std::fs::write(dir.0.join("d.yaml"), text).unwrap();
    let after = Duration::from_secs(10);
    let daemon = good(dir.0.to_str().unwrap()).daemon;
    assert_eq!(daemon.on_daemon_lost, OnDaemonLost::Pass { after });
}

#[test]
fn the_edge_example_is_good_and_uses_everything() {
    let plan = good(EDGE);
    let edge = |name: &str| {
        plan.network
            .iter()
            .find(|policy| policy.name == name)
            .unwrap()
    };
    let https = edge("default/edge");
    assert_eq!(https.ports, [(Protocol::Tcp, 8080)]);
    assert!(matches!(&https.default, SourceLimits::Levels(levels) if levels.len() == 3));
    assert!(!https.rules.is_empty() && !https.allow.is_empty() && !https.deny.is_empty());
    assert!(edge("default/everything-else").shadow);
    let [escalation] = &plan.escalations[..] else {
        panic!("{:?}", plan.escalations)
    };
    assert_eq!(
        (escalation.policy.as_str(), &escalation.ports[..]),
        ("default/edge", &[8080][..])
    );
    let interfaces = [Interface {
        name: "eth0".to_owned(),
        mode: AttachMode::Auto,
    }];
    assert_eq!(plan.daemon.interfaces, interfaces);
}

/// A policy with these lines under `spec`, and what it comes to.
fn loaded(dir: &Scratch, spec: &str) -> policy::Outcome {
    let text = format!(
        "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {{ name: d }}\n\
         spec: {{ interfaces: [{{ name: eth0 }}] }}\n---\n\
         apiVersion: limiterd.io/v1alpha1\nkind: NetworkRateLimitPolicy\nmetadata: {{ name: net }}\n\
         spec:\n  ports: [{{ protocol: TCP, port: 80 }}]\n  packets: {{ maxTokens: 1 }}\n{spec}"
    );
    std::fs::write(dir.0.join("n.yaml"), text).unwrap();
    policy::load(&dir.0)
}

fn addresses(count: u32) -> impl Iterator<Item = std::net::Ipv4Addr> {
    (0..count).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n))
}

#[test]
fn lists_of_100_000_addresses_load() {
    let dir = Scratch::new("large");
    let mut spec = "  denyFile: deny.txt\n  allow:\n".to_owned();
    for address in addresses(100_000) {
        spec.push_str(&format!("    - {address}\n"));
    }
    let mut list = "# a comment\n".to_owned();
    for address in addresses(100_000) {
        let [_, b, c, d] = address.octets();
        list.push_str(&format!("2001:db8:{b:x}:{c:x}{d:02x}::/64 # another\n"));
    }
    std::fs::write(dir.0.join("deny.txt"), list).unwrap();
    let plan = loaded(&dir, &spec).plan.unwrap();
    assert_eq!(plan.network[0].allow.len(), 100_000);
    assert_eq!(plan.network[0].deny.len(), 100_000);
}

#[test]
fn what_the_kernel_has_no_room_for_is_an_error() {
    let said = |outcome: &policy::Outcome| -> Vec<String> {
        let text = |found: &policy::Diagnostic| {
            format!("{}; {}", found.message, found.remedy.as_deref().unwrap())
        };
        outcome.diagnostics.iter().map(text).collect()
    };
    let dir = Scratch::new("room");
    let list: Vec<String> = addresses((1 << 18) + 1).map(|ip| ip.to_string()).collect();
    std::fs::write(dir.0.join("allow.txt"), list[1..].join("\n")).unwrap();
    assert_eq!(said(&loaded(&dir, "  allowFile: allow.txt\n")), [""; 0]);
    std::fs::write(dir.0.join("allow.txt"), list.join("\n")).unwrap();
    assert_eq!(
        said(&loaded(&dir, "  allowFile: allow.txt\n")),
        [
            "too many CIDRs in all policies, so this policy is not enforced; the kernel has room for 262144"
        ]
    );

    let rules = |count: u32| {
        let rule = |ip| format!("    - {{ sourceCIDRs: [{ip}], packets: {{ maxTokens: 1 }} }}\n");
        let rules: String = addresses(count).map(rule).collect();
        format!("  rules:\n{rules}")
    };
    assert_eq!(said(&loaded(&dir, &rules(1023))), [""; 0]);
    assert_eq!(
        said(&loaded(&dir, &rules(1024))),
        [
            "too many groups of limits (one for each policy, one for each rule), \
             so this policy is not enforced; the kernel has room for 1024",
            "1024 entries; at most 1023 are allowed",
        ]
    );

    let policy = |n: u32| {
        format!(
            "---\napiVersion: limiterd.io/v1alpha1\nkind: NetworkRateLimitPolicy\n\
             metadata: {{ name: p{n} }}\nspec:\n  ports: [{{ protocol: UDP, port: {} }}]\n  \
             packets: {{ maxTokens: 1 }}\n",
            n + 1
        )
    };
    let policies = |count: u32| (0..count).map(policy).collect::<String>();
    assert_eq!(said(&loaded(&dir, &policies(254))), [""; 0]);
    assert_eq!(
        said(&loaded(&dir, &policies(255))),
        ["too many network policies, so this policy is not enforced; the kernel has room for 255"]
    );
}
