//! What good policy files compile to, and that nothing in a file makes the reader panic.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use limiter_common::{Limit, Protocol};
use limiter_daemon::policy::plan::{
    AttachMode, DaemonConfig, Endpoint, HeaderTest, Hostname, Interface, Listener, LocalLimits,
    NetworkLevel, NetworkPolicy, OnDaemonLost, OnExit, PathMatch, Plan, Route, Scope, SourceLimits,
    SourceRule, ValueMatch,
};
use limiter_daemon::policy::{self, Severity};
use proptest::prelude::*;

const SHOP: &str = "tests/policy/good/shop.yaml";
const NETWORK: &str = "tests/policy/network-good";
const QUICKSTART: &str = "../examples/quickstart";
const EDGE: &str = "../examples/edge";
const SECOND: u64 = 1_000_000_000;

#[track_caller]
fn good(path: &str) -> Plan {
    let outcome = policy::load(Path::new(path));
    assert_eq!(outcome.diagnostics, []);
    outcome.plan.unwrap()
}

#[track_caller]
fn listener<'a>(plan: &'a Plan, name: &str) -> &'a Listener {
    plan.listeners
        .iter()
        .find(|listener| listener.name == name)
        .unwrap()
}

#[track_caller]
fn route<'a>(listener: &'a Listener, name: &str) -> &'a Route {
    listener
        .routes
        .iter()
        .find(|route| route.name == name)
        .unwrap()
}

fn names(listener: &Listener) -> Vec<&str> {
    listener
        .routes
        .iter()
        .map(|route| route.name.as_str())
        .collect()
}

fn per(requests: u64, seconds: u64) -> Limit {
    Limit::new(requests, requests, seconds * 1_000_000_000).unwrap()
}

#[test]
fn listeners_bind_every_address() {
    let plan = good(SHOP);
    let names: Vec<_> = plan
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["infra/edge/web", "infra/edge/any", "shop/internal/http"]
    );
    let binds = [
        "127.0.0.1:8080".parse().unwrap(),
        "[::1]:8080".parse().unwrap(),
    ];
    assert_eq!(listener(&plan, "infra/edge/web").binds, binds);
    assert_eq!(
        listener(&plan, "shop/internal/http").binds,
        ["[::]:8082".parse().unwrap()]
    );
}

#[test]
fn routes_are_ordered_by_age_and_then_by_name() {
    let plan = good(SHOP);
    assert_eq!(
        names(listener(&plan, "infra/edge/web")),
        ["shop/c-old", "shop/b-young"]
    );
    assert_eq!(
        names(listener(&plan, "infra/edge/any")),
        ["shop/c-old", "shop/b-young", "shop/a-ageless"]
    );
    assert_eq!(
        names(listener(&plan, "shop/internal/http")),
        ["shop/b-young"]
    );
}

#[test]
fn hostnames_are_those_that_listener_and_route_share() {
    let plan = good(SHOP);
    let hosts = |at: &str, of: &str| route(listener(&plan, at), of).hostnames.clone();
    let exact = |host: &str| Hostname::Exact(host.to_owned());
    assert_eq!(
        hosts("infra/edge/web", "shop/b-young"),
        [exact("api.shop.example")]
    );
    assert_eq!(
        hosts("infra/edge/any", "shop/b-young"),
        [exact("api.shop.example"), exact("other.example")]
    );
    assert_eq!(
        hosts("infra/edge/web", "shop/c-old"),
        [Hostname::Wildcard(".shop.example".to_owned())]
    );
    assert_eq!(hosts("infra/edge/any", "shop/c-old"), [Hostname::Any]);
}

#[test]
fn matches_and_backends() {
    let plan = good(SHOP);
    let rule = &route(listener(&plan, "infra/edge/web"), "shop/b-young").rules[0];
    let [exact, prefix, regex] = &rule.matches[..] else {
        panic!("{:?}", rule.matches)
    };
    assert!(matches!(&exact.path, PathMatch::Exact(path) if path == "/items"));
    assert_eq!(exact.method, Some(http::Method::GET));
    assert!(matches!(&prefix.path, PathMatch::Prefix(path) if path == "/items"));
    assert_eq!(prefix.headers[0].name, "x-version");
    assert!(matches!(&prefix.headers[0].value, ValueMatch::Exact(value) if value == "2"));
    let ValueMatch::Regex(canary) = &prefix.headers[1].value else {
        panic!("{prefix:?}")
    };
    assert!(canary.is_match("yes") && canary.is_match("on") && !canary.is_match("yes please"));
    let PathMatch::Regex(path) = &regex.path else {
        panic!("{regex:?}")
    };
    assert!(path.is_match("/v1/a") && !path.is_match("/api/v1/a"));

    let weights: Vec<_> = rule
        .backends
        .iter()
        .map(|weighted| {
            (
                plan.backends[weighted.backend].name.as_str(),
                weighted.weight,
            )
        })
        .collect();
    assert_eq!(weights, [("shop/items", 90), ("shop/canary", 10)]);
    let endpoints: Vec<_> = plan
        .backends
        .iter()
        .flat_map(|backend| &backend.endpoints)
        .collect();
    assert_eq!(
        endpoints,
        [
            &Endpoint::Fqdn("canary.shop.example".to_owned(), 80),
            &Endpoint::Ip("10.0.0.1".parse().unwrap(), 3000),
            &Endpoint::Ip("2001:db8::1".parse().unwrap(), 3001),
        ]
    );

    let whole = &route(listener(&plan, "infra/edge/web"), "shop/c-old").rules[0];
    assert!(matches!(&whole.matches[0].path, PathMatch::Prefix(path) if path.is_empty()));
    assert_eq!(whole.backends[0].weight, 1);
}

#[test]
fn a_routes_policy_replaces_its_gateways() {
    let plan = good(SHOP);
    let policy = |at: &str, of: &str| {
        let limits: Option<&LocalLimits> = route(listener(&plan, at), of).limits.as_ref();
        limits.map(|limits| limits.policy.clone())
    };
    assert_eq!(
        policy("infra/edge/web", "shop/c-old").as_deref(),
        Some("infra/gateway-wide")
    );
    assert_eq!(
        policy("infra/edge/any", "shop/a-ageless").as_deref(),
        Some("infra/gateway-wide")
    );
    assert_eq!(
        policy("infra/edge/web", "shop/b-young").as_deref(),
        Some("shop/young")
    );
    assert_eq!(
        policy("shop/internal/http", "shop/b-young").as_deref(),
        Some("shop/young")
    );
}

#[test]
fn selectors_are_flattened_and_rules_keep_their_index() {
    let plan = good(SHOP);
    let limits = route(listener(&plan, "infra/edge/web"), "shop/b-young")
        .limits
        .as_ref()
        .unwrap();
    let rules: Vec<_> = limits
        .rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule.limit, rule.window))
        .collect();
    assert_eq!(
        rules,
        [
            ("shop/young/rule/0", per(50, 60), 60),
            ("shop/young/rule/2", per(10, 86_400), 86_400),
        ]
    );
    let default = limits.default.as_ref().unwrap();
    assert_eq!(
        (default.name.as_str(), default.limit, default.window),
        ("shop/young/rule/1", per(1, 3_600), 3_600)
    );
    assert!(default.selectors.is_empty());

    let [user, plan_header, region] = &limits.rules[0].selectors[..] else {
        panic!("{limits:?}")
    };
    assert_eq!(user.name, "x-user-id");
    assert!(matches!(user.test, HeaderTest::Each));
    assert!(matches!(&plan_header.test, HeaderTest::Is(value) if value == "free"));
    assert!(matches!(&region.test, HeaderTest::IsNot(value) if value == "eu"));
    assert!(matches!(
        limits.rules[1].selectors[0].test,
        HeaderTest::Absent
    ));
}

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
    };
    assert_eq!(*network, expected);
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
    let interfaces = [Interface {
        name: "eth0".to_owned(),
        mode: AttachMode::Auto,
    }];
    assert_eq!(plan.daemon.interfaces, interfaces);
}

#[test]
fn the_daemons_settings() {
    let daemon = good(SHOP).daemon;
    let interfaces: Vec<_> = daemon
        .interfaces
        .iter()
        .map(|interface| (interface.name.as_str(), interface.mode))
        .collect();
    assert_eq!(
        interfaces,
        [("eth0", AttachMode::Auto), ("eth1", AttachMode::Native)]
    );
    assert_eq!(daemon.pin_path, PathBuf::from("/sys/fs/bpf/edge"));
    assert_eq!(daemon.on_exit, OnExit::Keep);
    assert_eq!(daemon.max_sources, 1000);
    assert_eq!(daemon.admin, "[::1]:9902".parse().unwrap());
    assert_eq!(daemon.workers, Some(2));
    assert_eq!(daemon.max_buckets, 5000);
    assert_eq!(daemon.drain_timeout, Duration::from_secs(90));
}

#[test]
fn the_quickstart_is_good_and_limits_what_it_says() {
    let plan = good(QUICKSTART);
    let http = listener(&plan, "default/eg/http");
    let api = route(http, "default/api").limits.as_ref().unwrap();
    let limits: Vec<_> = api.rules.iter().map(|rule| rule.limit).collect();
    assert_eq!(limits, [per(50, 60), per(10, 60), per(5, 60)]);
    let open = route(http, "default/open").limits.as_ref().unwrap();
    assert_eq!(
        open.default.as_ref().map(|rule| rule.limit),
        Some(per(100, 60))
    );
    assert_eq!(plan.network[0].ports, [(Protocol::Tcp, 8080)]);
    assert_eq!(plan.daemon.interfaces[0].mode, AttachMode::Generic);
}

/// A directory of its own in the target directory, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A ConfigMap volume: versions in hidden directories, files as symlinks through `..data`.
#[test]
fn a_mounted_config_map_is_read_once_through_its_symlinks() {
    let dir = Scratch::new("configmap");
    let version = dir.0.join("..2026_11_22");
    std::fs::create_dir_all(&version).unwrap();
    std::fs::copy(SHOP, version.join("shop.yaml")).unwrap();
    std::os::unix::fs::symlink("..2026_11_22", dir.0.join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/shop.yaml", dir.0.join("shop.yaml")).unwrap();
    std::fs::write(dir.0.join(".hidden.yaml"), "not: read").unwrap();
    assert_eq!(good(dir.0.to_str().unwrap()).listeners.len(), 3);
}

#[test]
fn files_that_cannot_be_read_are_errors() {
    let dir = Scratch::new("unreadable");
    std::os::unix::fs::symlink("nowhere", dir.0.join("a-dangling.yaml")).unwrap();
    std::fs::create_dir_all(dir.0.join("b-directory.yaml")).unwrap();
    std::fs::write(dir.0.join("c-latin1.yaml"), b"a: 1\nb: \xe4\n").unwrap();
    std::fs::write(dir.0.join("d-large.yaml"), vec![b'#'; (32 << 20) + 1]).unwrap();
    let outcome = policy::load(&dir.0);
    assert!(outcome.plan.is_none());
    let found: Vec<_> = outcome
        .diagnostics
        .iter()
        .map(|found| {
            (
                found.line,
                found.column,
                found.message.split(':').next().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (0, 0, "cannot be read"),
            (0, 0, "cannot be read"),
            (2, 4, "this is not UTF-8"),
            (0, 0, "the file is too large"),
        ]
    );
    assert!(policy::load(&dir.0.join("nothing-here")).plan.is_none());
}

/// Nine levels of nine aliases: 400 million values, if they were expanded.
#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let dir = Scratch::new("bomb");
    std::fs::write(dir.0.join("bomb.yaml"), bomb).unwrap();
    assert_eq!(policy::load(&dir.0).count(Severity::Error), 1);
}

/// The two complete examples of the reference, beside the Gateway and the file they speak of.
#[test]
fn the_examples_of_the_reference_are_good() {
    let reference = std::fs::read_to_string("../docs/policy.md").unwrap();
    let examples: Vec<&str> = reference
        .split("```yaml\n")
        .skip(1)
        .filter_map(|part| part.split("```").next())
        .collect();
    assert_eq!(examples.len(), 2);
    let dir = Scratch::new("reference");
    for (number, example) in examples.iter().enumerate() {
        std::fs::write(dir.0.join(format!("{number}.yaml")), example).unwrap();
    }
    for file in ["gateway.yaml", "deny.txt"] {
        std::fs::copy(Path::new(EDGE).join(file), dir.0.join(file)).unwrap();
    }
    let plan = good(dir.0.to_str().unwrap());
    assert_eq!(plan.network.len(), 1);
    assert_eq!(plan.daemon.workers, Some(4));
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

/// Some seconds are for an unoptimised build on a busy machine; it takes a fraction of one.
#[test]
fn lists_of_100_000_addresses_load_quickly() {
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
    #[expect(clippy::disallowed_methods, reason = "a test of how long it takes")]
    let start = std::time::Instant::now();
    let plan = loaded(&dir, &spec).plan.unwrap();
    let took = start.elapsed();
    assert_eq!(plan.network[0].allow.len(), 100_000);
    assert_eq!(plan.network[0].deny.len(), 100_000);
    println!("{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
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
        ["too many CIDRs in all policies; the kernel has room for 262144"]
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
            "too many groups of limits (one for each policy, one for each rule); \
             the kernel has room for 1024",
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
        ["too many network policies; the kernel has room for 255"]
    );
}

/// A change to some bytes of a file.
#[derive(Clone, Debug)]
enum Edit {
    Replace(usize, u8),
    Remove(usize, usize),
    /// Copies one stretch to another place: what is well-formed stays so more often.
    Repeat(usize, usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        (any::<usize>(), 1..40_usize).prop_map(|(at, len)| Edit::Remove(at, len)),
        (any::<usize>(), 1..200_usize, any::<usize>())
            .prop_map(|(at, len, to)| Edit::Repeat(at, len, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    if bytes.is_empty() {
        return;
    }
    let end = |at: usize, len: usize, all: usize| (at + len).min(all);
    match *edit {
        Edit::Replace(at, byte) => {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        Edit::Remove(at, len) => {
            let at = at % bytes.len();
            bytes.drain(at..end(at, len, bytes.len()));
        }
        Edit::Repeat(at, len, to) => {
            let (at, to) = (at % bytes.len(), to % bytes.len());
            let part = bytes[at..end(at, len, bytes.len())].to_vec();
            bytes.splice(to..to, part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_it_panic(
        file in prop::sample::select(vec![SHOP, "tests/policy/network-good/network.yaml"]),
        edits in prop::collection::vec(edit(), 1..6),
    ) {
        let mut bytes = std::fs::read(file).unwrap();
        for edit in &edits {
            apply(&mut bytes, edit);
        }
        let dir = Scratch::new("mutated");
        std::fs::write(dir.0.join("shop.yaml"), bytes).unwrap();
        let outcome = policy::load(&dir.0);
        // No plan without a reason, and no plan beside an error.
        prop_assert_eq!(outcome.plan.is_none(), outcome.count(Severity::Error) > 0);
    }
}
