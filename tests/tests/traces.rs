//! Traces of a running daemon: what is in a span, whose child it is, what goes on to the upstream, and
//! that a collector that is slow, away or unwilling holds nothing up.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use tests::collector::{Collected, Collector, Made};
use tests::daemon::{ADMIN, Daemon, Policies, eventually};
use tests::http_client::{Answer, get, gets};
use tests::netns::Netns;
use tests::policies::{GATEWAY, route, traffic};
use tests::rls::{ask_with, question};
use tests::tls::Authority;
use tests::upstream::Upstream;
use tonic::Code;

const COLLECTOR: &str = "127.0.0.1:4317";
const BACKEND: &str = "127.0.0.1:3000";
const URL: &str = "http://127.0.0.1:8080/api/things?key=hidden";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const TWO_A_USER: &str = "      - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
        limit: {requests: 2, unit: Hour}\n";

/// Policies whose LimiterConfig has these fields beside.
fn policies(fields: &str) -> Result<Policies> {
    let config = format!(
        "apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
{fields}"
    );
    Policies::new(&[
        ("limiterd.yaml", &config),
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/api")),
        (
            "limits.yaml",
            &traffic("p", ("HTTPRoute", "api"), TWO_A_USER),
        ),
    ])
}

struct Scene {
    netns: Netns,
    upstream: Upstream,
    daemon: Daemon,
    _policies: Policies,
}

impl Scene {
    fn start(name: &str, fields: &str) -> Result<Self> {
        let netns = Netns::new(name)?;
        Self::start_in(netns, fields)
    }

    fn start_in(netns: Netns, fields: &str) -> Result<Self> {
        let policies = policies(fields)?;
        Ok(Self {
            upstream: Upstream::echo(&netns, BACKEND)?,
            daemon: Daemon::start(&netns, policies.path())?,
            _policies: policies,
            netns,
        })
    }

    fn ask(&self, headers: &[(&str, &str)]) -> Result<Answer> {
        let answer = self.netns.enter(|| gets(URL, headers, 1))?.pop();
        answer.context("no answer")
    }

    fn spans(&self, result: &str) -> Result<f64> {
        let page = self.daemon.metrics(&self.netns)?;
        Ok(page.sum("limiterd_trace_spans_total", &[("result", result)]))
    }

    /// Waits until so many spans have come to this.
    fn counted(&self, result: &str, count: f64) -> Result<()> {
        eventually("spans to be counted", || {
            Ok((self.spans(result)? >= count).then_some(()))
        })
        .with_context(|| self.daemon.process.output())
    }
}

#[test]
fn a_request_is_a_span_with_the_decision_as_the_access_log_has_it() -> Result<()> {
    let netns = Netns::new("trace")?;
    let collector = Collector::start(&netns, COLLECTOR, None)?;
    let place = tempfile::tempdir()?;
    let log = place.path().join("access.log");
    let fields = format!(
        "  accessLog: {{path: {}}}
  tracing: {{otlp: {{endpoint: 'http://{COLLECTOR}'}}, sampling: 0}}\n",
        log.display()
    );
    let scene = Scene::start_in(netns, &fields)?;
    let told = [
        ("x-user-id", "alice"),
        ("traceparent", SAMPLED),
        ("tracestate", "a=1,b=2"),
        ("x-request-id", "mine"),
        ("user-agent", "test"),
    ];
    let statuses = [(); 3].map(|()| scene.ask(&told).map(|answer| answer.status.as_u16()));
    let statuses: Vec<_> = statuses.into_iter().collect::<Result<_>>()?;
    assert_eq!(statuses, [200, 200, 429]);
    // Who is not sampled, and nobody at all: neither has a span, and the first context goes on as it is.
    assert_eq!(scene.ask(&[("traceparent", UNSAMPLED)])?.status, 200);
    assert_eq!(scene.ask(&[])?.status, 200);

    let spans = collector.spans("limiterd", 3)?;
    assert_eq!(spans.len(), 3);
    let seen = scene.upstream.seen();
    for (index, collected) in spans.iter().enumerate() {
        let [trace, id, parent] = collected.ids();
        assert_eq!(
            [trace.as_str(), parent.as_str()],
            [TRACE, "b7ad6b7169203331"]
        );
        assert!(collected.by_grpc);
        assert_eq!(collected.span.name, "GET /api");
        assert_eq!(collected.span.trace_state, "a=1,b=2");
        assert_eq!(
            collected.span.flags, 0x301,
            "sampled, of a parent elsewhere"
        );
        assert!(collected.span.end_time_unix_nano >= collected.span.start_time_unix_nano);
        for (key, value) in [
            ("http.request.method", "GET"),
            ("url.path", "/api/things"),
            ("url.scheme", "http"),
            ("http.route", "/api"),
            ("server.address", "127.0.0.1"),
            ("server.port", "8080"),
            ("client.address", "127.0.0.1"),
            ("network.peer.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "test"),
            ("limiterd.route", "default/api/rule/0"),
            ("limiterd.limit", "default/p"),
            ("limiterd.rule", "default/p/rule/0"),
            ("limiterd.descriptor", "x-user-id"),
        ] {
            assert_eq!(collected.attribute(key), value, "{key}");
        }
        let text = String::from_utf8_lossy(&collected.span.encode_to_vec()).into_owned();
        for secret in ["alice", "hidden"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        if index == 2 {
            for (key, value) in [
                ("http.response.status_code", "429"),
                ("limiterd.decision", "over_limit"),
                ("limiterd.response_flags", "RL"),
                ("limiterd.refused", "rate_limited"),
                ("limiterd.remaining", "0"),
                ("limiterd.backend", ""),
                ("error.type", ""),
            ] {
                assert_eq!(collected.attribute(key), value, "{key}");
            }
        } else {
            for (key, value) in [
                ("http.response.status_code", "200"),
                ("limiterd.decision", "ok"),
                ("limiterd.remaining", ["1", "0"][index]),
                ("limiterd.backend", "default/demo"),
                ("limiterd.upstream.address", BACKEND),
                ("limiterd.retries", "0"),
            ] {
                assert_eq!(collected.attribute(key), value, "{key}");
            }
            let head = &seen[index];
            let ours = format!("00-{TRACE}-{id}-01");
            assert_eq!(head.header("traceparent"), ours, "our span is the parent");
            assert_eq!(head.header("tracestate"), "a=1,b=2");
            let request_id = head.header("x-request-id");
            assert_eq!(
                collected.attribute("http.request.header.x-request-id"),
                request_id
            );
        }
    }
    assert_eq!(seen[2].header("traceparent"), UNSAMPLED);
    assert_eq!(seen[3].header("traceparent"), "");

    let lines = eventually("the access log", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        Ok((lines.len() == 5).then_some(lines))
    })?;
    for (line, collected) in lines.iter().zip(&spans) {
        let [trace, id, _] = collected.ids();
        assert_eq!(line["traceparent"], format!("00-{trace}-{id}-01"));
        for (field, key) in [
            (&line["rate_limit"]["decision"], "limiterd.decision"),
            (&line["rate_limit"]["rule"], "limiterd.rule"),
            (&line["response_flags"], "limiterd.response_flags"),
            (&line["route_name"], "limiterd.route"),
            (&line["x-request-id"], "http.request.header.x-request-id"),
        ] {
            assert_eq!(*field, collected.attribute(key), "{key}");
        }
    }
    assert_eq!(lines[3]["traceparent"], UNSAMPLED);
    scene.counted("exported", 3.0)?;
    assert!(scene.daemon.stop()?.success());
    assert_eq!(collector.collected().len(), 3);
    Ok(())
}

#[test]
fn traces_begin_here_and_go_by_http_with_headers_of_a_file() -> Result<()> {
    let place = tempfile::tempdir()?;
    let headers = place.path().join("headers");
    fs::write(&headers, "# who we are\nauthorization: Bearer abc\n")?;
    let netns = Netns::new("tracehttp")?;
    let collector = Collector::start(&netns, COLLECTOR, None)?;
    let fields = format!(
        "  tracing:
    otlp: {{endpoint: 'http://{COLLECTOR}', protocol: Http, headersFile: {}}}
    sampling: 100
    serviceName: edge\n",
        headers.display()
    );
    let scene = Scene::start_in(netns, &fields)?;
    for traceparent in ["nonsense", SAMPLED, UNSAMPLED] {
        let answer = scene.ask(&[("traceparent", traceparent), ("tracestate", "a=1")])?;
        assert_eq!(answer.status, 200);
    }
    assert_eq!(scene.ask(&[])?.status, 200);
    let not_found = scene.netns.enter(|| get("http://127.0.0.1:8080/none"))?;
    assert_eq!(not_found.status, 404);
    let spans = collector.spans("edge", 4)?;
    let parents: Vec<_> = spans.iter().map(|span| span.ids()[2].clone()).collect();
    assert_eq!(parents, ["", "b7ad6b7169203331", "", ""]);
    let seen = scene.upstream.seen();
    let upstream: Vec<_> = seen.iter().map(|seen| seen.header("traceparent")).collect();
    let ours = |collected: &Collected, flags: &str| {
        let [trace, id, _] = collected.ids();
        format!("00-{trace}-{id}-{flags}")
    };
    assert_eq!(
        upstream,
        [
            ours(&spans[0], "03"),
            ours(&spans[1], "01"),
            UNSAMPLED.to_owned(),
            ours(&spans[2], "03"),
        ]
    );
    assert_eq!(seen[0].header("tracestate"), "", "it is another trace's");
    assert_eq!(seen[1].header("tracestate"), "a=1");
    for collected in &spans {
        assert!(!collected.by_grpc);
        assert_eq!(collected.headers["authorization"], "Bearer abc");
        assert_eq!(collected.headers["content-type"], "application/x-protobuf");
    }
    assert_eq!(spans[3].span.name, "GET");
    assert_eq!(spans[3].attribute("limiterd.response_flags"), "NR");
    assert_eq!(spans[3].attribute("limiterd.decision"), "");
    Ok(())
}

#[test]
fn who_is_not_believed_has_no_say_over_traces() -> Result<()> {
    let fields = format!(
        "  tracing: {{otlp: {{endpoint: 'http://{COLLECTOR}'}}, sampling: 0, parent: Ignore}}\n"
    );
    let scene = Scene::start("traceno", &fields)?;
    scene.ask(&[("traceparent", SAMPLED), ("tracestate", "a=1")])?;
    let seen = scene.upstream.seen();
    assert_eq!(seen[0].header("traceparent"), "");
    assert_eq!(seen[0].header("tracestate"), "");
    Ok(())
}

#[test]
fn a_collector_that_is_away_or_unwilling_holds_nothing_up() -> Result<()> {
    let fields = format!(
        "  tracing: {{otlp: {{endpoint: 'http://{COLLECTOR}', timeout: 1s}}, sampling: 100}}\n"
    );
    let scene = Scene::start("traceaway", &fields)?;
    for _ in 0..3 {
        assert_eq!(scene.ask(&[])?.status, 200);
    }
    scene.counted("failed", 3.0)?;
    let said = scene.daemon.process.output();
    assert_eq!(
        said.matches("spans cannot be exported").count(),
        1,
        "{said}"
    );

    let collector = Collector::start(&scene.netns, COLLECTOR, None)?;
    // What passes is tried again, what lasts is not.
    collector.next(&[Made::Refused(Code::Unavailable)]);
    scene.ask(&[])?;
    collector.spans("limiterd", 1)?;
    scene.counted("exported", 1.0)?;
    collector.next(&[Made::Refused(Code::PermissionDenied)]);
    scene.ask(&[])?;
    scene.counted("failed", 4.0)?;
    collector.next(&[Made::Rejected(1)]);
    scene.ask(&[])?;
    scene.counted("rejected", 1.0)?;
    let counts = ["exported", "dropped", "failed", "rejected"].map(|result| scene.spans(result));
    let counts: Vec<_> = counts.into_iter().collect::<Result<_>>()?;
    assert_eq!(counts, [1.0, 0.0, 4.0, 1.0]);
    // What is in the queue at the end is sent.
    scene.ask(&[])?;
    let before = collector.collected().len();
    assert!(scene.daemon.stop()?.success());
    assert_eq!(collector.collected().len(), before + 1);
    Ok(())
}

#[test]
fn a_collector_is_spoken_to_by_tls() -> Result<()> {
    let authority = Authority::new()?;
    let place = tempfile::tempdir()?;
    let ca = place.path().join("ca.pem");
    fs::write(&ca, authority.pem())?;
    for (name, protocol, alpn) in [
        ("tracetlsg", "Grpc", "h2"),
        ("tracetlsh", "Http", "http/1.1"),
    ] {
        let netns = Netns::new(name)?;
        let mut server = (*authority.server("localhost")?).clone();
        server.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let collector = Collector::start(&netns, COLLECTOR, Some(server.into()))?;
        let fields = format!(
            "  tracing:
    otlp: {{endpoint: 'https://localhost:4317', protocol: {protocol}, caFile: {}}}
    sampling: 100\n",
            ca.display()
        );
        let scene = Scene::start_in(netns, &fields)?;
        scene.ask(&[])?;
        let spans = collector.spans("limiterd", 1);
        let spans = spans.with_context(|| scene.daemon.process.output())?;
        assert_eq!(spans[0].by_grpc, protocol == "Grpc");
    }
    Ok(())
}

#[test]
fn a_question_to_the_rate_limit_service_is_a_span_if_its_caller_has_one() -> Result<()> {
    let netns = Netns::new("tracerls")?;
    let collector = Collector::start(&netns, COLLECTOR, None)?;
    let policies = Policies::new(&[
        (
            "limiterd.yaml",
            &format!(
                "apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: limiterd}}
spec:
  rls: {{listen: '127.0.0.1:8081'}}
  tracing: {{otlp: {{endpoint: 'http://{COLLECTOR}'}}, sampling: 100}}\n"
            ),
        ),
        (
            "shop.yaml",
            "domain: shop
descriptors:
- {key: user, rate_limit: {unit: year, requests_per_unit: 1}}\n",
        ),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let ask = |headers: &[(&'static str, &'static str)], domain: &str| {
        let question = question(domain, &["user=alice", "other=x,more=y"]);
        ask_with(&netns, "127.0.0.1:8081", headers, question)
    };
    ask(&[], "shop")?;
    ask(&[("traceparent", UNSAMPLED)], "shop")?;
    ask(&[("traceparent", SAMPLED)], "shop")?;
    ensure!(ask(&[("traceparent", SAMPLED)], "").is_err(), "no domain");
    let spans = collector.spans("limiterd", 2)?;
    assert_eq!(spans.len(), 2);
    for collected in &spans {
        let [trace, _, parent] = collected.ids();
        assert_eq!(
            [trace.as_str(), parent.as_str()],
            [TRACE, "b7ad6b7169203331"]
        );
        let method = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
        assert_eq!(collected.span.name, method);
        assert_eq!(
            collected.attribute("limiterd.descriptors"),
            "user other,more"
        );
        assert_eq!(collected.attribute("rpc.system"), "grpc");
        let text = String::from_utf8_lossy(&collected.span.encode_to_vec()).into_owned();
        assert!(!text.contains("alice"), "{text}");
    }
    assert_eq!(spans[0].attribute("limiterd.domain"), "shop");
    assert_eq!(spans[0].attribute("limiterd.decision"), "over_limit");
    assert_eq!(
        spans[0].attribute("limiterd.descriptors.over_limit"),
        "user"
    );
    assert_eq!(spans[0].attribute("rpc.grpc.status_code"), "0");
    assert_eq!(spans[1].attribute("rpc.grpc.status_code"), "3");
    assert_eq!(spans[1].attribute("limiterd.decision"), "");
    assert!(daemon.stop()?.success());
    Ok(())
}

#[test]
fn what_cannot_be_used_is_said_at_the_start() -> Result<()> {
    let netns = Netns::new("tracebad")?;
    for (otlp, wanted) in [
        (
            "{endpoint: 'http://127.0.0.1:4317', headersFile: /nowhere/headers}",
            ["/nowhere/headers", "spec.tracing.otlp.headersFile"],
        ),
        (
            "{endpoint: 'https://127.0.0.1:4317', caFile: /nowhere/ca.pem}",
            ["/nowhere/ca.pem", "spec.tracing.otlp.caFile"],
        ),
    ] {
        let policies = policies(&format!("  tracing: {{otlp: {otlp}}}\n"))?;
        let error = Daemon::start(&netns, policies.path()).err();
        let text = format!("{:#}", error.context("it started")?);
        for wanted in wanted {
            assert!(text.contains(wanted), "{text}");
        }
    }
    let policies = policies(&format!(
        "  tracing: {{otlp: {{endpoint: 'http://{COLLECTOR}'}}, sampling: 2.5}}\n"
    ))?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let config = netns
        .enter(|| get(&format!("http://{ADMIN}/config")))?
        .text();
    assert!(
        config.contains("2.5 % to http://127.0.0.1:4317"),
        "{config}"
    );
    assert!(daemon.stop()?.success());
    Ok(())
}
