//! The table beside a plain model: of everything that matches, the one that precedes all others.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const HOSTS: [&str; 5] = [
    "a.example.com",
    "b.a.example.com",
    "example.com",
    "com",
    "x",
];
const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b", "/a//b"];
const QUERIES: [&str; 4] = ["", "?q=1", "?q=2&r=1", "?r=1"];

fn hostnames() -> impl Strategy<Value = Hostname> {
    prop_oneof![
        Just(Hostname::Any),
        select(HOSTS.as_slice()).prop_map(|host| Hostname::Exact(host.into())),
        select([".example.com", ".a.example.com", ".com"].as_slice())
            .prop_map(|suffix| Hostname::Wildcard(suffix.into())),
    ]
}

fn paths() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        select(PATHS.as_slice()).prop_map(|path| PathMatch::Exact(path.into())),
        select(["", "/a", "/a/b", "/ab", "/a/"].as_slice())
            .prop_map(|prefix| PathMatch::Prefix(prefix.into())),
        select(["/", "/a", "/a/b"].as_slice())
            .prop_map(|beginning| PathMatch::StartsWith(beginning.into())),
        select(["^(?:/a.*)$", "^(?:/[ab])$", "^(?:/a/b/?.*)$"].as_slice())
            .prop_map(|regex| PathMatch::Regex(Regex::new(regex).unwrap())),
    ]
}

fn conditions() -> impl Strategy<Value = RouteMatch> {
    let methods = prop::option::of(select([Method::GET, Method::POST].as_slice()));
    let values = || select(["1", "2"].as_slice());
    let header = (
        select(["x-a", "x-b"].as_slice()),
        prop::option::of(values()),
        any::<bool>(),
    );
    let query = (select(["q", "r"].as_slice()), values());
    let headers = prop::collection::vec(header, 0..3);
    let queries = prop::collection::vec(query, 0..3);
    (paths(), methods, headers, queries).prop_map(|(path, method, headers, query)| {
        let exact = |value| ValueMatch::Exact(HeaderValue::from_static(value));
        RouteMatch {
            path,
            method,
            headers: headers
                .into_iter()
                .map(|(name, value, invert)| HeaderMatch {
                    name: HeaderName::from_static(name),
                    value: value.map_or(ValueMatch::Present, exact),
                    invert,
                })
                .collect(),
            query: query
                .into_iter()
                .map(|(name, value)| QueryMatch {
                    name: name.into(),
                    value: exact(value),
                })
                .collect(),
        }
    })
}

/// A route: whether its rules are tried as they stand, its hosts, and its rules.
type Part = (bool, Vec<Hostname>, Vec<Vec<RouteMatch>>);
type Parts = Vec<Part>;

fn routes() -> impl Strategy<Value = Parts> {
    let rules = prop::collection::vec(prop::collection::vec(conditions(), 1..3), 1..4);
    let hosts = prop::collection::vec(hostnames(), 1..3);
    prop::collection::vec((any::<bool>(), hosts, rules), 1..8)
}

fn built(parts: &Parts) -> Vec<RoutePlan> {
    let build = |(index, part): (usize, &Part)| {
        let (in_order, hostnames, rules) = part;
        let rules = rules.iter().map(|matches| RouteRule {
            matches: matches.clone(),
            ..RouteRule::default()
        });
        RoutePlan {
            name: index.to_string(),
            hostnames: hostnames.clone(),
            in_order: *in_order,
            rules: rules.collect(),
            ..RoutePlan::default()
        }
    };
    parts.iter().enumerate().map(build).collect()
}

/// How specific `pattern` is for `host`; `None`: it does not match.
fn host_rank(pattern: &Hostname, host: &str) -> Option<usize> {
    match pattern {
        Hostname::Any => Some(0),
        Hostname::Wildcard(suffix) => {
            (host.len() > suffix.len() && host.ends_with(suffix.as_str())).then_some(suffix.len())
        }
        Hostname::Exact(exact) => (exact == host).then_some(usize::MAX),
    }
}

fn holds(condition: &RouteMatch, request: &RequestView<'_>) -> bool {
    let exact = |value: &ValueMatch, found: &[u8]| match value {
        ValueMatch::Present => true,
        ValueMatch::Exact(wanted) => wanted.as_bytes() == found,
        ValueMatch::Regex(_) => false,
    };
    let parameter = |name: &str| {
        let pairs = request.query.unwrap_or("").split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
    };
    let path = match &condition.path {
        PathMatch::Exact(path) => path == request.path,
        PathMatch::StartsWith(text) => request.path.starts_with(text.as_str()),
        PathMatch::Regex(regex) => regex.is_match(request.path),
        PathMatch::Prefix(prefix) => {
            request.path == prefix || request.path.starts_with(&format!("{prefix}/"))
        }
    };
    path && condition
        .method
        .iter()
        .all(|method| method == request.method)
        && condition.headers.iter().all(|header| {
            request
                .headers
                .get(&header.name)
                .is_some_and(|v| exact(&header.value, v.as_bytes()))
                != header.invert
        })
        && condition.query.iter().all(|query| {
            parameter(&query.name).is_some_and(|(_, v)| exact(&query.value, v.as_bytes()))
        })
}

/// Route and rule by the specification's words, one candidate after the other.
fn model(parts: &Parts, host: &str, request: &RequestView<'_>) -> Option<(usize, usize)> {
    let hosts = parts.iter().flat_map(|(_, hostnames, _)| hostnames);
    let rank = hosts.filter_map(|pattern| host_rank(pattern, host)).max()?;
    let mut best = None;
    for (route, (in_order, hostnames, rules)) in parts.iter().enumerate() {
        if !hostnames
            .iter()
            .any(|pattern| host_rank(pattern, host) == Some(rank))
        {
            continue;
        }
        for (rule, conditions) in rules.iter().enumerate() {
            for condition in conditions
                .iter()
                .filter(|condition| holds(condition, request))
            {
                let path = match &condition.path {
                    PathMatch::Exact(path) => (2, path.len()),
                    PathMatch::Regex(regex) => (1, regex.as_str().len()),
                    PathMatch::StartsWith(text) => (1, text.len()),
                    PathMatch::Prefix(prefix) => (0, prefix.len()),
                };
                let others = (
                    condition.method.is_some(),
                    condition.headers.len(),
                    condition.query.len(),
                );
                let specific = (!in_order).then_some((path, others));
                // What is tried as it stands goes before all else, and the first of it.
                let key = (*in_order, specific);
                if best.as_ref().is_none_or(|(than, _)| key > *than) {
                    best = Some((key, (route, rule)));
                }
            }
        }
    }
    best.map(|(_, found)| found)
}

proptest! {
    #[test]
    fn precedence_is_the_models(
        parts in routes(),
        host in select(HOSTS.as_slice()),
        path in select(PATHS.as_slice()),
        query in select(QUERIES.as_slice()),
        method in select([Method::GET, Method::POST, Method::PUT].as_slice()),
        sent in prop::collection::hash_map(
            select(["x-a", "x-b"].as_slice()), select(["1", "2"].as_slice()), 0..3),
    ) {
        let headers: HeaderMap = sent
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect();
        let target = format!("{path}{query}");
        let request = view(&method, &target, &headers);
        let table = table(built(&parts));
        let found = table.find(host, &request).map(|matched| {
            let rule = matched.rule;
            (rule.route.name.parse().unwrap(), rule.name.parse().unwrap())
        });
        prop_assert_eq!(found, model(&parts, host, &request));
    }
}
