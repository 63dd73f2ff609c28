//! From resources to the plan: references, attachment, precedence.

mod admin;
mod asks;
mod attach;
mod backends;
mod certificates;
mod clients;
mod domains;
mod gloo;
mod in_force;
mod network;
mod overrides;
mod routes;
mod store;
pub(crate) mod strays;
mod topology;
mod treatment;

use super::findings::{Findings, Mark, Scope};
use super::kinds::Kind;
use super::native::limiter_config::Config;
use super::native::rate_limit_service::DomainSettings;
use super::plan::{DaemonConfig, Plan};
use super::resource::Name;
use super::resources::{Rejected, Resources};
use super::status::{Ancestor, Condition, Statuses};
use super::suggest;
use asks::Asks;
use backends::Backends;
use clients::Settings;
use in_force::InForce;
use overrides::Overrides;
use routes::Context;

/// Compiles all resources. What is wrong with one of them takes nothing from the others.
pub(crate) fn compile(
    resources: &Resources,
    statuses: &mut Statuses,
    findings: &mut Findings,
) -> Plan {
    let (daemon, unlimited_if_invalid, served) = daemon(resources, findings);
    let runtime = resources.configs.values().next();
    let runtime = runtime
        .map(|config| config.runtime.clone())
        .unwrap_or_default();
    let mut entries = topology::entries(resources, &daemon, findings);
    let traffic = attach::attach(&resources.traffic, resources, statuses, findings);
    let clients = attach::attach(&resources.clients, resources, statuses, findings);
    let settings = Settings::new(resources, &clients, statuses, findings);
    let overrides = Overrides::new(resources, statuses, findings);
    let mut in_force = InForce::new(resources, &traffic, &overrides, unlimited_if_invalid);
    let mut asks = Asks::new(resources, statuses, findings);
    let mut backends = Backends::new(resources);
    let mut gloo = gloo::Gloo::new(resources, findings);
    let mut context = Context {
        resources,
        gloo: &mut gloo,
        backends: &mut backends,
        in_force: &mut in_force,
        asks: &mut asks,
        statuses,
        findings,
    };
    let mut listeners = routes::compile(&mut entries, &settings, &mut context);
    let place = (&daemon, listeners.as_slice(), entries.as_slice());
    let of_gloo = gloo::compile(gloo, resources, &mut backends, place, statuses, findings);
    listeners.extend(of_gloo.listeners);
    let tcp = of_gloo.tcp;
    let (network, escalations) = network::compile(resources, &of_gloo.network, &daemon, findings);
    domains::check_address((&listeners, &tcp), resources, &daemon, findings);
    let mut asked = asks.own_domains();
    asked.extend(of_gloo.asked.iter().map(String::as_str));
    let of_gloo = gloo::domains(resources, &served);
    let domains = (&served, &asked, of_gloo);
    let domains = domains::compile(resources, domains, &daemon, statuses, findings);
    topology::report(&entries, resources, statuses);
    clients::report(&entries, &clients, resources, statuses);
    in_force.report(resources, statuses, findings);
    asks.report(resources, findings);
    for rejected in &resources.rejected {
        report_rejected(rejected, resources, statuses);
    }
    Plan {
        daemon,
        listeners,
        tcp,
        backends: backends.into_list(),
        network,
        escalations,
        domains,
        rls_tls: domains::tls(resources, findings),
        admin: admin::compile(resources, findings),
        runtime,
    }
}

/// Says of a resource with errors that it is not accepted, and what goes on in its place.
fn report_rejected(rejected: &Rejected, resources: &Resources, statuses: &mut Statuses) {
    let name = &rejected.name;
    let status = statuses.of(&rejected.kind, &name.namespace, &name.name);
    let message = if rejected.kept {
        format!("{}; its last good version goes on.", rejected.reason)
    } else {
        rejected.reason.clone()
    };
    let condition = Condition::not_accepted("Invalid", message);
    let mut ancestors: Vec<Ancestor> = status
        .ancestors
        .iter()
        .map(|status| status.ancestor.clone())
        .collect();
    for place in attach::places_of_rejected(rejected, resources) {
        for ancestor in attach::ancestors(&place, resources) {
            if !ancestors.contains(&ancestor) {
                ancestors.push(ancestor);
            }
        }
    }
    if ancestors.is_empty() {
        status.add(condition);
        return;
    }
    for ancestor in &ancestors {
        status.add_for(ancestor, condition.clone());
    }
}

/// The daemon's settings, whether requests under an invalid policy pass, and how domains are counted.
fn daemon(resources: &Resources, findings: &mut Findings) -> (DaemonConfig, bool, DomainSettings) {
    let mut configs: Vec<&Config> = resources.configs.values().collect();
    configs.sort_by_key(|config| (&config.meta.origin.file, config.mark.line));
    let mut configs = configs.into_iter();
    let first = configs.next();
    for other in configs {
        if let Some(first) = first {
            let message = format!(
                "a second LimiterConfig; `{}` is there already",
                first.meta.name
            );
            findings
                .at(&other.meta.origin)
                .error(&other.mark, message, "keep one of them");
        }
    }
    let (mut daemon, unlimited_if_invalid, domains) = first
        .map(|config| {
            let daemon = config.daemon.clone();
            (daemon, config.unlimited_if_invalid, config.domains.clone())
        })
        .unwrap_or_default();
    match store::compile(first, resources, findings) {
        Some(Ok(stores)) => {
            daemon.store = Some(stores.main);
            daemon.per_second_store = stores.per_second;
        }
        Some(Err(store::Unusable)) => daemon.store_unusable = true,
        None => {}
    }
    (daemon, unlimited_if_invalid, domains)
}

/// Says that a reference leads nowhere, unless it leads to a resource with errors of its own.
fn missing(resources: &Resources, kind: Kind, name: &Name, mark: &Mark, scope: &mut Scope<'_>) {
    if resources.has(kind, name) {
        return;
    }
    let names = resources.names(kind, &name.namespace);
    let elsewhere = resources.elsewhere(kind, name);
    let kind = kind.name();
    let remedy = match elsewhere {
        Some(other) => format!("`{other}` is in another namespace"),
        None if names.is_empty() => format!("the namespace `{}` has none", name.namespace),
        None => suggest::remedy(
            &name.name,
            names,
            &format!("the {kind}s of that namespace are"),
        ),
    };
    scope.error(mark, format!("there is no {kind} `{name}`"), remedy);
}
