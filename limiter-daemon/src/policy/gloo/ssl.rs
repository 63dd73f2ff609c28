//! `sslConfig` of virtual services and TCP hosts: the certificates that clients get, and the names
//! that they ask for.

use std::path::Path;

use serde::Deserialize;

use super::references::{RawRef, Reference};
use crate::policy::core::pem;
use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::findings::{Mark, Scope};
use crate::policy::gateway_api::hostname;
use crate::policy::plan::{Certificate, Hostname, TlsVersion};
use crate::policy::resource::Meta;
use crate::policy::source;

const MAX_DOMAINS: usize = 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawSsl {
    secret_ref: Option<RawRef>,
    ssl_files: Option<At<RawFiles>>,
    sds: Option<Unsupported>,
    sni_domains: Option<At<Vec<At<String>>>>,
    verify_subject_alt_name: Option<Unsupported>,
    parameters: Option<At<RawParameters>>,
    alpn_protocols: Option<At<Vec<At<String>>>>,
    one_way_tls: Option<Unsupported>,
    disable_tls_session_resumption: Option<Unheeded>,
    transport_socket_connect_timeout: Option<Unheeded>,
    ocsp_staple_policy: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawFiles {
    tls_cert: Option<At<String>>,
    tls_key: Option<At<String>>,
    root_ca: Option<Unsupported>,
    ocsp_staple: Option<Unheeded>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawParameters {
    minimum_protocol_version: Option<At<Version>>,
    maximum_protocol_version: Option<At<Version>>,
    cipher_suites: Option<Unheeded>,
    ecdh_curves: Option<Unheeded>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Version {
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSv1_0")]
    V1_0,
    #[serde(rename = "TLSv1_1")]
    V1_1,
    #[serde(rename = "TLSv1_2")]
    V1_2,
    #[serde(rename = "TLSv1_3")]
    V1_3,
}

/// How TLS is spoken.
#[derive(Clone, Debug)]
pub(crate) struct Ssl {
    /// The Secret with its certificate.
    pub(crate) secret: Option<Reference>,
    /// Or the certificate itself, of files.
    pub(crate) certificate: Option<Certificate>,
    pub(crate) min: Option<TlsVersion>,
    pub(crate) max: Option<TlsVersion>,
}

/// What the `sslConfig` of a TCP host says.
#[derive(Debug, Default)]
pub(super) struct TcpSsl {
    /// `sniDomains` were given, good or bad.
    pub(super) named: bool,
    pub(super) domains: Vec<(Hostname, Mark)>,
    /// TLS ends here.
    pub(super) ssl: Option<Ssl>,
    /// Offered by ALPN; empty: nothing.
    pub(super) alpn: Vec<String>,
}

/// Checks that of a virtual service.
pub(super) fn lower(raw: At<RawSsl>, meta: &Meta, scope: &mut Scope<'_>) -> Ssl {
    let At { value: raw, mark } = raw;
    // The certificate is chosen by the names in it; HTTP says what ALPN offers.
    let names = raw.sni_domains.as_ref().map(|at| ("sniDomains", at));
    let alpn = raw.alpn_protocols.as_ref().map(|at| ("alpnProtocols", at));
    for (name, at) in names.into_iter().chain(alpn) {
        let message = format!("`{name}` has no effect in limiterd");
        scope.warning(&at.mark, message, "remove it");
    }
    let ssl = certified(raw, meta, scope);
    if ssl.secret.is_none() && ssl.certificate.is_none() {
        scope.error(
            &mark,
            "there is no certificate",
            "name a Secret under `secretRef`, or files under `sslFiles`",
        );
    }
    ssl
}

/// Checks that of a TCP host.
pub(super) fn of_tcp(raw: At<RawSsl>, meta: &Meta, scope: &mut Scope<'_>) -> TcpSsl {
    let At {
        value: mut raw,
        mark,
    } = raw;
    let names = raw.sni_domains.take().filter(|list| !list.is_empty());
    let named = names.is_some();
    let mut domains = Vec::new();
    if let Some(list) = names {
        scope.at_most(&list.mark, list.len(), MAX_DOMAINS);
        for text in list.value {
            domains.extend(domain(&text, scope).map(|name| (name, text.mark)));
        }
    }
    let ends_here = raw.secret_ref.is_some() || raw.ssl_files.is_some();
    if !ends_here {
        let parameters = raw.parameters.as_ref().map(|at| &at.mark);
        let alpn = raw.alpn_protocols.as_ref().map(|at| &at.mark);
        for mark in parameters.into_iter().chain(alpn) {
            scope.warning(
                mark,
                "TLS is passed on, and agreed on by the client and the destination",
                "remove it, or name a certificate under `secretRef`",
            );
        }
        if !named && raw.sds.is_none() {
            scope.error(
                &mark,
                "there is neither a certificate nor a name",
                "name a Secret under `secretRef` to end TLS here, or names under `sniDomains` to pass it on",
            );
        }
    }
    let alpn = raw.alpn_protocols.take().map_or_else(default_alpn, alpn);
    TcpSsl {
        named,
        domains,
        ssl: ends_here.then(|| certified(raw, meta, scope)),
        alpn,
    }
}

fn default_alpn() -> Vec<String> {
    ["h2", "http/1.1"].map(str::to_owned).to_vec()
}

/// Gloo's: none are its own, and one of that name is none.
fn alpn(raw: At<Vec<At<String>>>) -> Vec<String> {
    let list: Vec<String> = raw.value.into_iter().map(|at| at.value).collect();
    match list.as_slice() {
        [] => default_alpn(),
        [only] if only == "allow_empty" => Vec::new(),
        _ => list,
    }
}

/// A name that clients ask for. Names of clusters, which have underscores, may be asked for as well.
fn domain(text: &At<String>, scope: &mut Scope<'_>) -> Option<Hostname> {
    let lower = text.to_ascii_lowercase();
    let (wildcard, name) = match lower.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, lower.as_str()),
    };
    let is_address = lower.parse::<std::net::IpAddr>().is_ok();
    if is_address || !hostname::is_domain(&name.replace('_', "x")) {
        let remedy = if lower == "*" {
            "leave `sniDomains` out: what no other host is for goes here then"
        } else {
            "write one, as `db.example.com`, or a wildcard, as `*.example.com`"
        };
        let message = format!("`{}` is no name that a client asks for", text.value);
        scope.error(&text.mark, message, remedy);
        return None;
    }
    Some(if wildcard {
        Hostname::Wildcard(format!(".{name}"))
    } else {
        Hostname::Exact(lower)
    })
}

fn certified(raw: RawSsl, meta: &Meta, scope: &mut Scope<'_>) -> Ssl {
    let (min, max) = match raw.parameters {
        Some(At { value, .. }) => (
            value.minimum_protocol_version,
            value.maximum_protocol_version,
        ),
        None => (None, None),
    };
    Ssl {
        secret: raw.secret_ref.map(|raw| raw.lower(&meta.name.namespace)),
        certificate: raw.ssl_files.and_then(|files| of_files(files, meta, scope)),
        min: min.and_then(|at| version(&at, scope)),
        max: max.and_then(|at| version(&at, scope)),
    }
}

fn version(at: &At<Version>, scope: &mut Scope<'_>) -> Option<TlsVersion> {
    match at.value {
        Version::Auto => None,
        Version::V1_2 => Some(TlsVersion::V1_2),
        Version::V1_3 => Some(TlsVersion::V1_3),
        Version::V1_0 | Version::V1_1 => {
            scope.error(
                &at.mark,
                "TLS before 1.2 is not spoken",
                "write `TLSv1_2` or `TLSv1_3`",
            );
            None
        }
    }
}

/// Relative to the directory of the policy file.
fn of_files(raw: At<RawFiles>, meta: &Meta, scope: &mut Scope<'_>) -> Option<Certificate> {
    let At { value: raw, mark } = raw;
    let (Some(chain), Some(key)) = (raw.tls_cert, raw.tls_key) else {
        scope.error(
            &mark,
            "a certificate and its key go together",
            "give both `tlsCert` and `tlsKey`",
        );
        return None;
    };
    let (chain_text, key_text) = (read(&chain, meta, scope), read(&key, meta, scope));
    let found = pem::pair(
        chain.value.clone(),
        chain_text?.as_bytes(),
        key_text?.as_bytes(),
    );
    found
        .map_err(|problem| {
            scope.error(
                &chain.mark,
                format!("{}: {problem}", chain.value),
                "give it a chain in PEM, the server's certificate first, and its key",
            );
        })
        .ok()
}

/// The text of a file, whose path is relative to the directory of the policy file; or an error at it.
pub(super) fn read(path: &At<String>, meta: &Meta, scope: &mut Scope<'_>) -> Option<String> {
    let base = meta.origin.file.parent().unwrap_or_else(|| Path::new(""));
    let file = base.join(&path.value);
    source::read_text(&file)
        .map_err(|unreadable| {
            let message = format!("the file {} {}", file.display(), unreadable.message);
            scope.error(&path.mark, message, unreadable.remedy);
        })
        .ok()
}
