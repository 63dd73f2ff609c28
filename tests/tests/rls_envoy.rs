//! Envoy's rate limit service, asked by a real Envoy.

use anyhow::{Context as _, Result};
use tests::daemon::{Daemon, Policies, demo_backend, eventually};
use tests::envoy::{Envoy, cluster};
use tests::http_client::{Answer, gets};
use tests::netns::Netns;
use tests::redis::Redis;

/// Years, so that no window ends while a test runs.
const LIMITS: &str = "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: { name: limiterd }
spec: { rls: { listen: '127.0.0.1:8081' } }
---
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: year, requests_per_unit: 3, name: per-user }
  - key: user
    value: root
    rate_limit: { unlimited: true }
  - key: route
    value: search
    descriptors:
      - key: user
        rate_limit: { unit: year, requests_per_unit: 2 }
  - key: tier
    value: try*
    shadow_mode: true
    rate_limit: { unit: year, requests_per_unit: 1 }
  - key: remote_address
    rate_limit: { unit: year, requests_per_unit: 5 }
---
domain: kinds
descriptors:
  - { key: q, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: masked_remote_address, value: 127.0.0.0/24, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: destination_cluster, value: backend, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: query_match, value: vip, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: generic_key, value: plain, rate_limit: { unit: year, requests_per_unit: 1 } }
  - { key: generic_key, value: dear, rate_limit: { unit: year, requests_per_unit: 5 } }
  - { key: generic_key, value: back, rate_limit: { unit: year, requests_per_unit: 1 } }
";

fn scene(name: &str) -> Result<(Netns, Policies, Daemon)> {
    let netns = Netns::new(name)?;
    let policies = Policies::new(&[("all.yaml", LIMITS)])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    Ok((netns, policies, daemon))
}

/// A listener of Envoy with the rate limit filter.
fn listener(port: u16, domain: &str, deny: bool, more: &str) -> String {
    format!(
        "
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: p{port}
          http_filters:
          - name: envoy.filters.http.ratelimit
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: {domain}
              timeout: 5s
              failure_mode_deny: {deny}
              enable_x_ratelimit_headers: DRAFT_VERSION_03
              rate_limit_service:
                transport_api_version: V3
                grpc_service: {{envoy_grpc: {{cluster_name: rls}}}}
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:{more}
              - match: {{prefix: /}}
                route:
                  cluster: backend
                  rate_limits:
                  - actions:
                    - request_headers: {{header_name: x-user, descriptor_key: user}}
                  - actions:
                    - header_value_match:
                        descriptor_key: route
                        descriptor_value: search
                        headers: [{{name: ':path', string_match: {{prefix: /search}}}}]
                    - request_headers: {{header_name: x-user, descriptor_key: user}}
                  - actions: [{{generic_key: {{descriptor_key: tier, descriptor_value: try-me}}}}]
                  - actions:
                    - request_headers: {{header_name: x-by-address, descriptor_key: by}}
                    - remote_address: {{}}
                  - actions: [{{remote_address: {{}}}}]"
    )
}

#[test]
fn a_real_envoy_asks_and_enforces() -> Result<()> {
    let (netns, _policies, daemon) = scene("rlsenvoy")?;
    let _backend = demo_backend(&netns)?;
    let config = format!(
        "static_resources:\n  listeners:{}{}{}\n  clusters:{}{}\n",
        listener(10_000, "shop", false, ""),
        listener(10_001, "shop", true, ""),
        listener(10_002, "elsewhere", true, ""),
        cluster("backend", 3000, false),
        cluster("rls", 8081, true),
    );
    let envoy = Envoy::start(&netns, &config)?;
    let get = |port: u16, path: &str, user: &str| -> Result<Answer> {
        let url = format!("http://127.0.0.1:{port}{path}");
        let headers: &[(&str, &str)] = if user.is_empty() {
            &[]
        } else {
            &[("x-user", user)]
        };
        let answer = netns.enter(|| gets(&url, headers, 1))?.pop();
        answer.with_context(|| envoy.process.output())
    };
    // Two a year for searches of a user, three for all that a user asks.
    let first = get(10_000, "/search", "a")?;
    assert_eq!(first.status, 200);
    let quotas = "2, 3;w=31536000;name=\"per-user\", 2;w=31536000, 1;w=31536000, 5;w=31536000";
    assert_eq!(first.header("x-ratelimit-remaining"), "0");
    assert_eq!(
        first.header("x-ratelimit-limit"),
        quotas.replacen("2,", "1,", 1)
    );
    let second = get(10_000, "/search", "a")?;
    assert_eq!(second.status, 200);
    let third = get(10_000, "/search", "a")?;
    assert_eq!(third.status, 429);
    assert_eq!(third.header("x-envoy-ratelimited"), "true");
    assert_eq!(third.header("x-ratelimit-remaining"), "0");
    let reset: u32 = third.header("x-ratelimit-reset").parse()?;
    assert!((1..=365 * 86_400).contains(&reset), "{reset}");
    // What was denied cost the user nothing: one is left beside searches.
    assert_eq!(get(10_000, "/", "a")?.status, 200);
    assert_eq!(get(10_000, "/", "a")?.status, 429);
    // The address has five in all, of which three are gone; both listeners ask the same service.
    assert_eq!(get(10_001, "/", "b")?.status, 200);
    assert_eq!(get(10_001, "/", "")?.status, 200);
    assert_eq!(get(10_001, "/", "root")?.status, 429);
    // A domain that nobody has limits nothing.
    assert_eq!(get(10_002, "/", "root")?.status, 200);
    // Without the service it goes by the failure mode.
    daemon.kill()?;
    assert_eq!(get(10_000, "/", "a")?.status, 200);
    assert_eq!(get(10_001, "/", "a")?.status, 500);
    Ok(())
}

/// A route with rate limits of its own.
fn limited(path: &str, rate_limits: &str) -> String {
    format!(
        "
              - match: {{path: {path}}}
                route: {{cluster: backend}}
                typed_per_filter_config:
                  envoy.filters.http.ratelimit:
                    '@type': type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
                    rate_limits: [{rate_limits}]"
    )
}

#[test]
fn descriptors_of_every_kind_meet_their_limits() -> Result<()> {
    let (netns, _policies, _daemon) = scene("rlskinds")?;
    let _backend = demo_backend(&netns)?;
    let of = |path: &str, action: &str| limited(path, &format!("{{actions: [{{{action}}}]}}"));
    let generic =
        |value: &str| format!("actions: [{{generic_key: {{descriptor_value: {value}}}}}]");
    let routes = [
        of(
            "/query",
            "query_parameters: {query_parameter_name: q, descriptor_key: q}",
        ),
        of("/masked", "masked_remote_address: {v4_prefix_mask_len: 24}"),
        of("/cluster", "destination_cluster: {}"),
        of(
            "/vip",
            "query_parameter_value_match: {descriptor_value: vip, \
             query_parameters: [{name: vip, present_match: true}]}",
        ),
        of("/plain", "generic_key: {descriptor_value: plain}"),
        limited(
            "/dear",
            &format!("{{{}, hits_addend: {{number: 2}}}}", generic("dear")),
        ),
        limited(
            "/back",
            &format!(
                "{{{0}}}, {{{0}, hits_addend: {{number: 1, is_negative_hits: true}}, \
                 apply_on_stream_done: true}}",
                generic("back")
            ),
        ),
    ];
    let config = format!(
        "static_resources:\n  listeners:{}\n  clusters:{}{}\n",
        listener(10_000, "kinds", true, &routes.concat()),
        cluster("backend", 3000, false),
        cluster("rls", 8081, true),
    );
    let envoy = Envoy::start(&netns, &config)?;
    let get = |path: &str| -> Result<u16> {
        let url = format!("http://127.0.0.1:10000{path}");
        let answer = netns.enter(|| gets(&url, &[], 1))?.pop();
        let answer = answer.with_context(|| envoy.process.output())?;
        Ok(answer.status.as_u16())
    };
    for path in ["/query?q=a", "/masked", "/cluster", "/vip?vip=1", "/plain"] {
        assert_eq!([get(path)?, get(path)?], [200, 429], "{path}");
    }
    // Another value, and no value at all.
    assert_eq!(
        [get("/query?q=b")?, get("/query")?, get("/vip")?],
        [200, 200, 200]
    );
    // Two hits each of five.
    assert_eq!(
        [get("/dear")?, get("/dear")?, get("/dear")?],
        [200, 200, 429]
    );
    // What is given back when a response is over is there for the next request.
    for _ in 0..3 {
        eventually("the refund", || Ok((get("/back")? == 200).then_some(())))?;
    }
    Ok(())
}

#[test]
fn a_store_that_is_gone_is_the_filters_failure_mode() -> Result<()> {
    let netns = Netns::new("rlsstore")?;
    let mut redis = Redis::start(&netns)?;
    let url = redis.url();
    let config = format!(
        "
apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{ name: limiterd }}
spec:
  rls: {{ listen: '127.0.0.1:8081' }}
  rateLimit: {{ backend: {{ type: Redis, redis: {{ url: '{url}' }} }}, timeout: 2s }}
---
domain: shop
descriptors:
  - {{ key: user, rate_limit: {{ unit: year, requests_per_unit: 3 }} }}
"
    );
    let policies = Policies::new(&[("all.yaml", &config)])?;
    let daemon = Daemon::start(&netns, policies.path())?;
    let _backend = demo_backend(&netns)?;
    let config = format!(
        "static_resources:\n  listeners:{}{}\n  clusters:{}{}\n",
        listener(10_000, "shop", false, ""),
        listener(10_001, "shop", true, ""),
        cluster("backend", 3000, false),
        cluster("rls", 8081, true),
    );
    let envoy = Envoy::start(&netns, &config)?;
    let get = |port: u16, user: &str| -> Result<u16> {
        let url = format!("http://127.0.0.1:{port}/");
        let answer = netns.enter(|| gets(&url, &[("x-user", user)], 1))?.pop();
        let answer = answer.with_context(|| envoy.process.output())?;
        Ok(answer.status.as_u16())
    };
    let both = |user: &str| anyhow::Ok([get(10_000, user)?, get(10_001, user)?]);
    assert_eq!(both("a")?, [200, 200]);
    assert_eq!(both("a")?, [200, 429]);
    redis.kill()?;
    // That `a` is over its limit is known without it, for a second.
    for user in ["p", "q", "r", "s"] {
        assert_eq!(both(user)?, [200, 500]);
    }
    // It comes back empty: a limit of three, and no restart.
    redis.begin(&netns)?;
    let back = || Ok((get(10_001, "back")? == 200).then_some(()));
    eventually("the store to be asked again", back)?;
    assert_eq!(both("b")?, [200, 200]);
    assert_eq!(both("b")?, [200, 429]);
    assert!(daemon.stop()?.success());
    Ok(())
}
