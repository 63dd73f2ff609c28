//! `loadBalancer`: how requests are spread over the endpoints of a backend.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::merge::{Bound, by_field, whole};
use super::numbers;
use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::route_match::header_name;
use crate::policy::plan::{self, Balancing, HashBy};
use crate::policy::resource::Deprecated;
use crate::policy::units;

/// Envoy Gateway's; it has enough places for a few hundred endpoints.
const TABLE_SIZE: u32 = 65_537;
const MAX_TABLE_SIZE: u64 = 5_000_011;
const MAX_HASHED: usize = 16;
const MAX_ATTRIBUTES: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(super) struct RawLoadBalancer {
    #[serde(rename = "type")]
    kind: At<RawType>,
    consistent_hash: Option<At<RawHash>>,
    slow_start: Option<At<RawSlowStart>>,
    zone_aware: Option<Unheeded>,
    endpoint_override: Option<Unsupported>,
    backend_utilization: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawType {
    LeastRequest,
    RoundRobin,
    Random,
    ConsistentHash,
    BackendUtilization,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHash {
    #[serde(rename = "type")]
    kind: At<HashType>,
    header: Option<At<RawName>>,
    headers: Option<At<Vec<RawName>>>,
    cookie: Option<At<RawCookie>>,
    query_params: Option<At<Vec<RawName>>>,
    table_size: Option<At<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum HashType {
    #[serde(rename = "SourceIP")]
    SourceIp,
    Header,
    Headers,
    Cookie,
    QueryParams,
}

#[derive(Debug, Deserialize)]
struct RawName {
    name: At<String>,
}

#[derive(Debug, Deserialize)]
struct RawCookie {
    name: At<String>,
    ttl: Option<At<String>>,
    attributes: Option<At<BTreeMap<String, At<String>>>>,
}

#[derive(Debug, Deserialize)]
struct RawSlowStart {
    window: At<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct LoadBalancer {
    /// `None` only after an error.
    kind: Option<Kind>,
    hash: Option<Hash>,
    slow_start: Option<Duration>,
}

by_field!(LoadBalancer {
    kind,
    hash,
    slow_start
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LeastRequest,
    RoundRobin,
    Random,
    ConsistentHash,
}

#[derive(Clone, Debug)]
struct Hash {
    /// `None` only after an error.
    by: Option<HashBy>,
    table_size: Option<u32>,
}

by_field!(Hash { by, table_size });
whole!(HashBy, Kind);

/// Checks `loadBalancer`.
pub(super) fn lower(
    raw: At<RawLoadBalancer>,
    deprecated: &mut Vec<Deprecated>,
    scope: &mut Scope<'_>,
) -> LoadBalancer {
    let At { value: raw, mark } = raw;
    let kind = match raw.kind.value {
        RawType::LeastRequest => Some(Kind::LeastRequest),
        RawType::RoundRobin => Some(Kind::RoundRobin),
        RawType::Random => Some(Kind::Random),
        RawType::ConsistentHash => Some(Kind::ConsistentHash),
        RawType::BackendUtilization => {
            scope.error(
                &raw.kind.mark,
                "`BackendUtilization` is not supported yet",
                "write `LeastRequest`",
            );
            None
        }
    };
    let name = raw.kind.value;
    match (&raw.consistent_hash, name == RawType::ConsistentHash) {
        (None, true) => scope.error(
            &mark,
            "the type is `ConsistentHash`, but there is no `consistentHash`",
            "give it `consistentHash` with a `type`, as `SourceIP`",
        ),
        (Some(hash), false) => scope.error(
            &hash.mark,
            format!("`consistentHash` is not for the type `{name:?}`"),
            "remove it, or write `type: ConsistentHash`",
        ),
        _ => {}
    }
    let starts_slowly = matches!(name, RawType::LeastRequest | RawType::RoundRobin);
    if let Some(slow) = raw.slow_start.as_ref().filter(|_| !starts_slowly) {
        scope.error(
            &slow.mark,
            format!("`slowStart` is not for the type `{name:?}`"),
            "remove it, or write `LeastRequest` or `RoundRobin`",
        );
    }
    LoadBalancer {
        kind,
        hash: raw
            .consistent_hash
            .map(|hash| lower_hash(hash, deprecated, scope)),
        slow_start: raw
            .slow_start
            .and_then(|slow| units::positive_duration(&slow.value.window, scope)),
    }
}

fn lower_hash(raw: At<RawHash>, deprecated: &mut Vec<Deprecated>, scope: &mut Scope<'_>) -> Hash {
    let At { value: raw, mark } = raw;
    let kind = raw.kind.value;
    let parts = [
        (HashType::Header, raw.header.as_ref().map(|at| &at.mark)),
        (HashType::Headers, raw.headers.as_ref().map(|at| &at.mark)),
        (HashType::Cookie, raw.cookie.as_ref().map(|at| &at.mark)),
        (
            HashType::QueryParams,
            raw.query_params.as_ref().map(|at| &at.mark),
        ),
    ];
    for (of, place) in parts {
        match place {
            Some(place) if of != kind => {
                let message = format!("this is for the type `{of:?}`, and the type is `{kind:?}`");
                scope.error(place, message, "remove it, or change `type`");
            }
            None if of == kind => absent(kind, &mark, scope),
            _ => {}
        }
    }
    let by = match kind {
        HashType::SourceIp => Some(HashBy::SourceIp),
        HashType::Header => raw.header.and_then(|header| {
            deprecated.push(Deprecated {
                mark: header.mark,
                field: "spec.loadBalancer.consistentHash.header",
                instead: "spec.loadBalancer.consistentHash.headers",
            });
            Some(HashBy::Headers(vec![header_name(
                &header.value.name,
                scope,
            )?]))
        }),
        HashType::Headers => raw.headers.and_then(|list| headers(&list, scope)),
        HashType::Cookie => raw
            .cookie
            .and_then(|cookie| lower_cookie(cookie.value, scope)),
        HashType::QueryParams => raw.query_params.and_then(|list| params(list, scope)),
    };
    Hash {
        by,
        table_size: raw.table_size.and_then(|at| table_size(&at, scope)),
    }
}

fn absent(kind: HashType, mark: &Mark, scope: &mut Scope<'_>) {
    let field = match kind {
        HashType::SourceIp => return,
        HashType::Header => "header",
        HashType::Headers => "headers",
        HashType::Cookie => "cookie",
        HashType::QueryParams => "queryParams",
    };
    scope.error(
        mark,
        format!("the type is `{kind:?}`, but there is no `{field}`"),
        format!("give it `{field}`"),
    );
}

fn some(list: &At<Vec<RawName>>, scope: &mut Scope<'_>) -> bool {
    if list.is_empty() {
        scope.error(&list.mark, "empty, so there is nothing to hash", "name one");
    }
    scope.at_most(&list.mark, list.len(), MAX_HASHED);
    !list.is_empty()
}

fn headers(list: &At<Vec<RawName>>, scope: &mut Scope<'_>) -> Option<HashBy> {
    let named = some(list, scope);
    let names: Vec<Option<HeaderName>> = list
        .iter()
        .map(|header| header_name(&header.name, scope))
        .collect();
    let names: Option<Vec<HeaderName>> = names.into_iter().collect();
    names.filter(|_| named).map(HashBy::Headers)
}

fn params(list: At<Vec<RawName>>, scope: &mut Scope<'_>) -> Option<HashBy> {
    let named = some(&list, scope);
    for param in list.iter().filter(|param| param.name.is_empty()) {
        scope.error(&param.name.mark, "it is empty", "write a parameter's name");
    }
    let names = list.value.into_iter().map(|param| param.name.value);
    named.then(|| HashBy::QueryParams(names.collect()))
}

fn lower_cookie(raw: RawCookie, scope: &mut Scope<'_>) -> Option<HashBy> {
    // A cookie's name is a token, as a header's is (RFC 6265 section 4.1.1).
    let valid = HeaderName::from_bytes(raw.name.as_bytes()).is_ok();
    if !valid {
        scope.error(
            &raw.name.mark,
            format!("`{}` is not the name of a cookie", raw.name.value),
            "write letters, digits, `-` and `_`",
        );
    }
    let ttl = raw.ttl.and_then(|text| ttl(&text, scope));
    let mut attributes = Vec::new();
    if let Some(map) = raw.attributes {
        scope.at_most(&map.mark, map.len(), MAX_ATTRIBUTES);
        for (name, value) in map.value {
            let plain = |text: &str| text.bytes().all(|b| (b' '..0x7f).contains(&b) && b != b';');
            if HeaderName::from_bytes(name.as_bytes()).is_err() || !plain(&value) {
                scope.error(
                    &value.mark,
                    format!("`{name}={}` is no attribute of a cookie", value.value),
                    "write visible characters without `;`, as `SameSite: Strict`",
                );
            }
            attributes.push((name, value.value));
        }
    }
    valid.then(|| HashBy::Cookie {
        name: raw.name.value,
        ttl: ttl.map(|bound| bound.0.unwrap_or_default()),
        attributes,
    })
}

/// How long a cookie lives: whole seconds, for it is `Max-Age`.
fn ttl(text: &At<String>, scope: &mut Scope<'_>) -> Option<Bound> {
    let bound = units::bound(text, scope)?;
    if bound.is_some_and(|time| time.subsec_nanos() > 0) {
        scope.error(
            &text.mark,
            format!("`{}` is not of whole seconds", text.value),
            "write whole seconds, or `0s` for a cookie of the session",
        );
    }
    Some(Bound(bound))
}

fn table_size(at: &At<u64>, scope: &mut Scope<'_>) -> Option<u32> {
    let size = numbers::within(at, &(2..=MAX_TABLE_SIZE), scope)?;
    let is_prime = |n: u64| {
        (2..)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
    };
    if !is_prime(size) {
        // The largest that is allowed is a prime itself.
        let next = (size..=MAX_TABLE_SIZE).find(|n| is_prime(*n));
        scope.error(
            &at.mark,
            format!("{size} is not a prime"),
            format!("the next one is {}", next.unwrap_or(MAX_TABLE_SIZE)),
        );
        return None;
    }
    u32::try_from(size).ok()
}

impl LoadBalancer {
    pub(super) fn plan(&self) -> plan::LoadBalancer {
        let algorithm = match self.kind {
            None | Some(Kind::LeastRequest) => Balancing::LeastRequest,
            Some(Kind::RoundRobin) => Balancing::RoundRobin,
            Some(Kind::Random) => Balancing::Random,
            Some(Kind::ConsistentHash) => {
                let hash = self.hash.as_ref();
                Balancing::ConsistentHash {
                    by: hash
                        .and_then(|hash| hash.by.clone())
                        .unwrap_or(HashBy::SourceIp),
                    table_size: hash.and_then(|hash| hash.table_size).unwrap_or(TABLE_SIZE),
                }
            }
        };
        let starts_slowly = matches!(algorithm, Balancing::LeastRequest | Balancing::RoundRobin);
        plan::LoadBalancer {
            // A parent's, where this one's type has none.
            slow_start: self.slow_start.filter(|_| starts_slowly),
            algorithm,
        }
    }
}
