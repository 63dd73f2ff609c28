//! `Gateway`: an address to bind, and what is served there.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::Deserialize;

use super::listener_options::{self, HttpOptions, RawHttpOptions, RawListenerOptions};
use super::references::{RawRef, Reference};
use super::tcp::{self, RawTcp, Tcp};
use crate::policy::core::labels::Labels;
use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::resource::Meta;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawGateway {
    ssl: Option<At<bool>>,
    bind_address: Option<At<String>>,
    bind_port: At<u16>,
    options: Option<RawListenerOptions>,
    use_proxy_proto: Option<At<bool>>,
    http_gateway: Option<At<RawHttp>>,
    tcp_gateway: Option<At<RawTcp>>,
    hybrid_gateway: Option<Unsupported>,
    /// There is one proxy, limiterd.
    proxy_names: Option<Ignored>,
    route_options: Option<Unheeded>,
    namespaced_statuses: Option<Ignored>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHttp {
    virtual_services: Option<Vec<RawRef>>,
    virtual_service_selector: Option<At<Labels>>,
    virtual_service_expressions: Option<Unsupported>,
    virtual_service_namespaces: Option<At<Vec<String>>>,
    options: Option<RawHttpOptions>,
}

/// A `Gateway`, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) meta: Meta,
    pub(crate) bind: SocketAddr,
    /// It serves virtual services with certificates, and only those; else only the others.
    pub(crate) ssl: bool,
    /// Connections begin with a PROXY protocol header.
    pub(crate) proxy_protocol: bool,
    pub(crate) serves: Serves,
    /// Where its port stands.
    pub(crate) mark: Mark,
}

#[derive(Clone, Debug)]
pub(crate) enum Serves {
    Http {
        services: Services,
        options: Box<HttpOptions>,
    },
    Tcp(Box<Tcp>),
}

/// Which virtual services a gateway serves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    /// These, if there are any.
    named: Option<Vec<Reference>>,
    /// Else those with all of these labels; none: all there are.
    labels: Labels,
    /// Where they may be; empty: everywhere.
    namespaces: Vec<String>,
    /// Where it is said which.
    mark: Option<Mark>,
}

impl Services {
    /// Where they are selected, if not all are.
    pub(crate) fn selector(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// Those that are named.
    pub(crate) fn named(&self) -> Option<&[Reference]> {
        self.named.as_deref()
    }

    /// Whether it is to be served, if none are named.
    pub(crate) fn selects(&self, meta: &Meta) -> bool {
        let there = self.namespaces.is_empty()
            || self
                .namespaces
                .iter()
                .any(|one| one == "*" || *one == meta.name.namespace);
        there
            && self
                .labels
                .iter()
                .all(|(key, value)| meta.labels.get(key) == Some(value))
    }
}

/// Checks a `Gateway`; nothing is made of one with an error.
pub(crate) fn lower(raw: At<RawGateway>, meta: Meta, scope: &mut Scope<'_>) -> Gateway {
    let At { value: raw, mark } = raw;
    if raw.bind_port.value == 0 {
        let message = "0 is no port to listen on";
        scope.error(&raw.bind_port.mark, message, "write 1 to 65535");
    }
    let serves = match (raw.http_gateway, raw.tcp_gateway) {
        (Some(http), None) => self::http(http.value, &meta.name.namespace, scope),
        (None, Some(tcp)) => {
            if let Some(at) = raw.ssl.as_ref().filter(|at| at.value) {
                scope.warning(
                    &at.mark,
                    "`ssl` has no effect on a TCP gateway",
                    "remove it: each of `tcpHosts` says by its `sslConfig` whether TLS ends here",
                );
            }
            Serves::Tcp(Box::new(tcp::lower(tcp, &meta, scope)))
        }
        (Some(_), Some(tcp)) => {
            scope.error(
                &tcp.mark,
                "both `httpGateway` and `tcpGateway` are given",
                "make a Gateway of each",
            );
            Serves::Tcp(Box::default())
        }
        (None, None) => {
            if raw.hybrid_gateway.is_none() {
                scope.error(
                    &mark,
                    "the gateway serves nothing",
                    "give it `httpGateway: {}` or `tcpGateway`",
                );
            }
            Serves::Tcp(Box::default())
        }
    };
    Gateway {
        bind: SocketAddr::new(address(raw.bind_address, scope), raw.bind_port.value),
        ssl: raw.ssl.is_some_and(|at| at.value),
        proxy_protocol: raw.use_proxy_proto.is_some_and(|at| at.value),
        serves,
        mark: raw.bind_port.mark,
        meta,
    }
}

fn address(raw: Option<At<String>>, scope: &mut Scope<'_>) -> IpAddr {
    let every = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let Some(text) = raw.filter(|text| !text.is_empty()) else {
        return every;
    };
    text.parse().unwrap_or_else(|_error| {
        scope.error(
            &text.mark,
            format!("`{}` is not an IP address", text.value),
            "write it as `192.0.2.1`, or `::` for all there are",
        );
        every
    })
}

fn http(raw: RawHttp, namespace: &str, scope: &mut Scope<'_>) -> Serves {
    let _told_by_the_decoder = raw.virtual_service_expressions;
    let named = raw.virtual_services.filter(|list| !list.is_empty());
    let labels = raw
        .virtual_service_selector
        .filter(|labels| !labels.is_empty());
    let namespaces = raw.virtual_service_namespaces;
    let mark = labels.as_ref().map(|at| at.mark.clone());
    let services = Services {
        mark: mark.or_else(|| namespaces.as_ref().map(|at| at.mark.clone())),
        named: named.map(|list| list.into_iter().map(|raw| raw.lower(namespace)).collect()),
        labels: labels.map(|at| at.value).unwrap_or_default(),
        namespaces: namespaces.map(|at| at.value).unwrap_or_default(),
    };
    let options = raw.options.unwrap_or_default();
    Serves::Http {
        services,
        options: Box::new(listener_options::http(options, namespace, scope)),
    }
}
