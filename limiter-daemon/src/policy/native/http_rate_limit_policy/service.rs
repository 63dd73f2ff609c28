//! `service` of a filter: which rate limit service is asked.

use std::net::Ipv6Addr;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::gateway_api::references::{ObjectRef, RawObjectRef};
use crate::policy::plan::StoreHost;

#[derive(Debug, Deserialize)]
pub(super) struct RawService {
    address: At<String>,
    tls: Option<RawTls>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTls {
    certificate_ref: Option<RawObjectRef>,
    ca_certificate_refs: Option<At<Vec<RawObjectRef>>>,
    hostname: Option<At<String>>,
}

/// A rate limit service elsewhere, with references that are to be followed.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) host: StoreHost,
    pub(crate) tls: Option<Tls>,
}

#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Our own certificate.
    pub(crate) certificate: Option<ObjectRef>,
    /// Who vouches for the service's; empty: the `ca.crt` beside our own, or else the system's.
    pub(crate) authorities: Vec<ObjectRef>,
    pub(crate) hostname: Option<String>,
}

/// Checks it; `None` after an error.
pub(super) fn lower(raw: RawService, namespace: &str, scope: &mut Scope<'_>) -> Option<Service> {
    let host = host(&raw.address);
    if host.is_none() {
        scope.error(
            &raw.address.mark,
            format!("`{}` is not a host with a port", raw.address.value),
            "write it as `limiterd.example.com:8081`, `192.0.2.1:8081` or `[2001:db8::1]:8081`",
        );
    }
    Some(Service {
        host: host?,
        tls: raw.tls.map(|tls| Tls {
            certificate: tls
                .certificate_ref
                .map(|one| one.lower("Secret", namespace)),
            authorities: tls.ca_certificate_refs.map_or_else(Vec::new, |list| {
                let refs = list.value.into_iter();
                refs.map(|one| one.lower("Secret", namespace)).collect()
            }),
            hostname: tls.hostname.map(|name| name.value),
        }),
    })
}

fn host(text: &str) -> Option<StoreHost> {
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<Ipv6Addr>().ok()?.to_string(),
        None => {
            let plain =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            Some(host)
                .filter(|host| !host.is_empty() && host.bytes().all(plain))?
                .to_owned()
        }
    };
    Some(StoreHost { host, port })
}
