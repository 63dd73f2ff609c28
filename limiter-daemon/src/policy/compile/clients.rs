//! How the clients of a listener are spoken to.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attach::{self, Attached};
use super::certificates;
use super::in_force::{Broken, places_of_entry, reason};
use super::topology::Entry;
use crate::policy::envoy_gateway;
use crate::policy::envoy_gateway::client_traffic_policy::{ClientPolicy, Validation};
use crate::policy::findings::Findings;
use crate::policy::kinds::Kind;
use crate::policy::plan::{ClientCertificates, ClientSettings, Tls, TlsVersion};
use crate::policy::resource::Name;
use crate::policy::resources::Resources;
use crate::policy::status::{Condition, Statuses};

/// What a listener does with its clients.
pub(super) struct Clients {
    pub(super) settings: Arc<ClientSettings>,
    pub(super) tls: Option<Arc<Tls>>,
    /// Why its requests are answered with 500.
    pub(super) broken: Option<String>,
}

/// The policies on clients, ready to be asked for.
pub(super) struct Settings<'a> {
    attached: &'a Attached<'a, ClientPolicy>,
    broken: Broken<'a>,
    /// The certificates that clients must have; `None`: they cannot be found.
    validations: BTreeMap<Name, Option<ClientCertificates>>,
}

impl<'a> Settings<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        attached: &'a Attached<'a, ClientPolicy>,
        statuses: &mut Statuses,
        findings: &mut Findings,
    ) -> Self {
        let own = Kind::ClientTrafficPolicy.name();
        let mut validations = BTreeMap::new();
        for policy in resources.clients.values() {
            let Some(validation) = &policy.tls.validation else {
                continue;
            };
            let found = authorities(policy, validation, resources, findings);
            if found.is_none() {
                refuse(policy, statuses);
            }
            validations.insert(policy.meta.name.clone(), found);
        }
        Self {
            attached,
            broken: Broken::find(resources, |kind| kind == own),
            validations,
        }
    }

    /// The settings of a listener: those of the closest policy.
    pub(super) fn of(&self, entry: &Entry<'_>) -> Clients {
        let mut policy: Option<&ClientPolicy> = None;
        let mut broken = None;
        for place in places_of_entry(entry) {
            policy = self.attached.at(&place);
            broken = self.broken.at(&place).filter(|_| policy.is_none());
            if policy.is_some() || broken.is_some() {
                break;
            }
        }
        let mut why = broken.map(reason);
        let validation = match policy.map(|policy| self.validations.get(&policy.meta.name)) {
            Some(Some(Some(found))) => Some(found.clone()),
            Some(Some(None)) => {
                why = Some("the authorities of client certificates cannot be found".to_owned());
                None
            }
            _ => None,
        };
        let tls = (!entry.certificates.is_empty()).then(|| {
            let own = policy.map(|policy| &policy.tls);
            Arc::new(Tls {
                certificates: entry.certificates.clone(),
                min_version: own
                    .and_then(|tls| tls.min_version)
                    .unwrap_or(TlsVersion::V1_2),
                max_version: own
                    .and_then(|tls| tls.max_version)
                    .unwrap_or(TlsVersion::V1_3),
                alpn: own.and_then(|tls| tls.alpn.clone()).unwrap_or_default(),
                client_certificates: validation,
            })
        });
        Clients {
            settings: policy.map_or_else(Arc::default, |policy| Arc::new(policy.settings.clone())),
            tls,
            broken: why,
        }
    }
}

fn authorities(
    policy: &ClientPolicy,
    validation: &Validation,
    resources: &Resources,
    findings: &mut Findings,
) -> Option<ClientCertificates> {
    let from = (
        envoy_gateway::GROUP,
        Kind::ClientTrafficPolicy.name(),
        policy.meta.name.namespace.as_str(),
    );
    let mut scope = findings.at(&policy.meta.origin);
    let authorities =
        certificates::authorities(resources, from, &validation.authorities, &mut scope)?;
    Some(ClientCertificates {
        authorities,
        optional: validation.optional,
    })
}

fn refuse(policy: &ClientPolicy, statuses: &mut Statuses) {
    let name = &policy.meta.name;
    let status = statuses.of(
        Kind::ClientTrafficPolicy.name(),
        &name.namespace,
        &name.name,
    );
    let message = "TLS: the authorities of client certificates cannot be found.";
    status.add_for_all(&Condition::not_accepted("Invalid", message));
}

/// Says which policies on clients a closer one replaces.
pub(super) fn report(
    entries: &[Entry<'_>],
    attached: &Attached<'_, ClientPolicy>,
    resources: &Resources,
    statuses: &mut Statuses,
) {
    for (place, policy, _) in attached.all() {
        let closer: Vec<&str> = entries
            .iter()
            .filter(|entry| {
                let mut places = places_of_entry(entry).into_iter();
                let first = places.by_ref().find(|place| attached.at(place).is_some());
                first.is_some_and(|first| first != *place) && places.any(|other| other == *place)
            })
            .map(|entry| entry.listener.name.as_str())
            .collect();
        if closer.is_empty() {
            continue;
        }
        let message = format!(
            "This policy is being overridden by other clientTrafficPolicies for these listeners: [{}]",
            closer.join(" ")
        );
        let name = &policy.meta.name;
        let status = statuses.of(
            Kind::ClientTrafficPolicy.name(),
            &name.namespace,
            &name.name,
        );
        for ancestor in attach::ancestors(place, resources) {
            let condition = Condition::new("Overridden", true, "Overridden", message.clone());
            status.add_for(&ancestor, condition);
        }
    }
}
