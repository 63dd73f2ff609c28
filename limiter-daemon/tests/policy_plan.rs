//! What good policy files compile to, and that nothing in a file makes the reader panic.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::path::PathBuf;
use std::time::Duration;

use limiter_common::{Limit, Protocol};
use limiter_daemon::policy::plan::{
    AttachMode, Condition, Endpoint, Hostname, LimitRule, Listener, OnExit, PathMatch, Plan,
    PolicyLimits, Quota, Route, ValueMatch, ValueTest,
};
use limiter_daemon::policy::{self, Severity};
use proptest::prelude::*;

mod policy_support;

use policy_support::{Scratch, good};

const SHOP: &str = "tests/policy/good/shop.yaml";
const QUICKSTART: &str = "../examples/quickstart";

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

/// The local limits on the first rule of a route.
#[track_caller]
fn limits(route: &Route) -> &PolicyLimits {
    &route.rules[0].limits.local[0]
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
                plan.backends[weighted.backend.unwrap()].name.as_str(),
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
            &Endpoint::Ip("10.0.0.1".parse().unwrap(), 3000),
            &Endpoint::Ip("2001:db8::1".parse().unwrap(), 3001),
            &Endpoint::Fqdn("canary.shop.example".to_owned(), 80),
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
        let limits = limits(route(listener(&plan, at), of));
        limits.policy.clone()
    };
    assert_eq!(policy("infra/edge/web", "shop/c-old"), "infra/gateway-wide");
    assert_eq!(
        policy("infra/edge/any", "shop/a-ageless"),
        "infra/gateway-wide"
    );
    assert_eq!(policy("infra/edge/web", "shop/b-young"), "shop/young");
    assert_eq!(policy("shop/internal/http", "shop/b-young"), "shop/young");
}

#[test]
fn selectors_are_flattened_and_rules_keep_their_index() {
    let plan = good(SHOP);
    let limits = limits(route(listener(&plan, "infra/edge/web"), "shop/b-young"));
    let rules: Vec<_> = limits
        .rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule.quota))
        .collect();
    assert_eq!(
        rules,
        [
            ("shop/young/rule/0", Quota::bucket(per(50, 60), 60)),
            ("shop/young/rule/2", Quota::bucket(per(10, 86_400), 86_400)),
        ]
    );
    let default = limits.default.as_ref().unwrap();
    assert_eq!(
        (default.name.as_str(), default.quota),
        ("shop/young/rule/1", Quota::bucket(per(1, 3_600), 3_600))
    );
    assert!(default.conditions.is_empty());

    let test = |rule: &LimitRule, index: usize| match &rule.conditions[index] {
        Condition::Header { name, test } => (name.to_string(), test.clone()),
        other => panic!("{other:?}"),
    };
    let [user, plan_header, region] = [0, 1, 2].map(|index| test(&limits.rules[0], index));
    assert_eq!(user.0, "x-user-id");
    assert!(matches!(user.1, ValueTest::Each));
    assert!(matches!(&plan_header.1, ValueTest::Is(value) if value == "free"));
    assert!(matches!(&region.1, ValueTest::IsNot(value) if value == "eu"));
    assert!(matches!(test(&limits.rules[1], 0).1, ValueTest::Absent));
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
    assert_eq!(daemon.drain_delay, Duration::from_secs(15));
    assert_eq!(daemon.drain_timeout, Duration::from_secs(90));
}

#[test]
fn the_quickstart_is_good_and_limits_what_it_says() {
    let plan = good(QUICKSTART);
    let http = listener(&plan, "default/eg/http");
    let api = limits(route(http, "default/api"));
    let quotas: Vec<_> = api.rules.iter().map(|rule| rule.quota).collect();
    assert_eq!(
        quotas,
        [50, 10, 5].map(|requests| Quota::bucket(per(requests, 60), 60))
    );
    let open = limits(route(http, "default/open"));
    assert_eq!(
        open.default.as_ref().map(|rule| rule.quota),
        Some(Quota::bucket(per(100, 60), 60))
    );
    assert_eq!(plan.network[0].ports, [(Protocol::Tcp, 8080)]);
    assert_eq!(plan.daemon.interfaces[0].mode, AttachMode::Generic);
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

/// Every file of the corpus.
fn corpus() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![PathBuf::from("tests/policy")];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

// A fuzz target, too: `PROPTEST_CASES=1000000 cargo test -p limiter-daemon --test policy_plan panic`.
proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_it_panic(
        file in prop::sample::select(corpus()),
        edits in prop::collection::vec(edit(), 1..6),
    ) {
        let good = std::fs::read(file).unwrap();
        let mut bytes = good.clone();
        for edit in &edits {
            apply(&mut bytes, edit);
        }
        let dir = Scratch::new("mutated");
        std::fs::write(dir.0.join("shop.yaml"), &bytes).unwrap();
        let outcome = policy::load(&dir.0);
        // No plan is missing without a reason.
        prop_assert!(outcome.plan.is_some() || outcome.count(Severity::Error) > 0);

        // And what was there before is never lost as a whole.
        std::fs::write(dir.0.join("shop.yaml"), &good).unwrap();
        let before = policy::load(&dir.0);
        std::fs::write(dir.0.join("shop.yaml"), &bytes).unwrap();
        let after = policy::reload(&dir.0, &before);
        prop_assert_eq!(after.plan.is_some(), before.plan.is_some() || outcome.plan.is_some());
    }
}
