//! Which listener and which rule of which route a request takes, and why not the others.

use std::cmp::Reverse;

use super::holds::{path_matches, query_value};
use super::words;
use super::{Asked, Passed};
use crate::engine::route::{hostname, is_grpc};
use crate::policy::plan::{
    HeaderMatch, Hostname, Listener, PathMatch, Plan, QueryMatch, Route, RouteKind, RouteMatch,
    RouteRule, ValueMatch,
};

/// The listener that takes a request (its index in the plan), and why the others do not.
pub(super) fn listener(plan: &Plan, asked: &Asked<'_>) -> (Option<usize>, Vec<Passed>) {
    let host = hostname(asked.host);
    let on_port = |listener: &Listener, port: u16| {
        listener.binds.is_empty() || listener.binds.iter().any(|bind| bind.port() == port)
    };
    // A URL without a port means the well-known one; where nobody listens there, any will do.
    let implied = asked.tls.map(|tls| if tls { 443 } else { 80 });
    let port = asked
        .port
        .or_else(|| implied.filter(|port| plan.listeners.iter().any(|one| on_port(one, *port))));
    let mut passed = Vec::new();
    let mut best: Option<(usize, usize)> = None;
    for (index, listener) in plan.listeners.iter().enumerate() {
        let mut pass = |why: String| {
            passed.push(Passed {
                name: listener.name.clone(),
                why,
            });
        };
        if let Some(port) = port.filter(|port| !on_port(listener, *port)) {
            let ports: Vec<_> = listener
                .binds
                .iter()
                .map(|b| b.port().to_string())
                .collect();
            pass(format!(
                "it listens on port {}, not {port}",
                ports.join(", ")
            ));
            continue;
        }
        if let Some(tls) = asked.tls
            && tls != listener.tls.is_some()
        {
            let speaks = if tls { "clear text" } else { "TLS" };
            pass(format!("it speaks {speaks}"));
            continue;
        }
        let Some(rank) = specificity(&listener.hostname, &host) else {
            let pattern = words::hostname(&listener.hostname);
            pass(format!("it is for {pattern}"));
            continue;
        };
        match best {
            Some((other, seen)) if seen >= rank => {
                let other = &plan.listeners[other].name;
                pass(format!(
                    "it matches too; {other} is more specific or comes first"
                ));
            }
            _ => {
                if let Some((other, _)) = best {
                    passed.push(Passed {
                        name: plan.listeners[other].name.clone(),
                        why: format!("it matches too; {} is more specific", listener.name),
                    });
                }
                best = Some((index, rank));
            }
        }
    }
    passed.extend(plan.tcp.iter().map(|proxy| Passed {
        name: proxy.name.clone(),
        why: "it passes connections on, and reads no requests".to_owned(),
    }));
    (best.map(|(index, _)| index), passed)
}

/// A rule of a route that takes a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken<'a> {
    pub(super) route: &'a Route,
    /// Index of the rule.
    pub(super) index: usize,
    pub(super) rule: &'a RouteRule,
    pub(super) by: &'a RouteMatch,
}

/// `namespace/name`, with the rule of it.
pub(super) fn rule_name(route: &Route, index: usize) -> String {
    match route.rules.get(index).and_then(|rule| rule.name.as_deref()) {
        Some(name) => format!("{} rule {index} ({})", route.name, words::clean(name)),
        None => format!("{} rule {index}", route.name),
    }
}

/// The rule that takes a request on `listener`, and why the others do not.
///
/// Precedence as in [`route`](crate::engine::route): the most specific hostname that has routes,
/// without falling through; of its matches the most specific; of equals the first of the plan.
pub(super) fn route<'a>(
    listener: &'a Listener,
    asked: &Asked<'_>,
) -> (Option<Taken<'a>>, Vec<Passed>) {
    let host = hostname(asked.host);
    let best = listener
        .routes
        .iter()
        .flat_map(|route| &route.hostnames)
        .filter_map(|name| specificity(name, &host))
        .max();
    let grpc = is_grpc(&asked.request);
    let under = |route: &Route| {
        best.is_some()
            && route
                .hostnames
                .iter()
                .any(|name| specificity(name, &host) == best)
    };
    let mut candidates: Vec<Taken<'_>> = Vec::new();
    let speaks = |route: &Route| route.kind == RouteKind::Http || grpc;
    let open = |route: &&Route| under(route) && speaks(route);
    for route in listener.routes.iter().filter(open) {
        for (index, rule) in route.rules.iter().enumerate() {
            candidates.extend(rule.matches.iter().map(|by| Taken {
                route,
                index,
                rule,
                by,
            }));
        }
    }
    candidates.sort_by_key(|candidate| {
        let by_plan = candidate.route.in_order;
        Reverse((by_plan, (!by_plan).then(|| precedence(candidate.by))))
    });
    let taken = candidates
        .into_iter()
        .find(|candidate| route_match(candidate.by, asked).is_ok());

    let mut passed = Vec::new();
    for route in &listener.routes {
        for (index, rule) in route.rules.iter().enumerate() {
            if taken.is_some_and(|taken| std::ptr::eq(taken.rule, rule)) {
                continue;
            }
            let why = if !speaks(route) {
                "it is for gRPC (content-type application/grpc)".to_owned()
            } else if under(route) {
                why_not(rule, asked, taken)
            } else {
                let names: Vec<_> = route.hostnames.iter().map(words::hostname).collect();
                let matches = route
                    .hostnames
                    .iter()
                    .any(|name| specificity(name, &host).is_some());
                if matches {
                    format!(
                        "{} matches, and a more specific hostname has routes",
                        names.join(", ")
                    )
                } else {
                    format!("it is for {}", names.join(", "))
                }
            };
            passed.push(Passed {
                name: rule_name(route, index),
                why,
            });
        }
    }
    (taken, passed)
}

fn why_not(rule: &RouteRule, asked: &Asked<'_>, taken: Option<Taken<'_>>) -> String {
    let mut whys = Vec::new();
    for one in &rule.matches {
        match (route_match(one, asked), taken) {
            (Ok(()), Some(taken)) => {
                let taken = rule_name(taken.route, taken.index);
                return format!("it matches too; {taken} is more specific or comes first");
            }
            (Ok(()), None) => {}
            (Err(why), _) => whys.push(why),
        }
    }
    whys.join("; or else ")
}

/// How specific a hostname is that `host` matches; `None`: it does not.
pub(super) fn specificity(pattern: &Hostname, host: &str) -> Option<usize> {
    match pattern {
        Hostname::Any => Some(0),
        Hostname::Wildcard(suffix) => {
            let matches = host.len() > suffix.len() && host.ends_with(suffix.as_str());
            matches.then_some(1 + suffix.len())
        }
        Hostname::Exact(exact) => (exact == host).then_some(usize::MAX),
    }
}

fn precedence(one: &RouteMatch) -> (u8, usize, bool, usize, usize) {
    let (kind, length) = match &one.path {
        PathMatch::Exact(path) => (2, path.len()),
        PathMatch::Regex(regex) => (1, regex.as_str().len()),
        PathMatch::StartsWith(text) => (1, text.len()),
        PathMatch::Prefix(prefix) => (0, prefix.len()),
    };
    (
        kind,
        length,
        one.method.is_some(),
        one.headers.len(),
        one.query.len(),
    )
}

/// Whether all parts of a match hold, or the first that does not.
fn route_match(one: &RouteMatch, asked: &Asked<'_>) -> Result<(), String> {
    let request = &asked.request;
    if !path_matches(&one.path, request.path) {
        return Err(words::path_denial(&one.path));
    }
    if let Some(method) = one
        .method
        .as_ref()
        .filter(|method| *method != request.method)
    {
        return Err(format!("the method is not {method}"));
    }
    for header in &one.headers {
        header_matches(header, asked)?;
    }
    for query in &one.query {
        query_matches(query, asked)?;
    }
    Ok(())
}

/// Of several lines of one header, any may match.
fn header_matches(wanted: &HeaderMatch, asked: &Asked<'_>) -> Result<(), String> {
    let name = &wanted.name;
    let mut lines = asked.request.headers.get_all(name).iter().peekable();
    let absent = lines.peek().is_none();
    let any = lines.any(|line| value_matches(&wanted.value, line.as_bytes()));
    match (any, wanted.invert) {
        (true, false) | (false, true) => Ok(()),
        (true, true) => Err(format!("header {name} has a value that it must not have")),
        (false, false) if absent => Err(format!("header {name} is absent")),
        (false, false) => Err(format!("header {name} has another value")),
    }
}

/// Of several parameters of one name, the first counts.
fn query_matches(wanted: &QueryMatch, asked: &Asked<'_>) -> Result<(), String> {
    let name = words::clean(&wanted.name);
    match query_value(asked.request.query, &wanted.name) {
        None => Err(format!("query parameter {name} is absent")),
        Some(value) if value_matches(&wanted.value, &value) => Ok(()),
        Some(_other) => Err(format!("query parameter {name} has another value")),
    }
}

fn value_matches(wanted: &ValueMatch, value: &[u8]) -> bool {
    match wanted {
        ValueMatch::Present => true,
        ValueMatch::Exact(exact) => exact.as_bytes() == value,
        ValueMatch::Regex(regex) => {
            std::str::from_utf8(value).is_ok_and(|value| regex.is_match(value))
        }
    }
}
