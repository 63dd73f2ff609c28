//! Domains of the rate limit service: what the files of each say, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::policy::findings::Findings;
use crate::policy::kinds::Kind;
use crate::policy::native::rate_limit_service::DomainSettings;
use crate::policy::plan::{DaemonConfig, Descriptor, Domain, Listener, ServerTls, TcpProxy};
use crate::policy::ratelimit_service::{DomainFile, descriptor};
use crate::policy::resources::{Rejected, Resources};
use crate::policy::status::{Condition, Statuses};

use super::{certificates, gloo, in_force};
use crate::policy::suggest;

/// All domains, by name, with those that another dialect has. Of those in `asked` limits are asked
/// for by limiterd itself.
pub(super) fn compile(
    resources: &Resources,
    (settings, asked, others): (&DomainSettings, &BTreeSet<&str>, gloo::Domains<'_>),
    daemon: &DaemonConfig,
    statuses: &mut Statuses,
    findings: &mut Findings,
) -> Vec<Domain> {
    let mut domains: BTreeMap<&str, (Domain, &DomainFile)> = BTreeMap::new();
    for (name, file) in &resources.domains {
        let mut accepted = true;
        match domains.get_mut(name.name.as_str()) {
            None => {
                let domain = Domain {
                    descriptors: file.descriptors.clone(),
                    ..settings.domain(&name.name)
                };
                domains.insert(&name.name, (domain, file));
            }
            Some((domain, _)) if settings.merge => merge(domain, file, findings),
            Some((_, first)) => {
                accepted = false;
                let place = format!("{}:{}", first.origin.file.display(), first.mark.line);
                findings.at(&file.origin).error(
                    &file.mark,
                    format!("the domain `{}` is in {place} already", name.name),
                    "put them into one file, or allow it by `spec.rls.mergeDomains: true` of the \
                     LimiterConfig",
                );
            }
        }
        let condition = if accepted {
            Condition::accepted("The domain has been accepted.")
        } else {
            Condition::not_accepted("Conflicted", "another file has the domain")
        };
        statuses
            .of(Kind::Domain.name(), &name.namespace, &name.name)
            .add(condition);
    }
    let mut unasked = domains
        .values()
        .filter(|(domain, _)| daemon.rls.is_none() && !asked.contains(domain.name.as_str()));
    if let Some((_, first)) = unasked.next() {
        findings.at(&first.origin).warning(
            &first.mark,
            "nobody can ask for the limits of this domain",
            "say where Envoy's rate limit service is served: `spec.rls.listen` of a LimiterConfig",
        );
    }
    let mut domains: BTreeMap<String, Domain> = domains
        .into_values()
        .map(|(domain, _)| (domain.name.clone(), domain))
        .collect();
    for (domain, origin, mark) in others {
        if domains.contains_key(&domain.name) {
            findings.at(origin).error(
                mark,
                format!(
                    "a file has the domain `{}` of these descriptors already",
                    domain.name
                ),
                "put the descriptors into one of them",
            );
        } else {
            domains.insert(domain.name.clone(), domain);
        }
    }
    for rejected in resources.rejected.iter().filter(never_valid) {
        let name = &rejected.name.name;
        let broken = domains
            .entry(name.clone())
            .or_insert_with(|| settings.domain(name));
        broken.broken = Some(in_force::reason(rejected));
    }
    let config = resources.configs.values().next();
    // Without any, there is nothing yet that a name could be compared with.
    if let Some(config) = config.filter(|_| !domains.is_empty()) {
        for (name, (_, mark)) in &settings.named {
            if !domains.contains_key(name) {
                findings.at(&config.meta.origin).warning(
                    mark,
                    format!("no file has the domain `{name}`"),
                    suggest::remedy(name, domains.keys().map(String::as_str), "there are"),
                );
            }
        }
    }
    domains.into_values().collect()
}

/// What TLS of the rate limit service needs.
pub(super) fn tls(resources: &Resources, findings: &mut Findings) -> ServerTls {
    let config = resources.configs.values().next();
    let refs = config.and_then(|one| Some((one, one.rls_tls.as_ref()?)));
    refs.map_or(ServerTls::None, |(config, refs)| {
        certificates::of_daemon("rls", refs, &config.meta, resources, findings)
    })
}

/// One address serves one thing.
pub(super) fn check_address(
    (listeners, tcp): (&[Listener], &[TcpProxy]),
    resources: &Resources,
    daemon: &DaemonConfig,
    findings: &mut Findings,
) {
    let (Some(rls), Some(config)) = (&daemon.rls, resources.configs.values().next()) else {
        return;
    };
    let http = listeners.iter().map(|one| (&one.name, &one.binds));
    let mut all = http.chain(tcp.iter().map(|one| (&one.name, &one.binds)));
    let taken = all.find(|(_, binds)| binds.iter().any(|bind| overlap(*bind, rls.listen)));
    let taken = match taken {
        Some((name, _)) => format!("the listener `{name}`"),
        None if overlap(daemon.admin, rls.listen) => "the admin listener".to_owned(),
        None => return,
    };
    findings.at(&config.meta.origin).error(
        &config.mark,
        format!("{taken} has the address {} of `rls.listen`", rls.listen),
        "give one of them another port",
    );
}

/// `[::]` is every address of both families.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let (a, b) = (one.ip(), other.ip());
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

fn never_valid(rejected: &&Rejected) -> bool {
    rejected.kind == Kind::Domain.name() && !rejected.kept
}

/// Adds the descriptors of a file. One that is there already stays as it is.
fn merge(domain: &mut Domain, file: &DomainFile, findings: &mut Findings) {
    for (descriptor, mark) in file.descriptors.iter().zip(&file.marks) {
        let same =
            |other: &Descriptor| (&other.key, &other.value) == (&descriptor.key, &descriptor.value);
        if domain.descriptors.iter().any(same) {
            descriptor::twice(descriptor, mark, &mut findings.at(&file.origin));
        } else {
            domain.descriptors.push(descriptor.clone());
        }
    }
}
