//! Selectors of rules: which requests they match, and whose bucket they lead to.

use anyhow::Result;
use tests::daemon::demo_backend;
use tests::netns::Netns;
use tests::policies::limited_host;
use tests::scene::Scene;

/// Listeners that find out the client's address each in its own way.
const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners:
  - {name: peer, protocol: HTTP, port: 8080}
  - {name: hops, protocol: HTTP, port: 8081}
  - {name: cidrs, protocol: HTTP, port: 8082}
  - {name: header, protocol: HTTP, port: 8083}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: demo}
spec:
  endpoints:
  - ip: {address: 127.0.0.1, port: 3000}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: hops}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: eg, sectionName: hops}]
  clientIPDetection: {xForwardedFor: {numTrustedHops: 2}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: cidrs}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: eg, sectionName: cidrs}]
  clientIPDetection: {xForwardedFor: {trustedCIDRs: [127.0.0.0/8, 10.0.0.0/8]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: header}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: eg, sectionName: header}]
  clientIPDetection: {customHeader: {name: x-real-ip, failClosed: true}}
";

/// A request, and whether it meets the rule.
type Try<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], bool);

/// Selectors of a rule, and requests.
const MATCHES: &[(&str, &str, &[Try<'_>])] = &[
    (
        "methods",
        "{methods: [{value: POST}, {value: PUT}]}",
        &[
            ("POST", "/", &[], true),
            ("PUT", "/", &[], true),
            ("GET", "/", &[], false),
        ],
    ),
    (
        "not-get",
        "{methods: [{value: GET, invert: true}]}",
        &[("POST", "/", &[], true), ("GET", "/", &[], false)],
    ),
    (
        "prefix",
        "{path: {value: /api}}",
        &[
            ("GET", "/api", &[], true),
            ("GET", "/api/x?q", &[], true),
            ("GET", "/apiary", &[], false),
        ],
    ),
    (
        "exact",
        "{path: {type: Exact, value: /api}}",
        &[
            ("GET", "/api?x=1", &[], true),
            ("GET", "/api/x", &[], false),
        ],
    ),
    (
        "pattern",
        "{path: {type: RegularExpression, value: '/v[0-9]+/.*'}}",
        &[
            ("GET", "/v12/x", &[], true),
            ("GET", "/vx/x", &[], false),
            ("GET", "/a/v1/x", &[], false),
        ],
    ),
    (
        "not-path",
        "{path: {type: PathPrefix, value: /api, invert: true}}",
        &[("GET", "/other", &[], true), ("GET", "/api/x", &[], false)],
    ),
    (
        "query",
        "{queryParams: [{name: tier, value: free}, {name: key, type: RegularExpression, value: 'k-[a-z]+'}]}",
        &[
            ("GET", "/?tier=free&key=k-ab", &[], true),
            ("GET", "/?key=k%2Dab&tier=free", &[], true),
            ("GET", "/?tier=free", &[], false),
            ("GET", "/?tier=free&key=k-ab1", &[], false),
        ],
    ),
    (
        "no-query",
        "{queryParams: [{name: key, type: Distinct, invert: true}]}",
        &[("GET", "/?a=1", &[], true), ("GET", "/?key=", &[], false)],
    ),
    (
        "header-pattern",
        "{headers: [{name: X-Plan, type: RegularExpression, value: 'free|trial-[0-9]'}]}",
        &[
            ("GET", "/", &[("x-plan", "free")], true),
            ("GET", "/", &[("x-plan", "trial-7")], true),
            ("GET", "/", &[("x-plan", "trial-77")], false),
            ("GET", "/", &[], false),
        ],
    ),
    (
        "header-not",
        "{headers: [{name: x-plan, value: paid, invert: true}]}",
        &[
            ("GET", "/", &[("x-plan", "free")], true),
            ("GET", "/", &[], true),
            ("GET", "/", &[("x-plan", "paid")], false),
        ],
    ),
    // All parts of a selector, and all selectors: not the last one.
    (
        "parts",
        "{headers: [{name: x-a, value: '1'}], methods: [{value: POST}], path: {value: /api}, queryParams: [{name: q, value: '1'}]}",
        &[
            ("POST", "/api?q=1", &[("x-a", "1")], true),
            ("POST", "/api?q=1", &[], false),
            ("GET", "/api?q=1", &[("x-a", "1")], false),
            ("POST", "/other?q=1", &[("x-a", "1")], false),
            ("POST", "/api?q=2", &[("x-a", "1")], false),
        ],
    ),
    (
        "paths",
        "{path: {value: /api}}, {path: {type: RegularExpression, value: '.*/orders'}}, {path: {type: Exact, value: /api/old/orders, invert: true}}",
        &[
            ("GET", "/api/orders", &[], true),
            ("GET", "/other/orders", &[], false),
            ("GET", "/api/items", &[], false),
            ("GET", "/api/old/orders", &[], false),
        ],
    ),
    (
        "headers",
        "{headers: [{name: x-a, value: '1'}]}, {headers: [{name: x-b, value: '1'}]}",
        &[
            ("GET", "/", &[("x-a", "1"), ("x-b", "1")], true),
            ("GET", "/", &[("x-a", "1")], false),
            ("GET", "/", &[("x-b", "1")], false),
        ],
    ),
];

#[test]
fn a_rule_is_for_what_all_its_selectors_match() -> Result<()> {
    let netns = Netns::new("selectors")?;
    let _backend = demo_backend(&netns)?;
    let mut routes = String::new();
    for (name, selectors, _) in MATCHES {
        for kind in ["local", "global"] {
            let rules = format!(
                "{kind}: {{rules: [{{clientSelectors: [{selectors}], limit: {{requests: 10, unit: Hour}}}}]}}"
            );
            routes += &limited_host(&format!("{name}-{kind}"), &rules);
        }
    }
    let files = [("gateway.yaml", GATEWAY), ("routes.yaml", &routes)];
    let scene = Scene::start(netns, &files)?;
    for (name, _, tries) in MATCHES {
        for kind in ["local", "global"] {
            let mut left = 10;
            for (method, path, headers, matches) in *tries {
                let host = format!("{name}-{kind}.test");
                let headers = [&[("host", host.as_str())], *headers].concat();
                let told = scene.ask(method, "127.0.0.1:8080", path, &headers)?;
                left -= u32::from(*matches);
                let wanted = if *matches {
                    left.to_string()
                } else {
                    String::new()
                };
                assert_eq!(
                    told.header("x-ratelimit-remaining"),
                    wanted,
                    "{name} {kind} {method} {path} {headers:?}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn distinct_values_have_buckets_of_their_own() -> Result<()> {
    let netns = Netns::new("distinct")?;
    let _backend = demo_backend(&netns)?;
    let rule = "global: {rules: [{
      clientSelectors: [{headers: [{name: x-user-id, type: Distinct}], queryParams: [{name: model, type: Distinct, value: '*'}]}],
      limit: {requests: 2, unit: Hour}}]}";
    let files = [
        ("gateway.yaml", GATEWAY),
        ("routes.yaml", &limited_host("each", rule)),
    ];
    let scene = Scene::start(netns, &files)?;
    for (user, path, wanted) in [
        ("ann", "/?model=small", "200 1"),
        ("ann", "/other?q=1&model=small", "200 0"),
        ("ann", "/?model=small", "429 0"),
        ("ann", "/?model=large", "200 1"),
        ("bob", "/?model=small", "200 1"),
        // Neither is the rule for requests without the parameter, nor are values cut anywhere.
        ("ann", "/", "200 "),
        ("ann\u{7c}model=small", "/?model=small", "200 1"),
        ("*", "/?model=small", "200 1"),
    ] {
        let told = scene.get("each", path, &[("x-user-id", user)])?;
        let seen = format!(
            "{} {}",
            told.status.as_u16(),
            told.header("x-ratelimit-remaining")
        );
        assert_eq!(seen, wanted, "{user} {path}");
    }
    Ok(())
}

#[test]
fn sources_are_what_the_listener_takes_for_the_clients_address() -> Result<()> {
    let netns = Netns::new("sources")?;
    let _backend = demo_backend(&netns)?;
    let one = |name, selectors: &str, more| {
        let rule = format!(
            "local: {{rules: [{{clientSelectors: [{selectors}], limit: {{requests: 2, unit: Hour}}{more}}}]}}"
        );
        limited_host(name, &rule)
    };
    let routes = one("exact", "{sourceCIDR: {value: 203.0.113.0/24}}", "")
        + &one(
            "each",
            "{sourceCIDR: {type: Distinct, value: 203.0.113.0/24}}",
            "",
        )
        + &one(
            "others",
            "{sourceCIDR: {value: 203.0.113.0/24, invert: true}}",
            "",
        )
        + &one(
            "narrow",
            "{sourceCIDR: {value: 203.0.113.0/24}}, {sourceCIDR: {value: 203.0.113.64/26}}, {sourceCIDR: {value: 203.0.113.65, invert: true}}",
            "",
        )
        + &one(
            "six",
            "{sourceCIDR: {type: Distinct, value: '::/0'}}",
            ", limiterd: {ipv6Prefix: 56}",
        );
    let files = [("gateway.yaml", GATEWAY), ("routes.yaml", &routes)];
    let scene = Scene::start(netns, &files)?;
    let left = |route: &str, port: u16, header: (&str, &str)| -> Result<String> {
        let host = format!("{route}.test");
        let address = format!("127.0.0.1:{port}");
        let told = scene.ask("GET", &address, "/", &[("host", &host), header])?;
        Ok(format!(
            "{} {}",
            told.status.as_u16(),
            told.header("x-ratelimit-remaining")
        ))
    };
    let real = |route, address| left(route, 8083, ("x-real-ip", address));

    // One bucket for all of them, and one for each.
    for (route, address, wanted) in [
        ("exact", "203.0.113.1", "200 1"),
        ("exact", "203.0.113.2", "200 0"),
        ("exact", "203.0.113.3", "429 0"),
        ("exact", "203.0.114.3", "200 "),
        ("each", "203.0.113.1", "200 1"),
        ("each", "203.0.113.1", "200 0"),
        ("each", "203.0.113.1", "429 0"),
        ("each", "203.0.113.2", "200 1"),
        ("each", "203.0.114.2", "200 "),
        ("others", "203.0.113.1", "200 "),
        ("others", "198.51.100.1", "200 1"),
        ("others", "2001:db8::1", "200 0"),
        ("narrow", "203.0.113.64", "200 1"),
        ("narrow", "203.0.113.65", "200 "),
        ("narrow", "203.0.113.1", "200 "),
        // A /56 is one client.
        ("six", "2001:db8:0:1::1", "200 1"),
        ("six", "2001:db8:0:ff::2", "200 0"),
        ("six", "2001:db8:0:2::3", "429 0"),
        ("six", "2001:db8:0:100::1", "200 1"),
        ("six", "203.0.113.1", "200 "),
    ] {
        assert_eq!(real(route, address)?, wanted, "{route} {address}");
    }
    // The header must be there, and an address.
    assert_eq!(left("each", 8083, ("x-other", "1"))?, "403 ");
    assert_eq!(real("each", "me")?, "403 ");

    // The second of X-Forwarded-For from the right, which nobody but trusted proxies has written.
    let chain = ("x-forwarded-for", "198.51.100.9, 203.0.113.7, 10.0.0.1");
    assert_eq!(left("each", 8081, chain)?, "200 1");
    // The last that is no trusted proxy: the same client.
    assert_eq!(left("each", 8082, chain)?, "200 0");
    let chain = (
        "x-forwarded-for",
        "203.0.113.99, 203.0.113.7, 10.3.0.1, 10.0.0.1",
    );
    assert_eq!(left("each", 8082, chain)?, "429 0");
    // Without either, what clients say is nothing.
    assert_eq!(left("each", 8080, chain)?, "200 ");
    Ok(())
}
