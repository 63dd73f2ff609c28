//! Gloo's files, over real sockets: from which bucket each request draws, what a rate limit service
//! is still asked behind a local limit, what the kernel says to connections beyond theirs, and files
//! of three dialects in one daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use limiter_daemon::rls::proto::Code;
use socket2::{Domain, Socket, Type};
use tests::capture::Capture;
use tests::daemon::{Daemon, Policies, demo_backend, eventually, limiterd};
use tests::http_client::{count, gets};
use tests::netns::Netns;
use tests::policies::{config, host_route, limited_host};
use tests::raw::{Raw, header, tcp};
use tests::rls::{ask, question};
use tests::rls_peer::{RlsPeer, Said};
use tests::tls::Authority;
use tests::topology::{Client, Pins, Topology};
use tests::upstream::{Upstream, response};

const BACKEND: &str = "127.0.0.1:3000";
const UPSTREAM: &str = "
---
apiVersion: gloo.solo.io/v1
kind: Upstream
metadata: { name: shop }
spec: { static: { hosts: [{ addr: 127.0.0.1, port: 3000 }] } }
";
/// Long enough for no token to come back.
const NEVER: &str = "fillInterval: 1h";

/// One request on a connection that stays open: its status, and the limit that it was told of with
/// what is left.
fn request(client: &mut Raw, host: &str, path: &str) -> Result<(u16, String, String)> {
    client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"))?;
    let (status, head, _) = client.answer()?;
    let told = |name| header(&head, name);
    Ok((
        status,
        told("x-ratelimit-limit"),
        told("x-ratelimit-remaining"),
    ))
}

/// What the buckets of the four levels hold: gateway, virtual service, virtual host, route.
const SIZES: [u64; 4] = [7, 5, 4, 3];
/// Enough rounds of a request to each route for every bucket to be empty before.
const ROUNDS: usize = 8;

/// A gateway on `port` with two virtual services of two routes each, limited at the levels that are
/// `set`: the gateway's for all, those of the virtual service and host on the first one only, the
/// route's on its first route.
fn levels(port: u16, set: [bool; 4]) -> String {
    let bucket = |level: usize| format!("{{ maxTokens: {}, {NEVER} }}", SIZES[level]);
    let gateway = set[0].then(|| format!("defaultLimit: {}, ", bucket(0)));
    let gateway = gateway.unwrap_or_default();
    let option = |level: usize| {
        let limit = set[level].then(|| format!("localRatelimit: {}", bucket(level)));
        format!("{{ ratelimit: {{ {} }} }}", limit.unwrap_or_default())
    };
    let (service, host, route) = (option(1), option(2), option(3));
    format!(
        "
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{ name: gw-{port} }}
spec:
  bindPort: {port}
  httpGateway:
    virtualServices: [{{ name: a-{port}, namespace: default }}, {{ name: b-{port}, namespace: default }}]
---
apiVersion: gateway.solo.io/v1
kind: HttpListenerOption
metadata: {{ name: of-{port} }}
spec:
  targetRefs: [{{ group: gateway.solo.io, kind: Gateway, name: gw-{port} }}]
  options: {{ httpLocalRatelimit: {{ {gateway}enableXRatelimitHeaders: true }} }}
---
apiVersion: gateway.solo.io/v1
kind: VirtualHostOption
metadata: {{ name: of-a-{port} }}
spec:
  targetRefs: [{{ group: gateway.solo.io, kind: VirtualService, name: a-{port} }}]
  options: {service}
---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {{ name: a-{port} }}
spec:
  virtualHost:
    domains: [a.test]
    options: {host}
    routes:
      - name: own
        matchers: [{{ prefix: /own }}]
        options: {route}
        routeAction: {{ single: {{ upstream: {{ name: shop }} }} }}
      - name: other
        routeAction: {{ single: {{ upstream: {{ name: shop }} }} }}
---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {{ name: b-{port} }}
spec:
  virtualHost:
    domains: [b.test]
    routes:
      - name: own
        matchers: [{{ prefix: /own }}]
        routeAction: {{ single: {{ upstream: {{ name: shop }} }} }}
      - name: other
        routeAction: {{ single: {{ upstream: {{ name: shop }} }} }}
"
    )
}

#[test]
fn each_request_draws_from_the_most_specific_bucket_above_it() -> Result<()> {
    const FIRST: u16 = 8100;
    let sets: Vec<[bool; 4]> = (0..16_u8)
        .map(|bits| [0, 1, 2, 3].map(|level| bits & (1 << level) != 0))
        .collect();
    let mut text = UPSTREAM.to_owned();
    for (port, set) in (FIRST..).zip(&sets) {
        text.push_str(&levels(port, *set));
    }
    let netns = Netns::new("gloo")?;
    let _upstream = Upstream::echo(&netns, BACKEND)?;
    let policies = Policies::new(&[("gloo.yaml", &text)])?;
    let _daemon = Daemon::start(&netns, policies.path())?;
    // The levels that are above each route, and its host.
    let routes = [
        ("a.test", "/own", 4),
        ("a.test", "/other", 3),
        ("b.test", "/own", 1),
        ("b.test", "/other", 1),
    ];
    for (port, set) in (FIRST..).zip(sets) {
        let mut client = Raw::on(tcp(&netns, &format!("127.0.0.1:{port}"))?);
        let mut left: BTreeMap<usize, u64> = BTreeMap::new();
        for round in 0..ROUNDS {
            for (host, path, above) in routes {
                let drawn = (0..above).rev().find(|level| set[*level]);
                let expected = match drawn {
                    None => (200, String::new(), String::new()),
                    Some(level) => {
                        let size = SIZES[level];
                        let left = left.entry(level).or_insert(size);
                        let status = if *left > 0 { 200 } else { 429 };
                        *left = left.saturating_sub(1);
                        (status, format!("{size}, {size};w=3600"), left.to_string())
                    }
                };
                let seen = request(&mut client, host, path)?;
                assert_eq!(seen, expected, "{set:?}: {host}{path} in round {round}");
            }
        }
        assert!(left.values().all(|left| *left == 0), "{set:?}: {left:?}");
    }
    Ok(())
}

#[test]
fn each_connection_has_buckets_of_its_own_where_the_gateway_says_so() -> Result<()> {
    const PORT: u16 = 8200;
    let text = levels(PORT, [true; 4]).replace(
        "enableXRatelimitHeaders: true",
        "enableXRatelimitHeaders: true, localRateLimitPerDownstreamConnection: true",
    );
    let netns = Netns::new("gloo")?;
    let _upstream = Upstream::echo(&netns, BACKEND)?;
    let policies = Policies::new(&[("gloo.yaml", &format!("{UPSTREAM}{text}"))])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let address = format!("127.0.0.1:{PORT}");
    // The host and path of a route, and the size of the bucket that it draws from.
    let routes = [
        ("b.test", "/", SIZES[0]),
        ("a.test", "/", SIZES[2]),
        ("a.test", "/own", SIZES[3]),
    ];
    let drain = |client: &mut Raw, [from, to]: [u64; 2]| -> Result<()> {
        for (host, path, size) in routes {
            for left in (from.min(size)..to.min(size)).map(|taken| size - taken - 1) {
                let (status, _, remaining) = request(client, host, path)?;
                assert_eq!((status, remaining), (200, left.to_string()), "{host}{path}");
            }
        }
        Ok(())
    };
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Raw::on(tcp(&netns, &address)?);
        drain(&mut client, [0, 2])?;
        clients.push(client);
    }
    // What is left on a connection is left after a reload.
    daemon.reload(&netns)?;
    for client in &mut clients {
        drain(client, [2, u64::MAX])?;
        for (host, path, _) in routes {
            assert_eq!(request(client, host, path)?.0, 429, "{host}{path}");
        }
    }
    Ok(())
}

#[test]
fn a_rate_limit_service_is_asked_only_about_what_the_local_limit_admits() -> Result<()> {
    const CLIENTS: usize = 8;
    const EACH: usize = 1_250;
    let netns = Netns::new("gloo")?;
    let _upstream = Upstream::echo(&netns, BACKEND)?;
    let service = RlsPeer::start(&netns, "127.0.0.1:8081", |_| Said::plainly(Code::Ok))?;
    let text = format!(
        "{UPSTREAM}
---
apiVersion: gloo.solo.io/v1
kind: Upstream
metadata: {{ name: rls }}
spec: {{ useHttp2: true, static: {{ hosts: [{{ addr: 127.0.0.1, port: 8081 }}] }} }}
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{ name: http }}
spec:
  bindPort: 8080
  httpGateway:
    options:
      ratelimitServer: {{ ratelimitServerRef: {{ name: rls }}, requestTimeout: 30s, denyOnFail: true }}
---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {{ name: shop }}
spec:
  virtualHost:
    domains: ['*']
    options:
      ratelimit:
        localRatelimit: {{ maxTokens: 100, {NEVER} }}
        rateLimits: [{{ actions: [{{ genericKey: {{ descriptorValue: all }} }}] }}]
    routes: [{{ routeAction: {{ single: {{ upstream: {{ name: shop }} }} }} }}]
"
    );
    let policies = Policies::new(&[("gloo.yaml", &text)])?;
    let _daemon = Daemon::start(&netns, policies.path())?;
    let passed = thread::scope(|scope| {
        let client = || -> Result<usize> {
            let mut client = Raw::on(tcp(&netns, "127.0.0.1:8080")?);
            let mut passed = 0;
            for _ in 0..EACH {
                let (status, ..) = request(&mut client, "shop.test", "/")?;
                ensure!(matches!(status, 200 | 429), "{status}");
                passed += usize::from(status == 200);
            }
            Ok(passed)
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|one| {
                one.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .sum::<Result<usize>>()
    })?;
    assert_eq!(passed, 100, "of {}", CLIENTS * EACH);
    assert_eq!(service.questions()?.len(), 100);
    Ok(())
}

/// A gateway with TLS on port 8443, these limits on its connections, and a route.
fn tls_gateway(limit: &str) -> String {
    format!(
        "{UPSTREAM}
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{ name: https }}
spec:
  bindPort: 8443
  ssl: true
  httpGateway: {{ options: {{ networkLocalRatelimit: {limit} }} }}
---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {{ name: shop }}
spec:
  sslConfig: {{ secretRef: {{ name: shop, namespace: default }} }}
  virtualHost:
    domains: [shop.test]
    routes: [{{ directResponseAction: {{ status: 200, body: hello }} }}]
"
    )
}

struct Secure {
    authority: Authority,
    daemon: Daemon,
    /// Goes after the daemon, which leaves its pins when it is killed.
    _pins: Pins,
    topology: Topology,
    _policies: Policies,
}

impl Secure {
    fn start(limit: &str) -> Result<Self> {
        let topology = Topology::new()?;
        let authority = Authority::new()?;
        let interfaces = [&topology.first, &topology.second];
        let interfaces = interfaces.map(|client| client.gateway_interface.as_str());
        let pins = topology.pins();
        let policies = Policies::new(&[
            ("limiterd.yaml", &config(&interfaces, &pins, "Detach")),
            ("gloo.yaml", &tls_gateway(limit)),
            ("secret.yaml", &authority.secret("shop", "shop.test")?),
        ])?;
        let daemon = Daemon::start(&topology.gateway, policies.path())?;
        Ok(Self {
            authority,
            daemon,
            _pins: pins,
            topology,
            _policies: policies,
        })
    }

    /// Shakes hands, and has a request answered; the client's wire shows it.
    fn served(&self, client: &Client) -> Result<()> {
        let capture = Capture::start(&client.netns, &client.interface)?;
        let address = SocketAddr::new(client.gateway(false), 8443).to_string();
        let mut stream = self
            .authority
            .connect(&client.netns, &address, "shop.test")?;
        stream.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n")?;
        let (status, _, body) = stream.answer()?;
        assert_eq!((status, body.as_str()), (200, "hello"));
        assert_eq!(capture.stop()?.accepted.len(), 1);
        Ok(())
    }

    /// Tries to connect from `port`: nothing at all comes back to it.
    fn silence(&self, client: &Client, port: u16) -> Result<()> {
        let capture = Capture::start(&client.netns, &client.interface)?;
        let connected = client.netns.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(client.v4.into(), port).into())?;
            let target = SocketAddr::new(client.gateway(false), 8443).into();
            Ok(socket.connect_timeout(&target, Duration::from_millis(500)))
        })?;
        let seen = capture.stop()?;
        let error = connected.err().context("it was let in")?;
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
        assert!(!seen.heard.contains(&port), "an answer came: {seen:?}");
        assert_eq!(seen.icmp_errors, 0);
        Ok(())
    }
}

#[test]
fn beyond_the_limit_on_connections_there_is_no_handshake_and_no_alert() -> Result<()> {
    let scene = Secure::start(&format!("{{ maxTokens: 3, {NEVER} }}"))?;
    let Topology { first, second, .. } = &scene.topology;
    scene.served(first)?;
    scene.served(second)?;
    scene.served(first)?;
    // One bucket for all sources.
    scene.silence(first, 20_001)?;
    scene.silence(second, 20_002)?;
    let page = scene.daemon.metrics(&scene.topology.gateway)?;
    let dropped = page.packets("Gateway/default/https", "over_connections");
    assert!(dropped >= 2.0, "{dropped}");
    Ok(())
}

#[test]
fn each_source_has_connections_of_its_own_beside_those_of_all() -> Result<()> {
    let each = format!("limiterd: {{ perSource: {{ maxTokens: 2, {NEVER} }} }}");
    let scene = Secure::start(&format!("{{ maxTokens: 3, {NEVER}, {each} }}"))?;
    let Topology { first, second, .. } = &scene.topology;
    scene.served(first)?;
    scene.served(first)?;
    // Its own bucket is empty, and what is refused takes nothing from the others'.
    scene.silence(first, 20_001)?;
    scene.served(second)?;
    // It has one of its own left, and the three of all are gone.
    scene.silence(second, 20_002)?;
    Ok(())
}

const OF_ENVOY_GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: eg }
spec: { listeners: [{ name: http, protocol: HTTP, port: 8090 }] }
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: { name: demo }
spec: { endpoints: [{ ip: { address: 127.0.0.1, port: 3000 } }] }
";

const OF_THE_SERVICE: &str = "\
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: year, requests_per_unit: 2 }
";

#[test]
fn one_daemon_serves_files_of_three_dialects_and_tells_where_limits_are_from() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gloo");
    let files = ["gateway.yaml", "tasks.yaml"].map(|name| {
        let text = std::fs::read_to_string(example.join(name));
        text.map(|text| (name, text))
    });
    let [gateway, tasks] = files;
    let ((gateway_name, gateway), (tasks_name, tasks)) = (gateway?, tasks?);
    let rule = "{limit: {requests: 4, unit: Hour}}";
    let limited = limited_host("plain", &format!("local: {{rules: [{rule}]}}"));
    let netns = Netns::new("gloo")?;
    let pins = Pins::at(format!("/sys/fs/bpf/{}", netns.name()).into());
    let daemon = config(&["lo"], &pins, "Detach") + "  rls: {listen: '127.0.0.1:8081'}\n";
    let gateway = gateway.replace(
        "httpGateway: {}",
        "httpGateway: { options: { networkLocalRatelimit: { maxTokens: 1000 } } }",
    );
    let policies = Policies::new(&[
        ("00-limiterd.yaml", &daemon),
        (gateway_name, &gateway),
        (tasks_name, &tasks),
        ("eg.yaml", &format!("{OF_ENVOY_GATEWAY}{limited}")),
        ("shop.yaml", OF_THE_SERVICE),
    ])?;
    let _upstream = Upstream::echo(&netns, BACKEND)?;
    let _daemon = Daemon::start(&netns, policies.path())?;

    let mut gloo = Raw::on(tcp(&netns, "127.0.0.1:8080")?);
    let mut envoy_gateway = Raw::on(tcp(&netns, "127.0.0.1:8090")?);
    for turn in 0..6 {
        let search = request(&mut gloo, "tasks.example.com", "/search")?.0;
        assert_eq!(search, if turn < 5 { 200 } else { 429 }, "{turn}");
        let plain = request(&mut envoy_gateway, "plain.test", "/")?.0;
        assert_eq!(plain, if turn < 4 { 200 } else { 429 }, "{turn}");
    }
    let asked = vec![question("shop", &["user=alice"]); 3];
    let codes = ask(&netns, "127.0.0.1:8081", asked)?
        .into_iter()
        .map(|answer| Ok(answer?.overall_code()))
        .collect::<Result<Vec<_>>>()?;
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::OverLimit]);

    let dir = policies.path().to_str().context("not UTF-8")?;
    let explain = |args: &[&str]| -> Result<String> {
        let output = limiterd(&[&["explain", "--config", dir], args].concat())?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    // Each with the file, the line of what says it, and the resource.
    let line = |file: &str, text: &str, of: &str| {
        let index = text.lines().position(|line| line.contains(of));
        let number = index.map(|index| index + 1).context(of.to_owned());
        number.map(|number| format!("from {dir}/{file}:{number}"))
    };
    let get = |url: &'static str| explain(&["GET", url]);
    let cases = [
        (
            get("http://tasks.example.com:8080/search")?,
            line(tasks_name, &tasks, "maxTokens: 5")?,
            " (VirtualService gloo-system/tasks)",
        ),
        (
            get("http://tasks.example.com:8080/")?,
            line(tasks_name, &tasks, "maxTokens: 10")?,
            " (VirtualService gloo-system/tasks)",
        ),
        (
            get("http://other.example.com:8080/")?,
            line(gateway_name, &gateway, "maxTokens: 20")?,
            " (HttpListenerOption gloo-system/local-limits)",
        ),
        (
            get("http://other.example.com:8080/")?,
            line(gateway_name, &gateway, "maxTokens: 1000")?,
            " (Gateway gloo-system/http)",
        ),
        (
            get("http://plain.test:8090/")?,
            line("eg.yaml", &format!("{OF_ENVOY_GATEWAY}{limited}"), rule)?,
            " (BackendTrafficPolicy default/plain)",
        ),
        (
            explain(&["--domain", "shop", "--descriptor", "user=alice"])?,
            line("shop.yaml", OF_THE_SERVICE, "rate_limit")?,
            "",
        ),
        (
            explain(&["--domain", "custom", "--descriptor", "user=alice"])?,
            line(tasks_name, &tasks, "requestsPerUnit: 3")?,
            " (Settings gloo-system/default)",
        ),
    ];
    for (said, from, resource) in cases {
        let origin = format!("{from}{resource}");
        assert!(said.contains(&origin), "no `{origin}` in\n{said}");
    }
    Ok(())
}

#[test]
fn options_limit_what_gateway_api_routes() -> Result<()> {
    let option = |kind: &str, target: &str, options: &str| {
        format!(
            "
---
apiVersion: gateway.solo.io/v1
kind: {kind}
metadata: {{name: gloos}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]
  options: {{{options}}}
"
        )
    };
    let listener = format!("httpLocalRatelimit: {{defaultLimit: {{maxTokens: 4, {NEVER}}}}}");
    let route = format!("ratelimit: {{localRatelimit: {{maxTokens: 2, {NEVER}}}}}");
    let text = [
        OF_ENVOY_GATEWAY.to_owned(),
        ["own", "one", "other"].map(host_route).concat(),
        option(
            "HttpListenerOption",
            "kind: Gateway, name: eg, sectionName: http",
            &listener,
        ),
        option("RouteOption", "kind: HTTPRoute, name: own", &route),
    ];
    let netns = Netns::new("gloo")?;
    let _upstream = Upstream::echo(&netns, BACKEND)?;
    let policies = Policies::new(&[("gloo.yaml", &text.concat())])?;
    let _daemon = Daemon::start(&netns, policies.path())?;
    let mut client = Raw::on(tcp(&netns, "127.0.0.1:8090")?);
    let mut statuses = BTreeMap::new();
    for host in ["own.test", "one.test", "other.test"].repeat(3) {
        let status = request(&mut client, host, "/")?.0;
        statuses.entry(host).or_insert_with(Vec::new).push(status);
    }
    // Two routes share the listener's four; the third has two of its own.
    let expected = BTreeMap::from([
        ("own.test", vec![200, 200, 429]),
        ("one.test", vec![200, 200, 429]),
        ("other.test", vec![200, 200, 429]),
    ]);
    assert_eq!(statuses, expected);
    Ok(())
}

#[test]
fn requests_of_one_user_go_to_one_host_that_is_well() -> Result<()> {
    const PORTS: [u16; 3] = [3001, 3002, 3003];
    let netns = Netns::new("gloo")?;
    let hosts = PORTS
        .map(|port| {
            Upstream::start(&netns, &format!("127.0.0.1:{port}"), move |seen, client| {
                let sick = port == PORTS[2] && seen.line() == "GET /health";
                let status = if sick { "503 Sick" } else { "200 OK" };
                client.send(response(status, "", &port.to_string()))?;
                Ok(true)
            })
        })
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let addresses = PORTS.map(|port| format!("{{ addr: 127.0.0.1, port: {port} }}"));
    let text = format!(
        "
apiVersion: gloo.solo.io/v1
kind: Upstream
metadata: {{ name: hosts }}
spec:
  static: {{ hosts: [{}] }}
  loadBalancerConfig: {{ maglev: {{}}, healthyPanicThreshold: 12.5 }}
  healthChecks:
    - timeout: 5s
      interval: 100ms
      unhealthyThreshold: 1
      healthyThreshold: 1
      httpHealthCheck: {{ path: /health }}
---
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{ name: http }}
spec: {{ bindPort: 8080, httpGateway: {{}} }}
---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {{ name: all }}
spec:
  virtualHost:
    domains: ['*']
    routes:
      - options: {{ lbHash: {{ hashPolicies: [{{ header: x-user }}] }} }}
        routeAction: {{ single: {{ upstream: {{ name: hosts }} }} }}
",
        addresses.join(", ")
    );
    let policies = Policies::new(&[("gloo.yaml", &text)])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    eventually("the checks to find who is well", || {
        let page = daemon.metrics(&netns)?;
        let well = page.sum("envoy_cluster_membership_healthy", &[]);
        let asked = hosts.iter().all(|host| !host.seen().is_empty());
        Ok((asked && well == 2.0).then_some(()))
    })?;
    let mut client = Raw::on(tcp(&netns, "127.0.0.1:8080")?);
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    for user in 0..40 {
        let mut ask = || -> Result<String> {
            let head = format!("GET / HTTP/1.1\r\nhost: a\r\nx-user: user-{user}\r\n\r\n");
            client.send(head)?;
            let (status, _, host) = client.answer()?;
            ensure!(status == 200, "{status}");
            Ok(host)
        };
        let first = ask()?;
        for _ in 0..3 {
            assert_eq!(ask()?, first, "of user {user}");
        }
        *taken.entry(first).or_default() += 1;
    }
    let taken: Vec<&str> = taken.keys().map(String::as_str).collect();
    assert_eq!(taken, ["3001", "3002"]);
    Ok(())
}

#[test]
fn the_example_limits_as_it_says() -> Result<()> {
    let netns = Netns::new("gloo")?;
    let _backend = demo_backend(&netns)?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gloo");
    let _daemon = Daemon::start(&netns, &example)?;
    let ask = |host: &str, path: &str, user: &str, count: usize| {
        let url = format!("http://127.0.0.1:8080{path}");
        netns.enter(|| gets(&url, &[("host", host), ("x-user-id", user)], count))
    };
    let reports = ask("tasks.example.com", "/reports", "alice", 5)?;
    assert_eq!([count(&reports, 200), count(&reports, 429)], [3, 2]);
    let search = ask("tasks.example.com", "/search", "bob", 5)?;
    assert_eq!(count(&search, 200), 5);
    assert_eq!(search[0].header("x-ratelimit-limit"), "5, 5;w=60");
    let others = ask("other.example.com", "/search", "bob", 19)?;
    assert_eq!(count(&others, 200), 19);
    assert_eq!(others[0].header("x-ratelimit-limit"), "20, 20;w=60");
    Ok(())
}
