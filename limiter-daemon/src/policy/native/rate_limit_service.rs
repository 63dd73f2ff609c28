//! `rls` of the `LimiterConfig`: Envoy's rate limit service.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;

use crate::policy::decode::At;
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::references::{ObjectRef, RawObjectRef};
use crate::policy::plan::{
    Algorithm, DaemonConfig, Domain, DomainKeys, OnDomainFailure, RlsConfig, RlsHeaders,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRls {
    listen: At<String>,
    algorithm: Option<Counting>,
    keys: Option<At<Keys>>,
    key_prefix: Option<At<String>>,
    on_store_failure: Option<OnFailure>,
    domains: Option<Vec<At<RawDomainSettings>>>,
    merge_domains: Option<bool>,
    shadow_mode: Option<bool>,
    quota_mode: Option<bool>,
    near_limit_ratio: Option<At<f64>>,
    response_headers: Option<At<bool>>,
    response_header_names: Option<At<RawHeaderNames>>,
    request_headers: Option<At<bool>>,
    request_header_names: Option<At<RawHeaderNames>>,
    echo_request: Option<bool>,
    tls: Option<At<RawTls>>,
}

/// What holds of one domain in place of what holds of all.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDomainSettings {
    name: At<String>,
    algorithm: Option<Counting>,
    keys: Option<At<Keys>>,
    on_store_failure: Option<OnFailure>,
}

#[derive(Debug, Deserialize)]
struct RawHeaderNames {
    limit: Option<At<String>>,
    remaining: Option<At<String>>,
    reset: Option<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Keys {
    Limiterd,
    Reference,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum OnFailure {
    Error,
    Local,
    Allow,
    Deny,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTls {
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

/// How files of the rate limit service are read, and what they say is counted.
#[derive(Clone, Debug)]
pub(crate) struct DomainSettings {
    /// What holds of domains that are not named.
    all: Domain,
    /// Those that are, and where.
    pub(crate) named: BTreeMap<String, (Domain, Mark)>,
    /// Several files may add to one domain (the reference's `MERGE_DOMAIN_CONFIG`).
    pub(crate) merge: bool,
}

impl Default for DomainSettings {
    /// As the reference service has it: files made for it mean the same here.
    fn default() -> Self {
        Self {
            all: Domain::new(""),
            named: BTreeMap::new(),
            merge: false,
        }
    }
}

impl DomainSettings {
    /// The domain of this name, without descriptors.
    pub(crate) fn domain(&self, name: &str) -> Domain {
        let named = self.named.get(name);
        Domain {
            name: name.to_owned(),
            ..named.map_or(&self.all, |(domain, _)| domain).clone()
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
    let response_headers = lower_headers(
        ("responseHeaders", raw.response_headers.as_ref()),
        raw.response_header_names,
        scope,
    );
    let request_headers = lower_headers(
        ("requestHeaders", raw.request_headers.as_ref()),
        raw.request_header_names,
        scope,
    );
    let listen: Option<SocketAddr> = raw.listen.parse().ok();
    match listen.filter(|address| address.port() != 0) {
        Some(listen) => {
            daemon.rls = Some(RlsConfig {
                listen,
                response_headers,
                request_headers,
                echo: raw.echo_request.unwrap_or_default(),
            });
        }
        None => scope.error(
            &raw.listen.mark,
            format!("`{}` is not an address with a port", raw.listen.value),
            "write it as `0.0.0.0:8081` or `[::]:8081`",
        ),
    }
    let tls = raw.tls.map(|tls| lower_tls(tls, namespace, scope));
    let mut all = Domain {
        shadow: raw.shadow_mode.unwrap_or_default(),
        quota: raw.quota_mode.unwrap_or_default(),
        ..Domain::new("")
    };
    if let Some(ratio) = raw.near_limit_ratio {
        if !(0.0..=1.0).contains(&ratio.value) {
            scope.error(
                &ratio.mark,
                format!("{} is no share of a limit", ratio.value),
                "write a number from 0 to 1, as 0.8",
            );
        }
        let millionths = (ratio.value.clamp(0.0, 1.0) * 1e6).round();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 1,000,000"
        )]
        let millionths = millionths as u32;
        all.near = millionths;
    }
    let prefix = raw.key_prefix.as_ref();
    let prefix = prefix.map_or_else(String::new, |prefix| prefix.value.clone());
    let mut reference = raw
        .keys
        .as_ref()
        .is_some_and(|keys| keys.value == Keys::Reference);
    count(
        &mut all,
        raw.algorithm,
        raw.keys.as_ref(),
        raw.on_store_failure,
        &prefix,
        scope,
    );
    let mut named = BTreeMap::new();
    for At { value: one, .. } in raw.domains.unwrap_or_default() {
        let mut domain = all.clone();
        let keys = one.keys.as_ref();
        reference |= keys.is_some_and(|keys| keys.value == Keys::Reference);
        count(
            &mut domain,
            one.algorithm,
            keys.or(raw.keys.as_ref()),
            one.on_store_failure,
            &prefix,
            scope,
        );
        let At { value: name, mark } = one.name;
        if named.insert(name.clone(), (domain, mark.clone())).is_some() {
            scope.error(
                &mark,
                format!("the domain `{name}` is given twice"),
                "keep one of them",
            );
        }
    }
    if let Some(prefix) = raw.key_prefix.filter(|_| !reference) {
        scope.error(
            &prefix.mark,
            "no domain has keys that it would be the beginning of",
            "write `keys: Reference` beside it; what limiterd's own keys begin with is \
             `spec.rateLimit.keyPrefix`",
        );
    }
    let settings = DomainSettings {
        all,
        named,
        merge: raw.merge_domains.unwrap_or_default(),
    };
    (settings, tls)
}

/// Puts how a domain is counted into it.
fn count(
    domain: &mut Domain,
    algorithm: Option<Counting>,
    keys: Option<&At<Keys>>,
    on_failure: Option<OnFailure>,
    prefix: &str,
    scope: &mut Scope<'_>,
) {
    match algorithm {
        None => {}
        Some(Counting::FixedWindow) => domain.algorithm = Algorithm::FixedWindow,
        Some(Counting::SlidingWindow) => domain.algorithm = Algorithm::SlidingWindow,
        Some(Counting::TokenBucket) => domain.algorithm = Algorithm::TokenBucket,
    }
    match on_failure {
        None => {}
        Some(OnFailure::Error) => domain.on_store_failure = OnDomainFailure::Error,
        Some(OnFailure::Local) => domain.on_store_failure = OnDomainFailure::Local,
        Some(OnFailure::Allow) => domain.on_store_failure = OnDomainFailure::Allow,
        Some(OnFailure::Deny) => domain.on_store_failure = OnDomainFailure::Deny,
    }
    let Some(keys) = keys else { return };
    domain.keys = match keys.value {
        Keys::Limiterd => DomainKeys::Own,
        Keys::Reference => DomainKeys::Reference {
            prefix: prefix.to_owned(),
        },
    };
    if keys.value == Keys::Reference && domain.algorithm != Algorithm::FixedWindow {
        scope.error(
            &keys.mark,
            "the reference service's keys are of fixed windows",
            "write `algorithm: FixedWindow`, or `keys: Limiterd`",
        );
    }
}

fn lower_headers(
    (field, on): (&str, Option<&At<bool>>),
    names: Option<At<RawHeaderNames>>,
    scope: &mut Scope<'_>,
) -> Option<RlsHeaders> {
    let mut headers = RlsHeaders::default();
    if let Some(At { value: names, mark }) = names {
        if !on.is_some_and(|on| on.value) {
            scope.error(
                &mark,
                "no headers are added that would have these names",
                format!("write `{field}: true` beside it"),
            );
        }
        for (name, header) in [
            (names.limit, &mut headers.limit),
            (names.remaining, &mut headers.remaining),
            (names.reset, &mut headers.reset),
        ] {
            let Some(name) = name else { continue };
            if http::HeaderName::try_from(name.as_str()).is_err() {
                scope.error(
                    &name.mark,
                    format!("`{}` is not the name of a header", name.value),
                    "write one as `RateLimit-Limit`",
                );
            }
            *header = name.value;
        }
    }
    on.is_some_and(|on| on.value).then_some(headers)
}

pub(super) fn lower_tls(
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
