//! What a bad resource takes down: itself, and nothing while there was a good version of it.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::collections::BTreeSet;

use limiter_daemon::policy::plan::{self, Plan, RouteRule};
use limiter_daemon::policy::{self, Outcome, Severity};
use proptest::prelude::*;

mod policy_support;

use policy_support::Scratch;

const BASE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: eg }
spec:
  listeners: [{ name: http, protocol: HTTP, port: 8080 }]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: { name: demo }
spec:
  endpoints: [{ ip: { address: 127.0.0.1, port: 3000 } }]
";

fn route(name: &str, path: &str) -> String {
    format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name} }}
spec:
  parentRefs: [{{ name: eg }}]
  rules:
    - name: only
      matches: [{{ path: {{ value: {path} }} }}]
      backendRefs: [{{ group: gateway.envoyproxy.io, kind: Backend, name: demo }}]
"
    )
}

/// A policy on `target` (kind, name and rest of the target), of `requests` a minute.
fn limits(name: &str, target: &str, requests: &str) -> String {
    format!(
        "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{ name: {name} }}
spec:
  targetRefs: [{{ group: gateway.networking.k8s.io, {target} }}]
  rateLimit:
    local:
      rules: [{{ limit: {{ requests: {requests}, unit: Minute }} }}]
"
    )
}

fn network(packets: u32) -> String {
    format!(
        "
---
apiVersion: limiterd.io/v1alpha1
kind: NetworkRateLimitPolicy
metadata: {{ name: edge }}
spec:
  ports: [{{ protocol: TCP, port: 8080 }}]
  packets: {{ maxTokens: {packets} }}
"
    )
}

struct Files(Scratch);

impl Files {
    fn new(name: &str) -> Self {
        let files = Self(Scratch::new(name));
        files.write("base.yaml", BASE);
        files
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.0.0.join(file), text).unwrap();
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.0.0.join(file)).unwrap();
    }

    fn load(&self) -> Outcome {
        policy::load(&self.0.0)
    }

    fn reload(&self, previous: &Outcome) -> Outcome {
        policy::reload(&self.0.0, previous)
    }
}

fn rules(plan: &Plan) -> impl Iterator<Item = (&str, &RouteRule)> {
    plan.listeners
        .iter()
        .flat_map(|listener| &listener.routes)
        .flat_map(|route| route.rules.iter().map(|rule| (route.name.as_str(), rule)))
}

/// The tokens of the local limits of each route's rule, or why it is broken.
fn state(outcome: &Outcome) -> Vec<String> {
    let plan = outcome.plan.as_ref().unwrap();
    rules(plan)
        .map(|(name, rule)| match &rule.broken {
            Some(why) => format!("{name}: broken: {why}"),
            None => {
                let limits: Vec<String> = rule
                    .limits
                    .local
                    .iter()
                    .flat_map(|limits| &limits.default)
                    .map(|rule| format!("{:?}", rule.quota))
                    .map(|text| {
                        let capacity = text.split("capacity: ").nth(1).unwrap();
                        capacity.split(',').next().unwrap().to_owned()
                    })
                    .collect();
                format!("{name}: {}", limits.join("+"))
            }
        })
        .collect()
}

#[test]
fn a_bad_route_is_not_served_and_the_others_are() {
    let files = Files::new("bad-route");
    files.write("routes.yaml", &(route("a", "/a") + &route("b", "b")));
    let outcome = files.load();
    assert_eq!(state(&outcome), ["default/a: "]);
    assert_eq!(outcome.count(Severity::Error), 1);
}

#[test]
fn what_a_policy_that_was_never_valid_is_about_is_broken() {
    let files = Files::new("bad-policy");
    files.write("routes.yaml", &(route("a", "/a") + &route("b", "/b")));
    files.write("p.yaml", &limits("p", "kind: HTTPRoute, name: a", "0"));
    let outcome = files.load();
    let broken = "default/a: broken: the BackendTrafficPolicy default/p is invalid: \
                  spec.rateLimit.local.rules[0].limit.requests: 0 would let nothing pass, ever";
    assert_eq!(state(&outcome), [broken, "default/b: "]);

    // A field that is not known, or a kind, makes no difference; nor does another error.
    let misspelt = limits("p", "kind: HTTPRoute, name: a", "5").replace("rateLimit", "rateLimits");
    files.write("p.yaml", &misspelt);
    assert!(state(&files.load())[0].starts_with("default/a: broken: "));
    let kind = limits("p", "kind: HTTPRoute, name: a", "5").replace("BackendT", "BackendsT");
    files.write("p.yaml", &kind);
    assert!(state(&files.load())[0].starts_with("default/a: broken: "));

    // Unless told otherwise; of what is not even known nobody can tell.
    files.write("p.yaml", &misspelt);
    files.write(
        "config.yaml",
        "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: { name: c }
spec: { http: { onInvalidPolicy: Unlimited } }
",
    );
    assert_eq!(state(&files.load()), ["default/a: ", "default/b: "]);
    files.write("p.yaml", &kind);
    assert!(state(&files.load())[0].starts_with("default/a: broken: "));
}

#[test]
fn a_policy_whose_targets_cannot_be_read_refuses_the_start() {
    let files = Files::new("no-targets");
    files.write("routes.yaml", &route("a", "/a"));
    let text = limits("p", "kind: HTTPRoute, name: a", "5").replace("targetRefs", "targetRfes");
    files.write("p.yaml", &text);
    assert!(files.load().plan.is_none());
}

#[test]
fn the_last_good_version_of_each_resource_goes_on() {
    let files = Files::new("last-good");
    files.write("routes.yaml", &(route("a", "/a") + &route("b", "/b")));
    let p = |requests| limits("p", "kind: HTTPRoute, name: a", requests);
    let q = |requests| limits("q", "kind: HTTPRoute, name: b", requests);
    files.write("limits.yaml", &(p("5") + &q("7")));
    files.write("net.yaml", &network(10));
    let first = files.load();
    assert_eq!(state(&first), ["default/a: 5", "default/b: 7"]);
    assert_eq!(first.kept, [""; 0]);

    // One is wrong, the other is changed.
    files.write("limits.yaml", &(p("0") + &q("8")));
    files.write("net.yaml", &network(0));
    let second = files.reload(&first);
    assert_eq!(state(&second), ["default/a: 5", "default/b: 8"]);
    let kept = [
        "BackendTrafficPolicy default/p",
        "NetworkRateLimitPolicy default/edge",
    ];
    assert_eq!(second.kept, kept);
    let plans = [&first, &second].map(|outcome| outcome.plan.as_ref().unwrap());
    assert_eq!(plans[0].network, plans[1].network);
    let status = second
        .statuses
        .iter()
        .find(|status| status.kind == "BackendTrafficPolicy" && status.name == "p")
        .unwrap();
    let [condition] = &status.ancestors[0].conditions[..] else {
        panic!("{status:?}")
    };
    assert_eq!((condition.status, condition.reason), (false, "Invalid"));
    assert!(condition.message.contains("last good version goes on"));

    // For as long as it is wrong, whatever else changes.
    files.write("limits.yaml", &(p("-1") + &q("9")));
    let third = files.reload(&second);
    assert_eq!(state(&third), ["default/a: 5", "default/b: 9"]);
    files.write("limits.yaml", &(p("6") + &q("9")));
    let fourth = files.reload(&third);
    assert_eq!(state(&fourth), ["default/a: 6", "default/b: 9"]);
    assert_eq!(fourth.kept, ["NetworkRateLimitPolicy default/edge"]);

    // What is removed is gone.
    files.write("limits.yaml", &q("9"));
    files.remove("net.yaml");
    let fifth = files.reload(&fourth);
    assert_eq!(state(&fifth), ["default/a: ", "default/b: 9"]);
    assert_eq!(fifth.plan.as_ref().unwrap().network, []);
    assert_eq!(fifth.count(Severity::Error), 0);
}

/// Not even its kind is right, and it goes on all the same: under its name, in its file.
#[test]
fn what_is_misnamed_goes_on_as_it_was() {
    let files = Files::new("misnamed");
    files.write("routes.yaml", &route("a", "/a"));
    let p = limits("p", "kind: HTTPRoute, name: a", "5");
    files.write("limits.yaml", &p);
    let first = files.load();
    for (from, to) in [("BackendT", "BackendsT"), ("io/v1alpha1", "io/v1alpha9")] {
        files.write("limits.yaml", &p.replace(from, to));
        let second = files.reload(&first);
        assert_eq!(state(&second), ["default/a: 5"]);
        assert_eq!(second.kept, ["BackendTrafficPolicy default/p"]);
        assert_eq!(second.count(Severity::Error), 1);
    }
}

/// A Secret whose key is another certificate's: the pair before it is served.
#[test]
fn certificates_that_do_not_fit_leave_the_ones_before() {
    let pairs: [_; 2] = std::array::from_fn(|_| {
        let pair = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    });
    let files = Files::new("certificates");
    files.write(
        "base.yaml",
        &BASE.replace(
            "protocol: HTTP, port: 8080",
            "protocol: HTTPS, port: 8443, tls: { certificateRefs: [{ name: tls }] }",
        ),
    );
    let secret = |certificate: usize, key: usize| {
        let indented = |text: &str| text.replace('\n', "\n    ");
        files.write(
            "secret.yaml",
            &format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{ name: tls }}\ntype: kubernetes.io/tls\n\
                 stringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
                indented(&pairs[certificate].0),
                indented(&pairs[key].1),
            ),
        );
    };
    let served = |outcome: &Outcome| {
        let plan = outcome.plan.as_ref().unwrap();
        let tls = plan.listeners[0].tls.clone().unwrap();
        String::from_utf8(tls.certificates[0].chain.0.clone()).unwrap()
    };
    secret(0, 0);
    let first = files.load();
    assert_eq!(served(&first).trim(), pairs[0].0.trim());
    secret(1, 0);
    let second = files.reload(&first);
    assert_eq!(served(&second).trim(), pairs[0].0.trim());
    assert_eq!(second.kept, ["Secret default/tls"]);
    secret(1, 1);
    let third = files.reload(&second);
    assert_eq!(served(&third).trim(), pairs[1].0.trim());
    assert_eq!(third.kept, [""; 0]);
}

#[test]
fn a_policy_led_astray_stays_where_it_was() {
    let files = Files::new("stray");
    files.write("routes.yaml", &(route("a", "/a") + &route("b", "/b")));
    let net = |target: &str| {
        network(10).replace(
            "ports: [{ protocol: TCP, port: 8080 }]",
            &format!(
                "targetRefs: [{{ group: gateway.networking.k8s.io, kind: Gateway, {target} }}]"
            ),
        )
    };
    files.write("limits.yaml", &limits("p", "kind: HTTPRoute, name: a", "5"));
    files.write("net.yaml", &net("name: eg"));
    let first = files.load();
    assert_eq!(first.count(Severity::Error), 0);

    files.write(
        "limits.yaml",
        &limits("p", "kind: HTTPRoute, name: aa", "6"),
    );
    files.write("net.yaml", &net("name: eg, sectionName: htpt"));
    let second = files.reload(&first);
    assert_eq!(state(&second), ["default/a: 5", "default/b: "]);
    let plans = [&first, &second].map(|outcome| outcome.plan.as_ref().unwrap());
    assert_eq!(plans[0].network, plans[1].network);
    assert_eq!(second.kept.len(), 2);
    assert_eq!(second.count(Severity::Error), 2);

    // To another target that is there it goes; and what it is about may go.
    files.write("limits.yaml", &limits("p", "kind: HTTPRoute, name: b", "6"));
    files.write("net.yaml", &net("name: eg"));
    let third = files.reload(&second);
    assert_eq!(state(&third), ["default/a: ", "default/b: 6"]);
    files.write("routes.yaml", &route("a", "/a"));
    let fourth = files.reload(&third);
    assert_eq!(state(&fourth), ["default/a: "]);
    assert_eq!(fourth.kept, [""; 0]);
    assert_eq!(fourth.count(Severity::Error), 1);
}

#[test]
fn files_that_cannot_be_read_keep_what_was_in_them() {
    let files = Files::new("lost-file");
    files.write("routes.yaml", &(route("a", "/a") + &route("b", "/b")));
    let p = limits("p", "kind: HTTPRoute, name: a", "5");
    let q = limits("q", "kind: HTTPRoute, name: b", "7");
    files.write("limits.yaml", &(p.clone() + &q));
    let first = files.load();

    // Half of it is no YAML any more: the other half is as it says.
    let half = limits("p", "kind: HTTPRoute, name: a", "6");
    files.write(
        "limits.yaml",
        &format!("{half}\n---\n{{ this is [ no YAML\n"),
    );
    let second = files.reload(&first);
    assert_eq!(state(&second), ["default/a: 6", "default/b: 7"]);
    assert_eq!(second.kept, ["BackendTrafficPolicy default/q"]);

    files.remove("limits.yaml");
    std::os::unix::fs::symlink("nowhere", files.0.0.join("limits.yaml")).unwrap();
    let third = files.reload(&second);
    assert_eq!(state(&third), ["default/a: 6", "default/b: 7"]);
    assert_eq!(third.kept.len(), 2);

    // Gone with its file, on purpose.
    files.remove("limits.yaml");
    assert_eq!(state(&files.reload(&third)), ["default/a: ", "default/b: "]);

    // The directory as a whole.
    std::fs::rename(&files.0.0, files.0.0.with_extension("moved")).unwrap();
    let fourth = files.reload(&third);
    std::fs::rename(files.0.0.with_extension("moved"), &files.0.0).unwrap();
    assert_eq!(state(&fourth), ["default/a: 6", "default/b: 7"]);
    assert!(fourth.count(Severity::Error) > 0);
}

#[test]
fn what_refuses_the_start() {
    let files = Files::new("refused");
    files.write("routes.yaml", &route("a", "/a"));
    assert!(files.load().plan.is_some());
    let cases = [
        ("no YAML", "{ this is [ no YAML"),
        ("no resource", "just: text"),
        (
            "wrong settings",
            "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: { name: c }\n\
             spec: { http: { workers: 0 } }\n",
        ),
    ];
    for (what, text) in cases {
        files.write("z.yaml", text);
        let outcome = files.load();
        assert!(outcome.plan.is_none(), "{what}");
        assert!(outcome.count(Severity::Error) > 0, "{what}");
    }
    files.remove("z.yaml");
    files.write("base.yaml", &BASE.replace("port: 8080", "port: 0"));
    assert!(files.load().plan.is_none(), "nothing to serve");
}

/// Where policies are in a generated directory: route rule, route, listener, Gateway.
const LEVELS: [&str; 4] = [
    "kind: HTTPRoute, name: a, sectionName: only",
    "kind: HTTPRoute, name: a",
    "kind: Gateway, name: eg, sectionName: http",
    "kind: Gateway, name: eg",
];

/// What is attached at a level: ages of policies, and whether each merges.
type Level = Vec<(u8, bool)>;

fn levels() -> impl Strategy<Value = [Level; 4]> {
    let level = || prop::collection::vec((0..4_u8, any::<bool>()), 0..3);
    [level(), level(), level(), level()]
}

/// The policies in force, in order, by the rules as they are written in the documents.
fn expected(levels: &[Level; 4]) -> Vec<String> {
    let mut names = Vec::new();
    for (level, policies) in levels.iter().enumerate() {
        // The oldest, then the first by name.
        let winner = policies
            .iter()
            .enumerate()
            .min_by_key(|(index, (age, _))| (*age, *index));
        if let Some((index, (_, merge))) = winner {
            names.push(format!("default/p{level}-{index}"));
            if !(level < 2 && *merge) {
                break;
            }
        }
    }
    names
}

fn written(levels: &[Level; 4]) -> String {
    let mut text = route("a", "/a");
    for (level, policies) in levels.iter().enumerate() {
        for (index, (age, merge)) in policies.iter().enumerate() {
            let policy = limits(&format!("p{level}-{index}"), LEVELS[level], "5");
            let policy = policy.replace(
                &format!("name: p{level}-{index}"),
                &format!("name: p{level}-{index}, creationTimestamp: 202{age}-01-01T00:00:00Z"),
            );
            let policy = if *merge && level < 2 {
                policy.replace("  rateLimit:", "  mergeType: StrategicMerge\n  rateLimit:")
            } else {
                policy
            };
            text.push_str(&policy);
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_closest_policy_is_in_force_joined_with_its_parents_if_it_merges(levels in levels()) {
        let files = Files::new("merging");
        files.write("rest.yaml", &written(&levels));
        let outcome = files.load();
        prop_assert_eq!(outcome.count(Severity::Error), 0);
        let plan = outcome.plan.as_ref().unwrap();
        let (_, rule) = rules(plan).next().unwrap();
        let found: Vec<String> = rule.limits.local.iter().map(|one| one.policy.clone()).collect();
        let expected = expected(&levels);
        prop_assert_eq!(&found, &expected);

        // And the statuses say so: what is accepted and not overridden is in force.
        let in_force: BTreeSet<String> = outcome
            .statuses
            .iter()
            .filter(|status| status.kind == "BackendTrafficPolicy")
            .filter(|status| {
                let has = |kind: &str| {
                    status.ancestors[0]
                        .conditions
                        .iter()
                        .any(|condition| condition.kind == kind && condition.status)
                };
                has("Accepted") && !has("Overridden")
            })
            .map(|status| format!("{}/{}", status.namespace, status.name))
            .collect();
        prop_assert_eq!(in_force, expected.iter().cloned().collect::<BTreeSet<_>>());
        let merged = outcome.statuses.iter().any(|status| {
            status
                .ancestors
                .iter()
                .flat_map(|ancestor| &ancestor.conditions)
                .any(|condition| condition.kind == "Merged")
        });
        prop_assert_eq!(merged, expected.len() > 1);
    }
}

fn domain(name: &str, key: &str, requests: &str) -> String {
    format!(
        "
---
domain: {name}
descriptors:
  - key: {key}
    rate_limit: {{ unit: minute, requests_per_unit: {requests} }}
"
    )
}

fn served(merge: bool) -> String {
    format!(
        "
---
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{ name: limiterd }}
spec: {{ rls: {{ listen: '127.0.0.1:8081', mergeDomains: {merge} }} }}
"
    )
}

/// Domains with their keys, and `!` for those of which nothing can be said.
fn domains(outcome: &Outcome) -> Vec<String> {
    let plan = outcome.plan.as_ref().unwrap();
    let show = |domain: &plan::Domain| {
        let keys = domain.descriptors.iter().map(|one| one.label());
        let keys: Vec<_> = keys.collect();
        let broken = if domain.broken.is_some() { "!" } else { "" };
        format!("{}{broken}: {}", domain.name, keys.join(" "))
    };
    plan.domains.iter().map(show).collect()
}

#[test]
fn a_bad_domain_is_broken_or_goes_on_as_it_was() {
    let policies = Files::new("domains");
    policies.write("0.yaml", &served(false));
    policies.write("a.yaml", &domain("a", "k", "1"));
    policies.write("b.yaml", &domain("b", "k", "lots"));
    let first = policies.load();
    assert_eq!(domains(&first), ["a: k", "b!: "]);
    policies.write("b.yaml", &domain("b", "k", "1"));
    let second = policies.reload(&first);
    assert_eq!(domains(&second), ["a: k", "b: k"]);
    policies.write("a.yaml", &domain("a", "other", "lots"));
    let third = policies.reload(&second);
    assert_eq!(domains(&third), ["a: k", "b: k"]);
    assert_eq!(third.kept, ["Domain a.yaml/a"]);
    policies.remove("a.yaml");
    assert_eq!(domains(&policies.reload(&third)), ["b: k"]);
}

#[test]
fn files_of_one_domain_are_merged_where_that_is_allowed() {
    let policies = Files::new("merged-domains");
    policies.write("a.yaml", &domain("shop", "a", "1"));
    policies.write("b.yaml", &(domain("shop", "b", "1")));
    policies.write("0.yaml", &served(false));
    let refused = policies.load();
    assert_eq!(domains(&refused), ["shop: a"]);
    assert_eq!(refused.count(Severity::Error), 1);
    policies.write("0.yaml", &served(true));
    let merged = policies.reload(&refused);
    assert_eq!(
        (domains(&merged), merged.count(Severity::Error)),
        (vec!["shop: a b".to_owned()], 0)
    );
    policies.write("b.yaml", &domain("shop", "a", "2"));
    let twice = policies.reload(&merged);
    assert_eq!(
        (domains(&twice), twice.count(Severity::Error)),
        (vec!["shop: a".to_owned()], 1)
    );
}
