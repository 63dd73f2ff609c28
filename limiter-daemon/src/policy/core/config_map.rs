//! `ConfigMap`: read for certificates of authorities (`ca.crt`).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::pem;
use crate::policy::decode::{At, Ignored};
use crate::policy::findings::Scope;
use crate::policy::plan::Pem;
use crate::policy::resource::{HasMetadata, RawMetadata};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
pub(crate) struct RawConfigMap {
    api_version: String,
    kind: String,
    metadata: RawMetadata,
    data: Option<BTreeMap<String, At<String>>>,
    binary_data: Option<Ignored>,
    immutable: Option<Ignored>,
}

impl HasMetadata for RawConfigMap {
    fn metadata(&self) -> &RawMetadata {
        &self.metadata
    }
}

/// A ConfigMap, as far as it is used.
#[derive(Clone, Debug)]
pub(crate) struct ConfigMap {
    /// `ca.crt`.
    pub(crate) authorities: Option<Pem>,
    /// `response.body`, or else what comes first: what answers can be replaced with.
    pub(crate) body: Option<String>,
}

/// Checks a ConfigMap: what is under `ca.crt` must be certificates, or its last good version goes on.
pub(crate) fn lower(raw: RawConfigMap, scope: &mut Scope<'_>) -> ConfigMap {
    let data = raw.data.unwrap_or_default();
    let authorities = data
        .get("ca.crt")
        .and_then(|text| pem::authorities_at(&text.mark, text.as_bytes(), scope));
    let body = data.get("response.body").or_else(|| data.values().next());
    ConfigMap {
        authorities,
        body: body.map(|text| text.value.clone()),
    }
}
