//! `tls` of a ClientTrafficPolicy: versions, ALPN, and client certificates.

use serde::Deserialize;

use crate::policy::decode::{At, Unheeded, Unsupported};
use crate::policy::findings::Scope;
use crate::policy::gateway_api::references::{ObjectRef, RawObjectRef};
use crate::policy::plan::TlsVersion;
use crate::policy::resource::Meta;
use crate::policy::suggest;

const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "other fields are told by the decoder")]
pub(super) struct RawTls {
    min_version: Option<At<RawVersion>>,
    max_version: Option<At<RawVersion>>,
    alpn_protocols: Option<At<Vec<At<String>>>>,
    client_validation: Option<At<RawValidation>>,
    ciphers: Option<Unsupported>,
    #[serde(rename = "ecdhCurves")]
    ecdh_curves: Option<Unsupported>,
    fingerprints: Option<Unheeded>,
    session: Option<Unheeded>,
    signature_algorithms: Option<Unsupported>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum RawVersion {
    Auto,
    #[serde(rename = "1.0")]
    V1_0,
    #[serde(rename = "1.1")]
    V1_1,
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "unsupported fields are told by the decoder")]
struct RawValidation {
    optional: Option<bool>,
    ca_certificate_refs: Option<At<Vec<RawObjectRef>>>,
    certificate_hashes: Option<Unsupported>,
    crl: Option<Unsupported>,
    mode: Option<Unsupported>,
    spki_hashes: Option<Unsupported>,
    subject_alt_names: Option<Unsupported>,
}

/// What a policy says of TLS.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientTls {
    pub(crate) min_version: Option<TlsVersion>,
    pub(crate) max_version: Option<TlsVersion>,
    /// `None`: the default; empty: none is offered.
    pub(crate) alpn: Option<Vec<String>>,
    pub(crate) validation: Option<Validation>,
}

/// Client certificates that are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Validation {
    pub(crate) optional: bool,
    /// ConfigMaps and Secrets with a `ca.crt`; at least one.
    pub(crate) authorities: Vec<ObjectRef>,
}

/// Checks `tls`.
pub(super) fn lower(raw: RawTls, meta: &Meta, scope: &mut Scope<'_>) -> ClientTls {
    let min = raw.min_version.as_ref();
    let max = raw.max_version.as_ref();
    let (min_version, max_version) = (version(min, true, scope), version(max, false, scope));
    if let (Some(min), Some(max), Some(at)) = (min_version, max_version, max)
        && min > max
    {
        scope.error(
            &at.mark,
            "the newest version is older than the oldest one",
            "raise it, or lower `minVersion`",
        );
    }
    ClientTls {
        min_version,
        max_version,
        alpn: raw.alpn_protocols.map(|list| {
            for text in &list.value {
                if !PROTOCOLS.contains(&text.as_str()) {
                    let message = format!("`{}` is not a protocol that is spoken here", text.value);
                    scope.error(
                        &text.mark,
                        message,
                        suggest::remedy(text, PROTOCOLS, "it may be"),
                    );
                }
            }
            list.value.into_iter().map(|text| text.value).collect()
        }),
        validation: raw
            .client_validation
            .and_then(|validation| lower_validation(validation, meta, scope)),
    }
}

/// What is older than TLS 1.2 is not spoken: as the oldest version a warning, as the newest an error.
fn version(at: Option<&At<RawVersion>>, oldest: bool, scope: &mut Scope<'_>) -> Option<TlsVersion> {
    let at = at?;
    match at.value {
        RawVersion::Auto => None,
        RawVersion::V1_2 => Some(TlsVersion::V1_2),
        RawVersion::V1_3 => Some(TlsVersion::V1_3),
        RawVersion::V1_0 | RawVersion::V1_1 if oldest => {
            scope.warning(
                &at.mark,
                "versions before TLS 1.2 are not spoken",
                "write \"1.2\"",
            );
            Some(TlsVersion::V1_2)
        }
        RawVersion::V1_0 | RawVersion::V1_1 => {
            scope.error(
                &at.mark,
                "versions before TLS 1.2 are not spoken",
                "write \"1.2\" or \"1.3\"",
            );
            None
        }
    }
}

fn lower_validation(
    raw: At<RawValidation>,
    meta: &Meta,
    scope: &mut Scope<'_>,
) -> Option<Validation> {
    let At { value: raw, mark } = raw;
    let Some(refs) = raw.ca_certificate_refs.filter(|list| !list.is_empty()) else {
        scope.error(
            &mark,
            "no authority, so no client could be trusted",
            "name a ConfigMap or a Secret with `ca.crt` under `caCertificateRefs`",
        );
        return None;
    };
    Some(Validation {
        optional: raw.optional.unwrap_or_default(),
        authorities: refs
            .value
            .into_iter()
            .map(|raw| raw.lower("Secret", &meta.name.namespace))
            .collect(),
    })
}
