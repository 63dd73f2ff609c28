//! `Namespace`: read for its labels.

use serde::Deserialize;

use crate::policy::decode::Ignored;
use crate::policy::resource::{HasMetadata, RawMetadata};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "all fields that a file may have are named, so that no other passes"
)]
pub(crate) struct RawNamespace {
    api_version: String,
    kind: String,
    metadata: RawMetadata,
    spec: Option<Ignored>,
    status: Option<Ignored>,
}

impl HasMetadata for RawNamespace {
    fn metadata(&self) -> &RawMetadata {
        &self.metadata
    }
}
