//! Asking a rate limit service about requests: limiterd itself, another limiterd, and services that
//! do what a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use limiter_daemon::rls::proto::{
    Code, HeaderValue, RateLimitOverride, RateLimitRequest, RateLimitResponse, Unit,
};
use prost::Message as _;
use tests::daemon::{ADMIN, Daemon, Policies, Process, eventually};
use tests::http_client::{Answer, Speak, count, get, gets, many};
use tests::metrics::Page;
use tests::netns::Netns;
use tests::policies::{GATEWAY, route, traffic};
use tests::rls::{descriptor, question};
use tests::rls_peer::{RlsPeer, Said, status};
use tests::tls::Authority;
use tests::upstream::Upstream;

const URL: &str = "http://127.0.0.1:8080";
const BACKEND: &str = "127.0.0.1:3000";
const SERVICE: &str = "127.0.0.1:8081";
const UPSTREAM: (&str, &str) = ("envoy_cluster_name", "default/demo");

/// A policy on a target (`kind: ..., name: ...`), with this in its spec (YAML in flow style).
fn asks(name: &str, target: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: limiterd.io/v1alpha1
kind: HTTPRateLimitPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]
  {spec}
"
    )
}

const ON_GATEWAY: &str = "kind: Gateway, name: eg";

/// A filter that asks the service elsewhere, with these fields besides.
fn filter(fields: &str) -> String {
    format!("{{domain: shop, service: {{address: '{SERVICE}'}}, {fields}}}")
}

struct Scene {
    netns: Netns,
    policies: Policies,
    daemon: Daemon,
    upstream: Upstream,
}

impl Scene {
    fn start(files: &[(&str, &str)]) -> Result<Self> {
        Self::start_in(Netns::new("filter")?, files)
    }

    fn start_in(netns: Netns, files: &[(&str, &str)]) -> Result<Self> {
        let upstream = Upstream::echo(&netns, BACKEND)?;
        let plain = route("plain", "/");
        let mut all = vec![("gateway.yaml", GATEWAY), ("plain.yaml", plain.as_str())];
        all.extend(files);
        let policies = Policies::new(&all)?;
        let daemon = Daemon::start(&netns, policies.path())?;
        Ok(Self {
            netns,
            policies,
            daemon,
            upstream,
        })
    }

    /// One after the other.
    fn ask(&self, path: &str, headers: &[(&str, &str)], count: usize) -> Result<Vec<Answer>> {
        let url = format!("{URL}{path}");
        let one = || {
            let mut answers = self.netns.enter(|| gets(&url, headers, 1))?;
            answers.pop().context("no answer")
        };
        (0..count).map(|_| one()).collect()
    }

    fn statuses(&self, path: &str, headers: &[(&str, &str)], count: usize) -> Result<Vec<u16>> {
        let answers = self.ask(path, headers, count)?;
        Ok(answers.iter().map(|one| one.status.as_u16()).collect())
    }

    fn metrics(&self) -> Result<Page> {
        self.daemon.metrics(&self.netns)
    }

    /// Answered, errors, over a limit, passed in spite of errors.
    fn counted(&self) -> Result<[f64; 4]> {
        let page = self.metrics()?;
        let events = ["ok", "error", "over_limit", "failure_mode_allowed"];
        Ok(events.map(|event| page.sum(&format!("envoy_cluster_ratelimit_{event}"), &[UPSTREAM])))
    }

    fn admin(&self, method: Method, path: &str) -> Result<Answer> {
        let request = || -> Result<Request<Full<Bytes>>> {
            let url = format!("http://{ADMIN}{path}");
            Ok(Request::builder()
                .method(&method)
                .uri(url)
                .body(Full::default())?)
        };
        let answers = self.netns.enter(|| many(Speak::Http1, vec![request()?]))?;
        answers.into_iter().next().context("no answer")
    }

    fn set(&self, query: &str) -> Result<()> {
        let answer = self.admin(Method::POST, &format!("/runtime_modify?{query}"))?;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, "OK\n".into())
        );
        Ok(())
    }
}

const SHOP: &str = "
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: year, requests_per_unit: 2, name: per-user }
  - key: remote_address
    rate_limit: { unit: year, requests_per_unit: 100 }
";

const USER: &str = "{actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]}";

#[test]
fn its_own_domains_limit_requests() -> Result<()> {
    let policy = asks(
        "asks",
        ON_GATEWAY,
        &format!(
            "filters: [{{domain: shop, enable_x_ratelimit_headers: DRAFT_VERSION_03, enableRetryAfterHeader: true}}]
  rate_limits: [{USER}, {{actions: [{{remote_address: {{}}}}]}}]"
        ),
    );
    let scene = Scene::start(&[("asks.yaml", &policy), ("shop.yaml", SHOP)])?;
    let alice = scene.ask("/", &[("x-user", "alice")], 3)?;
    let statuses: Vec<_> = alice.iter().map(|one| one.status.as_u16()).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let limits = "2, 2;w=31536000;name=\"per-user\", 100;w=31536000";
    for (answer, left) in alice.iter().zip(["1", "0", "0"]) {
        assert_eq!(answer.header("x-ratelimit-limit"), limits);
        assert_eq!(answer.header("x-ratelimit-remaining"), left);
    }
    let [first, _, denied] = &alice[..] else {
        anyhow::bail!("three answers");
    };
    assert_eq!(first.header("x-envoy-ratelimited"), "");
    assert_eq!(first.header("retry-after"), "");
    assert_eq!(denied.header("x-envoy-ratelimited"), "true");
    assert_eq!(
        denied.header("retry-after"),
        denied.header("x-ratelimit-reset")
    );
    assert_eq!(
        (denied.text(), denied.header("content-type")),
        (String::new(), "")
    );
    // Another user, and one that says nothing: there is no descriptor of it.
    assert_eq!(scene.statuses("/", &[("x-user", "bob")], 1)?, [200]);
    let nobody = &scene.ask("/", &[], 1)?[0];
    // What was denied was charged nothing: three of alice and bob, and this one.
    assert_eq!(nobody.header("x-ratelimit-remaining"), "96");
    assert_eq!(scene.counted()?, [4.0, 0.0, 1.0, 0.0]);

    let config = scene.daemon.config(&scene.netns)?;
    let asks = &config["plan"]["listeners"][0]["routes"][0]["rules"][0]["asks"][0];
    let said = asks["filter"].as_str().unwrap_or_default();
    assert!(
        said.contains("asks limiterd about the domain `shop`"),
        "{config}"
    );
    assert_eq!(asks["descriptors"][0], "(user: header x-user)");
    let question = serde_json::json!({
        "method": "GET", "url": "http://127.0.0.1:8080/", "headers": ["x-user: eve"], "from": "192.0.2.7",
    });
    let request = Request::post(format!("http://{ADMIN}/explain"))
        .header("content-type", "application/json")
        .body(Full::from(question.to_string()))?;
    let told = scene.netns.enter(|| many(Speak::Http1, vec![request]))?;
    let told: serde_json::Value =
        serde_json::from_slice(&told[0].body).with_context(|| told[0].text())?;
    assert_eq!(told["asks"][1], "(user=eve)");
    assert_eq!(told["asks"][2], "(remote_address=192.0.2.7)");
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

/// Another limiterd that serves `SHOP`.
fn another(netns: &Netns, rls: &str, extra: &str) -> Result<(Policies, Process)> {
    let config = format!(
        "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{ name: limiterd }}
spec: {{ admin: {{ address: '127.0.0.1:9902' }}, rls: {{ listen: '{SERVICE}', {rls} }} }}
{extra}"
    );
    let policies = Policies::new(&[("0.yaml", &config), ("shop.yaml", SHOP)])?;
    let dir = policies.path().to_str().context("a path")?;
    let process = Process::start(netns, &["run", "--config", dir])?;
    netns.enter(|| {
        eventually("the other limiterd", || {
            let answer = get("http://127.0.0.1:9902/ready");
            Ok(answer.ok().filter(|answer| answer.status == 200))
        })
    })?;
    Ok((policies, process))
}

/// Until the filter of `scene` gets answers, or none.
fn until(scene: &Scene, answered: bool) -> Result<()> {
    eventually("the service to come or go", || {
        let before = scene.counted()?;
        scene.ask("/", &[("x-user", "probe")], 1)?;
        let now = scene.counted()?;
        let found = if answered {
            now[0] + now[2] > before[0] + before[2]
        } else {
            now[1] > before[1]
        };
        Ok(found.then_some(()))
    })
}

#[test]
fn another_limiterd_is_asked_and_may_come_and_go() -> Result<()> {
    let netns = Netns::new("filter")?;
    let policy = asks(
        "asks",
        ON_GATEWAY,
        &format!(
            "filters: [{}]\n  rateLimits: [{USER}]",
            filter("timeout: 2s, enable_x_ratelimit_headers: DRAFT_VERSION_03")
        ),
    );
    let (policies, mut other) = another(&netns, "", "")?;
    // Each worker has a connection of its own, which comes back when it does.
    let one_worker = "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: { name: limiterd }
spec: { http: { workers: 1 } }
";
    let files = [("asks.yaml", policy.as_str()), ("0.yaml", one_worker)];
    let scene = Scene::start_in(netns, &files)?;
    let answers = scene.ask("/", &[("x-user", "alice")], 3)?;
    let statuses: Vec<_> = answers.iter().map(|one| one.status.as_u16()).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let limits = "2, 2;w=31536000;name=\"per-user\"";
    assert_eq!(answers[0].header("x-ratelimit-limit"), limits);
    assert_eq!(answers[2].header("x-ratelimit-remaining"), "0");
    assert_eq!(scene.counted()?, [2.0, 0.0, 1.0, 0.0]);
    let up = scene.metrics()?.sum(
        "limiterd_asked_service_connections",
        &[("service", SERVICE)],
    );
    assert!(up >= 1.0, "{up}");

    // It is gone: everybody passes, and that is counted.
    other.signal(rustix::process::Signal::KILL)?;
    other.wait()?;
    until(&scene, false)?;
    assert_eq!(
        scene.statuses("/", &[("x-user", "alice")], 3)?,
        [200, 200, 200]
    );
    let [_, errors, _, allowed] = scene.counted()?;
    assert!(errors >= 4.0 && allowed == errors, "{errors} {allowed}");
    // Nobody passes where the filter denies then.
    let denying = policy.replace("timeout: 2s", "timeout: 2s, failureModeDeny: true");
    scene.policies.write("asks.yaml", &denying)?;
    scene.daemon.reload(&scene.netns)?;
    let failed = &scene.ask("/", &[("x-user", "alice")], 1)?[0];
    assert_eq!(
        (failed.status.as_u16(), failed.text()),
        (500, String::new())
    );
    assert_eq!(failed.header("x-ratelimit-limit"), "");
    scene.policies.write(
        "asks.yaml",
        &denying.replace("Deny: true", "Deny: true, statusOnError: {code: 503}"),
    )?;
    scene.daemon.reload(&scene.netns)?;
    assert_eq!(scene.statuses("/", &[("x-user", "alice")], 1)?, [503]);

    // It is back, with its counts begun anew.
    drop(policies);
    let (_policies, _other) = another(&scene.netns, "", "")?;
    until(&scene, true)?;
    assert_eq!(
        scene.statuses("/", &[("x-user", "carol")], 3)?,
        [200, 200, 429]
    );
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

#[test]
fn another_limiterd_is_asked_by_tls_with_a_certificate() -> Result<()> {
    let netns = Netns::new("filter")?;
    let authority = Authority::new()?;
    let server = format!(
        "---\n{}",
        authority.secret_with_authority("server", "rls.test")?
    );
    let client = authority.secret_with_authority("client", "client.test")?;
    let tls = "tls: {certificateRefs: [{name: server}], clientValidation: {caCertificateRefs: [{name: server}]}}";
    let (_policies, _other) = another(&netns, tls, &server)?;
    let by = |tls: &str| {
        asks(
            "asks",
            ON_GATEWAY,
            &format!(
                "filters: [{{domain: shop, failureModeDeny: true, timeout: 5s, service: {{address: '{SERVICE}', tls: {{{tls}}}}}}}]
  rateLimits: [{USER}]"
            ),
        )
    };
    let known = by("certificateRef: {name: client}, hostname: rls.test");
    let ours = format!("{known}---\n{client}");
    let scene = Scene::start_in(netns, &[("asks.yaml", &ours)])?;
    assert_eq!(
        scene.statuses("/", &[("x-user", "alice")], 3)?,
        [200, 200, 429]
    );
    // Without our certificate, and by a name that is not the service's.
    for tls in [
        "caCertificateRefs: [{name: client}], hostname: rls.test",
        "certificateRef: {name: client}, hostname: other.test",
    ] {
        scene
            .policies
            .write("asks.yaml", &ours.replace(&known, &by(tls)))?;
        scene.daemon.reload(&scene.netns)?;
        assert_eq!(
            scene.statuses("/", &[("x-user", "bob")], 1)?,
            [500],
            "{tls}"
        );
    }
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

/// What is sent of a request, to the byte.
#[test]
fn questions_are_those_of_envoys_filter() -> Result<()> {
    let netns = Netns::new("filter")?;
    let service = RlsPeer::start(&netns, SERVICE, |_| Said::plainly(Code::Ok))?;
    let above = asks(
        "above",
        ON_GATEWAY,
        &format!(
            "filters: [{}, {}, {{type: decoder, name: rate_limit, config: {{domain: first, stage: 2, request_type: internal}}, service: {{address: '{SERVICE}'}}}}]
  rateLimits:
  - actions: [{{source_cluster: {{}}}}, {{destination_cluster: {{}}}}]
  - {{stage: 1, actions: [{{generic_key: {{descriptor_value: one}}}}]}}
  - {{stage: 2, actions: [{{generic_key: {{descriptor_value: two}}}}]}}",
            filter("timeout: 5s"),
            filter("timeout: 5s, stage: 1, request_type: external"),
        ),
    );
    let own = asks(
        "own",
        "kind: HTTPRoute, name: plain",
        "vhRateLimits: Include
  rateLimits:
  - actions:
    - request_headers: {header_name: ':path', descriptor_key: PATH}
    - remote_address: {}
    limit: {rate_limit: {requests_per_unit: 7, unit: HOUR}}
    hits_addend: {number: 3}
  - {actions: [{request_headers: {header_name: x-none, descriptor_key: none}}]}
  - {actions: [{query_parameters: {query_parameter_name: q, descriptor_key: q}}], hits_addend: {number: 0, is_negative_hits: true}}
  - {actions: [{generic_key: {descriptor_value: done}}], apply_on_stream_done: true}",
    );
    let scene = Scene::start_in(netns, &[("above.yaml", &above), ("own.yaml", &own)])?;
    assert_eq!(scene.statuses("/shop?q=a%20b", &[], 1)?, [200]);
    let mut first = question(
        "shop",
        &[
            "PATH=/shop?q,remote_address=127.0.0.1",
            "q=a b",
            "source_cluster=default/eg,destination_cluster=default/demo",
        ],
    );
    first.descriptors[0].entries[0].value = "/shop?q=a%20b".into();
    first.descriptors[0].limit = Some(RateLimitOverride {
        requests_per_unit: 7,
        unit: Unit::Hour.into(),
    });
    first.descriptors[0].hits_addend = Some(3);
    first.descriptors[1].hits_addend = Some(0);
    first.descriptors[1].is_negative_hits = true;
    let second = question("shop", &["generic_key=one"]);
    let last = question("shop", &["generic_key=done"]);
    let wanted = [first, second, last].map(|one| Bytes::from(one.encode_to_vec()));
    eventually("the question at the end", || {
        Ok((service.messages().len() >= 3).then_some(()))
    })?;
    assert_eq!(service.messages(), wanted);

    // An internal request: the loopback may say that it is one.
    scene.ask("/shop", &[("x-envoy-internal", "true")], 1)?;
    eventually("the question at the end", || {
        Ok((service.messages().len() >= 6).then_some(()))
    })?;
    let questions = service.questions()?;
    let asked: Vec<_> = questions[3..]
        .iter()
        .map(|one| (&*one.domain, one.descriptors.len()))
        .collect();
    assert_eq!(asked, [("shop", 2), ("first", 1), ("shop", 1)]);
    assert_eq!(questions[4].descriptors, [descriptor("generic_key=two")]);
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

/// A service that denies, or admits, as the flag says.
fn switchable(netns: &Netns) -> Result<(RlsPeer, Arc<AtomicBool>)> {
    let denies = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&denies);
    let service = RlsPeer::start(netns, SERVICE, move |_| {
        let over = flag.load(Ordering::SeqCst);
        Said::plainly(if over { Code::OverLimit } else { Code::Ok })
    })?;
    Ok((service, denies))
}

#[test]
fn tokens_of_local_limits_come_back_if_the_service_denies() -> Result<()> {
    let netns = Netns::new("filter")?;
    let (_service, denies) = switchable(&netns)?;
    let policy = asks(
        "asks",
        ON_GATEWAY,
        &format!(
            "filters: [{}]\n  rateLimits: [{USER}]",
            filter("timeout: 5s")
        ),
    );
    let local = traffic(
        "local",
        ("Gateway", "eg"),
        "      - limit: {requests: 2, unit: Year}\n",
    );
    let scene = Scene::start_in(netns, &[("asks.yaml", &policy), ("local.yaml", &local)])?;
    let alice = [("x-user", "alice")];
    let denied = scene.ask("/", &alice, 5)?;
    for answer in &denied {
        assert_eq!(answer.status, 429);
        // The filter has no body, the local limit has.
        assert_eq!(answer.text(), "");
        assert_eq!(answer.header("x-ratelimit-remaining"), "1");
    }
    denies.store(false, Ordering::SeqCst);
    assert_eq!(scene.statuses("/", &alice, 3)?, [200, 200, 429]);
    let refunded = scene
        .metrics()?
        .sum("limiterd_rate_limit_refunded_tokens_total", &[]);
    assert_eq!((scene.counted()?, refunded), ([2.0, 0.0, 5.0, 0.0], 5.0));
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

#[test]
fn what_the_service_sends_along_is_passed_on() -> Result<()> {
    let netns = Netns::new("filter")?;
    let header = |key: &str, value: &str| HeaderValue {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let over = |question: &RateLimitRequest| question.descriptors[0].entries[0].value == "mallory";
    let _service = RlsPeer::start(&netns, SERVICE, move |question| {
        let code = if over(question) {
            Code::OverLimit
        } else {
            Code::Ok
        };
        Said::Answer(RateLimitResponse {
            overall_code: code.into(),
            statuses: vec![status(code, 10, 4)],
            response_headers_to_add: vec![
                header("x-told", "yes"),
                header("content-type", "application/json"),
            ],
            request_headers_to_add: vec![header("x-tier", "gold"), header("content-length", "99")],
            raw_body: b"{\"slow\":\"down\"}".to_vec(),
            ..RateLimitResponse::default()
        })
    })?;
    let policy = asks(
        "asks",
        ON_GATEWAY,
        &format!(
            "filters: [{}]\n  rateLimits: [{USER}]",
            filter(
                "timeout: 5s, enableXRatelimitHeaders: DRAFT_VERSION_03, rateLimitedStatus: {code: 503}, responseHeadersToAdd: [{header: {key: x-own, value: v}}], statPrefix: outer"
            )
        ),
    );
    let scene = Scene::start_in(netns, &[("asks.yaml", &policy)])?;
    let passed = &scene.ask("/", &[("x-user", "alice")], 1)?[0];
    assert_eq!(passed.header("x-told"), "yes");
    assert_eq!(passed.header("x-own"), "");
    assert_eq!(passed.header("x-ratelimit-limit"), "10, 10;w=60");
    assert_eq!(scene.upstream.last()?.header("x-tier"), "gold");
    assert_eq!(scene.upstream.last()?.header("content-length"), "");
    let denied = &scene.ask("/", &[("x-user", "mallory")], 1)?[0];
    assert_eq!(
        (denied.status.as_u16(), denied.text()),
        (503, "{\"slow\":\"down\"}".into())
    );
    for (name, value) in [
        ("x-told", "yes"),
        ("x-own", "v"),
        ("content-type", "application/json"),
        ("x-envoy-ratelimited", "true"),
        ("x-ratelimit-remaining", "4"),
    ] {
        assert_eq!(denied.header(name), value, "{name}");
    }
    let page = scene.metrics()?;
    assert_eq!(
        page.sum("envoy_cluster_ratelimit_outer_ok", &[UPSTREAM]),
        1.0
    );
    assert_eq!(
        page.sum("envoy_cluster_ratelimit_outer_over_limit", &[UPSTREAM]),
        1.0
    );
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

#[test]
fn a_service_that_says_nothing_or_refuses_is_not_waited_for() -> Result<()> {
    let netns = Netns::new("filter")?;
    let _service = RlsPeer::start(&netns, SERVICE, |question| {
        match &*question.descriptors[0].entries[0].value {
            "silent" => Said::Nothing,
            "refused" => Said::Refuse(14),
            _ => Said::plainly(Code::Ok),
        }
    })?;
    let with = |fields: &str| {
        let filter = filter(fields);
        asks(
            "asks",
            ON_GATEWAY,
            &format!("filters: [{filter}]\n  rateLimits: [{USER}]"),
        )
    };
    let scene = Scene::start_in(netns, &[("asks.yaml", &with("timeout: 5s"))])?;
    assert_eq!(scene.statuses("/", &[("x-user", "alice")], 1)?, [200]);
    assert_eq!(scene.statuses("/", &[("x-user", "refused")], 1)?, [200]);
    scene
        .policies
        .write("asks.yaml", &with("failureModeDeny: true"))?;
    scene.daemon.reload(&scene.netns)?;
    assert_eq!(scene.statuses("/", &[("x-user", "silent")], 2)?, [500, 500]);
    assert_eq!(scene.statuses("/", &[("x-user", "refused")], 1)?, [500]);
    // Those that are silent hold nobody else up.
    scene
        .policies
        .write("asks.yaml", &with("timeout: 5s, failureModeDeny: true"))?;
    scene.daemon.reload(&scene.netns)?;
    assert_eq!(scene.statuses("/", &[("x-user", "alice")], 1)?, [200]);
    assert_eq!(scene.counted()?, [2.0, 4.0, 0.0, 1.0]);
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

#[test]
fn settings_change_while_it_runs() -> Result<()> {
    let netns = Netns::new("filter")?;
    let (service, _denies) = switchable(&netns)?;
    let policy = asks(
        "asks",
        ON_GATEWAY,
        &format!(
            "filters: [{}]
  rateLimits: [{{disable_key: login, actions: [{{generic_key: {{descriptor_value: a}}}}]}}, {{actions: [{{generic_key: {{descriptor_value: b}}}}]}}]",
            filter("timeout: 5s")
        ),
    );
    let config = |runtime: &str| {
        format!(
            "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{ name: limiterd }}
spec: {{ runtime: {{ {runtime} }} }}
"
        )
    };
    let scene = Scene::start_in(
        netns,
        &[
            ("asks.yaml", &policy),
            ("0.yaml", &config("ratelimit.http_filter_enforcing: 0")),
        ],
    )?;
    let gauge = |key: &str| -> Result<f64> {
        Ok(scene
            .metrics()?
            .sum("limiterd_runtime_percent", &[("key", key)]))
    };
    let enforcing = "ratelimit.http_filter_enforcing";
    let enabled = "ratelimit.http_filter_enabled";
    let login = "ratelimit.login.http_filter_enabled";
    // By the file: asked and counted, and not denied.
    assert_eq!(scene.statuses("/", &[], 2)?, [200, 200]);
    assert_eq!(scene.counted()?, [0.0, 0.0, 2.0, 0.0]);
    assert_eq!(
        (gauge(enforcing)?, gauge(enabled)?, gauge(login)?),
        (0.0, 100.0, 100.0)
    );
    // By the admin API, which wins over the file, also after it was read again.
    scene.set(&format!("{enforcing}=100"))?;
    assert_eq!(scene.statuses("/", &[], 1)?, [429]);
    scene
        .policies
        .write("0.yaml", &config("ratelimit.http_filter_enforcing: 1"))?;
    scene.daemon.reload(&scene.netns)?;
    assert_eq!(scene.statuses("/", &[], 1)?, [429]);
    let told = scene.admin(Method::GET, "/runtime")?;
    let told: serde_json::Value = serde_json::from_slice(&told.body)?;
    let entry = &told["entries"][enforcing];
    assert_eq!(entry["layer_values"], serde_json::json!(["1", "100"]));
    assert_eq!(entry["final_value"], "100");
    // One descriptor is switched off, then the filter.
    scene.set(&format!("{login}=0"))?;
    assert_eq!(scene.statuses("/", &[], 1)?, [429]);
    let questions = service.questions()?;
    let sent = |at: usize| questions[at].descriptors.len();
    assert_eq!(
        (sent(0), questions.last().map(|last| last.descriptors.len())),
        (2, Some(1))
    );
    scene.set(&format!("{enabled}=0"))?;
    assert_eq!(scene.statuses("/", &[], 3)?, [200, 200, 200]);
    assert_eq!(service.questions()?.len(), questions.len());
    assert_eq!(
        (gauge(enforcing)?, gauge(enabled)?, gauge(login)?),
        (100.0, 0.0, 0.0)
    );
    // Cleared: what the file says holds again.
    scene
        .policies
        .write("0.yaml", &config("ratelimit.http_filter_enforcing: 0"))?;
    scene.daemon.reload(&scene.netns)?;
    scene.set(&format!("{enabled}=&{enforcing}=&{login}="))?;
    assert_eq!(scene.statuses("/", &[], 1)?, [200]);
    assert_eq!(
        service
            .questions()?
            .last()
            .map(|last| last.descriptors.len()),
        Some(2)
    );
    let wrong = scene.admin(Method::POST, &format!("/runtime_modify?{enabled}=200"))?;
    assert_eq!(wrong.status, 400);
    let page = Request::post(format!("http://{ADMIN}/runtime_modify?{enabled}=20"))
        .header("origin", "http://evil.example")
        .body(Full::default())?;
    let answers = scene.netns.enter(|| many(Speak::Http1, vec![page]))?;
    assert_eq!(answers[0].status, 403);
    let wrong = scene.admin(Method::GET, &format!("/runtime_modify?{enabled}=20"))?;
    assert_eq!(wrong.status, 405);
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

/// Of 200 requests at once, as many pass as may: by limiterd itself, and by another over gRPC.
#[test]
fn requests_at_once_are_counted_exactly() -> Result<()> {
    let netns = Netns::new("filter")?;
    let (_policies, _other) = another(&netns, "", "")?;
    let by = |service: &str| {
        asks(
            "asks",
            ON_GATEWAY,
            &format!(
                "filters: [{{domain: shop, timeout: 30s, failureModeDeny: true, {service}}}]
  rateLimits: [{{actions: [{{remote_address: {{}}}}]}}]"
            ),
        )
    };
    let elsewhere = by(&format!("service: {{address: '{SERVICE}'}}"));
    let files = [("asks.yaml", elsewhere.as_str()), ("shop.yaml", SHOP)];
    let scene = Scene::start_in(netns, &files)?;
    for (ok, policy) in [(100.0, &elsewhere), (200.0, &by("stage: 0"))] {
        scene.policies.write("asks.yaml", policy)?;
        scene.daemon.reload(&scene.netns)?;
        let answers = scene.netns.enter(|| gets(URL, &[], 200))?;
        assert_eq!(
            [count(&answers, 200), count(&answers, 429)],
            [100, 100],
            "{policy}"
        );
        assert_eq!(scene.counted()?, [ok, 0.0, ok, 0.0]);
    }
    assert!(scene.daemon.stop()?.success());
    Ok(())
}

/// `examples/ratelimit-filter`, as its document tells it.
#[test]
fn the_example_does_what_its_document_says() -> Result<()> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/ratelimit-filter");
    let netns = Netns::new("filter")?;
    let _upstream = Upstream::echo(&netns, BACKEND)?;
    let daemon = Daemon::start(&netns, std::path::Path::new(dir))?;
    let ask = |path: &str, user: &str, count: usize| -> Result<Vec<u16>> {
        let url = format!("{URL}{path}");
        let answers = netns.enter(|| gets(&url, &[("x-user", user)], count))?;
        let mut statuses: Vec<_> = answers.iter().map(|one| one.status.as_u16()).collect();
        statuses.sort_unstable();
        Ok(statuses)
    };
    assert_eq!(ask("/login", "alice", 5)?, [200, 200, 200, 429, 429]);
    // Of 20 an hour three are used: what was denied was charged nothing.
    let statuses = ask("/", "alice", 19)?;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 17);
    assert_eq!(ask("/login", "bob", 1)?, [200]);
    let modify = Request::post(format!(
        "http://{ADMIN}/runtime_modify?ratelimit.login.http_filter_enabled=0"
    ));
    let modify = modify.body(Full::default())?;
    let answers = netns.enter(|| many(Speak::Http1, vec![modify]))?;
    assert_eq!(answers[0].status, 200);
    assert_eq!(ask("/login", "bob", 5)?, [200; 5]);
    assert!(daemon.stop()?.success());
    Ok(())
}
