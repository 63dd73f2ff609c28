//! limiterd beside a real Envoy, with the same `rate_limits` and the same service to ask: the same
//! questions to the byte, and the same answers to clients.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use limiter_daemon::rls::proto::{
    Code, HeaderValue, RateLimit, RateLimitRequest, RateLimitResponse, Unit,
};
use tests::daemon::{Daemon, Policies, eventually};
use tests::envoy::Envoy;
use tests::http_client::{Answer, gets};
use tests::netns::Netns;
use tests::policies::{GATEWAY, route};
use tests::rls_peer::{RlsPeer, Said, status};
use tests::upstream::Upstream;

const LIMITERD: &str = "http://127.0.0.1:8080";
const ENVOY: &str = "http://127.0.0.1:10000";
const SERVICE: &str = "127.0.0.1:8081";
const BACKEND: &str = "127.0.0.1:3000";

/// Of the route, in Envoy's own words and indentation of a list.
const OF_ROUTE: &str = "
  - actions:
    - source_cluster: {}
    - destination_cluster: {}
    - remote_address: {}
    - masked_remote_address: {v4_prefix_mask_len: 8}
  - actions:
    - request_headers: {header_name: ':path', descriptor_key: PATH}
    - request_headers: {header_name: ':method', descriptor_key: METHOD}
    - request_headers: {header_name: ':authority', descriptor_key: HOST}
  - actions: [{request_headers: {header_name: x-user, descriptor_key: user}}]
  - actions:
    - generic_key: {descriptor_value: optional}
    - request_headers: {header_name: x-user, descriptor_key: user, skip_if_absent: true}
  - actions: [{query_parameters: {query_parameter_name: q, descriptor_key: q}}]
  - actions:
    - generic_key: {descriptor_key: own, descriptor_value: v}
    - query_parameters: {query_parameter_name: r, descriptor_key: r, skip_if_absent: true}
  - actions:
    - header_value_match: {descriptor_value: exact, headers: [{name: x-kind, string_match: {exact: free}}]}
  - actions:
    - header_value_match: {descriptor_value: case, headers: [{name: x-kind, string_match: {prefix: FR, ignore_case: true}}]}
  - actions:
    - header_value_match: {descriptor_value: inverted, headers: [{name: x-kind, string_match: {exact: free}, invert_match: true}]}
  - actions:
    - header_value_match: {descriptor_value: unexpected, expect_match: false, headers: [{name: x-kind, string_match: {contains: re}}]}
  - actions:
    - header_value_match: {descriptor_value: absent, headers: [{name: x-kind, present_match: true, invert_match: true}]}
  - actions:
    - header_value_match: {descriptor_value: empty, headers: [{name: x-kind, string_match: {exact: ''}, treat_missing_header_as_empty: true}]}
  - actions:
    - header_value_match: {descriptor_value: range, headers: [{name: x-size, range_match: {start: -5, end: 10}}]}
  - actions:
    - header_value_match: {descriptor_value: regex, headers: [{name: x-kind, string_match: {safe_regex: {regex: 'f.*e'}}}, {name: x-size}]}
  - actions:
    - query_parameter_value_match: {descriptor_value: query, query_parameters: [{name: q, string_match: {suffix: 'y'}}]}
  - actions:
    - query_parameter_value_match: {descriptor_value: no-query, expect_match: false, query_parameters: [{name: q, present_match: true}]}
  - actions:
    - remote_address_match: {descriptor_value: near, address_matcher: {ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}}
  - actions: [{generic_key: {descriptor_value: limited}}]
    limit: {rate_limit: {requests_per_unit: 7, unit: HOUR}}
  - actions: [{request_headers: {header_name: x-done, descriptor_key: done}}]
    apply_on_stream_done: true
  - {stage: 1, actions: [{generic_key: {descriptor_value: other-stage}}]}
";
/// Of another route: Envoy takes hits of filters' own descriptors only.
const HITS: &str = "
  - actions: [{generic_key: {descriptor_value: three}}, {request_headers: {header_name: x-user, descriptor_key: user, skip_if_absent: true}}]
    hits_addend: {number: 3}
  - actions: [{generic_key: {descriptor_value: back}}]
    hits_addend: {number: 2, is_negative_hits: true}
    x_ratelimit_option: 'OFF'
  - actions: [{generic_key: {descriptor_value: asked}}]
    hits_addend: {number: 0}
  - actions: [{request_headers: {header_name: x-done, descriptor_key: done}}]
    hits_addend: {number: 9}
    apply_on_stream_done: true
";
/// Of all routes.
const OF_HOST: &str = "
  - actions: [{generic_key: {descriptor_value: above}}, {request_headers: {header_name: x-above, descriptor_key: a}}]
";

fn indented(text: &str, by: usize) -> String {
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines = lines.map(|line| format!("{}{line}\n", " ".repeat(by)));
    lines.collect()
}

fn envoy() -> String {
    format!(
        "
node: {{id: edge, cluster: default/eg}}
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: p
          http_filters:
          - name: envoy.filters.http.ratelimit
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: shop
              timeout: 5s
              failure_mode_deny: true
              enable_x_ratelimit_headers: DRAFT_VERSION_03
              response_headers_to_add: [{{header: {{key: x-added, value: v}}}}]
              rate_limit_service:
                transport_api_version: V3
                grpc_service: {{envoy_grpc: {{cluster_name: rls}}}}
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              rate_limits:
{}
              routes:
              - match: {{prefix: /hits}}
                route: {{cluster: default/demo}}
                typed_per_filter_config:
                  envoy.filters.http.ratelimit:
                    '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
                    domain: other
                    rate_limits:
{}
              - match: {{prefix: /}}
                route:
                  cluster: default/demo
                  include_vh_rate_limits: true
                  rate_limits:
{}
  clusters:
  - name: default/demo
    type: STATIC
    load_assignment:
      cluster_name: default/demo
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 3000}}}}}}}}]}}]
  - name: rls
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: rls
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 8081}}}}}}}}]}}]
",
        indented(OF_HOST, 12),
        indented(HITS, 18),
        indented(OF_ROUTE, 16),
    )
}

fn limiterd() -> String {
    format!(
        "
apiVersion: limiterd.io/v1alpha1
kind: HTTPRateLimitPolicy
metadata: {{name: above}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: eg}}]
  filters:
  - domain: shop
    timeout: 5s
    failure_mode_deny: true
    enable_x_ratelimit_headers: DRAFT_VERSION_03
    response_headers_to_add: [{{header: {{key: x-added, value: v}}}}]
    service: {{address: '{SERVICE}'}}
  rate_limits:
{OF_HOST}
---
apiVersion: limiterd.io/v1alpha1
kind: HTTPRateLimitPolicy
metadata: {{name: own}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: plain}}]
  vh_rate_limits: INCLUDE
  rate_limits:
{OF_ROUTE}
---
apiVersion: limiterd.io/v1alpha1
kind: HTTPRateLimitPolicy
metadata: {{name: hits}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: hits}}]
  vh_rate_limits: IGNORE
  domain: other
  rate_limits:
{HITS}
"
    )
}

/// What the service says: what the header `x-user` asks for.
fn script(question: &RateLimitRequest) -> Said {
    let entries = question.descriptors.iter().flat_map(|one| &one.entries);
    let user = entries
        .filter(|entry| entry.key == "user")
        .map(|entry| &*entry.value)
        .next();
    let header = |key: &str, value: &str| HeaderValue {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let named = |unit: Unit, requests_per_unit, left, name: &str| {
        let mut status = status(Code::Ok, 0, left);
        status.current_limit = Some(RateLimit {
            requests_per_unit,
            unit: unit.into(),
            name: name.to_owned(),
        });
        status.duration_until_reset = Some(prost_types::Duration {
            seconds: 9,
            nanos: 900_000_000,
        });
        status
    };
    let answer = match user {
        Some("refused") => return Said::Refuse(14),
        // Of the second descriptor clients are not told; if it is the tightest, of none.
        Some(user @ ("options" | "silenced")) => RateLimitResponse {
            overall_code: Code::Ok.into(),
            statuses: vec![
                named(Unit::Second, 10, 5, "first"),
                named(Unit::Hour, 20, if user == "options" { 6 } else { 4 }, ""),
                named(Unit::Day, 30, 7, ""),
            ],
            ..RateLimitResponse::default()
        },
        Some("over") => RateLimitResponse {
            overall_code: Code::OverLimit.into(),
            statuses: vec![status(Code::Ok, 10, 3), status(Code::OverLimit, 5, 0)],
            response_headers_to_add: vec![header("x-told", "a"), header("x-told", "b")],
            raw_body: b"slow down".to_vec(),
            ..RateLimitResponse::default()
        },
        Some("bare") => RateLimitResponse {
            overall_code: Code::OverLimit.into(),
            ..RateLimitResponse::default()
        },
        Some("typed") => RateLimitResponse {
            overall_code: Code::OverLimit.into(),
            response_headers_to_add: vec![header("content-type", "application/json")],
            raw_body: b"{}".to_vec(),
            ..RateLimitResponse::default()
        },
        Some("units") => RateLimitResponse {
            overall_code: Code::Ok.into(),
            statuses: vec![
                named(Unit::Second, 1, 8, "per-\"second\""),
                named(Unit::Hour, 2, 7, ""),
                named(Unit::Day, 3, 7, "day"),
                named(Unit::Month, 4, 9, ""),
                named(Unit::Year, 5, 9, ""),
                named(Unit::Unknown, 6, 9, "unknown"),
            ],
            request_headers_to_add: vec![header("x-tier", "gold")],
            response_headers_to_add: vec![header("x-told", "yes")],
            ..RateLimitResponse::default()
        },
        _ => RateLimitResponse {
            overall_code: Code::Ok.into(),
            ..RateLimitResponse::default()
        },
    };
    Said::Answer(answer)
}

/// What clients are told by the filter.
fn told(answer: &Answer) -> Vec<String> {
    let names = [
        "content-type",
        "retry-after",
        "x-added",
        "x-envoy-ratelimited",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-told",
    ];
    let mut told = vec![answer.status.to_string()];
    for name in names {
        for value in answer.headers.get_all(name) {
            told.push(format!(
                "{name}: {}",
                String::from_utf8_lossy(value.as_bytes())
            ));
        }
    }
    // What the upstream says is another matter.
    if answer.status != 200 {
        told.push(answer.text());
    }
    told
}

#[test]
fn the_same_questions_and_answers_as_a_real_envoys() -> Result<()> {
    let netns = Netns::new("filterenvoy")?;
    let service = RlsPeer::start(&netns, SERVICE, script)?;
    let upstream = Upstream::echo(&netns, BACKEND)?;
    let policies = Policies::new(&[
        ("gateway.yaml", GATEWAY),
        ("plain.yaml", &route("plain", "/")),
        ("hits.yaml", &route("hits", "/hits")),
        ("asks.yaml", &limiterd()),
    ])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let _envoy = Envoy::start(&netns, &envoy())?;

    let ask = |base: &str,
               path: &str,
               headers: &[(&str, &str)]|
     -> Result<(Vec<Bytes>, Vec<String>, String)> {
        let before = service.messages().len();
        let url = format!("{base}{path}");
        let mut all = vec![("host", "shop.example")];
        all.extend(headers);
        let mut answers = netns.enter(|| gets(&url, &all, 1))?;
        let answer = answers.pop().context("no answer")?;
        let at_the_end = usize::from(headers.iter().any(|(name, _)| *name == "x-done"));
        eventually("all questions", || {
            Ok((service.messages().len() >= before + 1 + at_the_end).then_some(()))
        })?;
        let tier = match answer.status.as_u16() {
            200 => upstream.last()?.header("x-tier"),
            _ => String::new(),
        };
        Ok((service.messages().split_off(before), told(&answer), tier))
    };
    let requests: &[(&str, &[(&str, &str)])] = &[
        ("/", &[]),
        (
            "/a/b?q=x&r=2",
            &[("x-user", "alice"), ("x-kind", "free"), ("x-size", "7")],
        ),
        (
            "/?q=",
            &[("x-kind", "FREE"), ("x-size", "10"), ("x-above", "1")],
        ),
        (
            "/?q=x%20y&q=z",
            &[("x-kind", "free"), ("x-kind", "too"), ("x-size", "-5")],
        ),
        (
            "/?r=%2F",
            &[("x-user", "alice"), ("x-user", "bob"), ("x-size", "many")],
        ),
        ("/?x", &[("x-kind", "other"), ("x-above", "a b")]),
        ("/", &[("x-user", "over"), ("x-above", "1")]),
        ("/", &[("x-user", "bare"), ("x-done", "1")]),
        ("/", &[("x-done", "2")]),
        ("/hits", &[]),
        ("/hits", &[("x-user", "options")]),
        ("/hits", &[("x-user", "silenced")]),
        ("/hits?a", &[("x-user", "over"), ("x-done", "3")]),
        ("/", &[("x-user", "typed")]),
        ("/", &[("x-user", "units")]),
        ("/", &[("x-user", "refused")]),
    ];
    for (path, headers) in requests {
        let envoys = ask(ENVOY, path, headers)?;
        let ours = ask(LIMITERD, path, headers)?;
        let decode = |messages: &[Bytes]| -> Result<Vec<RateLimitRequest>> {
            let messages = messages.iter().cloned();
            messages
                .map(|one| Ok(prost::Message::decode(one)?))
                .collect()
        };
        // First what people can read.
        assert_eq!(decode(&ours.0)?, decode(&envoys.0)?, "{path} {headers:?}");
        assert_eq!(ours, envoys, "{path} {headers:?}");
    }
    assert!(daemon.stop()?.success());
    Ok(())
}
