//! `Secret`: certificates with their keys (`kubernetes.io/tls`), certificates of authorities, and texts.
//!
//! The pair is checked here, so that a Secret with a key of another certificate is invalid by
//! itself, and its last good version goes on.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::pem;
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::{Mark, Scope};
use crate::policy::plan::{Certificate, Password, Pem};
use crate::policy::resource::{HasMetadata, Meta, RawMetadata};

const TLS: &str = "kubernetes.io/tls";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
pub(crate) struct RawSecret {
    api_version: String,
    kind: String,
    metadata: RawMetadata,
    #[serde(rename = "type")]
    of: Option<At<String>>,
    data: Option<BTreeMap<String, At<String>>>,
    string_data: Option<BTreeMap<String, At<String>>>,
    immutable: Option<Ignored>,
}

impl HasMetadata for RawSecret {
    fn metadata(&self) -> &RawMetadata {
        &self.metadata
    }
}

/// A Secret, as far as it is used.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    /// `tls.crt` and `tls.key`, of a Secret of type `kubernetes.io/tls`.
    pub(crate) certificate: Option<Certificate>,
    /// `ca.crt`.
    pub(crate) authorities: Option<Pem>,
    /// All values that are text.
    pub(crate) texts: BTreeMap<String, Password>,
}

/// Checks a Secret. One that nothing here has a use for passes.
pub(crate) fn lower(raw: RawSecret, meta: &Meta, scope: &mut Scope<'_>) -> Secret {
    let mut values: BTreeMap<String, (Vec<u8>, Mark)> = BTreeMap::new();
    for (key, text) in raw.data.unwrap_or_default() {
        let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        match BASE64_STANDARD.decode(compact) {
            Ok(bytes) => {
                values.insert(key, (bytes, text.mark));
            }
            Err(_error) => scope.error(
                &text.mark,
                "this is not base64",
                "encode it, or write it as it is under `stringData`",
            ),
        }
    }
    for (key, text) in raw.string_data.unwrap_or_default() {
        values.insert(key, (text.value.into_bytes(), text.mark));
    }
    let tls = raw.of.as_ref().filter(|of| of.value == TLS);
    let certificate = tls.and_then(|of| {
        let (Some((chain, _)), Some((key, mark))) = (values.get("tls.crt"), values.get("tls.key"))
        else {
            scope.error(
                &of.mark,
                "a Secret of this type has `tls.crt` and `tls.key`",
                "give it both, under `data` or `stringData`",
            );
            return None;
        };
        match pem::pair(meta.name.to_string(), chain, key) {
            Ok(certificate) => Some(certificate),
            Err(problem) => {
                scope.error(
                    mark,
                    problem,
                    "give it a chain in PEM, the server's certificate first, and its key",
                );
                None
            }
        }
    });
    let authorities = values
        .get("ca.crt")
        .and_then(|(bytes, mark)| pem::authorities_at(mark, bytes, scope));
    let text = |(key, (bytes, _)): (String, (Vec<u8>, Mark))| {
        Some((key, Password(String::from_utf8(bytes).ok()?)))
    };
    Secret {
        certificate,
        authorities,
        texts: values.into_iter().filter_map(text).collect(),
    }
}
