//! One trace over a real Envoy and limiterd behind it: both send their spans to one collector.

use anyhow::{Context as _, Result};
use tests::collector::{Collected, Collector};
use tests::daemon::{Daemon, Policies};
use tests::envoy::{Envoy, cluster};
use tests::http_client::gets;
use tests::netns::Netns;
use tests::policies::{GATEWAY, route};
use tests::upstream::Upstream;

const POLICY: &str = "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {name: limiterd}
spec:
  rls: {listen: '127.0.0.1:8081'}
  tracing: {otlp: {endpoint: 'http://127.0.0.1:4317'}, sampling: 0}
---
domain: shop
descriptors:
- {key: user, rate_limit: {unit: year, requests_per_unit: 1}}
";

const ENVOY: &str = "
layered_runtime:
  layers:
  - name: static
    static_layer: {tracing: {opentelemetry: {min_flush_spans: 1}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          tracing:
            random_sampling: {value: 100}
            provider:
              name: envoy.tracers.opentelemetry
              typed_config:
                '@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
                grpc_service: {envoy_grpc: {cluster_name: collector}, timeout: 5s}
                service_name: envoy
          http_filters:
          - name: envoy.filters.http.ratelimit
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: shop
              timeout: 5s
              rate_limit_service:
                transport_api_version: V3
                grpc_service: {envoy_grpc: {cluster_name: rls}}
          - name: envoy.filters.http.router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {prefix: /}
                route:
                  cluster: limiterd
                  rate_limits:
                  - actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]
  clusters:";

#[test]
fn our_spans_are_children_of_envoys() -> Result<()> {
    let netns = Netns::new("traceenvoy")?;
    let collector = Collector::start(&netns, "127.0.0.1:4317", None)?;
    let upstream = Upstream::echo(&netns, "127.0.0.1:3000")?;
    let policies = Policies::new(&[
        ("all.yaml", POLICY),
        ("gateway.yaml", GATEWAY),
        ("route.yaml", &route("api", "/api")),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let config = [
        ENVOY,
        &cluster("limiterd", 8080, false),
        &cluster("rls", 8081, true),
        &cluster("collector", 4317, true),
        "\n",
    ]
    .concat();
    let envoy = Envoy::start(&netns, &config)?;
    let ask = |user: &str| {
        let url = "http://127.0.0.1:10000/api/x";
        let answer = netns.enter(|| gets(url, &[("x-user", user)], 1))?.pop();
        answer.with_context(|| envoy.process.output())
    };
    assert_eq!(ask("alice")?.status, 200);
    assert_eq!(ask("alice")?.status, 429);

    // Of the first request: the question and the request itself; of the second, the question.
    let ours = collector.spans("limiterd", 3)?;
    let ours = |name: &str, decision: &str| -> Result<Collected> {
        let mut found = ours.iter().filter(|collected| {
            collected.span.name == name
                && (decision.is_empty() || collected.attribute("limiterd.decision") == decision)
        });
        found
            .next()
            .cloned()
            .with_context(|| format!("no {name} that is {decision}"))
    };
    let method = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
    let request = ours("GET /api", "")?;
    let admitted = ours(method, "ok")?;
    let denied = ours(method, "over_limit")?;
    let envoys = |ours: &Collected| -> Result<Collected> {
        let [trace, _, parent] = ours.ids();
        tests::daemon::eventually("Envoy's span", || {
            let mut all = collector.collected().into_iter();
            Ok(all.find(|other| {
                let [of, id, _] = other.ids();
                other.service == "envoy" && of == trace && id == parent
            }))
        })
    };
    for span in [&request, &admitted, &denied] {
        envoys(span).with_context(|| format!("{span:?}"))?;
    }
    assert_eq!(
        request.ids()[0],
        admitted.ids()[0],
        "one request, one trace"
    );
    assert_ne!(request.ids()[0], denied.ids()[0]);
    let [trace, id, _] = request.ids();
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("traceparent"), format!("00-{trace}-{id}-01"));
    assert!(daemon.stop()?.success());
    Ok(())
}
