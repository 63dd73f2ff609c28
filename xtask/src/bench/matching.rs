//! What 1,000 routes and 10,000 limit rules cost: requests a second of limiterd and of Envoy, each
//! beside itself with one route and no rule.
//!
//! nginx and HAProxy are left out: a limit there is a zone or a table each, and 10,000 of them are not
//! what one would write.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::Run;
use super::http::READY_DEADLINE;
use super::servers::{Kind, Ports, folder, local, start, upstream};
use super::stats::{median, summary};
use super::wrk;
use crate::child::Server;
use crate::probe;

const ROUTES: usize = 1_000;
/// Of each route; the last one matches.
const RULES: usize = 10;
const COMPARED: [Kind; 2] = [Kind::Envoy, Kind::Limiterd];

/// Each path in turn, as a client that the last rule is for.
const SCRIPT: &str = "\
local n = 0
request = function()
  n = (n + 1) % ROUTES
  return wrk.format('GET', '/r' .. n, { ['x-tier'] = 't9' })
end
";

/// Ports of one server: one route, and many.
#[derive(Clone, Copy)]
struct Two {
    one: u16,
    many: u16,
}

pub(super) fn bench(run: &mut Run<'_>) -> Result<()> {
    let dir = folder(run.workspace.target_dir().join("bench-matching"))?;
    let script = dir.join("paths.lua");
    fs::write(&script, SCRIPT.replace("ROUTES", &ROUTES.to_string()))?;
    let mut ports = Vec::new();
    let mut servers = Vec::new();
    let free = Ports::free()?;
    let mut all = free.all().into_iter();
    let mut next = || all.next().context("no port is left");
    let (up, admin) = (next()?, next()?);
    servers.push(upstream(&dir, up, run.cpu)?);
    for kind in COMPARED {
        let two = Two {
            one: next()?,
            many: next()?,
        };
        servers.push(start_many(
            run,
            kind,
            two,
            up,
            admin,
            dir.join(kind.name()),
        )?);
        ports.push((kind, two));
    }
    for (_, two) in &ports {
        for (port, path) in [(two.one, "/r0"), (two.many, "/r999")] {
            let servers = &mut servers.iter_mut().collect::<Vec<_>>();
            probe::wait_for(
                200,
                local(port),
                path,
                READY_DEADLINE,
                &run.interrupt,
                servers,
            )?;
        }
    }

    let mut figures: Vec<(Kind, [Vec<f64>; 2])> =
        COMPARED.map(|kind| (kind, Default::default())).into();
    for round in 0..run.rounds {
        for ((kind, two), (_, figures)) in ports.iter().zip(&mut figures) {
            for (port, figures) in [two.one, two.many].into_iter().zip(figures) {
                ensure!(!run.interrupt.seen(), "interrupted");
                let url = format!("http://{}/", local(port));
                let seen = wrk::run(&url, run.cpu, run.seconds, Some(&script))
                    .with_context(|| kind.name())?;
                ensure!(seen.failed == 0, "{}: {} errors", kind.name(), seen.failed);
                figures.push(seen.per_second);
            }
        }
        eprintln!("round {}/{} done", round + 1, run.rounds);
    }
    println!("\n{ROUTES} routes with {RULES} limit rules each, of which the last matches\n");
    println!(
        "| | one route, no rule, requests/s | {ROUTES} routes, requests/s | many / one |\n|---|---|---|---|"
    );
    for (kind, [one, many]) in &figures {
        let ratios: Vec<f64> = many.iter().zip(one).map(|(many, one)| many / one).collect();
        let (one, many) = (median(one), median(many));
        println!(
            "| {} | {one:.0} | {many:.0} | {} |",
            kind.name(),
            summary(&ratios)
        );
    }
    if let [(_, [_, envoy]), (_, [_, ours])] = figures.as_slice() {
        let ratios: Vec<f64> = ours.iter().zip(envoy).map(|(a, b)| a / b).collect();
        println!("\nlimiterd / Envoy with all routes: {}", summary(&ratios));
    }
    Ok(())
}

fn start_many(
    run: &Run<'_>,
    kind: Kind,
    ports: Two,
    upstream: u16,
    admin: u16,
    dir: PathBuf,
) -> Result<Server> {
    let dir = folder(dir)?;
    let (file, text) = match kind {
        Kind::Envoy => ("envoy.yaml", envoy(ports, upstream)?),
        _ => ("policy.yaml", policies(ports, upstream, admin)?),
    };
    fs::write(dir.join(file), text)?;
    start(kind, &run.programs, &dir, run.cpu)
}

fn policies(ports: Two, upstream: u16, admin: u16) -> Result<String> {
    let Two { one, many } = ports;
    let mut text = format!(
        "apiVersion: limiterd.io/v1alpha1
kind: LimiterConfig
metadata: {{name: bench}}
spec: {{admin: {{address: \"127.0.0.1:{admin}\"}}, http: {{workers: 1}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: bench}}
spec:
  gatewayClassName: limiterd
  addresses: [{{type: IPAddress, value: 127.0.0.1}}]
  listeners:
  - {{name: one, protocol: HTTP, port: {one}}}
  - {{name: many, protocol: HTTP, port: {many}}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: upstream}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {upstream}}}}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: one}}
spec:
  parentRefs: [{{name: bench, sectionName: one}}]
  rules: [{{backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: upstream}}]}}]
"
    );
    for route in 0..ROUTES {
        write!(
            text,
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: r{route}}}
spec:
  parentRefs: [{{name: bench, sectionName: many}}]
  rules:
  - matches: [{{path: {{type: Exact, value: /r{route}}}}}]
    backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: upstream}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: r{route}}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r{route}}}]
  rateLimit:
    local:
      rules:
"
        )?;
        for rule in 0..RULES {
            writeln!(
                text,
                "      - {{clientSelectors: [{{headers: [{{name: x-tier, value: t{rule}}}]}}], limit: {{requests: 1000000, unit: Second}}}}"
            )?;
        }
    }
    Ok(text)
}

fn envoy(ports: Two, upstream: u16) -> Result<String> {
    const TYPE: &str = "type.googleapis.com/envoy.extensions.filters";
    let all = "{default_value: {numerator: 100, denominator: HUNDRED}}";
    let bucket = "{max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: 1s}";
    let mut actions = String::new();
    let mut descriptors = String::new();
    for rule in 0..RULES {
        write!(
            actions,
            "{{actions: [{{header_value_match: {{descriptor_value: t{rule}, headers: [{{name: x-tier, string_match: {{exact: t{rule}}}}}]}}}}]}}, "
        )?;
        write!(
            descriptors,
            "{{entries: [{{key: header_match, value: t{rule}}}], token_bucket: {bucket}}}, "
        )?;
    }
    let mut many = String::new();
    for route in 0..ROUTES {
        writeln!(
            many,
            "              - {{match: {{path: /r{route}}}, route: {{cluster: upstream, rate_limits: [{actions}]}}, typed_per_filter_config: {{envoy.filters.http.local_ratelimit: {{\"@type\": {TYPE}.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: many, token_bucket: {bucket}, filter_enabled: {all}, filter_enforced: {all}, descriptors: [{descriptors}]}}}}}}"
        )?;
    }
    let one = "              - {match: {prefix: /}, route: {cluster: upstream}}\n";
    let listener = |name: &str, port: u16, routes: &str| {
        format!(
            "  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": {TYPE}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes:
{routes}          http_filters:
          - name: envoy.filters.http.local_ratelimit
            typed_config: {{\"@type\": {TYPE}.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: none}}
          - name: envoy.filters.http.router
            typed_config: {{\"@type\": {TYPE}.http.router.v3.Router}}
"
        )
    };
    Ok(format!(
        "static_resources:
  listeners:
{}{}  clusters:
  - name: upstream
    connect_timeout: 10s
    load_assignment:
      cluster_name: upstream
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}}}]}}]
",
        listener("one", ports.one, one),
        listener("many", ports.many, &many)
    ))
}
