//! Which filters ask a rate limit service about the requests of a rule, and with which descriptors.
//!
//! Of the places listener and Gateway the first that says something of `filters` (or `rateLimits`)
//! decides, and so it is for rule and route. What holds of the two pairs together is Envoy's: those
//! of the route alone, or both, or those of above alone if the route has none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::attach::{self, Attached, Place, target_kind};
use super::certificates;
use super::in_force::places_of_entry;
use super::topology::Entry;
use crate::policy::envoy_gateway::targets::Targets;
use crate::policy::findings::{Findings, Mark, Scope};
use crate::policy::gateway_api::route::{Route, Rule};
use crate::policy::kinds::Kind;
use crate::policy::native;
use crate::policy::native::http_rate_limit_policy::{AskPolicy, FromAbove, Inline, Service};
use crate::policy::plan::{
    AskFilter, AskedService, Asking, DescriptorRule, Pem, RlsPeer, RlsPeerTls, StoreTls,
};
use crate::policy::resource::{Deprecated, Meta, Name};
use crate::policy::resources::Resources;
use crate::policy::status::Statuses;

impl attach::Policy for AskPolicy {
    const KIND: Kind = Kind::HttpRateLimitPolicy;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn targets(&self) -> &Targets {
        &self.targets
    }

    fn deprecated(&self) -> &[Deprecated] {
        &self.deprecated
    }
}

/// A filter whose references have been followed.
#[derive(Debug)]
struct Ready<'a> {
    filter: Arc<AskFilter>,
    domain: &'a str,
    inline: Option<&'a Inline>,
    mark: &'a Mark,
}

/// The policies, and which of them came to anything.
#[derive(Debug)]
pub(super) struct Asks<'a> {
    attached: Attached<'a, AskPolicy>,
    filters: BTreeMap<&'a Name, Vec<Ready<'a>>>,
    /// Policies with descriptors that a filter asks about.
    used: BTreeSet<&'a Name>,
    /// By the policies and the Gateway.
    made: BTreeMap<Key<'a>, Arc<Vec<Asking>>>,
    /// Domains of limiterd's own that are asked about, with a filter that does.
    own_domains: BTreeMap<String, (&'a Name, Mark)>,
}

/// Policies of rule, route, listener and so on; and the Gateway.
type Key<'a> = (Vec<Option<&'a Name>>, &'a Name);

impl<'a> Asks<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        statuses: &mut Statuses,
        findings: &mut Findings,
    ) -> Self {
        let attached = attach::attach(&resources.asks, resources, statuses, findings);
        let mut filters = BTreeMap::new();
        for (name, policy) in &resources.asks {
            let mut scope = findings.at(&policy.meta.origin);
            let ready = policy.filters.iter().flatten().map(|filter| {
                let service = filter.service.as_ref();
                let service = service.map_or(AskedService::Own, |service| {
                    peer(service, name, resources, &mut scope)
                });
                Ready {
                    filter: Arc::new(AskFilter {
                        service,
                        ..filter.plan.clone()
                    }),
                    domain: &filter.domain,
                    inline: filter.inline.as_ref(),
                    mark: &filter.mark,
                }
            });
            filters.insert(name, ready.collect());
        }
        Self {
            attached,
            filters,
            used: BTreeSet::new(),
            made: BTreeMap::new(),
            own_domains: BTreeMap::new(),
        }
    }

    /// What is asked about the requests of a rule at a listener.
    pub(super) fn on(&mut self, route: &Route, rule: &Rule, entry: &Entry<'a>) -> Arc<Vec<Asking>> {
        let kind = target_kind(route.kind);
        let name = &route.meta.name;
        let rule = rule.name.clone();
        let rule = rule.map(|rule| (kind, name.clone(), Some(rule)));
        let own = [rule, Some((kind, name.clone(), None))];
        let own = own.map(|place| place.and_then(|place| self.at(&place)));
        let above: Vec<_> = places_of_entry(entry)
            .iter()
            .map(|place| self.at(place))
            .collect();
        let gateway = &entry.gateway.meta.name;
        let policies = own.iter().chain(&above);
        let key = (
            policies
                .map(|policy| policy.map(|policy| &policy.meta.name))
                .collect(),
            gateway,
        );
        if let Some(made) = self.made.get(&key) {
            return Arc::clone(made);
        }
        let made = Arc::new(self.make(&own, &above, gateway));
        self.made.insert(key, Arc::clone(&made));
        made
    }

    fn at(&self, place: &Place) -> Option<&'a AskPolicy> {
        self.attached.at(place)
    }

    fn make(
        &mut self,
        own: &[Option<&'a AskPolicy>],
        above: &[Option<&'a AskPolicy>],
        gateway: &Name,
    ) -> Vec<Asking> {
        let own = || own.iter().flatten().copied();
        let above = || above.iter().flatten().copied();
        let Some(asker) = above().find(|policy| policy.filters.is_some()) else {
            return Vec::new();
        };
        let has_limits = |policy: &&AskPolicy| policy.rate_limits.is_some();
        let of_route = own().find(has_limits);
        let of_above = above().find(has_limits);
        let from_above = own()
            .find_map(|policy| policy.from_above)
            .unwrap_or_default();
        let domain = own().find_map(|policy| policy.domain.as_deref());
        let route_has_none = of_route.is_none_or(|policy| limits(policy).is_empty());
        let takes_above = match from_above {
            FromAbove::Override => route_has_none,
            FromAbove::Include => true,
            FromAbove::Ignore => false,
        };
        let levels: Vec<&'a AskPolicy> = of_route
            .into_iter()
            .chain(of_above.filter(|_| takes_above))
            .collect();
        let mut made = Vec::new();
        for ready in self.filters.get(&asker.meta.name).into_iter().flatten() {
            let descriptors: Vec<Arc<DescriptorRule>> = match ready.inline {
                Some(inline) => inline.clone(),
                None => {
                    let mut found = Vec::new();
                    for level in &levels {
                        let before = found.len();
                        let all = limits(level).iter();
                        let stage = ready.filter.stage;
                        found.extend(all.filter(|rule| rule.stage == stage).cloned());
                        if found.len() > before {
                            self.used.insert(&level.meta.name);
                        }
                    }
                    found
                }
            };
            if descriptors.is_empty() {
                continue;
            }
            let domain = domain.unwrap_or(ready.domain).to_owned();
            if ready.filter.service == AskedService::Own {
                self.own_domains
                    .entry(domain.clone())
                    .or_insert_with(|| (&asker.meta.name, ready.mark.clone()));
            }
            made.push(Asking {
                filter: Arc::clone(&ready.filter),
                domain,
                source: gateway.to_string(),
                descriptors,
            });
        }
        made
    }

    /// The domains that limiterd asks itself about.
    pub(super) fn own_domains(&self) -> BTreeSet<&str> {
        self.own_domains.keys().map(String::as_str).collect()
    }

    /// Warns of what comes to nothing.
    pub(super) fn report(&self, resources: &Resources, findings: &mut Findings) {
        if findings.errors() > 0 {
            return;
        }
        for (domain, (policy, mark)) in &self.own_domains {
            let known = resources.domains.keys().any(|name| name.name == *domain);
            if let (false, Some(policy)) = (known, resources.asks.get(policy)) {
                findings.at(&policy.meta.origin).warning(
                    mark,
                    format!("no file has the domain `{domain}`, so nothing is limited by it"),
                    "add a file with `domain` and `descriptors`, or name a `service` to ask",
                );
            }
        }
        for (_, policy, mark) in self.attached.all() {
            if !limits(policy).is_empty() && !self.used.contains(&policy.meta.name) {
                findings.at(&policy.meta.origin).warning(
                    mark,
                    "no filter asks about these `rateLimits`",
                    "give the Gateway a policy with a filter of this `stage` (without `rateLimits` of \
                     its own), and look at `vhRateLimits` of its routes",
                );
            }
        }
    }
}

fn limits(policy: &AskPolicy) -> &[Arc<DescriptorRule>] {
    policy.rate_limits.as_deref().unwrap_or_default()
}

/// Follows the references of a service.
fn peer(
    service: &Service,
    policy: &Name,
    resources: &Resources,
    scope: &mut Scope<'_>,
) -> AskedService {
    let from = (
        native::GROUP,
        Kind::HttpRateLimitPolicy.name(),
        policy.namespace.as_str(),
    );
    let mut tls = None;
    if let Some(wanted) = &service.tls {
        let mut how = StoreTls::default();
        if let Some(reference) = &wanted.certificate {
            let Ok(found) = certificates::certificate(resources, from, reference, scope) else {
                return broken(service);
            };
            how.certificate = Some(found.clone());
            let secret = resources.secrets.get(&reference.name);
            how.authorities = secret.and_then(|secret| secret.authorities.clone());
        }
        if !wanted.authorities.is_empty() {
            let found = certificates::authorities(resources, from, &wanted.authorities, scope);
            let Some(found) = found else {
                return broken(service);
            };
            let joined: Vec<&[u8]> = found.iter().map(|pem| pem.0.as_slice()).collect();
            how.authorities = Some(Pem(joined.join(&b'\n')));
        }
        tls = Some(RlsPeerTls {
            server_name: wanted.hostname.clone(),
            how,
        });
    }
    AskedService::Peer(Arc::new(RlsPeer {
        host: service.host.clone(),
        tls,
    }))
}

fn broken(service: &Service) -> AskedService {
    AskedService::Broken(format!(
        "certificates to ask {} with cannot be used",
        service.host
    ))
}
