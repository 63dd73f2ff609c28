//! `Gateway`: an address to bind, and what is served there.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::Deserialize;

use super::listener_options::{
    self, HttpOptions, RawHttpOptions, RawListenerOptions, RawTcpOptions,
};
use super::references::{RawRef, Reference};
use super::token_bucket::NetworkBucket;
use crate::policy::core::labels::Labels;
use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::resource::Meta;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawGateway {
    ssl: Option<bool>,
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTcp {
    tcp_hosts: Option<At<Vec<Ignored>>>,
    options: Option<RawTcpOptions>,
}

/// A `Gateway`, checked by itself.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) meta: Meta,
    pub(crate) bind: SocketAddr,
    /// It serves virtual services with certificates, and only those; else only the others.
    pub(crate) ssl: bool,
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
    /// What is limited of its connections; they are not forwarded.
    Tcp { limit: Option<NetworkBucket> },
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
    if let Some(at) = raw.use_proxy_proto.filter(|at| at.value) {
        scope.error(
            &at.mark,
            "`useProxyProto` is not supported yet in this dialect",
            "use a Gateway of Gateway API and a ClientTrafficPolicy",
        );
    }
    if raw.bind_port.value == 0 {
        let message = "0 is no port to listen on";
        scope.error(&raw.bind_port.mark, message, "write 1 to 65535");
    }
    let serves = match (raw.http_gateway, raw.tcp_gateway) {
        (Some(http), None) => self::http(http.value, &meta.name.namespace, scope),
        (None, Some(tcp)) => self::tcp(tcp, scope),
        (Some(_), Some(tcp)) => {
            scope.error(
                &tcp.mark,
                "both `httpGateway` and `tcpGateway` are given",
                "make a Gateway of each",
            );
            Serves::Tcp { limit: None }
        }
        (None, None) => {
            if raw.hybrid_gateway.is_none() {
                scope.error(
                    &mark,
                    "the gateway serves nothing",
                    "give it `httpGateway: {}` or `tcpGateway`",
                );
            }
            Serves::Tcp { limit: None }
        }
    };
    Gateway {
        bind: SocketAddr::new(address(raw.bind_address, scope), raw.bind_port.value),
        ssl: raw.ssl.unwrap_or_default(),
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

fn tcp(At { value: raw, mark }: At<RawTcp>, scope: &mut Scope<'_>) -> Serves {
    let hosts = raw.tcp_hosts.filter(|hosts| !hosts.is_empty());
    scope.warning(
        hosts.as_ref().map_or(&mark, |hosts| &hosts.mark),
        "TCP gateways are not forwarded yet, so nothing listens on this port",
        "a limit in its `options` is enforced there all the same",
    );
    Serves::Tcp {
        limit: raw
            .options
            .and_then(|raw| listener_options::tcp(raw, scope)),
    }
}
