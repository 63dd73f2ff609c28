//! A node that uses everything there are metrics of: the kernel half, local and global limits, a store,
//! a rate limit service, breakers, checks, names, connections that are passed on.

use anyhow::{Context as _, Result, ensure};
use http::Request;
use http_body_util::Full;
use rustix::process::Signal;
use tempfile::TempDir;
use tests::daemon::{ADMIN, Daemon, Policies, Process, demo_backend};
use tests::http_client::{Answer, Speak, get, many};
use tests::netns::Netns;
use tests::policies::{GATEWAY, config, limited_host, network, treated_host};
use tests::redis::{Redis, envoy_gateway};
use tests::topology::{Pins, Topology};

/// Requests that `local.test` and `global.test` let through in a test.
pub(crate) const LIMIT: usize = 3;

const MORE: &str = "\
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: named}
spec:
  endpoints:
  - fqdn: {hostname: localhost, port: 3000}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: named}
spec:
  parentRefs: [{name: eg}]
  hostnames: [named.test]
  rules: [{backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: named}]}]
";

const DOMAIN: &str = "\
domain: shop
descriptors:
  - key: user
    rate_limit: { unit: hour, requests_per_unit: 2 }
";

const TREATED: &str = "  circuitBreaker: {maxParallelRequests: 100, maxConnections: 50}
  healthCheck:
    passive: {consecutive5XxErrors: 5, interval: 10s}
    active: {interval: 1s, type: HTTP, http: {path: /}}
  retry: {numRetries: 1}
  admissionControl: {}
";

pub(crate) struct Node {
    pub(crate) topology: Topology,
    pub(crate) daemon: Daemon,
    pub(crate) policies: Policies,
    _redis: Redis,
    _backend: Process,
    _log: TempDir,
    _pins: Pins,
}

impl Node {
    pub(crate) fn start() -> Result<Self> {
        let topology = Topology::new()?;
        let pins = topology.pins();
        let backend = demo_backend(&topology.gateway)?;
        let redis = Redis::start(&topology.gateway)?;
        let log = tempfile::tempdir()?;
        let interfaces = [&topology.first, &topology.second];
        let interfaces = interfaces.map(|client| client.gateway_interface.as_str());
        let limiter = config(&interfaces, &pins, "Detach")
            + &format!(
                "  accessLog: {{path: {}}}\n  rls: {{listen: '127.0.0.1:8081'}}\n  tracing: {{otlp: {{endpoint: 'http://127.0.0.1:4317'}}, sampling: 0}}\n",
                log.path().join("access.log").display()
            );
        let watched = "limit: {requests: 2, unit: Hour}, limiterd: {candidates: [{name: tighter, requests: 1}]}";
        let gateway = [
            GATEWAY,
            &limited_host(
                "local",
                &format!("local: {{rules: [{{limit: {{requests: {LIMIT}, unit: Hour}}}}]}}"),
            ),
            &limited_host(
                "global",
                &format!("global: {{rules: [{{limit: {{requests: {LIMIT}, unit: Hour}}}}]}}"),
            ),
            &limited_host(
                "tried",
                &format!("local: {{rules: [{{shadowMode: true, {watched}}}]}}"),
            ),
            &treated_host("treated", &[3000], TREATED),
            MORE,
        ]
        .concat();
        // The first client's 429s are never held against it.
        let edge = network(
            "edge",
            "  connections: {maxTokens: 1000, tokensPerFill: 100}\n  allow: [10.77.1.2]\n  escalation: {events: [{type: RateLimited}], threshold: {maxTokens: 50, tokensPerFill: 1}, blockFor: 10m}\n",
        );
        let policies = Policies::new(&[
            ("limiterd.yaml", &limiter),
            ("gateway.yaml", &gateway),
            ("network.yaml", &edge),
            ("shop.yaml", DOMAIN),
            ("store.yaml", &envoy_gateway(&redis.url(), "timeout: 1s")),
        ])?;
        let daemon = Daemon::start(&topology.gateway, policies.path())?;
        Ok(Self {
            topology,
            daemon,
            policies,
            _redis: redis,
            _backend: backend,
            _log: log,
            _pins: pins,
        })
    }

    /// Stops the daemon; the stage stays.
    pub(crate) fn stop(&self) -> Result<()> {
        self.daemon.process.signal(Signal::TERM)
    }

    pub(crate) fn netns(&self) -> &Netns {
        &self.topology.gateway
    }

    /// So many GETs of the first client for the host `NAME.test`, one after the other; their statuses.
    pub(crate) fn ask(&self, name: &str, count: usize) -> Result<Vec<u16>> {
        let client = &self.topology.first;
        let url = format!("http://{}:8080/", client.gateway_v4);
        let one = || {
            let request = Request::get(&url).header("host", format!("{name}.test"));
            let answers = many(Speak::Http1, vec![request.body(Full::default())?])?;
            let answer = answers.first().context("no answer")?;
            Ok(answer.status.as_u16())
        };
        client.netns.enter(|| (0..count).map(|_| one()).collect())
    }

    /// GET of the admin listener.
    pub(crate) fn admin(&self, path: &str) -> Result<Answer> {
        let answer = self
            .netns()
            .enter(|| get(&format!("http://{ADMIN}{path}")))?;
        ensure!(
            answer.status == 200,
            "{path}: {}: {}",
            answer.status,
            answer.text()
        );
        Ok(answer)
    }
}
