//! Domains of Envoy's rate limit service, as JSON.

use serde::Serialize;

use crate::policy::plan::{Algorithm, Amount, Descriptor, Domain, DomainKeys};

#[derive(Debug, Serialize)]
pub(super) struct DomainView {
    name: String,
    algorithm: &'static str,
    /// What its counts are called in the store.
    keys: &'static str,
    on_store_failure: &'static str,
    shadow: bool,
    /// Why nothing can be said of its requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
    limits: Vec<LimitView>,
}

#[derive(Debug, Serialize)]
struct LimitView {
    /// `key_value` of each level, joined by dots.
    descriptor: String,
    /// As `10 / minute`, or `unlimited`.
    limit: String,
    shadow: bool,
    quota: bool,
}

impl From<&Domain> for DomainView {
    fn from(domain: &Domain) -> Self {
        let mut limits = Vec::new();
        walk(domain, &domain.descriptors, "", &mut limits);
        Self {
            name: domain.name.clone(),
            algorithm: match domain.algorithm {
                Algorithm::TokenBucket => "TokenBucket",
                Algorithm::FixedWindow => "FixedWindow",
                Algorithm::SlidingWindow => "SlidingWindow",
            },
            keys: match domain.keys {
                DomainKeys::Own => "Limiterd",
                DomainKeys::Reference { .. } => "Reference",
            },
            on_store_failure: domain.on_store_failure.name(),
            shadow: domain.shadow,
            broken: domain.broken.clone(),
            limits,
        }
    }
}

fn walk(domain: &Domain, level: &[Descriptor], above: &str, limits: &mut Vec<LimitView>) {
    for one in level {
        let descriptor = format!("{above}{}", one.label());
        walk(domain, &one.descriptors, &format!("{descriptor}."), limits);
        if let Some(limit) = &one.limit {
            limits.push(LimitView {
                descriptor,
                limit: match limit.amount {
                    Amount::Unlimited => "unlimited".to_owned(),
                    Amount::Nothing(unit) => format!("0 / {}", unit.name()),
                    Amount::PerUnit { requests, unit, .. } => {
                        format!("{requests} / {}", unit.name())
                    }
                },
                shadow: limit.shadow,
                quota: limit.quota || domain.quota,
            });
        }
    }
}
