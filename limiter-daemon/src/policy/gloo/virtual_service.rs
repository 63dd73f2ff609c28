//! `VirtualService`: the routes of some domains.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::references::{self, RawOptionsRefs, Reference};
use super::route::{self, RawRoute, Route};
use super::ssl::{self, RawSsl, Ssl};
use super::virtual_host_options::{self, HostOptions, RawHostOptions};
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::hostname;
use crate::policy::plan::Hostname;
use crate::policy::resource::Meta;

const MAX_DOMAINS: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "named, so that no other passes")]
pub(crate) struct RawVirtualService {
    virtual_host: At<RawVirtualHost>,
    ssl_config: Option<At<RawSsl>>,
    display_name: Option<Ignored>,
    namespaced_statuses: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVirtualHost {
    domains: Option<At<Vec<At<String>>>>,
    routes: Option<At<Vec<At<RawRoute>>>>,
    options: Option<RawHostOptions>,
    options_config_refs: Option<RawOptionsRefs>,
}

/// A `VirtualService`, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct VirtualService {
    pub(crate) meta: Meta,
    /// Never empty, unless there was an error.
    pub(crate) domains: Vec<(Hostname, Mark)>,
    pub(crate) routes: Vec<Route>,
    pub(crate) options: HostOptions,
    /// Options that are written elsewhere.
    pub(crate) delegates: Vec<Reference>,
    pub(crate) ssl: Option<Ssl>,
}

/// Checks a `VirtualService`.
pub(crate) fn lower(
    raw: At<RawVirtualService>,
    meta: Meta,
    scope: &mut Scope<'_>,
) -> VirtualService {
    let raw = raw.value;
    let At { value: host, mark } = raw.virtual_host;
    let namespace = &meta.name.namespace;
    let routes = route::lower(host.routes, namespace, scope);
    if routes.is_empty() {
        scope.warning(&mark, "the virtual host has no routes", "");
    }
    VirtualService {
        domains: domains(host.domains, &mark, scope),
        routes,
        options: virtual_host_options::lower(host.options.unwrap_or_default(), namespace, scope),
        delegates: references::delegates(host.options_config_refs, namespace),
        ssl: raw.ssl_config.map(|raw| ssl::lower(raw, &meta, scope)),
        meta,
    }
}

/// None are all, as Gloo has it.
fn domains(
    raw: Option<At<Vec<At<String>>>>,
    mark: &Mark,
    scope: &mut Scope<'_>,
) -> Vec<(Hostname, Mark)> {
    let Some(list) = raw.filter(|list| !list.is_empty()) else {
        return vec![(Hostname::Any, mark.clone())];
    };
    scope.at_most(&list.mark, list.len(), MAX_DOMAINS);
    let mut seen = BTreeSet::new();
    let mut domains = Vec::new();
    for text in list.value {
        let Some(host) = domain(&text, scope) else {
            continue;
        };
        if !seen.insert(host.clone()) {
            let message = format!("the domain `{}` is given twice", text.value);
            scope.error(&text.mark, message, "keep one of them");
            continue;
        }
        domains.push((host, text.mark));
    }
    domains
}

/// A port in a domain says nothing more than the gateway's own does.
fn domain(text: &At<String>, scope: &mut Scope<'_>) -> Option<Hostname> {
    let port = text.rsplit_once(':').map(|(_, port)| port);
    if let Some(port) = port.filter(|port| port.parse::<u16>().is_ok() || *port == "*") {
        scope.error(
            &text.mark,
            format!("the domain `{}` has a port", text.value),
            format!("remove `:{port}`: requests are matched by their host alone"),
        );
        return None;
    }
    if text.value == "*" {
        return Some(Hostname::Any);
    }
    hostname::parse(text, scope)
}
