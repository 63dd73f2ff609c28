//! Statuses and plans as compact text, to be recorded and compared.

use std::fmt::Write as _;

use limiter_daemon::policy::plan::{
    Amount, AskFilter, AskedService, Asking, Backend, BackendSettings, ClientSettings, Condition,
    Descriptor, DomainKeys, DomainLimit, Endpoint, Escalation, Filters, HeaderChanges, Hostname,
    LimitRule, Listener, Offence, OnDomainFailure, PathMatch, Plan, PolicyLimits, Quota,
    RouteMatch, RouteRule, RouteTraffic, TcpProxy, TcpTarget, Tls, ValueMatch,
};
use limiter_daemon::policy::status::{self, ResourceStatus};

pub(crate) fn statuses(all: &[ResourceStatus], out: &mut String) {
    for one in all {
        let name = format!("{} {}/{}", one.kind, one.namespace, one.name);
        conditions(&name, &one.conditions, out);
        for listener in &one.listeners {
            let label = format!(
                "{name} listener {} ({} routes)",
                listener.name, listener.attached_routes
            );
            conditions(&label, &listener.conditions, out);
        }
        for ancestor in &one.ancestors {
            let of = &ancestor.ancestor;
            let section = match &of.section_name {
                Some(section) => format!("#{section}"),
                None => String::new(),
            };
            let label = format!(
                "{name} at {} {}/{}{section}",
                of.kind, of.namespace, of.name
            );
            conditions(&label, &ancestor.conditions, out);
        }
    }
}

fn conditions(label: &str, all: &[status::Condition], out: &mut String) {
    // What is as it should be is said once, without its message.
    for one in all {
        let plain = ["Accepted", "Programmed", "ResolvedRefs"].contains(&one.kind) && one.status;
        let message = if plain { "" } else { &one.message };
        writeln!(
            out,
            "status: {label}: {}={} {} {message}",
            one.kind, one.status, one.reason
        )
        .unwrap();
    }
}

pub(crate) fn plan(plan: &Plan, out: &mut String) {
    for (name, percent) in &plan.runtime {
        writeln!(out, "runtime {name} {percent}").unwrap();
    }
    for backend in &plan.backends {
        self::backend(backend, out);
    }
    for listener in &plan.listeners {
        self::listener(listener, plan, out);
    }
    for proxy in &plan.tcp {
        self::proxy(proxy, plan, out);
    }
    for policy in &plan.network {
        writeln!(out, "network {} {:?}", policy.name, policy.ports).unwrap();
    }
    for escalation in &plan.escalations {
        writeln!(
            out,
            "escalation {} {:?}",
            escalation.policy, escalation.ports
        )
        .unwrap();
        let Escalation {
            costs,
            statuses,
            threshold,
            v4,
            v6,
            terms,
            reach,
            shadow,
            ..
        } = escalation;
        let costs = Offence::ALL
            .iter()
            .zip(costs)
            .filter(|(_, cost)| **cost > 0);
        let costs: Vec<_> = costs
            .map(|(offence, cost)| (offence.name(), cost))
            .collect();
        writeln!(out, "  {costs:?} {statuses:?}").unwrap();
        let capacity = threshold.capacity;
        writeln!(out, "  over {capacity} of /{v4} /{v6}: {reach:?} {terms:?}").unwrap();
        if *shadow {
            out.push_str("  shadow\n");
        }
    }
    for domain in &plan.domains {
        write!(out, "domain {} {:?}", domain.name, domain.algorithm).unwrap();
        if let DomainKeys::Reference { prefix } = &domain.keys {
            write!(out, " reference keys `{prefix}`").unwrap();
        }
        if domain.on_store_failure != OnDomainFailure::Error {
            write!(out, " or {}", domain.on_store_failure.name()).unwrap();
        }
        for (name, set) in [("shadow", domain.shadow), ("quota", domain.quota)] {
            if set {
                write!(out, " {name}").unwrap();
            }
        }
        if domain.near != 800_000 {
            write!(out, " near {}", domain.near).unwrap();
        }
        out.push('\n');
        if let Some(why) = &domain.broken {
            writeln!(out, "  broken: {why}").unwrap();
        }
        descriptors(&domain.descriptors, "  ", out);
        for rule in domain.sets.iter().flatten() {
            let entry = |(key, value): &(String, Option<String>)| match value {
                Some(value) => format!("{key}={value}"),
                None => key.clone(),
            };
            let entries: Vec<String> = rule.entries.iter().map(entry).collect();
            write!(out, "  {{{}}}", entries.join(", ")).unwrap();
            domain_limit(&rule.limit, out);
            out.push('\n');
        }
    }
}

fn domain_limit(limit: &DomainLimit, out: &mut String) {
    match limit.amount {
        Amount::PerUnit { requests, unit, .. } => {
            write!(out, ": {requests} a {}", unit.name()).unwrap();
        }
        other => write!(out, ": {other:?}").unwrap(),
    }
    for (name, set) in [
        ("shadow", limit.shadow),
        ("quota", limit.quota),
        ("detailed", limit.detailed),
        ("always", limit.always),
    ] {
        if set {
            write!(out, " {name}").unwrap();
        }
    }
    if limit.weight > 0 {
        write!(out, " weight={}", limit.weight).unwrap();
    }
    if let Some(name) = &limit.name {
        write!(out, " name={name}").unwrap();
    }
    if !limit.replaces.is_empty() {
        write!(out, " replaces={}", limit.replaces.join(",")).unwrap();
    }
    if let Some(metadata) = &limit.metadata {
        write!(out, " metadata={metadata:?}").unwrap();
    }
}

fn descriptors(all: &[Descriptor], indent: &str, out: &mut String) {
    for one in all {
        write!(out, "{indent}{} {:?}", one.key, one.value).unwrap();
        if one.share_threshold {
            out.push_str(" shared");
        }
        if let Some(limit) = &one.limit {
            domain_limit(limit, out);
        }
        if one.value_to_metric {
            out.push_str(" told");
        }
        out.push('\n');
        descriptors(&one.descriptors, &format!("{indent}  "), out);
    }
}

fn backend(backend: &Backend, out: &mut String) {
    let endpoints: Vec<String> = backend
        .endpoints
        .iter()
        .map(|endpoint| match endpoint {
            Endpoint::Ip(ip, port) => std::net::SocketAddr::new(*ip, *port).to_string(),
            Endpoint::Fqdn(name, port) => format!("{name}:{port}"),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
        })
        .collect();
    write!(
        out,
        "backend {} {:?} {}",
        backend.name,
        backend.protocol,
        endpoints.join(" ")
    )
    .unwrap();
    if let Some(tls) = &backend.tls {
        write!(
            out,
            " tls sni={:?} authorities={} insecure={}",
            tls.server_name,
            tls.authorities.len(),
            tls.insecure
        )
        .unwrap();
    }
    out.push('\n');
    if !backend.policy.is_empty() {
        writeln!(out, "  under {}", backend.policy).unwrap();
    }
    settings(&backend.settings, out);
}

/// The fields of a struct that are not as in another one, each on a line.
macro_rules! differing {
    ($out:ident, $indent:literal, $given:expr, $plain:expr, [$($field:ident),* $(,)?]) => {$(
        if $given.$field != $plain.$field {
            writeln!($out, "{}{} {:?}", $indent, stringify!($field), $given.$field).unwrap();
        }
    )*};
}

fn settings(given: &BackendSettings, out: &mut String) {
    let plain = BackendSettings::default();
    differing!(
        out,
        "  ",
        given,
        plain,
        [
            circuit_breaker,
            load_balancer,
            outlier_detection,
            health_check,
            panic_threshold,
            connect_timeout,
            idle_timeout,
            max_connection_age,
            tcp_keepalive,
            dns,
        ]
    );
}

fn traffic(given: &RouteTraffic, out: &mut String) {
    let plain = RouteTraffic::default();
    differing!(
        out,
        "      ",
        given,
        plain,
        [
            retry,
            max_stream_duration,
            stream_idle,
            stream_idle_unbounded,
            fault,
            overrides,
            request_buffer,
            admission_control,
        ]
    );
}

fn host(hostname: &Hostname) -> String {
    match hostname {
        Hostname::Any => "*".to_owned(),
        Hostname::Exact(name) => name.clone(),
        Hostname::Wildcard(suffix) => format!("*{suffix}"),
    }
}

fn tls(indent: &str, tls: &Tls, out: &mut String) {
    let names: Vec<&str> = tls
        .certificates
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let clients = tls
        .client_certificates
        .as_ref()
        .map(|clients| (clients.authorities.len(), clients.optional));
    writeln!(
        out,
        "{indent}tls {} {:?}..{:?} alpn={:?} clients={clients:?}",
        names.join(","),
        tls.min_version,
        tls.max_version,
        tls.alpn
    )
    .unwrap();
}

fn client(client: &ClientSettings, out: &mut String) {
    if *client != ClientSettings::default() {
        let given = format!("{client:#?}");
        let default = format!("{:#?}", ClientSettings::default());
        let differs = |line: &&str| !default.lines().any(|other| other == *line);
        let lines: Vec<&str> = given.lines().filter(differs).map(str::trim).collect();
        writeln!(out, "  client {}", lines.join(" ")).unwrap();
    }
}

fn proxy(proxy: &TcpProxy, plan: &Plan, out: &mut String) {
    let binds: Vec<String> = proxy.binds.iter().map(ToString::to_string).collect();
    let TcpProxy {
        name,
        max_connect_attempts: attempts,
        idle,
        ..
    } = proxy;
    let binds = binds.join(",");
    writeln!(out, "tcp {name} {binds} attempts={attempts} idle={idle:?}").unwrap();
    client(&proxy.client, out);
    for one in &proxy.hosts {
        let names: Vec<String> = one.names.iter().map(host).collect();
        writeln!(out, "  host {}: {}", one.name, names.join(",")).unwrap();
        if let Some(tls) = &one.tls {
            self::tls("    ", tls, out);
        }
        if let Some(why) = &one.broken {
            writeln!(out, "    broken: {why}").unwrap();
        }
        match &one.to {
            TcpTarget::Weighted(backends) => {
                for one in backends {
                    let name = one.backend.map(|index| plan.backends[index].name.as_str());
                    let name = name.unwrap_or("nowhere");
                    writeln!(out, "    to {name} x{}", one.weight).unwrap();
                }
            }
            TcpTarget::ByName(backends) => {
                for (name, index) in backends {
                    let to = &plan.backends[*index].name;
                    writeln!(out, "    {name} to {to}").unwrap();
                }
            }
        }
    }
}

fn listener(listener: &Listener, plan: &Plan, out: &mut String) {
    let binds: Vec<String> = listener.binds.iter().map(ToString::to_string).collect();
    writeln!(
        out,
        "listener {} {} {}",
        listener.name,
        binds.join(","),
        host(&listener.hostname)
    )
    .unwrap();
    if let Some(tls) = &listener.tls {
        self::tls("  ", tls, out);
    }
    client(&listener.client, out);
    for route in &listener.routes {
        let hosts: Vec<String> = route.hostnames.iter().map(host).collect();
        let order = if route.in_order { " in order" } else { "" };
        writeln!(
            out,
            "  {:?} {} {}{order}",
            route.kind,
            route.name,
            hosts.join(",")
        )
        .unwrap();
        for rule in &route.rules {
            self::rule(rule, plan, out);
        }
    }
}

fn rule(rule: &RouteRule, plan: &Plan, out: &mut String) {
    let matches: Vec<String> = rule.matches.iter().map(route_match).collect();
    let name = rule.name.as_deref().unwrap_or("-");
    writeln!(out, "    rule {name}: {}", matches.join(" | ")).unwrap();
    if let Some(why) = &rule.broken {
        writeln!(out, "      broken: {why}").unwrap();
    }
    filters("      ", &rule.filters, plan, out);
    for weighted in &rule.backends {
        let name = weighted.backend.map_or_else(
            || "500".to_owned(),
            |index| match &plan.backends[index] {
                backend if backend.policy.is_empty() => backend.name.clone(),
                backend => format!("{} under {}", backend.name, backend.policy),
            },
        );
        writeln!(out, "      to {name} x{}", weighted.weight).unwrap();
        if let Some(own) = &weighted.filters {
            filters("        ", own, plan, out);
        }
    }
    if rule.timeouts.request.is_some() || rule.timeouts.backend_request.is_some() {
        writeln!(
            out,
            "      timeouts {:?} {:?}",
            rule.timeouts.request, rule.timeouts.backend_request
        )
        .unwrap();
    }
    traffic(&rule.traffic, out);
    for limits in &rule.limits.local {
        policy_limits("local", limits, out);
    }
    for limits in &rule.limits.global {
        policy_limits("global", limits, out);
    }
    for asking in rule.asks.iter() {
        asks(asking, out);
    }
}

fn asks(asking: &Asking, out: &mut String) {
    let Asking {
        filter,
        domain,
        source,
        descriptors,
    } = asking;
    let tls = match &filter.service {
        AskedService::Peer(peer) => peer.tls.as_ref(),
        AskedService::Own | AskedService::Broken(_) => None,
    };
    // Certificates are made anew each time.
    let tls = tls.map_or_else(String::new, |tls| {
        let ours = tls.how.certificate.as_ref().map(|one| one.name.as_str());
        let known = tls.how.authorities.is_some();
        let name = &tls.server_name;
        format!(" by TLS as {name:?}, our certificate {ours:?}, authorities {known}")
    });
    let shown = AskFilter {
        service: AskedService::Own,
        ..AskFilter::clone(filter)
    };
    writeln!(
        out,
        "      asks {}{tls} for {domain} as {source}: {shown:?}",
        filter.service
    )
    .unwrap();
    for rule in descriptors {
        writeln!(out, "        {:?}", rule.actions).unwrap();
        let rest = [
            (rule.stage != 0).then(|| format!("stage {}", rule.stage)),
            (!rule.disable_key.is_empty()).then(|| format!("key {}", rule.disable_key)),
            rule.limit.map(|limit| format!("{limit:?}")),
            rule.hits.map(|hits| format!("{hits:?}")),
            rule.at_the_end.then(|| "at the end".to_owned()),
            rule.headers.map(|headers| format!("headers {headers}")),
        ];
        let rest: Vec<String> = rest.into_iter().flatten().collect();
        if !rest.is_empty() {
            writeln!(out, "          {}", rest.join(", ")).unwrap();
        }
    }
}

fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(path) => format!("={path}"),
        PathMatch::Prefix(path) => format!("{path}/*"),
        PathMatch::StartsWith(text) => format!("{text}*"),
        PathMatch::Regex(regex) => format!("~{regex}"),
    }
}

fn value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Present => String::new(),
        ValueMatch::Exact(value) => format!("={}", value.to_str().unwrap()),
        ValueMatch::Regex(regex) => format!("~{regex}"),
    }
}

fn route_match(one: &RouteMatch) -> String {
    let mut text = match &one.method {
        Some(method) => format!("{method} "),
        None => String::new(),
    };
    text.push_str(&path(&one.path));
    for header in &one.headers {
        let not = if header.invert { "!" } else { "" };
        write!(text, " {not}{}{}", header.name, value(&header.value)).unwrap();
    }
    for query in &one.query {
        write!(text, " ?{}{}", query.name, value(&query.value)).unwrap();
    }
    text
}

fn filters(indent: &str, filters: &Filters, plan: &Plan, out: &mut String) {
    for (of, changes) in [
        ("request", &filters.request_headers),
        ("response", &filters.response_headers),
    ] {
        if *changes != HeaderChanges::default() {
            writeln!(
                out,
                "{indent}{of} headers set={:?} add={:?} remove={:?}",
                changes.set, changes.add, changes.remove
            )
            .unwrap();
        }
    }
    if let Some(redirect) = &filters.redirect {
        writeln!(out, "{indent}{redirect:?}").unwrap();
    }
    if let Some(answer) = &filters.answer {
        writeln!(out, "{indent}{answer:?}").unwrap();
    }
    if let Some(rewrite) = &filters.rewrite {
        writeln!(out, "{indent}{rewrite:?}").unwrap();
    }
    for mirror in &filters.mirrors {
        let name = &plan.backends[mirror.backend].name;
        let share = format!("{}/{}", mirror.numerator, mirror.denominator);
        writeln!(out, "{indent}mirror {name} {share}").unwrap();
    }
}

fn policy_limits(store: &str, limits: &PolicyLimits, out: &mut String) {
    writeln!(out, "      {store} {}", limits.policy).unwrap();
    for rule in &limits.rules {
        limit_rule("", rule, out);
    }
    if let Some(rule) = &limits.default {
        limit_rule("default ", rule, out);
    }
}

fn limit_rule(what: &str, rule: &LimitRule, out: &mut String) {
    let quota = match rule.quota {
        Quota::Limited {
            limit,
            algorithm,
            window,
        } => format!(
            "{} in {:?} {algorithm:?} w={window}",
            limit.capacity,
            std::time::Duration::from_nanos(limit.tolerance)
        ),
        other => format!("{other:?}"),
    };
    write!(out, "        {what}{}: {quota}", rule.name).unwrap();
    let plain = LimitRule::new(String::new(), Vec::new(), rule.quota);
    let mut more = |name: &str, text: String, default: String| {
        if text != default {
            write!(out, " {name}={text}").unwrap();
        }
    };
    let debug = |value: &dyn std::fmt::Debug| format!("{value:?}");
    more("shared", debug(&rule.shared), debug(&plain.shared));
    more("shadow", debug(&rule.shadow), debug(&plain.shadow));
    more("headers", debug(&rule.headers), debug(&plain.headers));
    more(
        "cost",
        debug(&rule.request_cost),
        debug(&plain.request_cost),
    );
    more(
        "response",
        debug(&rule.response_cost),
        debug(&plain.response_cost),
    );
    more("refund", debug(&rule.refund_on), debug(&plain.refund_on));
    more(
        "on store failure",
        debug(&rule.on_store_failure),
        debug(&plain.on_store_failure),
    );
    more("lease", debug(&rule.lease), debug(&plain.lease));
    out.push('\n');
    for one in &rule.candidates {
        writeln!(
            out,
            "          candidate {}: {} in {:?}",
            one.name,
            one.limit.capacity,
            std::time::Duration::from_nanos(one.limit.tolerance)
        )
        .unwrap();
    }
    for condition in &rule.conditions {
        writeln!(out, "          if {}", self::condition(condition)).unwrap();
    }
}

fn condition(one: &Condition) -> String {
    match one {
        Condition::Header { name, test } => format!("header {name} {test:?}"),
        Condition::Query { name, test } => format!("query {name} {test:?}"),
        Condition::Method(methods) => {
            let methods: Vec<String> = methods
                .iter()
                .map(|(method, invert)| format!("{}{method}", if *invert { "!" } else { "" }))
                .collect();
            format!("method {}", methods.join("|"))
        }
        Condition::Path { path, invert } => {
            format!(
                "path {}{}",
                if *invert { "!" } else { "" },
                self::path(path)
            )
        }
        Condition::Source { nets, invert, each } => {
            let nets: Vec<String> = nets.iter().map(ToString::to_string).collect();
            format!(
                "source {}{} each={:?}",
                if *invert { "!" } else { "" },
                nets.join(","),
                each.map(|each| (each.v4, each.v6))
            )
        }
    }
}
