//! `ConfigMap`: read for certificates of authorities (`ca.crt`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::policy::decode::Ignored;
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
    data: Option<BTreeMap<String, String>>,
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
    /// The value of `ca.crt`.
    pub(crate) authorities: Option<String>,
}

/// Keeps what is used of a ConfigMap; whether that is right is asked where it is referred to.
pub(crate) fn lower(raw: RawConfigMap) -> ConfigMap {
    let mut data = raw.data.unwrap_or_default();
    ConfigMap {
        authorities: data.remove("ca.crt"),
    }
}
