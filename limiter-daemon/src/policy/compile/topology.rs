//! Where requests come in: the listeners of all Gateways and ListenerSets, which addresses they bind,
//! and which of them cannot be served beside each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{certificates, missing};
use crate::policy::envoy_gateway::targets::TargetKind;
use crate::policy::findings::Findings;
use crate::policy::gateway_api::gateway::Gateway;
use crate::policy::gateway_api::listener::Listener;
use crate::policy::gateway_api::listener_set::ListenerSet;
use crate::policy::kinds::Kind;
use crate::policy::plan::{Certificate, DaemonConfig, Hostname, RouteKind};
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::Resources;
use crate::policy::status::{Ancestor, Condition, ListenerStatus, Statuses};

/// A listener, and what it is of.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) set: Option<&'a ListenerSet>,
    pub(super) listener: &'a Listener,
    /// `namespace/gateway/listener`, or `namespace/gateway/namespace/set/listener`.
    pub(super) name: String,
    pub(super) binds: Vec<SocketAddr>,
    /// Of a listener of HTTPS.
    pub(super) certificates: Vec<Certificate>,
    /// Why it is not served.
    pub(super) refused: Option<Condition>,
    conditions: Vec<Condition>,
    pub(super) attached: usize,
}

impl Entry<'_> {
    /// The Gateway or the ListenerSet that it is written in.
    pub(super) fn owner(&self) -> (TargetKind, &Meta) {
        match self.set {
            Some(set) => (TargetKind::ListenerSet, &set.meta),
            None => (TargetKind::Gateway, &self.gateway.meta),
        }
    }
}

/// A Gateway or a ListenerSet as an ancestor.
pub(super) fn ancestor(kind: TargetKind, name: &Name, section: Option<&str>) -> Ancestor {
    Ancestor {
        kind: kind.name(),
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        section_name: section.map(str::to_owned),
    }
}

/// All listeners, in order of their Gateways' names; those that cannot be served say why.
pub(super) fn entries<'a>(
    resources: &'a Resources,
    daemon: &DaemonConfig,
    findings: &mut Findings,
) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    for gateway in resources.gateways.values() {
        for listener in &gateway.listeners {
            let name = format!("{}/{}", gateway.meta.name, listener.name);
            entries.push(entry(gateway, None, listener, name));
        }
    }
    for set in resources.listener_sets.values() {
        let Some(gateway) = parent(set, resources, findings) else {
            continue;
        };
        for listener in &set.listeners {
            let name = format!("{}/{}/{}", gateway.meta.name, set.meta.name, listener.name);
            entries.push(entry(gateway, Some(set), listener, name));
        }
    }
    for entry in &mut entries {
        certificates::of_listener(entry, resources, findings);
    }
    conflicts(&mut entries, daemon, findings);
    entries
}

fn entry<'a>(
    gateway: &'a Gateway,
    set: Option<&'a ListenerSet>,
    listener: &'a Listener,
    name: String,
) -> Entry<'a> {
    Entry {
        gateway,
        set,
        listener,
        name,
        binds: gateway
            .addresses
            .iter()
            .map(|&ip| SocketAddr::new(ip, listener.port))
            .collect(),
        certificates: Vec::new(),
        refused: None,
        conditions: Vec::new(),
        attached: 0,
    }
}

/// The Gateway of a ListenerSet, if it takes it.
fn parent<'a>(
    set: &ListenerSet,
    resources: &'a Resources,
    findings: &mut Findings,
) -> Option<&'a Gateway> {
    let mut scope = findings.at(&set.meta.origin);
    let Some(gateway) = resources.gateways.get(&set.gateway) else {
        missing(
            resources,
            Kind::Gateway,
            &set.gateway,
            &set.mark,
            &mut scope,
        );
        return None;
    };
    let namespace = &set.meta.name.namespace;
    let labels = resources.namespaces.get(namespace);
    if gateway
        .sets
        .admits(&gateway.meta.name.namespace, namespace, labels)
    {
        return Some(gateway);
    }
    scope.error(
        &set.mark,
        format!("the Gateway `{}` takes no such ListenerSets", set.gateway),
        "give it `allowedListeners.namespaces.from: Same`, or `All`",
    );
    None
}

/// Refuses what cannot be served beside what was there before: an older Gateway's listeners, and of
/// one Gateway those that stand first.
fn conflicts(entries: &mut [Entry<'_>], daemon: &DaemonConfig, findings: &mut Findings) {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&index| {
        entries
            .get(index)
            .map(|entry| (entry.set.is_some(), entry.gateway.meta.precedence()))
    });
    let mut bound: BTreeMap<SocketAddr, Vec<(String, Hostname, bool)>> = BTreeMap::new();
    for index in order {
        let Some(entry) = entries.get_mut(index) else {
            continue;
        };
        if entry.refused.is_some() {
            continue;
        }
        let secure = entry.listener.tls.is_some();
        let problem = entry
            .binds
            .iter()
            .find_map(|bind| conflict(*bind, entry, secure, daemon.admin, bound.get(bind)));
        let Some((reason, message, remedy)) = problem else {
            for bind in &entry.binds {
                bound.entry(*bind).or_default().push((
                    entry.name.clone(),
                    entry.listener.hostname.clone(),
                    secure,
                ));
            }
            continue;
        };
        let (_, meta) = entry.owner();
        findings
            .at(&meta.origin)
            .error(&entry.listener.mark, message.clone(), remedy);
        let kind = if reason == "PortUnavailable" {
            "Accepted"
        } else {
            "Conflicted"
        };
        entry.refused = Some(Condition::new(kind, kind == "Conflicted", reason, message));
    }
}

type Problem = (&'static str, String, &'static str);

fn conflict(
    bind: SocketAddr,
    entry: &Entry<'_>,
    secure: bool,
    admin: SocketAddr,
    there: Option<&Vec<(String, Hostname, bool)>>,
) -> Option<Problem> {
    if bind == admin {
        return Some((
            "PortUnavailable",
            format!("{bind} is bound by the admin listener already"),
            "give it another port or address",
        ));
    }
    let there = there?;
    if let Some((other, _, _)) = there.iter().find(|(_, _, tls)| *tls != secure) {
        return Some((
            "ProtocolConflict",
            format!(
                "{bind} is bound by the listener `{other}` already, which speaks another protocol"
            ),
            "give it another port or address, or the same protocol",
        ));
    }
    let (other, _, _) = there
        .iter()
        .find(|(_, hostname, _)| *hostname == entry.listener.hostname)?;
    Some((
        "HostnameConflict",
        format!("{bind} is bound by the listener `{other}` already, for the same hostname"),
        "give it another port or address, or a hostname of its own",
    ))
}

/// What became of Gateways, ListenerSets and their listeners.
pub(super) fn report(entries: &[Entry<'_>], resources: &Resources, statuses: &mut Statuses) {
    for gateway in resources.gateways.values() {
        owner(TargetKind::Gateway, &gateway.meta, entries, statuses);
    }
    for set in resources.listener_sets.values() {
        owner(TargetKind::ListenerSet, &set.meta, entries, statuses);
    }
}

fn owner(kind: TargetKind, meta: &Meta, entries: &[Entry<'_>], statuses: &mut Statuses) {
    let own = || {
        entries.iter().filter(move |entry| {
            let (of, owner) = entry.owner();
            of == kind && owner.name == meta.name
        })
    };
    let served = own().filter(|entry| entry.refused.is_none()).count();
    let name = &meta.name;
    let status = statuses.of(kind.name(), &name.namespace, &name.name);
    if own().next().is_none() {
        status.add(Condition::not_accepted(
            "NotAllowed",
            "No Gateway takes it.",
        ));
        return;
    }
    let all = served == own().count();
    if all {
        status.add(Condition::accepted("All listeners are valid."));
    } else {
        status.add(Condition::new(
            "Accepted",
            served > 0,
            "ListenersNotValid",
            "Some listeners are not valid.",
        ));
    }
    status.add(if served > 0 {
        Condition::new("Programmed", true, "Programmed", "It is served.")
    } else {
        Condition::new("Programmed", false, "Invalid", "No listener is served.")
    });
    for entry in own() {
        status.listeners.push(listener(entry));
    }
}

fn listener(entry: &Entry<'_>) -> ListenerStatus {
    let mut conditions = Vec::new();
    match &entry.refused {
        None => {
            conditions.push(Condition::accepted("The listener is valid."));
            conditions.push(Condition::new(
                "Programmed",
                true,
                "Programmed",
                "It is served.",
            ));
        }
        Some(why) => {
            conditions.push(Condition::new(
                "Programmed",
                false,
                "Invalid",
                "It is not served.",
            ));
            conditions.push(why.clone());
        }
    }
    conditions.extend(entry.conditions.iter().cloned());
    let resolved = conditions
        .iter()
        .any(|condition| condition.kind == "ResolvedRefs");
    if !resolved {
        conditions.push(Condition::new(
            "ResolvedRefs",
            true,
            "ResolvedRefs",
            "All references are resolved.",
        ));
    }
    ListenerStatus {
        name: entry.listener.name.clone(),
        attached_routes: entry.attached,
        conditions,
    }
}

impl Entry<'_> {
    /// Adds a condition to its status.
    pub(super) fn note(&mut self, condition: Condition) {
        self.conditions.push(condition);
    }

    /// Whether routes of this kind may attach.
    pub(super) fn takes(&self, kind: RouteKind) -> bool {
        self.listener.kinds.contains(&kind)
    }
}
