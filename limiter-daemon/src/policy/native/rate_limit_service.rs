//! `rls` of the `LimiterConfig`: Envoy's rate limit service.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::Scope;
use crate::policy::gateway_api::references::{ObjectRef, RawObjectRef};
use crate::policy::plan::{Algorithm, DaemonConfig, RlsConfig};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRls {
    listen: At<String>,
    algorithm: Option<Counting>,
    merge_domains: Option<bool>,
    response_headers: Option<bool>,
    tls: Option<At<RawTls>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTls {
    certificate_refs: Vec<RawObjectRef>,
    client_validation: Option<At<RawValidation>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawValidation {
    ca_certificate_refs: Vec<RawObjectRef>,
    optional: Option<bool>,
}

/// What TLS needs.
#[derive(Clone, Debug)]
pub(crate) struct TlsRefs {
    /// Secrets; at least one.
    pub(crate) certificates: Vec<ObjectRef>,
    /// ConfigMaps and Secrets with a `ca.crt`, at least one, and whether clients need no certificate;
    /// `None`: they are not asked for one.
    pub(crate) clients: Option<(Vec<ObjectRef>, bool)>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Counting {
    FixedWindow,
    SlidingWindow,
    TokenBucket,
}

/// How files of the rate limit service are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DomainSettings {
    pub(crate) algorithm: Algorithm,
    /// Several files may add to one domain (the reference's `MERGE_DOMAIN_CONFIG`).
    pub(crate) merge: bool,
}

impl Default for DomainSettings {
    /// As the reference service has it: files made for it mean the same here.
    fn default() -> Self {
        Self {
            algorithm: Algorithm::FixedWindow,
            merge: false,
        }
    }
}

/// Checks it; where it is served goes into `daemon`.
pub(super) fn lower(
    raw: RawRls,
    namespace: &str,
    daemon: &mut DaemonConfig,
    scope: &mut Scope<'_>,
) -> (DomainSettings, Option<TlsRefs>) {
    let listen: Option<SocketAddr> = raw.listen.parse().ok();
    match listen.filter(|address| address.port() != 0) {
        Some(listen) => {
            daemon.rls = Some(RlsConfig {
                listen,
                response_headers: raw.response_headers.unwrap_or_default(),
            });
        }
        None => scope.error(
            &raw.listen.mark,
            format!("`{}` is not an address with a port", raw.listen.value),
            "write it as `0.0.0.0:8081` or `[::]:8081`",
        ),
    }
    let tls = raw.tls.map(|tls| lower_tls(tls, namespace, scope));
    let default = DomainSettings::default();
    let settings = DomainSettings {
        algorithm: match raw.algorithm {
            None => default.algorithm,
            Some(Counting::FixedWindow) => Algorithm::FixedWindow,
            Some(Counting::SlidingWindow) => Algorithm::SlidingWindow,
            Some(Counting::TokenBucket) => Algorithm::TokenBucket,
        },
        merge: raw.merge_domains.unwrap_or(default.merge),
    };
    (settings, tls)
}

fn lower_tls(
    At { value: raw, mark }: At<RawTls>,
    namespace: &str,
    scope: &mut Scope<'_>,
) -> TlsRefs {
    let lower = |refs: Vec<RawObjectRef>| -> Vec<ObjectRef> {
        let refs = refs.into_iter();
        refs.map(|one| one.lower("Secret", namespace)).collect()
    };
    if raw.certificate_refs.is_empty() {
        scope.error(
            &mark,
            "TLS needs a certificate",
            "name a Secret of the type `kubernetes.io/tls` under `certificateRefs`",
        );
    }
    let clients = raw.client_validation.map(
        |At {
             value: clients,
             mark,
         }| {
            if clients.ca_certificate_refs.is_empty() {
                scope.error(
                    &mark,
                    "no authority, so no client could be trusted",
                    "name a ConfigMap or a Secret with `ca.crt` under `caCertificateRefs`",
                );
            }
            (
                lower(clients.ca_certificate_refs),
                clients.optional.unwrap_or_default(),
            )
        },
    );
    TlsRefs {
        certificates: lower(raw.certificate_refs),
        clients,
    }
}
