//! Global limits of Gloo's routes: who is asked about requests, and by which descriptors; and the
//! domains that its files configure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use http::StatusCode;

use super::{destinations, label, unusable};
use crate::policy::findings::{Findings, Mark, Origin, Scope};
use crate::policy::gloo::rate_limit_config::RateLimitConfig;
use crate::policy::gloo::settings::Server;
use crate::policy::gloo::upstream::{Endpoints, Tls};
use crate::policy::gloo::virtual_host_options::Limits;
use crate::policy::kinds::Kind;
use crate::policy::native::rate_limit_service::DomainSettings;
use crate::policy::plan::{
    AskFilter, AskedService, Asking, Condition, Descriptor, DescriptorRule, Domain, Endpoint,
    LimitRule, Pem, PolicyLimits, Quota, RequestType, RlsPeer, RlsPeerTls, SetRule, SourcePrefixes,
    StoreHost, StoreTls, ValueTest, Written,
};
use crate::policy::resource::{Meta, Name};
use crate::policy::resources::Resources;

/// The domain of descriptors in `Settings`, and of all `rateLimits` of hosts and routes: Gloo's name
/// for it, which another rate limit service must have too.
const CUSTOM: &str = "custom";

/// Limits of a host, and of one of its routes.
pub(super) struct Levels<'b> {
    /// What they are called by.
    pub(super) labels: [&'b str; 2],
    /// Where they are written.
    pub(super) metas: [&'b Meta; 2],
    pub(super) limits: [&'b Limits; 2],
}

/// Where requests come in.
pub(super) struct Door<'b> {
    /// Begins the names of filters; no other place has it.
    pub(super) name: String,
    /// `source_cluster` of descriptors.
    pub(super) source: String,
    /// Of the resource that it is, or that says whom it asks.
    pub(super) meta: &'b Meta,
    pub(super) mark: &'b Mark,
    /// Whom its requests are asked of, instead of the one in Settings.
    pub(super) server: Option<&'b Server>,
}

/// Who is asked.
pub(super) struct Asks<'a> {
    resources: &'a Resources,
    /// As the Settings have it.
    server: Option<&'a Server>,
    filters: BTreeMap<String, Arc<AskFilter>>,
    own_domains: BTreeSet<String>,
    /// RateLimitConfigs that limit a route.
    used: BTreeSet<&'a Name>,
}

impl<'a> Asks<'a> {
    pub(super) fn new(resources: &'a Resources, findings: &mut Findings) -> Self {
        let mut all = resources.gloo_settings.values();
        let first = all.next();
        for other in all {
            if let Some(first) = first {
                let name = &first.meta.name;
                findings.at(&other.meta.origin).error(
                    &other.mark,
                    format!("second Settings; `{name}` are there already"),
                    "keep one of them",
                );
            }
        }
        Self {
            resources,
            server: first.and_then(|settings| settings.server.as_ref()),
            filters: BTreeMap::new(),
            own_domains: BTreeSet::new(),
            used: BTreeSet::new(),
        }
    }

    /// Warns of what comes to nothing.
    pub(super) fn report(&self, findings: &mut Findings) {
        for (name, config) in &self.resources.rate_limit_configs {
            if !self.used.contains(name) {
                findings.at(&config.meta.origin).warning(
                    &config.mark,
                    "no route is limited by it",
                    "name it under `rateLimitConfigs` of a virtual host or a route, or remove it",
                );
            }
        }
    }

    pub(super) fn into_own_domains(self) -> BTreeSet<String> {
        self.own_domains
    }

    /// `ratelimitBasic`: limits on each user and on each client without one, the route's instead of its
    /// host's.
    pub(super) fn basic(&self, levels: &Levels<'_>, door: &Door<'_>) -> Option<PolicyLimits> {
        let [host, route] = levels.limits.map(|limits| limits.basic.as_ref());
        let [of_host, of_route] = levels.labels;
        let (basic, policy) = match (route, host) {
            (Some(found), _) => (found, of_route),
            (None, found) => (found?, of_host),
        };
        let policy = policy.to_owned();
        let name = format!("{policy}/ratelimitBasic");
        let headers = Some(self.server_of(door).headers);
        let rule = |name, condition, (quota, written): (Quota, Option<Arc<Written>>)| LimitRule {
            shared: true,
            headers,
            written,
            ..LimitRule::new(name, vec![condition], quota)
        };
        let each = Condition::Source {
            nets: Vec::new(),
            invert: false,
            each: Some(SourcePrefixes { v4: 32, v6: 128 }),
        };
        let anonymous = basic.anonymous.clone();
        let anonymous = anonymous.map(|quota| rule(name.clone(), each, quota));
        let (rules, default) = match &basic.authorized {
            None => (anonymous.into_iter().collect(), None),
            Some((header, quota)) => {
                let user = Condition::Header {
                    name: header.clone(),
                    test: ValueTest::EachSingle,
                };
                // Without a limit of its own it still keeps users from the one on the others.
                let quota = quota.clone().unwrap_or((Quota::Unlimited, None));
                let authorized = rule(format!("{name}/authorized"), user, quota);
                (vec![authorized], anonymous)
            }
        };
        Some(PolicyLimits {
            policy,
            rules,
            default,
        })
    }

    /// The server that routes at a door are to ask.
    fn server_of(&self, door: &Door<'_>) -> Server {
        door.server.or(self.server).cloned().unwrap_or_default()
    }

    /// What is asked about the requests of a route.
    pub(super) fn on(
        &mut self,
        levels: &Levels<'_>,
        door: &Door<'_>,
        findings: &mut Findings,
        broken: &mut Option<String>,
    ) -> Vec<Asking> {
        let [host, route] = levels.limits;
        let [of_host, of_route] = levels.metas;
        let includes = route.include_host.as_ref().is_some_and(|at| at.value);
        let takes_hosts = |route_has: bool| !route_has || includes;
        let mut actions: Vec<Arc<DescriptorRule>> = Vec::new();
        let own = route.actions.as_ref().filter(|own| !own.is_empty());
        actions.extend(own.into_iter().flatten().cloned());
        if takes_hosts(own.is_some()) {
            actions.extend(host.actions.iter().flatten().cloned());
        }
        let server = self.server_of(door);
        let mut asks = Vec::new();
        if !actions.is_empty() {
            let filter = self.filter(&server, door, findings);
            if filter.service == AskedService::Own {
                self.own_domains.insert(CUSTOM.to_owned());
            }
            asks.push(Asking {
                filter,
                domain: CUSTOM.to_owned(),
                source: door.source.clone(),
                descriptors: actions,
            });
        }
        let mut configs: Vec<_> = route
            .configs
            .iter()
            .flatten()
            .map(|reference| (reference, of_route))
            .collect();
        if takes_hosts(route.configs.is_some()) {
            let inherited = host.configs.iter().flatten();
            configs.extend(inherited.map(|reference| (reference, of_host)));
        }
        for (reference, meta) in configs {
            let mut scope = findings.at(&meta.origin);
            let found = self
                .resources
                .rate_limit_configs
                .get_key_value(&reference.name);
            match found {
                Some((name, config)) => {
                    self.used.insert(name);
                    asks.extend(self.of_config(config, door, &server));
                }
                None => {
                    let kind = Kind::RateLimitConfig;
                    let why = unusable(self.resources, kind, reference, &mut scope);
                    broken.get_or_insert(why);
                }
            }
        }
        asks
    }

    /// A RateLimitConfig configures limiterd itself, whoever else is asked.
    fn of_config(
        &mut self,
        config: &RateLimitConfig,
        door: &Door<'_>,
        server: &Server,
    ) -> Option<Asking> {
        if config.actions.is_empty() || (config.descriptors.is_empty() && config.sets.is_empty()) {
            return None;
        }
        let domain = label(Kind::RateLimitConfig, &config.meta.name);
        self.own_domains.insert(domain.clone());
        let name = format!("{}/{domain}", door.name);
        let filter = self
            .filters
            .entry(name.clone())
            .or_insert_with(|| Arc::new(filter(name, AskedService::Own, server)));
        Some(Asking {
            filter: Arc::clone(filter),
            domain,
            source: door.source.clone(),
            descriptors: config.actions.clone(),
        })
    }

    fn filter(
        &mut self,
        server: &Server,
        door: &Door<'_>,
        findings: &mut Findings,
    ) -> Arc<AskFilter> {
        let name = format!("{}/ratelimitServer", door.name);
        if let Some(found) = self.filters.get(&name) {
            return Arc::clone(found);
        }
        let own = door.server.is_some();
        let settings = self.resources.gloo_settings.values().next();
        let origin = match (own, settings) {
            (false, Some(settings)) => &settings.meta.origin,
            _ => &door.meta.origin,
        };
        let service = self.service(server, &mut findings.at(origin));
        if service == AskedService::Own && !self.has_custom() {
            findings.at(&door.meta.origin).warning(
                door.mark,
                "requests are asked about by `rateLimits`, and nothing says what they are limited to",
                "give Settings `ratelimit.descriptors`, or `ratelimitServer.ratelimitServerRef`",
            );
        }
        let made = Arc::new(filter(name.clone(), service, server));
        self.filters.insert(name, Arc::clone(&made));
        made
    }

    /// Whether any file has the domain of `rateLimits`.
    fn has_custom(&self) -> bool {
        let mut settings = self.resources.gloo_settings.values();
        let described = settings.any(|one| !one.descriptors.is_empty() || !one.sets.is_empty());
        described
            || self
                .resources
                .domains
                .keys()
                .any(|name| name.name == CUSTOM)
    }

    fn service(&self, server: &Server, scope: &mut Scope<'_>) -> AskedService {
        let Some(reference) = &server.upstream else {
            return AskedService::Own;
        };
        let broken = |why: String| AskedService::Broken(why);
        let Some(upstream) = self.resources.upstreams.get(&reference.name) else {
            let why = unusable(self.resources, Kind::Upstream, reference, scope);
            return broken(why);
        };
        let host = match &upstream.to {
            Endpoints::These(endpoints) => match endpoints.as_slice() {
                [Endpoint::Ip(ip, port)] => Some((ip.to_string(), *port)),
                [Endpoint::Fqdn(name, port)] => Some((name.clone(), *port)),
                _ => None,
            },
            Endpoints::Service(name, port, _) => Some((
                format!("{}.{}.svc.cluster.local", name.name, name.namespace),
                *port,
            )),
        };
        let name = &reference.name;
        let Some((host, port)) = host else {
            scope.error(
                &reference.mark,
                format!("the Upstream `{name}` is not one host"),
                "name one with a single host under `static`, or a Service under `kube`",
            );
            return broken(format!("the Upstream `{name}` is not one host"));
        };
        let tls = match &upstream.tls {
            None => None,
            Some(tls) => match self.tls(tls, &reference.mark, &upstream.meta, scope) {
                Some(tls) => Some(tls),
                None => return broken(format!("the TLS of the Upstream `{name}` cannot be used")),
            },
        };
        AskedService::Peer(Arc::new(RlsPeer {
            host: StoreHost { host, port },
            tls,
        }))
    }

    /// How the service at an Upstream is known, and limiterd to it; `None` after an error.
    fn tls(
        &self,
        tls: &Tls,
        mark: &Mark,
        meta: &Meta,
        scope: &mut Scope<'_>,
    ) -> Option<RlsPeerTls> {
        let own = tls.secret.as_ref();
        let found = match own {
            Some(secret) => {
                let mut scope = scope.elsewhere(&meta.origin);
                destinations::authorities(self.resources, secret, &mut scope)?
            }
            None => tls.authorities.iter().cloned().collect(),
        };
        if found.is_empty() {
            scope.error(
                mark,
                format!(
                    "nobody vouches for the Upstream `{}`, so anybody could answer for it",
                    meta.name
                ),
                "name a Secret with a `ca.crt` under its `sslConfig.secretRef`",
            );
            return None;
        }
        let joined: Vec<&[u8]> = found.iter().map(|pem| pem.0.as_slice()).collect();
        let own = own.and_then(|secret| self.resources.secrets.get(&secret.name));
        Some(RlsPeerTls {
            server_name: tls.server_name.clone(),
            how: StoreTls {
                authorities: Some(Pem(joined.join(&b'\n'))),
                certificate: own.and_then(|secret| secret.certificate.clone()),
            },
        })
    }
}

fn filter(name: String, service: AskedService, server: &Server) -> AskFilter {
    AskFilter {
        name,
        stage: 0,
        requests: RequestType::Both,
        service,
        timeout: server.timeout,
        error_status: server
            .deny_on_fail
            .then_some(StatusCode::INTERNAL_SERVER_ERROR),
        limited_status: StatusCode::TOO_MANY_REQUESTS,
        resource_exhausted: false,
        headers: server.headers,
        envoy_header: true,
        retry_after: false,
        response_headers: Vec::new(),
        stat_prefix: String::new(),
    }
}

/// Domains that Gloo's files configure, and where.
pub(in crate::policy::compile) type Domains<'a> = Vec<(Domain, &'a Origin, &'a Mark)>;

/// The domains of `Settings` and of each `RateLimitConfig`.
pub(in crate::policy::compile) fn domains<'a>(
    resources: &'a Resources,
    settings: &DomainSettings,
) -> Domains<'a> {
    let mut list = Vec::new();
    let first = resources.gloo_settings.values().next();
    if let Some(own) = first {
        let domain = domain(CUSTOM, &own.descriptors, &own.sets, settings);
        list.extend(domain.map(|domain| (domain, &own.meta.origin, &own.mark)));
    }
    for (name, config) in &resources.rate_limit_configs {
        let name = label(Kind::RateLimitConfig, name);
        let domain = domain(&name, &config.descriptors, &config.sets, settings);
        list.extend(domain.map(|domain| (domain, &config.meta.origin, &config.mark)));
    }
    list
}

/// A domain in which the mark of sets means something; `None`: it would limit nothing.
fn domain(
    name: &str,
    descriptors: &[Descriptor],
    sets: &[SetRule],
    settings: &DomainSettings,
) -> Option<Domain> {
    (!descriptors.is_empty() || !sets.is_empty()).then(|| Domain {
        descriptors: descriptors.to_vec(),
        sets: Some(sets.to_vec()),
        ..settings.domain(name)
    })
}
