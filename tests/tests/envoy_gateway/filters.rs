//! Routes: filters, weights, and gRPC.

use anyhow::Result;
use tests::daemon::eventually;
use tests::grpc::{H2Client, H2Upstream};
use tests::netns::Netns;
use tests::policies::limits;
use tests::scene::Scene;
use tests::upstream::Upstream;

const BASE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: eg}
spec:
  gatewayClassName: limiterd
  listeners:
  - {name: http, protocol: HTTP, port: 8080}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: one}
spec:
  endpoints: [{ip: {address: 127.0.0.1, port: 3001}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: two}
spec:
  endpoints: [{ip: {address: 127.0.0.1, port: 3002}}]
---
apiVersion: v1
kind: Service
metadata: {name: two}
spec: {clusterIP: 192.0.2.1, ports: [{name: web, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: two-1, labels: {kubernetes.io/service-name: two}}
addressType: IPv4
endpoints:
- {addresses: [192.0.2.2], conditions: {ready: false}}
- {addresses: [127.0.0.1]}
ports: [{name: web, port: 3002}]
";
const FILTERS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: filters}
spec:
  parentRefs: [{name: eg}]
  hostnames: [filters.test]
  rules:
  - matches: [{path: {value: /headers}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-set, value: new}], add: [{name: x-add, value: more}], remove: [x-secret]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: x-answer, value: ours}], remove: [x-upstream]}
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: one}]
  - matches: [{path: {value: /prefix}}]
    filters:
    - {type: URLRewrite, urlRewrite: {hostname: inner.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: one}]
  - matches: [{path: {value: /full}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /all}}}
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: one}]
  - matches: [{path: {value: /moved}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: new.test, port: 8443, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /here}}
  - matches: [{path: {value: /mirrored}}]
    filters:
    - {type: RequestMirror, requestMirror: {backendRef: {group: gateway.envoyproxy.io, kind: Backend, name: two}}}
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: one}]
  - matches: [{path: {value: /weighted}}]
    backendRefs:
    - {group: gateway.envoyproxy.io, kind: Backend, name: one, weight: 3}
    - {name: two, port: 80, weight: 1}
";

#[test]
fn filters_change_redirect_mirror_and_weigh() -> Result<()> {
    let netns = Netns::new("filters")?;
    let upstream = |address| {
        Upstream::start(&netns, address, |_, client| {
            let headers = "x-upstream: yes\r\nx-answer: theirs\r\n";
            client.send(tests::upstream::response("200 OK", headers, "ok"))?;
            Ok(true)
        })
    };
    let (one, two) = (upstream("127.0.0.1:3001")?, upstream("127.0.0.1:3002")?);
    // A redirect is a request as others are.
    let policy = limits(
        "p",
        "kind: HTTPRoute, name: filters",
        "local: {rules: [{clientSelectors: [{path: {value: /moved}}], limit: {requests: 2, unit: Hour}}]}",
    );
    let files = [
        ("base.yaml", BASE),
        ("filters.yaml", FILTERS),
        ("policy.yaml", &policy),
    ];
    let scene = Scene::start(netns, &files)?;
    let get = |path, headers: &[(&str, &str)]| scene.get("filters", path, headers);

    let told = get(
        "/headers",
        &[("x-set", "old"), ("x-add", "some"), ("x-secret", "1")],
    )?;
    assert_eq!(
        [told.header("x-answer"), told.header("x-upstream")],
        ["ours", ""]
    );
    let seen = one.last()?;
    let seen = ["x-set", "x-add", "x-secret"].map(|name| seen.header(name));
    assert_eq!(seen, ["new", "some, more", ""]);

    assert_eq!(get("/prefix/a/b?q=1", &[])?.header("x-answer"), "theirs");
    assert_eq!(one.last()?.line(), "GET /v2/a/b?q=1");
    assert_eq!(one.last()?.header("host"), "inner.test");
    get("/full/a/b?q=1", &[])?;
    assert_eq!(one.last()?.line(), "GET /all?q=1");
    assert_eq!(one.last()?.header("host"), "filters.test");

    for left in ["1", "0"] {
        let told = get("/moved/x?q=1", &[])?;
        assert_eq!(told.status, 301);
        assert_eq!(told.header("location"), "https://new.test:8443/here/x?q=1");
        assert_eq!(told.header("x-ratelimit-remaining"), left);
    }
    let told = get("/moved/x", &[])?;
    scene.expect(&told, 429, ["2, 2;w=3600", "0", "3600", "1800"]);
    assert_eq!((one.seen().len(), two.seen().len()), (3, 0));

    assert_eq!(get("/mirrored/x", &[("x-a", "1")])?.status, 200);
    let copy = eventually("the copy", || Ok(two.seen().pop()))?;
    assert_eq!(
        (copy.line(), copy.header("x-a")),
        ("GET /mirrored/x", "1".to_owned())
    );
    assert_eq!((one.seen().len(), two.seen().len()), (4, 1));

    for _ in 0..40 {
        assert_eq!(get("/weighted", &[])?.status, 200);
    }
    assert_eq!((one.seen().len(), two.seen().len()), (4 + 30, 1 + 10));
    Ok(())
}

const GRPC: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: eg}]
  hostnames: [shop.test]
  rules:
  - matches: [{method: {service: shop.v1.Orders, method: Place}}]
    name: place
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: one}]
  - matches: [{method: {service: shop.v1.Orders}}]
    filters:
    - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: orders}]}}
    backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: one}]
";

#[test]
fn grpc_calls_have_their_trailers_and_refusals_of_their_own() -> Result<()> {
    let netns = Netns::new("grpc")?;
    let _upstream = H2Upstream::start(&netns, "127.0.0.1:3001")?;
    let policy = limits(
        "p",
        "kind: GRPCRoute, name: shop, sectionName: place",
        "global: {rules: [{clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}], limit: {requests: 2, unit: Hour}}]}",
    );
    let files = [
        ("base.yaml", BASE),
        ("grpc.yaml", GRPC),
        ("policy.yaml", &policy),
    ];
    let scene = Scene::start(netns, &files)?;
    let mut client = H2Client::connect(&scene.netns, "127.0.0.1:8080")?;
    let mut call = |method: &str, user: &str, status: &str| {
        let headers = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("x-user-id", user),
            ("x-status", status),
        ];
        client.send(
            "POST",
            &format!("http://shop.test/{method}"),
            &headers,
            "message",
        )
    };
    for (status, left) in [("0", "1"), ("9", "0")] {
        let told = call("shop.v1.Orders/Place", "ann", status)?;
        assert_eq!((told.status, &told.body[..]), (200, b"message".as_slice()));
        assert_eq!(
            [told.header("grpc-status"), told.trailer("grpc-status")],
            ["", status]
        );
        assert!(
            told.header("x-target").ends_with("/shop.v1.Orders/Place"),
            "{told:?}"
        );
        assert_eq!(told.header("x-ratelimit-remaining"), left);
        assert_eq!(told.header("x-rule"), "");
    }
    let told = call("shop.v1.Orders/Place", "ann", "0")?;
    assert_eq!((told.status, told.header("grpc-status")), (200, "14"));
    assert_eq!(told.header("grpc-message"), "rate_limited");
    assert_eq!(told.header("content-type"), "application/grpc");
    assert_eq!(told.header("x-ratelimit-limit"), "2, 2;w=3600");
    let wait: u64 = told.header("retry-after").parse()?;
    assert!((1800 - scene.elapsed()..=1800).contains(&wait), "{told:?}");
    assert_eq!(
        call("shop.v1.Orders/Place", "bob", "0")?.trailer("grpc-status"),
        "0"
    );

    // Other methods of the service have no limit; other services no route.
    let told = call("shop.v1.Orders/Watch", "ann", "0")?;
    assert_eq!(
        [told.header("x-rule"), told.header("x-ratelimit-limit")],
        ["orders", ""]
    );
    assert_eq!(
        call("shop.v1.Carts/Get", "ann", "0")?.header("grpc-status"),
        "12"
    );
    Ok(())
}
