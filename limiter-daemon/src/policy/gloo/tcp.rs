//! `tcpGateway`: connections that are passed on, by the names that clients ask for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::action::{self, Destination, RawDestination, RawMulti};
use super::listener_options::{self, RawTcpOptions};
use super::ssl::{self, RawSsl, Ssl};
use super::token_bucket::NetworkBucket;
use crate::policy::decode::{At, Ignored, Unheeded, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{ConnectionLimits, Hostname};
use crate::policy::resource::Meta;
use crate::policy::units;

const MAX_HOSTS: usize = 1024;
/// Envoy's, where nothing is said.
const IDLE: Duration = Duration::from_secs(3600);
/// Endpoints that are tried for one connection, at most.
const MAX_ATTEMPTS: u32 = 64;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTcp {
    tcp_hosts: Option<At<Vec<At<RawHost>>>>,
    options: Option<RawTcpOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHost {
    name: Option<At<String>>,
    ssl_config: Option<At<RawSsl>>,
    destination: At<RawAction>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAction {
    single: Option<At<RawDestination>>,
    multi: Option<RawMulti>,
    upstream_group: Option<Unsupported>,
    forward_sni_cluster_name: Option<Ignored>,
}

/// `tcpProxySettings`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(super) struct RawProxySettings {
    max_connect_attempts: Option<At<u32>>,
    idle_timeout: Option<At<String>>,
    tunneling_config: Option<Unsupported>,
    access_log_flush_interval: Option<Unheeded>,
}

/// `connectionLimit`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawConnectionLimit {
    max_active_connections: Option<At<u64>>,
    delay_before_close: Option<At<String>>,
}

/// A `tcpGateway`, checked by itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tcp {
    /// Empty: nothing listens.
    pub(crate) hosts: Vec<Host>,
    /// What is limited of its connections, by the kernel.
    pub(crate) limit: Option<NetworkBucket>,
    pub(crate) settings: ProxySettings,
    /// How many there may be at once.
    pub(crate) connections: ConnectionLimits,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ProxySettings {
    pub(crate) max_connect_attempts: u32,
    /// `None`: without end.
    pub(crate) idle: Option<Duration>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            max_connect_attempts: 1,
            idle: Some(IDLE),
        }
    }
}

/// A `tcpHost`.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// Never empty.
    pub(crate) names: Vec<Hostname>,
    /// TLS ends here; else it is passed on.
    pub(crate) ssl: Option<Ssl>,
    /// Offered by ALPN; empty: nothing.
    pub(crate) alpn: Vec<String>,
    pub(crate) to: To,
    /// Where it stands.
    pub(crate) mark: Mark,
}

#[derive(Clone, Debug)]
pub(crate) enum To {
    Destinations(Vec<Destination>),
    /// The Upstream whose name in Envoy, `name_namespace`, the client asks for.
    ByName,
}

/// Checks a `tcpGateway`.
pub(super) fn lower(
    At { value: raw, mark }: At<RawTcp>,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Tcp {
    let mut tcp = raw
        .options
        .map(|raw| listener_options::tcp(raw, scope))
        .unwrap_or_default();
    let Some(list) = raw.tcp_hosts.filter(|hosts| !hosts.is_empty()) else {
        scope.warning(
            &mark,
            "the gateway has no `tcpHosts`, so nothing listens on this port",
            "a limit in its `options` is enforced there all the same",
        );
        return tcp;
    };
    scope.at_most(&list.mark, list.len(), MAX_HOSTS);
    let mut names = BTreeSet::new();
    let mut domains = BTreeSet::new();
    for (index, raw) in list.value.into_iter().enumerate() {
        let At { value: raw, mark } = raw;
        let name = raw.name.filter(|name| !name.is_empty());
        let (name, at) = match name {
            Some(name) => (name.value, name.mark),
            None => (index.to_string(), mark.clone()),
        };
        if !names.insert(name.clone()) {
            let message = format!("another host of the gateway is called `{name}`");
            scope.error(&at, message, "give it a name of its own");
        }
        let secure = raw.ssl_config.map(|raw| ssl::of_tcp(raw, meta, scope));
        let secure = secure.unwrap_or_default();
        let mut own = Vec::new();
        for (domain, at) in secure.domains {
            if domains.insert(domain.clone()) {
                own.push(domain);
            } else {
                let message = "a host of the gateway is for this name already";
                scope.error(&at, message, "keep it in one of them");
            }
        }
        if own.is_empty() && !secure.named {
            if domains.insert(Hostname::Any) {
                own.push(Hostname::Any);
            } else {
                scope.error(
                    &mark,
                    "another host of the gateway takes what no name is given for already",
                    "give one of them `sslConfig.sniDomains`",
                );
            }
        }
        let namespace = &meta.name.namespace;
        tcp.hosts.push(Host {
            name,
            names: own,
            ssl: secure.ssl,
            alpn: secure.alpn,
            to: to(raw.destination, namespace, scope),
            mark,
        });
    }
    tcp
}

fn to(At { value: raw, mark }: At<RawAction>, namespace: &str, scope: &mut Scope<'_>) -> To {
    let by_name = raw.forward_sni_cluster_name.is_some();
    let told = raw.upstream_group.is_some() || by_name;
    if by_name && (raw.single.is_some() || raw.multi.is_some()) {
        scope.error(
            &mark,
            "`forwardSniClusterName` and another destination are given",
            "keep one of them",
        );
    }
    let choice = (raw.single, raw.multi, told);
    let destinations = action::destinations(choice, &mark, namespace, scope);
    if by_name {
        To::ByName
    } else {
        To::Destinations(destinations)
    }
}

/// Checks `connectionLimit`.
pub(super) fn connections(
    At { value: raw, mark }: At<RawConnectionLimit>,
    scope: &mut Scope<'_>,
) -> ConnectionLimits {
    let mut limits = ConnectionLimits::default();
    match raw.max_active_connections {
        Some(at) if at.value == 0 => {
            let message = "0 connections are a gateway that serves nobody";
            scope.error(&at.mark, message, "write 1 or more, or remove the gateway");
        }
        Some(at) => limits.max = Some(at.value),
        None => scope.error(
            &mark,
            "there is no number of connections",
            "write `maxActiveConnections`",
        ),
    }
    if let Some(text) = raw.delay_before_close
        && let Some(delay) = units::bound(&text, scope)
    {
        limits.close_delay = delay.unwrap_or_default();
    }
    limits
}

/// Checks `tcpProxySettings`.
pub(super) fn settings(raw: RawProxySettings, scope: &mut Scope<'_>) -> ProxySettings {
    let mut settings = ProxySettings::default();
    if let Some(at) = raw.max_connect_attempts {
        if !(1..=MAX_ATTEMPTS).contains(&at.value) {
            scope.error(
                &at.mark,
                format!("a connection is not tried {} times", at.value),
                format!("write 1 to {MAX_ATTEMPTS}"),
            );
        }
        settings.max_connect_attempts = at.value;
    }
    if let Some(text) = raw.idle_timeout
        && let Some(idle) = units::bound(&text, scope)
    {
        settings.idle = idle;
    }
    settings
}
