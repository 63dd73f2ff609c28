//! Gateways to listeners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::certificates;
use super::asks::Door;
use super::levels::{Local, Manner};
use super::{Context, label, routes, tcp, unusable};
use crate::policy::core;
use crate::policy::findings::Mark;
use crate::policy::gateway_api::references::ObjectRef;
use crate::policy::gloo::gateway::{Gateway, Serves, Services};
use crate::policy::gloo::listener_options::HttpOptions;
use crate::policy::gloo::ssl::Ssl;
use crate::policy::gloo::virtual_service::VirtualService;
use crate::policy::kinds::Kind;
use crate::policy::plan::{
    Certificate, ClientSettings, ConnectionLimits, DaemonConfig, Hostname, Listener, ProxyProtocol,
    Route, RouteKind, TcpProxy, Tls, TlsVersion,
};
use crate::policy::resource::{Meta, Name};
use crate::policy::status::Condition;

/// What the routes of one gateway share.
pub(super) struct At<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) options: HttpOptions,
    pub(super) local: Local,
    pub(super) manner: Manner,
    /// Why its requests are answered with 500.
    pub(super) broken: Option<String>,
}

/// What gateways listen by.
#[derive(Default)]
pub(super) struct Listeners {
    pub(super) http: Vec<Listener>,
    pub(super) tcp: Vec<TcpProxy>,
}

impl Listeners {
    /// The name of the one that has `bind`.
    fn at(&self, bind: SocketAddr) -> Option<&str> {
        let tcp = self.tcp.iter().find(|other| other.binds.contains(&bind));
        let tcp = tcp.map(|other| other.name.as_str());
        tcp.or_else(|| at(&self.http, bind))
    }
}

fn at(listeners: &[Listener], bind: SocketAddr) -> Option<&str> {
    let other = listeners.iter().find(|other| other.binds.contains(&bind));
    other.map(|other| other.name.as_str())
}

impl At<'_> {
    pub(super) fn door(&self) -> Door<'_> {
        let meta = &self.gateway.meta;
        let name = label(Kind::GlooGateway, &meta.name);
        Door {
            source: name.clone(),
            name,
            meta,
            mark: &self.gateway.mark,
            server: self.options.server.as_ref(),
        }
    }
}

/// The listeners of all gateways that can be served beside those that are there.
pub(super) fn listeners(
    (daemon, there): (&DaemonConfig, &[Listener]),
    context: &mut Context<'_, '_>,
) -> Listeners {
    let mut gateways: Vec<&Gateway> = context.resources.gloo_gateways.values().collect();
    gateways.sort_by(|one, other| one.meta.precedence().cmp(&other.meta.precedence()));
    let mut listeners = Listeners::default();
    for gateway in gateways {
        let name = &gateway.meta.name;
        let taken = at(there, gateway.bind)
            .or_else(|| listeners.at(gateway.bind))
            .map(|other| format!("the listener `{other}`"));
        let taken = match taken {
            None if gateway.bind == daemon.admin => Some("the admin listener".to_owned()),
            taken => taken,
        };
        let made = match taken {
            Some(other) => {
                let message = format!("{} is bound by {other} already", gateway.bind);
                context.findings.at(&gateway.meta.origin).error(
                    &gateway.mark,
                    message.clone(),
                    "give it another port or address",
                );
                Err(Condition::not_accepted("PortUnavailable", message))
            }
            None => match &gateway.serves {
                Serves::Http { services, options } => listener(gateway, services, options, context)
                    .map(|listener| listeners.http.push(listener)),
                Serves::Tcp(serves) => {
                    tcp::proxy(gateway, serves, context).map(|proxy| listeners.tcp.push(proxy))
                }
            },
        };
        let status = context
            .statuses
            .of(Kind::GlooGateway.title(), &name.namespace, &name.name);
        match made {
            Ok(()) => {
                status.add(Condition::accepted("The gateway is valid."));
                status.add(Condition::new(
                    "Programmed",
                    true,
                    "Programmed",
                    "It is served.",
                ));
            }
            Err(why) => {
                status.add(why);
                let message = "It is not served.";
                status.add(Condition::new("Programmed", false, "Invalid", message));
            }
        }
    }
    listeners
}

/// How connections to a gateway are taken, of which there may be so many.
pub(super) fn client(gateway: &Gateway, connections: ConnectionLimits) -> Arc<ClientSettings> {
    Arc::new(ClientSettings {
        connections,
        proxy_protocol: if gateway.proxy_protocol {
            ProxyProtocol::Required
        } else {
            ProxyProtocol::Off
        },
        ..ClientSettings::default()
    })
}

fn listener<'a>(
    gateway: &'a Gateway,
    services: &Services,
    options: &'a HttpOptions,
    context: &mut Context<'a, '_>,
) -> Result<Listener, Condition> {
    let options = context.options.of_gateway(gateway, options);
    let chosen = chosen(gateway, services, context);
    let tls = if gateway.ssl {
        match tls(&chosen, context) {
            Some(tls) => Some(Arc::new(tls)),
            None => {
                // As Gloo installs it; it becomes a listener with the first certificate.
                let message =
                    "no virtual service of the gateway has a certificate that can be used";
                context.findings.at(&gateway.meta.origin).warning(
                    &gateway.mark,
                    format!("{message}, so nothing listens here"),
                    "give one an `sslConfig`, or remove the gateway",
                );
                return Err(Condition::new("Accepted", true, "NoCertificate", message));
            }
        }
    } else {
        None
    };
    let label = label(Kind::GlooGateway, &gateway.meta.name);
    let local = options.local.as_ref();
    let at = At {
        gateway,
        local: Local::default().under(&label, local.and_then(|local| local.bucket.as_ref())),
        manner: Manner::of(local),
        broken: context.options.unknown(),
        options,
    };
    let mut domains: BTreeMap<Hostname, &VirtualService> = BTreeMap::new();
    let mut made = Vec::new();
    for service in chosen {
        let hostnames = hostnames(service, &mut domains, context);
        if hostnames.is_empty() {
            continue;
        }
        context.served.insert(&service.meta.name);
        made.push(Route {
            name: super::label(Kind::VirtualService, &service.meta.name),
            kind: RouteKind::Http,
            hostnames,
            in_order: true,
            rules: routes::of_service(service, &at, context),
        });
    }
    Ok(Listener {
        name: label,
        binds: vec![gateway.bind],
        hostname: Hostname::Any,
        tls,
        client: client(gateway, ConnectionLimits::default()),
        routes: made,
    })
}

/// The virtual services that a gateway serves, the oldest first.
fn chosen<'a>(
    gateway: &Gateway,
    services: &Services,
    context: &mut Context<'a, '_>,
) -> Vec<&'a VirtualService> {
    let all = &context.resources.virtual_services;
    let mut chosen: Vec<&'a VirtualService> = Vec::new();
    match services.named() {
        None => {
            let selected = all
                .values()
                .filter(|service| services.selects(&service.meta));
            chosen.extend(selected);
            if let Some(mark) = services.selector().filter(|_| chosen.is_empty()) {
                context.findings.at(&gateway.meta.origin).warning(
                    mark,
                    "no VirtualService is selected",
                    "give one these labels, or look at `virtualServiceNamespaces`",
                );
            }
        }
        Some(named) => {
            let mut scope = context.findings.at(&gateway.meta.origin);
            for reference in named {
                match all.get(&reference.name) {
                    Some(service) => chosen.push(service),
                    None => {
                        let kind = Kind::VirtualService;
                        // Its domains are not known, so nobody knows what is missing.
                        let _why = unusable(context.resources, kind, reference, &mut scope);
                    }
                }
            }
        }
    }
    chosen.retain(|service| service.ssl.is_some() == gateway.ssl);
    chosen.sort_by(|one, other| one.meta.precedence().cmp(&other.meta.precedence()));
    chosen
}

/// The domains of a virtual service that no other one of its gateway has.
fn hostnames<'a>(
    service: &'a VirtualService,
    taken: &mut BTreeMap<Hostname, &'a VirtualService>,
    context: &mut Context<'a, '_>,
) -> Vec<Hostname> {
    let mut hostnames = Vec::new();
    for (host, mark) in &service.domains {
        match taken.get(host) {
            None => {
                taken.insert(host.clone(), service);
                hostnames.push(host.clone());
            }
            Some(other) => {
                let name = &other.meta.name;
                context.findings.at(&service.meta.origin).error(
                    mark,
                    format!(
                        "the VirtualService `{name}` of the same gateway has this domain already"
                    ),
                    "keep it in one of them, or delegate to a RouteTable",
                );
            }
        }
    }
    hostnames
}

/// The certificates of all virtual services; which one a client gets is decided by their names.
fn tls(services: &[&VirtualService], context: &mut Context<'_, '_>) -> Option<Tls> {
    let mut certificates: Vec<Certificate> = Vec::new();
    let mut min = TlsVersion::V1_2;
    let mut max = TlsVersion::V1_2;
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for service in services {
        let Some(ssl) = &service.ssl else {
            continue;
        };
        min = min.max(ssl.min.unwrap_or(min));
        max = max.max(ssl.max.unwrap_or(TlsVersion::V1_3));
        let found = certificate(ssl, Kind::VirtualService, &service.meta, context);
        certificates.extend(found.filter(|one| seen.insert(one.name.clone())));
    }
    if certificates.is_empty() {
        return None;
    }
    Some(Tls {
        certificates,
        min_version: min,
        max_version: max.max(min),
        alpn: Vec::new(),
        client_certificates: None,
    })
}

/// The certificate that the `sslConfig` of a resource names; `None` after an error.
pub(super) fn certificate(
    ssl: &Ssl,
    kind: Kind,
    meta: &Meta,
    context: &mut Context<'_, '_>,
) -> Option<Certificate> {
    let own = ssl.certificate.clone();
    let Some(secret) = &ssl.secret else {
        return own;
    };
    // Gloo's references cross namespaces without a grant.
    let from = (kind.group(), kind.name(), secret.name.namespace.as_str());
    let reference = secret_ref(&secret.name, &secret.mark);
    let mut scope = context.findings.at(&meta.origin);
    let found = certificates::certificate(context.resources, from, &reference, &mut scope);
    found.ok().cloned().or(own)
}

fn secret_ref(name: &Name, mark: &Mark) -> ObjectRef {
    ObjectRef {
        group: core::GROUP.to_owned(),
        kind: Kind::Secret.name().to_owned(),
        name: name.clone(),
        mark: mark.clone(),
    }
}
