//! From resources to the plan: references, attachment, precedence.

mod listeners;
mod network;
mod routes;
mod traffic;

use std::collections::BTreeMap;

use super::findings::{Findings, Mark, Scope};
use super::kinds::Kind;
use super::native::limiter_config::Config;
use super::plan::{Backend, DaemonConfig, Plan, UpstreamProtocol};
use super::resource::Name;
use super::resources::Resources;
use super::suggest;

/// Compiles all resources. Findings may say that the plan is not to be used.
pub(crate) fn compile(resources: &Resources, findings: &mut Findings) -> Plan {
    let daemon = daemon(resources, findings);
    listeners::check_binds(resources, &daemon, findings);
    let (backends, index) = backends(resources);
    let policies = traffic::attach(resources, findings);
    let listeners = routes::compile(resources, &index, &policies, findings);
    traffic::warn_unused(&policies, &listeners, findings);
    let network = network::compile(resources, &daemon, findings);
    Plan {
        daemon,
        listeners,
        backends,
        network,
    }
}

fn daemon(resources: &Resources, findings: &mut Findings) -> DaemonConfig {
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
    first
        .map(|config| config.daemon.clone())
        .unwrap_or_default()
}

fn backends(resources: &Resources) -> (Vec<Backend>, BTreeMap<&Name, usize>) {
    let index = resources
        .backends
        .keys()
        .enumerate()
        .map(|(index, name)| (name, index))
        .collect();
    let backends = resources
        .backends
        .iter()
        .map(|(name, backend)| Backend {
            name: name.to_string(),
            endpoints: backend.endpoints.clone(),
            protocol: UpstreamProtocol::default(),
            tls: None,
        })
        .collect();
    (backends, index)
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
