//! `sslConfig` of virtual services: the certificates that clients get.

use std::path::Path;

use serde::Deserialize;

use super::references::{RawRef, Reference};
use crate::policy::core::pem;
use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::plan::{Certificate, TlsVersion};
use crate::policy::resource::Meta;
use crate::policy::source;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
pub(crate) struct RawSsl {
    secret_ref: Option<RawRef>,
    ssl_files: Option<At<RawFiles>>,
    sds: Option<Unsupported>,
    /// The certificate is chosen by the names in it.
    sni_domains: Option<Unheeded>,
    verify_subject_alt_name: Option<Unsupported>,
    parameters: Option<RawParameters>,
    alpn_protocols: Option<Unheeded>,
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

/// How a virtual service is served over TLS.
#[derive(Clone, Debug)]
pub(crate) struct Ssl {
    /// The Secret with its certificate.
    pub(crate) secret: Option<Reference>,
    /// Or the certificate itself, of files.
    pub(crate) certificate: Option<Certificate>,
    pub(crate) min: Option<TlsVersion>,
    pub(crate) max: Option<TlsVersion>,
}

/// Checks it.
pub(super) fn lower(raw: At<RawSsl>, meta: &Meta, scope: &mut Scope<'_>) -> Ssl {
    let At { value: raw, mark } = raw;
    let secret = raw.secret_ref.map(|raw| raw.lower(&meta.name.namespace));
    let certificate = raw.ssl_files.and_then(|files| of_files(files, meta, scope));
    if secret.is_none() && certificate.is_none() {
        scope.error(
            &mark,
            "there is no certificate",
            "name a Secret under `secretRef`, or files under `sslFiles`",
        );
    }
    let (min, max) = match raw.parameters {
        Some(parameters) => (
            parameters.minimum_protocol_version,
            parameters.maximum_protocol_version,
        ),
        None => (None, None),
    };
    Ssl {
        secret,
        certificate,
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
