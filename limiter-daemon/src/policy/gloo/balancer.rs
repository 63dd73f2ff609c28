//! `loadBalancerConfig` of upstreams, and `lbHash` of routes: how requests are spread over hosts.
//!
//! Upstreams with `maglev` or `ringHash` choose by a hash; what it is of, the route says. Both are
//! Maglev tables here: requests with one value go to one host, and few move when hosts do.

use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::gateway_api::route_match::header_name;
use crate::policy::plan::{BackendSettings, Balancing, HashBy, LoadBalancer};
use crate::policy::units;

/// Places of a Maglev table: Envoy's own number.
const TABLE_SIZE: u32 = 65_537;
const MAX_HASHED: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawBalancer {
    round_robin: Option<At<RawEven>>,
    least_request: Option<At<RawEven>>,
    random: Option<At<Ignored>>,
    ring_hash: Option<At<RawRingHash>>,
    maglev: Option<At<Ignored>>,
    healthy_panic_threshold: Option<At<f64>>,
    update_merge_window: Option<Unheeded>,
    locality_weighted_lb_config: Option<Unheeded>,
    use_hostname_for_hashing: Option<Unheeded>,
    close_connections_on_host_set_change: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawEven {
    choice_count: Option<Unheeded>,
    slow_start_config: Option<RawSlowStart>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawSlowStart {
    slow_start_window: Option<At<String>>,
    aggression: Option<Unsupported>,
    min_weight_percent: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawRingHash {
    ring_hash_config: Option<Unheeded>,
}

/// Checks `loadBalancerConfig`.
pub(super) fn lower(raw: RawBalancer, settings: &mut BackendSettings, scope: &mut Scope<'_>) {
    let marks = [
        raw.round_robin.as_ref().map(|at| &at.mark),
        raw.least_request.as_ref().map(|at| &at.mark),
        raw.random.as_ref().map(|at| &at.mark),
        raw.ring_hash.as_ref().map(|at| &at.mark),
        raw.maglev.as_ref().map(|at| &at.mark),
    ];
    if let Some(second) = marks.into_iter().flatten().nth(1) {
        scope.error(
            second,
            "hosts are chosen in one way",
            "keep one of `roundRobin`, `leastRequest`, `random`, `ringHash` and `maglev`",
        );
    }
    let hashes = raw.ring_hash.is_some() || raw.maglev.is_some();
    let algorithm = if raw.least_request.is_some() {
        Balancing::LeastRequest
    } else if raw.random.is_some() || hashes {
        // Without an `lbHash`, a hash says nothing.
        Balancing::Random
    } else {
        // Gloo's and Envoy's own.
        Balancing::RoundRobin
    };
    let even = raw.least_request.or(raw.round_robin);
    let slow = even.and_then(|even| even.value.slow_start_config?.slow_start_window);
    settings.load_balancer = LoadBalancer {
        algorithm,
        slow_start: slow.and_then(|text| units::positive_duration(&text, scope)),
    };
    if let Some(at) = raw.healthy_panic_threshold {
        settings.panic_threshold = panic_threshold(&at, scope);
    }
}

/// Whether an upstream chooses by the hash of its routes.
pub(super) fn hashes(raw: &RawBalancer) -> bool {
    raw.ring_hash.is_some() || raw.maglev.is_some()
}

/// Whole percent: Envoy rounds it, too.
fn panic_threshold(at: &At<f64>, scope: &mut Scope<'_>) -> u32 {
    if !(0.0..=100.0).contains(&at.value) {
        let message = format!("{} is no share", at.value);
        scope.error(&at.mark, message, "write a percentage, 0 to 100");
        return 0;
    }
    let rounded = at.value.round();
    (0..=100)
        .find(|whole| f64::from(*whole) >= rounded)
        .unwrap_or(100)
}

/// `lbHash`: what a route's requests are hashed by.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawHash {
    hash_policies: Option<At<Vec<At<RawPolicy>>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPolicy {
    header: Option<At<String>>,
    cookie: Option<At<RawCookie>>,
    source_ip: Option<At<bool>>,
    terminal: Option<At<bool>>,
}

#[derive(Debug, Deserialize)]
struct RawCookie {
    name: At<String>,
    ttl: Option<At<String>>,
    path: Option<At<String>>,
}

/// Checks `lbHash`; `None` after an error.
pub(super) fn hash_by(
    At { value: raw, mark }: At<RawHash>,
    scope: &mut Scope<'_>,
) -> Option<HashBy> {
    let Some(list) = raw.hash_policies.filter(|list| !list.is_empty()) else {
        scope.error(
            &mark,
            "there is nothing to hash by",
            "give it `hashPolicies`, as `[{header: x-user}]`",
        );
        return None;
    };
    scope.at_most(&list.mark, list.len(), MAX_HASHED);
    let alone = list.len() == 1;
    let mut headers: Vec<HeaderName> = Vec::new();
    let mut all_valid = true;
    for At { value: raw, mark } in list.value {
        if let Some(at) = raw.terminal.filter(|at| at.value && !alone) {
            let message = "what is hashed in the place of something else is not supported yet";
            scope.error(
                &at.mark,
                message,
                "remove it: the values of all headers are hashed",
            );
            all_valid = false;
        }
        let by_source = raw.source_ip.is_some_and(|at| at.value);
        match (raw.header, raw.cookie, by_source) {
            (Some(name), None, false) => match header_name(&name, scope) {
                Some(name) => headers.push(name),
                None => all_valid = false,
            },
            (None, Some(cookie), false) if alone => return lower_cookie(cookie.value, scope),
            (None, None, true) if alone => return Some(HashBy::SourceIp),
            (None, None, false) => {
                let remedy = "give it one of `header`, `cookie` and `sourceIp: true`";
                scope.error(&mark, "there is nothing to hash by", remedy);
                all_valid = false;
            }
            _ => {
                scope.error(
                    &mark,
                    "of several things, only headers are hashed together",
                    "write one cookie, or `sourceIp: true`, or headers alone",
                );
                all_valid = false;
            }
        }
    }
    all_valid.then_some(HashBy::Headers(headers))
}

fn lower_cookie(raw: RawCookie, scope: &mut Scope<'_>) -> Option<HashBy> {
    // A cookie's name is a token, as a header's is (RFC 6265 section 4.1.1).
    if HeaderName::from_bytes(raw.name.as_bytes()).is_err() {
        scope.error(
            &raw.name.mark,
            format!("`{}` is not the name of a cookie", raw.name.value),
            "write letters, digits, `-` and `_`",
        );
        return None;
    }
    let ttl = match &raw.ttl {
        None => None,
        Some(text) => {
            let bound = units::bound(text, scope)?;
            Some(bound.map_or(Duration::ZERO, |time| Duration::from_secs(time.as_secs())))
        }
    };
    let plain = |text: &str| text.bytes().all(|b| (b' '..0x7f).contains(&b) && b != b';');
    if let Some(path) = raw.path.as_ref().filter(|path| !plain(path)) {
        let message = format!("`{}` is no path of a cookie", path.value);
        scope.error(&path.mark, message, "write visible characters without `;`");
        return None;
    }
    let path = raw.path.filter(|path| !path.is_empty());
    Some(HashBy::Cookie {
        name: raw.name.value,
        ttl,
        attributes: path
            .into_iter()
            .map(|path| ("Path".to_owned(), path.value))
            .collect(),
    })
}

/// The algorithm of an upstream that chooses by hash, on routes that are hashed by this.
pub(crate) fn consistent(by: HashBy) -> Balancing {
    Balancing::ConsistentHash {
        by,
        table_size: TABLE_SIZE,
    }
}
