//! Hostnames of listeners and routes, and what they have in common.

use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::plan::Hostname;

/// A hostname or a `*.` wildcard, in lower case; an error if it is neither.
pub(crate) fn parse(text: &At<String>, scope: &mut Scope<'_>) -> Option<Hostname> {
    let lower = text.to_ascii_lowercase();
    let (wildcard, domain) = match lower.strip_prefix("*.") {
        Some(domain) => (true, domain),
        None => (false, lower.as_str()),
    };
    let is_address = lower.parse::<std::net::IpAddr>().is_ok();
    if is_address || !is_domain(domain) {
        let message = format!("`{}` is not a hostname", text.value);
        scope.error(
            &text.mark,
            message,
            "write a name, as `api.example.com`, or a wildcard, as `*.example.com`",
        );
        return None;
    }
    Some(if wildcard {
        Hostname::Wildcard(format!(".{domain}"))
    } else {
        Hostname::Exact(lower)
    })
}

/// Whether it is a DNS name, in lower case, without a dot at the end.
pub(crate) fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// What of a route's hostnames a listener serves: of two that overlap the narrower. No hostname
/// is every hostname. Empty: they have nothing in common.
pub(crate) fn intersect(listener: &Hostname, route: &[Hostname]) -> Vec<Hostname> {
    if route.is_empty() {
        return vec![listener.clone()];
    }
    let mut common: Vec<Hostname> = Vec::new();
    for hostname in route
        .iter()
        .filter_map(|hostname| narrower(listener, hostname))
    {
        if !common.contains(hostname) {
            common.push(hostname.clone());
        }
    }
    common
}

fn narrower<'a>(a: &'a Hostname, b: &'a Hostname) -> Option<&'a Hostname> {
    match (a, b) {
        (Hostname::Any, other) | (other, Hostname::Any) => Some(other),
        (Hostname::Exact(x), Hostname::Exact(y)) => (x == y).then_some(a),
        (Hostname::Exact(name), Hostname::Wildcard(suffix)) => {
            name.ends_with(suffix.as_str()).then_some(a)
        }
        (Hostname::Wildcard(suffix), Hostname::Exact(name)) => {
            name.ends_with(suffix.as_str()).then_some(b)
        }
        (Hostname::Wildcard(x), Hostname::Wildcard(y)) if x.ends_with(y.as_str()) => Some(a),
        (Hostname::Wildcard(x), Hostname::Wildcard(y)) => y.ends_with(x.as_str()).then_some(b),
    }
}

#[cfg(test)]
mod tests {
    use super::{Hostname, intersect};

    fn host(text: &str) -> Hostname {
        match text.strip_prefix('*') {
            Some("") => Hostname::Any,
            Some(suffix) => Hostname::Wildcard(suffix.to_owned()),
            None => Hostname::Exact(text.to_owned()),
        }
    }

    #[test]
    fn intersections() {
        let table: [(&str, &[&str], &[&str]); 8] = [
            ("*", &[], &["*"]),
            ("*.a.com", &[], &["*.a.com"]),
            ("*", &["x.com", "*.a.com"], &["x.com", "*.a.com"]),
            ("x.com", &["x.com", "y.com"], &["x.com"]),
            (
                "*.a.com",
                &["a.com", "b.a.com", "c.b.a.com"],
                &["b.a.com", "c.b.a.com"],
            ),
            ("b.a.com", &["*.a.com", "b.a.com"], &["b.a.com"]),
            (
                "*.a.com",
                &["*.b.a.com", "*.com"],
                &["*.b.a.com", "*.a.com"],
            ),
            ("*.a.com", &["*.aa.com", "xa.com"], &[]),
        ];
        for (listener, route, expected) in table {
            let route: Vec<_> = route.iter().map(|text| host(text)).collect();
            let expected: Vec<_> = expected.iter().map(|text| host(text)).collect();
            assert_eq!(intersect(&host(listener), &route), expected, "{listener}");
        }
    }
}
