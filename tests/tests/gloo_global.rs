//! Gloo's global limits: weights, sets, users by a header; counted in memory and by a real Redis, and
//! asked of another service.

use anyhow::{Context as _, Result, ensure};
use http::Request;
use http_body_util::Full;
use limiter_daemon::rls::proto::Code;
use tests::daemon::{ADMIN, Policies, Process, eventually, limiterd};
use tests::http_client::{Speak, get, many};
use tests::netns::Netns;
use tests::redis::Redis;
use tests::rls::{ask, descriptor, question};
use tests::rls_peer::{RlsPeer, Said};
use tests::scene::Scene;
use tests::tls::Authority;
use tests::upstream::Upstream;

const RLS: &str = "127.0.0.1:8081";
const MARK: &str = "generic_key=solo.setDescriptor.uniqueValue";

/// A gateway, and what `rateLimits` are limited to. A year is over in no test, nor does it fill a
/// bucket in one.
const GLOO: &str = "
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: { name: http }
spec: { bindPort: 8080, httpGateway: {} }
---
apiVersion: gloo.solo.io/v1
kind: Settings
metadata: { name: default }
spec:
  ratelimitServer: { denyOnFail: true, requestTimeout: 10s, enableXRatelimitHeaders: true }
  ratelimit:
    descriptors:
      - key: type
        rateLimit: { unit: YEAR, requestsPerUnit: 2 }
        descriptors:
          - { key: number, value: '411', weight: 1, rateLimit: { unit: YEAR, requestsPerUnit: 6 } }
          - { key: number, weight: 1, rateLimit: { unit: YEAR, requestsPerUnit: 4 } }
      - { key: tenant, alwaysApply: true, rateLimit: { unit: YEAR, requestsPerUnit: 5 } }
    setDescriptors:
      - simpleDescriptors: [{ key: color }, { key: size, value: big }]
        rateLimit: { unit: YEAR, requestsPerUnit: 3 }
      - simpleDescriptors: [{ key: color }]
        rateLimit: { unit: YEAR, requestsPerUnit: 2 }
      - simpleDescriptors: [{ key: shape }]
        rateLimit: { unit: YEAR, requestsPerUnit: 2 }
        alwaysApply: true
      - simpleDescriptors: [{ key: generic_key, value: of-route }]
        rateLimit: { unit: YEAR, requestsPerUnit: 1 }
---
apiVersion: ratelimit.solo.io/v1alpha1
kind: RateLimitConfig
metadata: { name: all }
spec:
  raw:
    setDescriptors: [{ rateLimit: { unit: YEAR, requestsPerUnit: 3 } }]
    rateLimits: [{ setActions: [{ requestHeaders: { headerName: x-any, descriptorKey: any } }] }]
";

/// What limits hold before.
const FORWARD: &str = "routeAction: { single: { upstream: { name: app } } }";
const UPSTREAM: &str = "---
apiVersion: gloo.solo.io/v1
kind: Upstream
metadata: { name: app }
spec: { static: { hosts: [{ addr: 127.0.0.1, port: 3000 }] } }
";

/// A virtual service for `NAME.test` with these options.
fn host(name: &str, options: &str, routes: &str) -> String {
    format!(
        "---
apiVersion: gateway.solo.io/v1
kind: VirtualService
metadata: {{ name: {name} }}
spec:
  virtualHost:
    domains: [{name}.test]
    options: {{ {options} }}
    routes: [{routes}{{ {FORWARD} }}]
"
    )
}

/// An action that takes the header `x-KEY`.
fn header(key: &str) -> String {
    format!("{{ requestHeaders: {{ headerName: x-{key}, descriptorKey: {key} }} }}")
}

fn rate_limits(list: &[String]) -> String {
    format!("ratelimit: {{ rateLimits: [{}] }}", list.join(", "))
}

fn actions(keys: &[&str]) -> String {
    let actions: Vec<String> = keys.iter().map(|key| header(key)).collect();
    format!("{{ actions: [{}] }}", actions.join(", "))
}

fn set_actions(keys: &[&str]) -> String {
    let actions: Vec<String> = keys.iter().map(|key| header(key)).collect();
    format!("{{ setActions: [{}] }}", actions.join(", "))
}

fn files(store: Option<&Redis>) -> (String, String) {
    let store = store.map(|redis| {
        format!(
            "rateLimit: {{ backend: {{ type: Redis, redis: {{ url: '{}' }} }}, timeout: 3s }}",
            redis.url()
        )
    });
    let config = format!(
        "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {{ name: limiterd }}\n\
         spec:\n  rls: {{ listen: '{RLS}' }}\n  {}\n",
        store.unwrap_or_default()
    );
    let tree = [
        actions(&["tenant"]),
        actions(&["type"]),
        actions(&["type", "number"]),
    ];
    let own = format!(
        "{{ name: own, matchers: [{{ prefix: /own }}], {FORWARD}, options: {{ ratelimit: {{ \
         includeVhRateLimits: true, rateLimits: [{{ setActions: [{{ genericKey: {{ \
         descriptorValue: of-route }} }}] }}] }} }} }}, "
    );
    let both = [
        actions(&["type"]),
        set_actions(&["shape"]),
        set_actions(&["shape", "none"]),
    ];
    let users = "ratelimitBasic: { authorizedLimits: { unit: YEAR, requestsPerUnit: 2 }, \
                 anonymousLimits: { unit: YEAR, requestsPerUnit: 3 }, \
                 limiterd: { authorizedBy: { header: x-user-id } } }";
    let gloo = [
        GLOO.to_owned(),
        UPSTREAM.to_owned(),
        host("tree", &rate_limits(&tree), ""),
        host(
            "sets",
            &rate_limits(&[set_actions(&["shape", "size", "color"])]),
            &own,
        ),
        host("both", &rate_limits(&both), ""),
        host("config", "rateLimitConfigs: { refs: [{ name: all }] }", ""),
        host("users", users, ""),
    ];
    (config, gloo.concat())
}

/// A daemon, and what is behind it.
struct Node {
    scene: Scene,
    _upstream: Upstream,
}

fn start(store: Option<&Redis>) -> Result<Node> {
    let (config, gloo) = files(store);
    let files = [("0.yaml", config.as_str()), ("gloo.yaml", gloo.as_str())];
    start_in(Netns::new("gloo")?, &files)
}

fn start_in(netns: Netns, files: &[(&str, &str)]) -> Result<Node> {
    Ok(Node {
        _upstream: Upstream::echo(&netns, "127.0.0.1:3000")?,
        scene: Scene::start(netns, files)?,
    })
}

/// How many requests like this one pass before one is denied.
fn pass(scene: &Scene, name: &str, path: &str, headers: &[(&str, &str)]) -> Result<usize> {
    for passed in 0..20 {
        let answer = scene.get(name, path, headers)?;
        match answer.status.as_u16() {
            200 => {}
            429 => return Ok(passed),
            other => anyhow::bail!("{name}{path} {headers:?}: {other}"),
        }
    }
    Ok(20)
}

fn trees(scene: &Scene) -> Result<()> {
    let tree = |headers: &[(&str, &str)]| pass(scene, "tree", "/", headers);
    let first = scene.get("tree", "/", &[("x-type", "a"), ("x-number", "411")])?;
    ensure!(first.header("x-ratelimit-limit").starts_with("6, 6;"));
    ensure!(first.header("x-ratelimit-remaining") == "5", "{first:?}");
    // The limit on types alone weighs less: it neither denies nor counts.
    ensure!(tree(&[("x-type", "a"), ("x-number", "411")])? == 5);
    ensure!(tree(&[("x-type", "a"), ("x-number", "1")])? == 4);
    ensure!(tree(&[("x-type", "a"), ("x-number", "2")])? == 4);
    ensure!(tree(&[("x-type", "a")])? == 2);
    // The tenant's applies all the same; and what is denied by one is counted by none.
    let tenant = |number| tree(&[("x-type", "b"), ("x-number", number), ("x-tenant", "t")]);
    ensure!(tenant("1")? == 4);
    ensure!(tenant("2")? == 1);
    ensure!(tree(&[("x-type", "b"), ("x-number", "2")])? == 3);
    // A tenant alone is not outweighed either.
    ensure!(tree(&[("x-tenant", "u"), ("x-type", "c")])? == 2);
    ensure!(tree(&[("x-tenant", "u")])? == 3);
    Ok(())
}

fn sets(scene: &Scene) -> Result<()> {
    let sets = |headers: &[(&str, &str)]| pass(scene, "sets", "/", headers);
    // The first rule that is met applies, whatever order and whatever else there is.
    ensure!(sets(&[("x-color", "red"), ("x-size", "big")])? == 3);
    ensure!(sets(&[("x-color", "red"), ("x-size", "small")])? == 2);
    ensure!(sets(&[("x-color", "red")])? == 0, "one count");
    ensure!(sets(&[("x-color", "blue")])? == 2, "one for each value");
    ensure!(sets(&[("x-size", "big")])? == 20, "no rule");
    ensure!(sets(&[])? == 20, "an empty set");
    // One that always applies, beside the first; a denied request is counted by neither.
    let round = [
        ("x-color", "green"),
        ("x-size", "big"),
        ("x-shape", "round"),
    ];
    ensure!(sets(&round)? == 2);
    ensure!(sets(&[("x-color", "green"), ("x-size", "big")])? == 1);
    ensure!(sets(&[("x-shape", "round")])? == 0);
    // Each list of a route, and of its host, is a set of its own.
    ensure!(pass(scene, "sets", "/own", &[("x-color", "white")])? == 1);
    ensure!(sets(&[("x-color", "white")])? == 1);
    // A tree and sets; two sets that lead to one count are counted once.
    let both = |headers: &[(&str, &str)]| pass(scene, "both", "/", headers);
    ensure!(both(&[("x-type", "d"), ("x-shape", "oval")])? == 2);
    ensure!(both(&[("x-shape", "square")])? == 2);
    ensure!(both(&[("x-type", "d")])? == 0);
    // Without the header there is a set all the same, and the rule without entries takes it.
    let config = |headers: &[(&str, &str)]| pass(scene, "config", "/", headers);
    ensure!(scene.get("config", "/", &[("x-any", "1")])?.status == 200);
    ensure!(config(&[])? == 2);
    ensure!(config(&[("x-any", "2")])? == 0);
    Ok(())
}

fn users(scene: &Scene) -> Result<()> {
    let users = |headers: &[(&str, &str)]| pass(scene, "users", "/", headers);
    ensure!(users(&[("x-user-id", "alice")])? == 2);
    ensure!(users(&[("x-user-id", "bob")])? == 2);
    // Two of them, or an empty one, are nobody.
    ensure!(scene.get("users", "/", &[("x-user-id", "")])?.status == 200);
    let twice = [("x-user-id", "alice"), ("x-user-id", "eve")];
    ensure!(scene.get("users", "/", &twice)?.status == 200);
    ensure!(users(&[])? == 1);
    ensure!(users(&[("x-user-id", "carol")])? == 2);
    Ok(())
}

/// Gloo's own gateways ask so.
fn gateways(scene: &Scene) -> Result<()> {
    let set = format!("{MARK},shape=flat,size=big,color=black");
    let questions = vec![question("custom", &["type=z", "type=z,number=1", &set]); 3];
    let answers = ask(&scene.netns, RLS, questions)?;
    let answers: Vec<_> = answers.into_iter().collect::<Result<_, _>>()?;
    let codes: Vec<Code> = answers.iter().map(|one| one.overall_code()).collect();
    ensure!(codes == [Code::Ok, Code::Ok, Code::OverLimit], "{codes:?}");
    for answer in &answers {
        let limits: Vec<_> = answer
            .statuses
            .iter()
            .map(|status| Some(status.current_limit.as_ref()?.requests_per_unit))
            .collect();
        // Of what a set meets the strictest limit is told.
        ensure!(limits == [None, Some(4), Some(2)], "{limits:?}");
    }
    Ok(())
}

fn post(scene: &Scene, path: &str, question: &serde_json::Value) -> Result<serde_json::Value> {
    let request = Request::post(format!("http://{ADMIN}{path}"))
        .header("content-type", "application/json")
        .body(Full::from(question.to_string()))?;
    let answers = scene.netns.enter(|| many(Speak::Http1, vec![request]))?;
    let answer = answers.first().context("no answer")?;
    serde_json::from_slice(&answer.body).with_context(|| answer.text())
}

fn explained(scene: &Scene) -> Result<()> {
    let question = serde_json::json!({
        "domain": "custom",
        "descriptors": [
            "type=a", "type=a,number=411", "tenant=t",
            format!("{MARK},color=red,size=big,shape=round"),
        ],
    });
    let said = post(scene, "/explain/domain", &question)?;
    let all = said["descriptors"].as_array().context("no descriptors")?;
    let told: Vec<_> = all
        .iter()
        .map(|one| {
            let outweighed = one["outweighed"] == true;
            let left = one["count"]["remaining"].as_u64();
            (one["rule"].as_str().unwrap_or_default(), outweighed, left)
        })
        .collect();
    ensure!(
        told == [
            ("custom.type", true, None),
            ("custom.type.number_411", false, Some(0)),
            ("custom.tenant", false, Some(0)),
            ("custom.{color,size_big}", false, Some(0)),
            ("custom.{shape}", false, Some(0)),
        ],
        "{said:#}"
    );
    let asks = |host: &str, headers: &[&str]| -> Result<Vec<String>> {
        let url = format!("http://{host}.test:8080/");
        let question = serde_json::json!({ "method": "GET", "url": url, "headers": headers });
        let said = post(scene, "/explain", &question)?;
        let asks = said["asks"].as_array().context("nothing is asked")?;
        let asks = asks
            .iter()
            .filter_map(|one| one.as_str().map(str::to_owned));
        Ok(asks.collect())
    };
    let said = asks("tree", &["x-type: a", "x-number: 411"])?;
    ensure!(
        said[4..]
            == [
                "not custom.type: 2 a year; another weighs more",
                "meets custom.type.number_411: 6 a year, weight 1",
            ],
        "{said:#?}"
    );
    let said = asks("config", &["x-any: 1"])?;
    ensure!(
        said[2..] == ["meets RateLimitConfig/default/all.{}: 3 a year"],
        "{said:#?}"
    );
    Ok(())
}

fn run(scene: &Scene) -> Result<()> {
    trees(scene)?;
    sets(scene)?;
    users(scene)?;
    gateways(scene)?;
    explained(scene)
}

#[test]
fn counted_in_memory() -> Result<()> {
    let Node { scene, _upstream } = start(None)?;
    run(&scene)?;
    // What the files alone say of it.
    let dir = scene.policies.path().display().to_string();
    let args = ["explain", "--config", &dir, "--domain", "custom"];
    let set = format!("{MARK},color=red");
    let descriptors = ["type=a", "type=a,number=1", &set];
    let descriptors = descriptors.iter().flat_map(|one| ["--descriptor", one]);
    let output = limiterd(&args.into_iter().chain(descriptors).collect::<Vec<_>>())?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{text}");
    for line in [
        "custom.type: 2 a year; the limit of another descriptor weighs more",
        "custom.type.number: 4 a year, weight 1",
        "rule 2 {color}: the first that is met applies",
    ] {
        ensure!(text.contains(line), "{line}: {text}");
    }
    ensure!(scene.daemon.stop()?.success());
    Ok(())
}

#[test]
fn counted_by_redis_for_all_nodes() -> Result<()> {
    let netns = Netns::new("redis")?;
    let redis = Redis::start(&netns)?;
    let node = start(Some(&redis))?;
    run(&node.scene)?;
    let page = node.scene.metrics()?;
    let asked = page.sum("limiterd_store_requests_total", &[("result", "ok")]);
    ensure!(asked > 50.0, "the store was asked {asked} times");
    // Another node counts on.
    let other = start(Some(&redis))?;
    let other = &other.scene;
    let white = [("x-color", "white")];
    ensure!(pass(other, "sets", "/", &white)? == 0);
    let number = [("x-type", "a"), ("x-number", "411")];
    ensure!(pass(other, "tree", "/", &number)? == 0);
    ensure!(pass(other, "users", "/", &[("x-user-id", "alice")])? == 0);
    ensure!(pass(other, "tree", "/", &[("x-type", "new")])? == 2);
    explained(other)
}

#[test]
fn another_service_is_asked_as_gloos_is() -> Result<()> {
    let netns = Netns::new("gloo")?;
    let service = RlsPeer::start(&netns, RLS, |_| Said::plainly(Code::Ok))?;
    let gloo = format!(
        "
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{ name: http }}
spec:
  bindPort: 8080
  httpGateway:
    options: {{ ratelimitServer: {{ ratelimitServerRef: {{ name: rls }}, requestTimeout: 10s, denyOnFail: true }} }}
---
apiVersion: gloo.solo.io/v1
kind: Upstream
metadata: {{ name: rls }}
spec: {{ static: {{ hosts: [{{ addr: 127.0.0.1, port: 8081 }}] }} }}
{UPSTREAM}{}",
        host(
            "far",
            "ratelimit: { rateLimits: [{ actions: [{ remoteAddress: {} }], setActions: [{ \
             requestHeaders: { headerName: x-type, descriptorKey: type } }, { remoteAddress: {} }, \
             { requestHeaders: { headerName: x-none, descriptorKey: none } }] }] }",
            ""
        )
    );
    let node = start_in(netns, &[("gloo.yaml", &gloo)])?;
    ensure!(node.scene.statuses("far", &[("x-type", "a")], 1)? == [200]);
    let questions = service.questions()?;
    let question = questions.last().context("nothing was asked")?;
    ensure!(question.domain == "custom");
    let wanted = [
        descriptor("remote_address=127.0.0.1"),
        descriptor(&format!("{MARK},type=a,remote_address=127.0.0.1")),
    ];
    ensure!(question.descriptors == wanted, "{question:?}");
    Ok(())
}

/// A limiterd that is the rate limit server of others.
fn server(netns: &Netns, secret: &str) -> Result<(Policies, Process)> {
    let tls = "tls: { certificateRefs: [{ name: server }], clientValidation: { caCertificateRefs: [{ name: server }] } }";
    let config = format!(
        "apiVersion: limiterd.io/v1alpha1\nkind: LimiterConfig\nmetadata: {{ name: limiterd }}\n\
         spec: {{ admin: {{ address: '127.0.0.1:9902' }}, rls: {{ listen: '{RLS}', {tls} }} }}\n\
         ---\n{secret}"
    );
    let settings = "
apiVersion: gloo.solo.io/v1
kind: Settings
metadata: { name: default }
spec:
  ratelimit:
    setDescriptors:
      - { simpleDescriptors: [{ key: user }], rateLimit: { unit: YEAR, requestsPerUnit: 2 } }
";
    let policies = Policies::new(&[("0.yaml", config.as_str()), ("settings.yaml", settings)])?;
    let dir = policies.path().to_str().context("a path")?;
    let process = Process::start(netns, &["run", "--config", dir])?;
    netns.enter(|| {
        eventually("the server", || {
            let answer = get("http://127.0.0.1:9902/ready");
            Ok(answer.ok().filter(|answer| answer.status == 200))
        })
    })?;
    Ok((policies, process))
}

#[test]
fn a_server_is_asked_by_tls() -> Result<()> {
    let netns = Netns::new("gloo")?;
    let authority = Authority::new()?;
    let _server = server(
        &netns,
        &authority.secret_with_authority("server", "rls.test")?,
    )?;
    let files = |ssl: &str| {
        format!(
            "
apiVersion: gateway.solo.io/v1
kind: Gateway
metadata: {{ name: http }}
spec:
  bindPort: 8080
  httpGateway:
    options: {{ ratelimitServer: {{ ratelimitServerRef: {{ name: rls }}, requestTimeout: 10s, denyOnFail: true }} }}
---
apiVersion: gloo.solo.io/v1
kind: Upstream
metadata: {{ name: rls }}
spec: {{ static: {{ hosts: [{{ addr: 127.0.0.1, port: 8081 }}] }}, sslConfig: {{ {ssl} }} }}
{UPSTREAM}{}",
            host("far", &rate_limits(&[set_actions(&["user"])]), "")
        )
    };
    let secret = authority.secret_with_authority("client", "client.test")?;
    let gloo = files("secretRef: { name: client }, sni: rls.test");
    let both = [("gloo.yaml", gloo.as_str()), ("secret.yaml", &secret)];
    let Node { scene, _upstream } = start_in(netns, &both)?;
    ensure!(pass(&scene, "far", "/", &[("x-user", "a")])? == 2);
    // By a name that is not the server's.
    let gloo = files("secretRef: { name: client }, sni: other.test");
    scene.policies.write("gloo.yaml", &gloo)?;
    scene.daemon.reload(&scene.netns)?;
    ensure!(scene.statuses("far", &[("x-user", "b")], 1)? == [500]);
    Ok(())
}
